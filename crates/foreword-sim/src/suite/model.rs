//! What a log must hold, as far as its callers can know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foreword::Lsn;

use crate::rng::{Rng, mix};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.seen)
    }
}

/// A check: the value, or the invariant that does not hold.
pub(crate) type Checked<T = ()> = Result<T, Violation>;

pub(crate) fn violated<T>(invariant: &'static str, seen: impl Into<String>) -> Checked<T> {
    Err(Violation { invariant, seen: seen.into() })
}

pub(crate) fn ensure(holds: bool, invariant: &'static str, seen: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { violated(invariant, seen()) }
}

/// The bytes of a record. No two records of a run have the same, unless they are empty.
fn payload(serial: u64, len: u32) -> Arc<[u8]> {
    let mut rng = Rng::new(mix(&[serial]));
    let words = std::iter::repeat_with(|| rng.next().to_le_bytes()).take(len.div_ceil(8) as usize);
    let mut bytes = words.collect::<Vec<_>>().concat();
    bytes.truncate(len as usize);
    bytes.into()
}

/// What was read of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: u64,
    pub(crate) last: u64,
    pub(crate) records: Vec<(u64, Vec<u8>)>,
    pub(crate) holds: BTreeMap<String, Lsn>,
}

/// What the log's callers know of it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    records: BTreeMap<u64, Arc<[u8]>>,
    /// How often the log was cut.
    generation: u64,
    /// Records that a cut took away: how often the log had been cut before, the LSN, the bytes.
    cut_off: Vec<(u64, u64, Arc<[u8]>)>,
    /// LSNs of records that are not the last of their batch.
    within_batch: BTreeSet<u64>,
    /// The last LSN that the log returned as durable.
    pub(crate) durable: u64,
    /// The last LSN that the log has given to the operating system.
    pub(crate) written: u64,
    /// The last LSN that the log's own files promise as durable.
    pub(crate) promised: u64,
    start: u64,
    holds: BTreeMap<String, Lsn>,
    /// Operations with an unknown outcome: a new start, a cut, holds.
    doubt_start: Option<u64>,
    doubt_cut: Option<u64>,
    doubt_holds: Option<BTreeMap<String, Lsn>>,
    /// Whether a caller knows that the log was made.
    pub(crate) made: bool,
    serial: u64,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            records: BTreeMap::new(),
            generation: 0,
            cut_off: Vec::new(),
            within_batch: BTreeSet::new(),
            durable: 0,
            written: 0,
            promised: 0,
            start: 1,
            holds: BTreeMap::new(),
            doubt_start: None,
            doubt_cut: None,
            doubt_holds: None,
            made: false,
            serial: 1,
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.records.last_key_value().map_or(self.start - 1, |(&lsn, _)| lsn.max(self.start - 1))
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn holds(&self) -> &BTreeMap<String, Lsn> {
        &self.holds
    }

    /// Notes that a unit is about to be appended. Returns its first LSN and its records.
    pub(crate) fn append(&mut self, lens: &[u32]) -> (u64, Vec<Arc<[u8]>>) {
        let first = self.last() + 1;
        let mut bytes = Vec::new();
        for (i, &len) in lens.iter().enumerate() {
            self.serial += 1;
            bytes.push(payload(self.serial, len));
            self.records.insert(first + i as u64, bytes[i].clone());
            if i + 1 < lens.len() {
                self.within_batch.insert(first + i as u64);
            }
        }
        (first, bytes)
    }

    /// Notes that the unit with this first LSN was not appended.
    pub(crate) fn not_appended(&mut self, first: u64) {
        self.records.split_off(&first);
        self.within_batch.split_off(&first);
    }

    /// Notes how far the log is durable and written.
    pub(crate) fn acknowledged(&mut self, durable: Lsn, written: Lsn) {
        self.durable = self.durable.max(durable.0);
        self.written = self.written.max(written.0).max(self.durable);
    }

    pub(crate) fn truncate_front(&mut self, start: u64) {
        self.doubt_start = Some(start);
    }

    pub(crate) fn front_truncated(&mut self, done: bool) {
        if let Some(start) = self.doubt_start.take_if(|_| done) {
            self.start = self.start.max(start);
        }
    }

    pub(crate) fn truncate_back(&mut self, from: u64) {
        self.doubt_cut = Some(from);
    }

    pub(crate) fn back_truncated(&mut self) {
        if let Some(from) = self.doubt_cut.take() {
            self.cut(from);
        }
    }

    fn cut(&mut self, from: u64) {
        let generation = self.generation;
        self.cut_off.extend(self.records.split_off(&from).into_iter().map(|(lsn, bytes)| (generation, lsn, bytes)));
        self.generation += 1;
        self.within_batch.split_off(&(from - 1));
        self.durable = from - 1;
        self.written = from - 1;
        self.promised = self.promised.min(from - 1);
        self.holds = self.holds_behind_cut(from);
    }

    /// A cut moves the holds behind it to itself.
    fn holds_behind_cut(&self, from: u64) -> BTreeMap<String, Lsn> {
        self.holds.iter().map(|(name, &lsn)| (name.clone(), lsn.min(Lsn(from)))).collect()
    }

    /// How often the log was cut.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The first LSN of a cut with an unknown outcome.
    pub(crate) fn cut_in_doubt(&self) -> Option<u64> {
        self.doubt_cut
    }

    /// The bytes of an LSN in the log as it was when it had been cut so often.
    pub(crate) fn as_of(&self, generation: u64, lsn: u64) -> Option<&[u8]> {
        let cut = self.cut_off.iter().find(|(until, old, _)| *until >= generation && *old == lsn);
        cut.map(|(.., bytes)| bytes).or_else(|| self.records.get(&lsn)).map(|bytes| &**bytes)
    }

    /// Notes that no operation in doubt did anything.
    pub(crate) fn nothing_done(&mut self) {
        (self.doubt_start, self.doubt_cut, self.doubt_holds) = (None, None, None);
    }

    /// Notes that a hold is about to be set, or released.
    pub(crate) fn change_holds(&mut self, name: &str, lsn: Option<Lsn>) {
        let mut holds = self.holds.clone();
        match lsn {
            Some(lsn) => holds.insert(name.to_owned(), lsn),
            None => holds.remove(name),
        };
        self.doubt_holds = Some(holds);
    }

    pub(crate) fn holds_changed(&mut self) {
        if let Some(holds) = self.doubt_holds.take() {
            self.holds = holds;
        }
    }

    /// Checks what is read of an open log: all that is durable.
    pub(crate) fn check_live(&self, found: &Found) -> Checked {
        self.check_records(found)?;
        ensure(found.start == self.start, "the start is where it was put", || format!("{} for {}", found.start, self.start))?;
        ensure(found.last >= self.durable, "what is durable can be read", || format!("up to {} of {}", found.last, self.durable))
    }

    /// Checks what was found after a crash, if all records up to `floor` were acknowledged.
    pub(crate) fn check(&self, found: &Found, floor: u64) -> Checked {
        let starts = [Some(self.start), self.doubt_start];
        ensure(starts.contains(&Some(found.start)), "the start is where it was put", || {
            format!("{} for {starts:?}", found.start)
        })?;
        let cut = self.doubt_cut.filter(|from| found.last + 1 == *from).map(|from| self.holds_behind_cut(from));
        let holds = [Some(&self.holds), self.doubt_holds.as_ref(), cut.as_ref()];
        ensure(holds.contains(&Some(&found.holds)), "holds last", || format!("{:?} for {holds:?}", found.holds))?;
        self.check_records(found)?;
        let last = found.last;
        if self.doubt_cut.is_some_and(|from| last + 1 == from) {
            return Ok(());
        }
        ensure(last >= floor, "what was acknowledged is there", || format!("the log ends at {last}, {floor} was acknowledged"))?;
        let split = self.within_batch.contains(&last) && last >= found.start;
        ensure(!split, "batches are whole", || format!("the log ends at {last}, within a batch"))
    }

    /// Checks the records that were found: dense LSNs, and the bytes that were appended.
    pub(crate) fn check_records(&self, found: &Found) -> Checked {
        let mut expected = found.start;
        for (lsn, bytes) in &found.records {
            ensure(*lsn == expected, "LSNs are dense", || format!("{lsn} where {expected} should be"))?;
            self.check_record(*lsn, bytes)?;
            expected += 1;
        }
        ensure(expected == found.last + 1, "LSNs are dense", || format!("reading ends at {expected}, the log at {}", found.last))
    }

    /// Checks that a record was appended at its LSN, with its bytes.
    pub(crate) fn check_record(&self, lsn: u64, bytes: &[u8]) -> Checked {
        let record = self.records.get(&lsn);
        ensure(record.is_some_and(|r| **r == *bytes), "what is returned was appended there", || {
            format!("record {lsn} has {} bytes, where {:?} should be", bytes.len(), record.map(|r| r.len()))
        })
    }

    /// As `check_record`, for a damaged log that was repaired: if the segment that cut a record off
    /// is lost, the record may be back.
    pub(crate) fn check_repaired_record(&self, lsn: u64, bytes: &[u8]) -> Checked {
        let back = self.cut_off.iter().any(|(_, old, cut)| *old == lsn && **cut == *bytes);
        if back { Ok(()) } else { self.check_record(lsn, bytes) }
    }

    /// Takes what was found as the log's contents from here on.
    pub(crate) fn adopt(&mut self, found: &Found) {
        if self.doubt_cut == Some(found.last + 1) {
            self.back_truncated();
        }
        self.records.split_off(&(found.last + 1));
        self.within_batch.split_off(&found.last);
        self.start = found.start;
        self.holds.clone_from(&found.holds);
        self.nothing_done();
        (self.durable, self.written, self.promised) = (found.last, found.last, self.promised.min(found.last));
        self.made = true;
    }
}
