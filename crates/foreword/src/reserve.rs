//! Room that a log keeps for a full disk: two small files, of which opening, truncation and checkpoints can make a segment
//! when there is no space for one. Appends never take it.
//!
//! Two, so that it does not end: a log that had to go on in one of them and is killed goes on in the other, and the first,
//! which is superseded then, is the reserve again.

use std::sync::Arc;

use crate::disk::Access;
use crate::format::{BLOCK, LogId};
use crate::options::SEGMENT_BLOCKS_MIN;
use crate::segment::{Dir, Segment, Stuff, TMP, at_once, segment_name};
use crate::{Error, Result};

pub(crate) const NAMES: [&str; 2] = ["RESERVE-1", "RESERVE-2"];

/// Enough for a full frame, and what a segment has besides: all that a cut at the back has to write again of most logs.
const BLOCKS: u32 = 96;

/// How many blocks a reserve of a log has whose segments have so many.
pub(crate) fn blocks(segment_blocks: u32) -> u32 {
    BLOCKS.min(segment_blocks)
}

impl Dir {
    /// A segment made of the reserve, when there was no space for a new one, as `error` says. If the reserve is not there, there may still be
    /// space for one as small: what an unfinished step had made of the reserve was removed.
    pub(crate) fn take_reserve(&self, log: LogId, epoch: u64, segment_blocks: u32, error: Error) -> Result<Arc<Segment>> {
        for name in NAMES {
            let len = self.handle.open(name, Access::Read).and_then(|file| file.len());
            let Ok(there) = u32::try_from(len.unwrap_or(0) / BLOCK as u64) else { continue };
            if (SEGMENT_BLOCKS_MIN..=BLOCKS).contains(&there) {
                return self.prepare(log, epoch, there, Stuff::Reserve(name), &at_once);
            }
        }
        self.prepare(log, epoch, blocks(segment_blocks), Stuff::Nothing, &at_once).map_err(|_| error)
    }

    /// Makes what is missing of the reserve: of superseded segments that are as small, if there are any; else anew, if there is
    /// room. That there is none, or that it fails, is no error of anything else. The superseded segments that are left.
    pub(crate) fn keep_reserve(&self, segment_blocks: u32, superseded: Vec<u64>) -> Vec<u64> {
        let blocks = blocks(segment_blocks);
        let mut missing = NAMES.into_iter().filter(|name| self.handle.id_of(name).is_err()).peekable();
        if missing.peek().is_none() {
            return superseded;
        }
        let mut left = Vec::new();
        for epoch in superseded {
            let fits = self.has_blocks(epoch, blocks) && self.has_space(epoch, blocks);
            if let Some(name) = missing.next_if(|_| fits)
                && self.handle.rename(&segment_name(epoch), name).is_ok()
            {
                continue;
            }
            left.push(epoch);
        }
        for name in missing {
            if let Err(error) = self.make_reserve(name, blocks) {
                crate::trace::warn!(error = %error, "cannot keep room for a full disk");
                break;
            }
        }
        let _ = self.sync();
        left
    }

    fn has_space(&self, epoch: u64, blocks: u32) -> bool {
        let file = self.handle.open(&segment_name(epoch), Access::Write);
        file.and_then(|file| file.allocate(u64::from(blocks) * BLOCK as u64)).is_ok()
    }

    fn make_reserve(&self, name: &str, blocks: u32) -> std::io::Result<()> {
        let tmp = format!("{name}{TMP}");
        let made = (|| {
            self.reserve_file(&tmp, u64::from(blocks) * BLOCK as u64, &at_once)?.sync()?;
            self.handle.rename(&tmp, name)
        })();
        if made.is_err() {
            let _ = self.handle.remove(&tmp);
        }
        made
    }
}
