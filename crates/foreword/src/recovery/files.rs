//! The segments in a directory, each by its first two blocks: its HEADER, and the LINK that makes
//! it a part of the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::Damage;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::files::names::{Names, within_reach};
use crate::files::segment::{Found, Segment};
use crate::format::{self, BLOCK, Control, FrameHeader, Head, Kind, LINK_BLOCK, Link, LogId, Position};
use crate::{Error, Lsn, Result};

/// A segment, by its first two blocks.
#[derive(Debug)]
pub(super) struct FoundSegment {
    pub(super) blocks: u32,
    pub(super) link: LinkState,
    /// The file has not the length that its header says.
    pub(super) short: Option<Damage>,
}

#[derive(Debug)]
pub(super) enum LinkState {
    Active {
        link: Link,
        header: FrameHeader,
    },
    /// Prepared and never used, as far as one can see.
    Unwritten,
    Damaged(&'static str),
}

/// So many threads at most look at a log's segments: one more for each so many, since for few it
/// takes longer to start one.
const LOOKERS: usize = 4;
const LOOKS_MIN: usize = 32;

/// By epoch, what a segment looks like; or why not even its header can be used.
type Looked = Vec<(u64, std::result::Result<FoundSegment, Damage>)>;

fn look_at(dir: &Dir, log: Option<LogId>, without_surplus: bool, epochs: impl Iterator<Item = u64>) -> Result<Looked> {
    let (mut beginning, mut buf) = ([0; (LINK_BLOCK as usize + 1) * BLOCK], Vec::new());
    let look = |epoch| {
        let (segment, short) = match dir.open_segment_reading(log, epoch, Access::Read, &mut beginning)? {
            Ok(found) => found,
            Err(damage) => return Ok((epoch, Err(damage))),
        };
        buf.clear();
        buf.extend_from_slice(&beginning[LINK_BLOCK as usize * BLOCK..]);
        let link = match segment.rest_of_frame(LINK_BLOCK, segment.data_end(), &mut buf)? {
            Found::Frame(header) if header.kind == Kind::Link => match Link::decode(format::payload(&header, &buf)) {
                Some(link) if link.follows(within_reach(epoch)) && header.first_lsn() >= Lsn::FIRST => {
                    LinkState::Active { link, header }
                }
                _ => LinkState::Damaged("a LINK that does not add up"),
            },
            Found::Frame(_) => LinkState::Damaged("another frame in the LINK's place"),
            Found::Unwritten | Found::Torn => LinkState::Unwritten,
            Found::Damaged(why) => LinkState::Damaged(why),
        };
        let looked = match short.filter(|damage| !(without_surplus && segment.ends_before(damage))) {
            Some(damage) if !matches!(link, LinkState::Active { .. }) => Err(damage),
            short => Ok(FoundSegment { blocks: segment.blocks, link, short }),
        };
        Ok((epoch, looked))
    };
    epochs.map(look).collect()
}

/// What there is of segments, by epoch.
pub(super) struct Segments<'a> {
    pub(super) dir: &'a Dir,
    pub(super) found: BTreeMap<u64, FoundSegment>,
    /// Files of which not even the header can be used, and why.
    pub(super) unusable: BTreeMap<u64, Damage>,
    /// A file may be longer than its segment.
    pub(super) without_surplus: bool,
}

impl<'a> Segments<'a> {
    /// None yet.
    pub(super) fn new(dir: &'a Dir) -> Segments<'a> {
        Segments { dir, found: BTreeMap::new(), unusable: BTreeMap::new(), without_surplus: false }
    }

    /// Without `LOG`, the newest segment with a sound header says which log this is.
    pub(super) fn newest_identity(&self, names: &Names) -> Result<Option<LogId>> {
        for &epoch in names.epochs.iter().rev() {
            if let Ok((segment, _)) = self.dir.open_segment(None, epoch, Access::Read)? {
                return Ok(Some(segment.log()));
            }
        }
        Ok(None)
    }

    /// Looks at every segment anew: opens it, and reads its header and its LINK. Where there are
    /// many, several threads do, since the disk and the processors can do more than one at once.
    /// Each takes the next that no other has: it may be a millisecond until a new thread has a
    /// processor, and nothing waits for it to begin.
    pub(super) fn look_at_all(&mut self, log: Option<LogId>, names: &Names) -> Result<()> {
        self.found.clear();
        self.unusable.clear();
        let (dir, without_surplus, taken) = (self.dir, self.without_surplus, AtomicUsize::new(0));
        let untaken = || names.epochs.get(taken.fetch_add(1, Ordering::Relaxed)).copied();
        let look = || look_at(dir, log, without_surplus, std::iter::from_fn(untaken));
        let others = (names.epochs.len() / LOOKS_MIN).min(LOOKERS - 1);
        let looked: Vec<_> = thread::scope(|scope| {
            let others: Vec<_> = (0..others).map_while(|_| thread::Builder::new().spawn_scoped(scope, look).ok()).collect();
            let finish =
                |other: thread::ScopedJoinHandle<'_, _>| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            std::iter::once(look()).chain(others.into_iter().map(finish)).collect::<Result<_>>()
        })?;
        for (epoch, looked) in looked.into_iter().flatten() {
            match looked {
                Ok(found) => drop(self.found.insert(epoch, found)),
                Err(damage) => drop(self.unusable.insert(epoch, damage)),
            }
        }
        Ok(())
    }

    /// The segments that have a whole LINK, by epoch.
    pub(super) fn actives(&self) -> impl DoubleEndedIterator<Item = u64> {
        let active = |found: &FoundSegment| matches!(found.link, LinkState::Active { .. });
        self.found.iter().filter(move |(_, found)| active(found)).map(|(&epoch, _)| epoch)
    }

    pub(super) fn active(&self, epoch: u64) -> Option<(&Link, &FrameHeader)> {
        match self.found.get(&epoch)? {
            FoundSegment { link: LinkState::Active { link, header }, .. } => Some((link, header)),
            _ => None,
        }
    }

    /// The control part of a segment's LINK.
    pub(super) fn control(&self, epoch: u64) -> Control {
        self.active(epoch).map(|(link, _)| link.control.clone()).unwrap_or_default()
    }

    /// The newest segment that has a whole LINK, or 0.
    pub(super) fn newest(&self) -> u64 {
        self.actives().next_back().unwrap_or(0)
    }

    /// Whether there is nothing but segments that were never used.
    pub(super) fn are_unused(&self) -> bool {
        self.unusable.is_empty() && self.found.values().all(|found| matches!(found.link, LinkState::Unwritten))
    }

    /// Whether the log may have gone on in a segment, by its first frames: its LINK, and what came
    /// first behind that.
    pub(super) fn was_begun(&self, epoch: u64) -> Result<bool> {
        Ok(match self.found.get(&epoch).map(|found| &found.link) {
            None => false,
            Some(LinkState::Unwritten) => self.open(epoch)?.head(LINK_BLOCK + 1)? != Head::Unwritten,
            Some(LinkState::Active { .. } | LinkState::Damaged(_)) => true,
        })
    }

    /// Whether a log can have got to a position, as far as that segment is there: not beyond its
    /// seal.
    pub(super) fn has_place(&self, position: Position) -> bool {
        self.found.get(&position.epoch).is_none_or(|found| position.block < found.blocks)
    }

    pub(super) fn open(&self, epoch: u64) -> Result<Arc<Segment>> {
        match self.dir.open_segment(None, epoch, Access::Read)? {
            Ok((segment, _)) => Ok(Arc::new(segment)),
            Err(damage) => Err(Error::Corruption(Arc::new(damage))),
        }
    }
}
