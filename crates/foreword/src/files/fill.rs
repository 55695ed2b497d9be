//! Filling files with zeros, step by step.

use std::io;
use std::ops::Range;

use crate::files::disk::{self, DiskFile};
use crate::format::FrameBuf;

/// How much is zero-filled at a time: little delays many commits a little, much delays few for
/// long.
const FILL_STEP: usize = 256 << 10;

/// How zero-filling goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fill {
    /// By one step more.
    Step,
    /// Not at all: a thread waits for the segment, or it is not worth it.
    Stop,
    /// The segment is not wanted any more: nothing is left of it.
    Abandon,
}

/// All of it, as fast as it goes: nothing else uses the log.
pub(crate) fn at_once(_done: f32) -> Fill {
    Fill::Step
}

/// Writes zeros in steps, each of which is on its way to the disk before the next, so that no
/// commit's own flush waits behind the whole of it. `reserved`: it may be left at that.
pub(super) fn fill(file: &dyn DiskFile, bytes: Range<u64>, reserved: bool, pace: &dyn Fn(f32) -> Fill) -> io::Result<()> {
    let zeros = FrameBuf::zeroed((bytes.end - bytes.start).min(FILL_STEP as u64) as usize);
    let mut at = bytes.start;
    while at < bytes.end {
        match pace(at as f32 / bytes.end as f32) {
            Fill::Stop if reserved => break,
            Fill::Abandon => return Err(io::ErrorKind::Interrupted.into()),
            Fill::Step | Fill::Stop => {}
        }
        let step = (bytes.end - at).min(zeros.len() as u64);
        disk::write_all(&mut [io::IoSlice::new(&zeros[..step as usize])], at, |bufs, at| file.write_through_at(bufs, at))?;
        at += step;
    }
    Ok(())
}
