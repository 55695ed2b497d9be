//! How much is kept, and for which holds. **No I/O.**

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Error, Lsn, Result};

/// What a hold's limit in bytes is counted in.
const UNIT: u64 = 4096;
/// With so many, and names of so many bytes, the control part of a frame fits into a block.
pub(crate) const HOLDS_MAX: usize = 32;
pub(crate) const HOLD_NAME_MAX: usize = 64;

/// How much of the log's end is kept. Where bytes and an age are given, each is enough to let a
/// record go.
///
/// Whole segments go, and never the newest that has records. So up to a segment more is kept: of a
/// log to which nothing is appended, the records of that segment, however old they are.
///
/// A limit of 0, in bytes or time, is refused by what takes it ([`Error::Invalid`]): it is no way
/// to say "no limit".
///
/// Bytes are those of the records, not of the disk. Small records that are committed one by one
/// take more there, a block of 4 KiB each: 100 bytes take 41 times their size (see *Sizing* in
/// `docs/OPERATIONS.md`).
///
/// ```
/// use foreword::Limit;
/// use std::time::Duration;
/// let limit = Limit::bytes(10 << 30).or_age(Duration::from_secs(7 * 86_400));
/// assert_eq!(limit.bytes, Some(10 << 30));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limit {
    /// So many bytes of records; in a hold's, rounded up to 4 KiB, and up to 16 TiB.
    pub bytes: Option<u64>,
    /// Records that are not older; in a hold's, rounded up to a second, and up to 136 years.
    ///
    /// The age of what is written while the log is open is by a clock that does not jump. What was
    /// there when it was opened is as old as this machine's clock said then; where that had stood
    /// ahead for a while, what was written meanwhile counts as old as what was written next. A
    /// clock that is wrong when the log is opened is believed.
    pub age: Option<Duration>,
}

impl Limit {
    /// No limit.
    pub const NONE: Limit = Limit { bytes: None, age: None };

    /// The last so many bytes of records.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Limit {
        Limit { bytes: Some(bytes), ..Limit::NONE }
    }

    /// Records that are not older.
    #[must_use]
    pub const fn age(age: Duration) -> Limit {
        Limit { age: Some(age), ..Limit::NONE }
    }

    /// This limit, and no more than the last so many bytes.
    #[must_use]
    pub const fn or_bytes(self, bytes: u64) -> Limit {
        Limit { bytes: Some(bytes), ..self }
    }

    /// This limit, and nothing that is older.
    #[must_use]
    pub const fn or_age(self, age: Duration) -> Limit {
        Limit { age: Some(age), ..self }
    }

    pub(crate) fn is_none(&self) -> bool {
        *self == Limit::NONE
    }

    /// Refuses what would keep nothing: many take 0 for no limit.
    pub(crate) fn check(&self, what: &'static str) -> Result<()> {
        if self.bytes == Some(0) || self.age == Some(Duration::ZERO) {
            let why = "0 would keep nothing: for no limit, leave it out".to_owned();
            return Err(Error::Invalid { what, why });
        }
        Ok(())
    }

    /// In the units of the format.
    pub(crate) fn as_stored(&self) -> Limit {
        let (blocks, seconds) = self.to_units();
        Limit::from_units(blocks, seconds)
    }

    /// Blocks and seconds, 0 for no limit.
    pub(crate) fn to_units(self) -> (u32, u32) {
        let blocks = self.bytes.map_or(0, |bytes| bytes.div_ceil(UNIT).clamp(1, u32::MAX.into()));
        let seconds =
            self.age.map_or(0, |age| (age.as_secs().saturating_add(u64::from(age.subsec_nanos() > 0))).clamp(1, u32::MAX.into()));
        (blocks as u32, seconds as u32)
    }

    pub(crate) fn from_units(blocks: u32, seconds: u32) -> Limit {
        Limit {
            bytes: (blocks > 0).then(|| u64::from(blocks) * UNIT),
            age: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
        }
    }
}

/// A hold: records from an LSN on are kept for its owner; see [`Log::hold`](crate::Log::hold).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Hold {
    /// The first LSN that is kept.
    pub lsn: Lsn,
    /// How much is kept for it at the most.
    pub limit: Limit,
    /// Whether records that it was to keep had gone, or were just going, when this was asked for:
    /// it had reached its limit. Its owner has to begin anew, from a copy of what the log's records
    /// made. From then on it keeps nothing, but counts as one of the 32 until it is released.
    pub lost: bool,
}

impl Hold {
    /// A hold that stands in a log's control part.
    pub(crate) fn new(lsn: Lsn, limit: Limit) -> Hold {
        Hold { lsn, limit, lost: false }
    }

    /// Whether records that it was to keep have gone, in a log that starts at an LSN.
    pub(crate) fn is_lost(&self, start: Lsn) -> bool {
        self.lsn < start
    }

    /// The first LSN that it keeps in a log that starts at one, where it has not reached its limit.
    /// One that has is of no use to its owner, and keeps nothing. (Without a limit it may stand
    /// behind the start only because damage took the mark that moved it: what is left is kept.)
    pub(crate) fn keeps(&self, start: Lsn) -> Option<Lsn> {
        (self.limit.is_none() || !self.is_lost(start)).then_some(self.lsn.max(start))
    }
}

/// The holds by name, as they stand in a log's control part: whether one is lost depends on where
/// the log starts.
pub(crate) type Holds = BTreeMap<String, Hold>;

/// The holds as their owners see them, in a log that starts at an LSN.
pub(crate) fn judged(mut holds: Holds, start: Lsn) -> Holds {
    holds.values_mut().for_each(|hold| hold.lost = hold.is_lost(start));
    holds
}

/// The hold that is to have a name, where a log starts and these are there. `last`: the last LSN, where
/// that is known. A hold may stand beyond the next one only where it does already.
pub(crate) fn place(
    name: &str,
    lsn: Lsn,
    limit: Option<Limit>,
    (start, last): (Lsn, Option<Lsn>),
    holds: &Holds,
) -> Result<Hold> {
    let before = holds.get(name);
    if let Some(last) = last.filter(|last| lsn > last.next() && before.is_none_or(|hold| hold.lsn != lsn)) {
        return Err(Error::NotAppended { lsn, last });
    }
    let lsn = if lsn == Lsn::ZERO { start } else { lsn };
    if let Some(lost) = before.filter(|hold| hold.is_lost(start)) {
        return Err(Error::HoldLost { name: name.to_owned(), lsn: lost.lsn, start });
    }
    if lsn < start {
        return Err(Error::Dropped { lsn, start });
    }
    if before.is_none() && holds.len() >= HOLDS_MAX {
        return Err(Error::Invalid { what: "holds", why: format!("there are {HOLDS_MAX} already: release one") });
    }
    let limit = limit.or(before.map(|hold| hold.limit)).unwrap_or_default();
    Ok(Hold::new(lsn, limit.as_stored()))
}

/// Checks what can be told of a hold without looking at the log.
pub(crate) fn check_hold(name: &str, limit: Option<Limit>) -> Result<()> {
    if !(1..=HOLD_NAME_MAX).contains(&name.len()) {
        let why = format!("1 to {HOLD_NAME_MAX} bytes, not {}", name.len());
        return Err(Error::Invalid { what: "the hold's name", why });
    }
    limit.map_or(Ok(()), |limit| limit.check("the hold's limit"))
}
