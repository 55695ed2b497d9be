//! The state of a group, as its records in the log make it. **No I/O.** The same code applies
//! records that are written and records that are replayed.

use foreword::Lsn;

use crate::error::DamagedGroup;
use crate::index::{Index, Place};
use crate::record::{Body, Record};
use crate::{Error, Result};

/// A value of which only the newest counts, and the place of its record.
pub(crate) struct Latest<T> {
    pub(crate) value: T,
    place: Place,
}

/// An index with the caller's note.
pub(crate) type Noted = (u64, Box<[u8]>);

#[derive(Default)]
pub(crate) struct GroupState {
    pub(crate) vote: Option<Latest<Box<[u8]>>>,
    pub(crate) purged: Option<Latest<Noted>>,
    pub(crate) committed: Option<Latest<Noted>>,
    pub(crate) entries: Index,
    /// The LSN of the group's newest record; zero if the group has none.
    pub(crate) last_record: Lsn,
    pub(crate) removed: bool,
    pub(crate) damaged: Option<Box<DamagedGroup>>,
}

impl GroupState {
    /// Applies a record.
    ///
    /// A record that takes others out of force (a newer vote, a truncation, a purge, a removal, a
    /// copy) stands behind them in the log. So the rest of the log makes the same state, whatever
    /// is dropped at the front, as long as no record in force is dropped.
    pub(crate) fn apply(&mut self, lsn: Lsn, bytes: usize, record: &Record<'_>) {
        let place = Place { lsn, bytes: bytes as u32 }; // A record has less than 1 GiB.
        match record.body {
            Body::Vote(vote) => self.vote = Some(Latest { value: vote.into(), place }),
            Body::Append(index, _) => self.entries.set(index, place),
            Body::TruncateAfter(index) => self.entries.cut_from(index.map_or(0, |index| index + 1)),
            Body::Purge(index, note) => {
                self.entries.cut_to(index);
                self.purged = Some(Latest { value: (index, note.into()), place });
            }
            Body::Committed(index, note) => self.committed = Some(Latest { value: (index, note.into()), place }),
            Body::Removed => *self = GroupState { removed: true, ..GroupState::default() },
        }
        self.last_record = lsn;
    }

    /// Whether a record is in force, which means that the state needs it.
    pub(crate) fn needs(&self, lsn: Lsn, record: &Record<'_>) -> bool {
        let place = match record.body {
            Body::Vote(_) => self.vote.as_ref().map(|vote| vote.place),
            Body::Append(index, _) => self.entries.get(index),
            Body::Purge(..) => self.purged.as_ref().map(|purged| purged.place),
            Body::Committed(..) => self.committed.as_ref().map(|committed| committed.place),
            Body::TruncateAfter(_) | Body::Removed => None,
        };
        place.is_some_and(|place| place.lsn == lsn)
    }

    /// The places of records in force that are no entries.
    fn others(&self) -> impl Iterator<Item = Place> {
        let places = [
            self.vote.as_ref().map(|vote| vote.place),
            self.purged.as_ref().map(|purged| purged.place),
            self.committed.as_ref().map(|committed| committed.place),
        ];
        places.into_iter().flatten()
    }

    /// The smallest LSN in force.
    pub(crate) fn first_needed(&self) -> Option<Lsn> {
        self.others().map(|place| place.lsn).chain(self.entries.first_lsn()).min()
    }

    /// Whether the group has anything to keep. (Damage may be all that is known of it.)
    pub(crate) fn is_there(&self) -> bool {
        self.live_bytes() > 0 || self.damaged.is_some()
    }

    /// The bytes of the records in force.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.others().map(|place| u64::from(place.bytes)).sum::<u64>() + self.entries.bytes()
    }

    /// Up to which index the group was purged.
    pub(crate) fn purged_to(&self) -> Option<u64> {
        self.purged.as_ref().map(|purged| purged.value.0)
    }

    /// Whether the caller said more of that than the index.
    pub(crate) fn has_purge_note(&self) -> bool {
        self.purged.as_ref().is_some_and(|purged| !purged.value.1.is_empty())
    }

    /// The last index, of an entry or of what was purged.
    pub(crate) fn last(&self) -> Option<u64> {
        self.entries.last().or(self.purged_to())
    }

    /// The ranges of missing entries.
    pub(crate) fn holes(&self) -> Vec<std::ops::RangeInclusive<u64>> {
        let first = self.entries.first().unwrap_or(0);
        let from = self.purged_to().map_or(first.min(1), |purged| purged + 1);
        self.entries.holes(from)
    }

    /// Whether the group may be used.
    pub(crate) fn check(&self, group: u64) -> Result<()> {
        match &self.damaged {
            Some(damaged) => Err(Error::GroupDamaged(damaged.as_ref().clone())),
            None if self.removed => Err(Error::Removed { group }),
            None => Ok(()),
        }
    }
}
