//! Holds what is in the log against what was acknowledged.

use std::collections::{BTreeMap, HashMap};

use foreword::{Log, Lsn};

use super::content::Id;
use crate::exit::Failure;

/// What the processes that were killed had acknowledged, by LSN.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    by_lsn: HashMap<u64, Id>,
    /// How many each thread of each round had.
    counts: BTreeMap<(u64, u64), u64>,
}

impl Acknowledged {
    /// `false` if the LSN had been acknowledged for another record.
    pub(super) fn add(&mut self, lsn: u64, id: Id) -> bool {
        *self.counts.entry((id.round, id.thread)).or_default() += 1;
        self.by_lsn.insert(lsn, id).is_none()
    }

    pub(super) fn len(&self) -> u64 {
        self.by_lsn.len() as u64
    }
}

/// What the check found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Records in the log that are of the last round.
    pub(super) recovered: u64,
    /// Acknowledged records that are not there, byte for byte, at their LSN.
    pub(super) lost: u64,
    /// Records that nobody can have written, and other things that must not be: the first few, in words.
    pub(super) wrong: Vec<String>,
}

impl Found {
    fn complain(&mut self, what: String) {
        if self.wrong.len() < 10 {
            self.wrong.push(what);
        }
    }
}

/// Reads the whole log. Each thread commits one record after the other, so of each thread there must be: all that were acknowledged, in order,
/// with no gap, and at most one more.
pub(super) fn check(log: &Log, acknowledged: &Acknowledged, seed: u64, round: u64) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut seen: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut intact = 0;
    let mut expected = Lsn::FIRST;
    let mut reader = log.reader();
    while let Some(record) = reader.next()? {
        let lsn = record.lsn;
        if lsn != expected {
            found.complain(format!("LSN {expected} is not there, though {lsn} is"));
        }
        expected = lsn.next();
        let id = Id::of(record.data).filter(|id| id.content(seed) == record.data);
        let Some(id) = id else {
            found.complain(format!("nobody wrote the record with LSN {lsn}"));
            continue;
        };
        match acknowledged.by_lsn.get(&lsn.0) {
            Some(&owner) if owner != id => found.complain(format!("LSN {lsn} was acknowledged for {owner}, but holds {id}")),
            Some(_) => intact += 1,
            None => {}
        }
        let next = seen.entry((id.round, id.thread)).or_default();
        if id.round > round || id.counter != *next {
            found.complain(format!("LSN {lsn} holds {id}, out of its order"));
        }
        *next = id.counter + 1;
        found.recovered += u64::from(id.round == round);
    }
    for (&(round, thread), &count) in &seen {
        let answered = acknowledged.counts.get(&(round, thread)).copied().unwrap_or(0);
        if count > answered + 1 {
            found.complain(format!(
                "thread {thread} of round {round} has {count} records, but can have begun only {}",
                answered + 1
            ));
        }
    }
    found.lost = acknowledged.len() - intact;
    Ok(found)
}
