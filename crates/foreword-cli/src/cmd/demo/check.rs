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
    /// Records that were never written, and other faults: the first few, in words.
    pub(super) wrong: Vec<String>,
}

impl Found {
    fn complain(&mut self, what: String) {
        if self.wrong.len() < 10 {
            self.wrong.push(what);
        }
    }
}

/// Reads the whole log. Each thread commits one record after the other, so of each thread there
/// must be: all that were acknowledged, in order, with no gap, and at most one more.
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
            found.complain(format!("the record with LSN {lsn} was never written"));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use foreword::Options;

    use super::*;

    const SEED: u64 = 3;

    /// A log of 20 records by two threads, all acknowledged, after something was done to it.
    fn found(change: impl Fn(&mut Vec<(Id, Vec<u8>)>)) -> Found {
        let dir = tempfile::tempdir().unwrap();
        let log = Options::new().segment_bytes(1 << 20).open(dir.path()).unwrap();
        let ids = (0..20).map(|i| Id { round: 1, thread: i % 2, counter: i / 2 });
        let mut acknowledged = Acknowledged::default();
        let mut records: Vec<_> = ids.map(|id| (id, id.content(SEED))).collect();
        for (i, (id, _)) in records.iter().enumerate() {
            assert!(acknowledged.add(i as u64 + 1, *id));
        }
        change(&mut records);
        records.iter().for_each(|(_, content)| _ = log.append(content).unwrap());
        log.sync().unwrap();
        check(&log, &acknowledged, SEED, 1).unwrap()
    }

    fn unacknowledged(counter: u64) -> (Id, Vec<u8>) {
        let id = Id { round: 1, thread: 0, counter };
        (id, id.content(SEED))
    }

    #[test]
    fn what_was_acknowledged_and_one_more_of_each_thread_is_right() {
        let sound = found(|records| records.push(unacknowledged(10)));
        assert_eq!((sound.recovered, sound.lost, sound.wrong.len()), (21, 0, 0), "{sound:?}");
    }

    #[test]
    fn whatever_is_lost_changed_or_made_up_is_found() {
        assert_eq!(found(|records| records.truncate(17)).lost, 3);
        let changed = found(|records| records[4].1[40] ^= 1);
        assert_eq!((changed.lost, changed.wrong.len()), (1, 2), "not its writer's, and a gap in that thread's: {changed:?}");
        let exchanged = found(|records| records.swap(3, 5));
        assert_eq!((exchanged.lost, exchanged.wrong.is_empty()), (2, false), "{exchanged:?}");
        let phantom = found(|records| records.extend([unacknowledged(10), unacknowledged(11)]));
        assert!(phantom.lost == 0 && phantom.wrong[0].contains("can have begun only 11"), "{phantom:?}");
        let twice = found(|records| records.push(records[0].clone()));
        assert!(twice.lost == 0 && !twice.wrong.is_empty(), "{twice:?}");
        let mut other = Acknowledged::default();
        assert!(other.add(1, unacknowledged(1).0) && !other.add(1, unacknowledged(2).0));
    }
}
