//! The bytes of a large unit: its frames get their places under the lock, and its appender copies
//! the bytes into them afterwards, without it. The leader that flushes the frames waits for that.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::assemble::payload::{self, Payload};
use crate::assemble::room::FRAME_BYTES;
use crate::bug::bug;
use crate::format::{FrameBuf, HEADER};
use crate::sync::{Event, Mutex, MutexGuard, PoisonError};

/// What is copied. Flushes take it in the order of the frames.
#[derive(Debug, Default)]
pub(crate) struct Copying {
    copied: Mutex<Copied>,
    changed: Event,
}

#[derive(Debug, Default)]
struct Copied {
    bufs: VecDeque<FrameBuf>,
    /// No more come.
    ended: bool,
}

impl Copying {
    fn lock(&self) -> MutexGuard<'_, Copied> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next frame's bytes, once they are there.
    pub(crate) fn next(&self) -> io::Result<FrameBuf> {
        let mut copied = self.lock();
        loop {
            if let Some(buf) = copied.bufs.pop_front() {
                return Ok(buf);
            }
            bug!(FlushUncopied, return Ok(FrameBuf::zeroed(FRAME_BYTES)));
            if copied.ended {
                return Err(io::Error::other("a thread panicked while it copied a record"));
            }
            copied = self.changed.wait(copied);
        }
    }

    fn push(&self, buf: FrameBuf) {
        self.lock().bufs.push_back(buf);
        self.changed.notify_all();
    }
}

/// What is still to be copied, and where to. If it is dropped before all is copied, it fails the
/// flush.
#[derive(Debug)]
pub(crate) struct Copier {
    copying: Arc<Copying>,
    /// Memory for each frame (none: it is allocated), and the length of its payload.
    frames: Vec<(FrameBuf, usize)>,
}

impl Copier {
    pub(crate) fn new() -> Copier {
        Copier { copying: Arc::default(), frames: Vec::new() }
    }

    /// A frame gives its memory, and gets what it is to wait for.
    pub(crate) fn lend(&mut self, buf: FrameBuf, payload_len: u32) -> Arc<Copying> {
        self.frames.push((buf, payload_len as usize));
        self.copying.clone()
    }

    /// Copies the records that the frames were laid out for: each with its length before it, which
    /// no frame divides.
    pub(crate) fn copy(mut self, unit: Payload<'_>) {
        let mut records = unit.each();
        let (mut parts, mut rest): (&[&[u8]], &[u8]) = (&[], &[]);
        for (mut buf, len) in std::mem::take(&mut self.frames) {
            if buf.is_empty() {
                buf = FrameBuf::zeroed(FRAME_BYTES);
            }
            let (mut at, end) = (HEADER, HEADER + len);
            while at < end {
                if let ([], [part, others @ ..]) = (rest, parts) {
                    (rest, parts) = (part, others);
                } else if rest.is_empty() {
                    let Some(record) = records.next() else { break };
                    buf[at..at + 4].copy_from_slice(&(payload::sum(record) as u32).to_le_bytes());
                    (parts, at) = (record, at + 4);
                }
                let (now, later) = rest.split_at(rest.len().min(end - at));
                buf[at..at + now.len()].copy_from_slice(now);
                (rest, at) = (later, at + now.len());
            }
            self.copying.push(buf);
        }
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.copying.lock().ended = true;
        self.copying.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::assemble::room::Urgency;
    use crate::assemble::{Assembler, NeedSegments, Placement};
    use crate::files::dir::Dir;
    use crate::files::disk::OsDisk;
    use crate::files::fill::at_once;
    use crate::files::prepare::Stuff;
    use crate::format::{Control, Count, LINK_BLOCK, LogId};
    use crate::{Lsn, Result};

    fn assembler(dir: &tempfile::TempDir) -> Result<Assembler> {
        let dir = Dir::open(&OsDisk::new(), dir.path())?;
        let segment = dir.prepare(LogId([7; 16]), 1, 1024, Stuff::Nothing, &at_once)?;
        Ok(Assembler::new(segment, 1024, LINK_BLOCK + 1, Count::START))
    }

    fn place(assembler: &mut Assembler, unit: Payload<'_>) -> std::result::Result<Option<Box<Copier>>, NeedSegments> {
        let (spares, control) = (&mut VecDeque::new(), &Control::default());
        assembler.place_unit(Placement { unit: &unit, urgency: Urgency::Ordinary, spares, control })
    }

    /// Placing it takes no time that grows with its bytes, for other calls wait for the lock
    /// meanwhile.
    #[test]
    fn a_large_unit_is_placed_without_a_copy_and_its_flush_waits_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut assembler = assembler(&dir).unwrap();
        let records: Vec<Vec<u8>> = [700_000, 0, 3, 500_000].map(|len| (0..len).map(|i| (i * 7) as u8).collect()).into();
        let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let unit = Payload::records(&slices);
        let placed = place(&mut assembler, unit);
        let copier = placed.unwrap().expect("it is large");
        assert_eq!(assembler.next_lsn(), Lsn(5));
        let mut frames = assembler.take();
        assert!(frames.len() > 4 && frames.iter().all(|frame| frame.buf.is_empty()), "nothing is copied yet");
        let bytes = thread::scope(|s| {
            let flush = s.spawn(|| {
                let mut bytes = Vec::new();
                for frame in &mut frames {
                    frame.await_bytes().unwrap();
                    bytes.extend_from_slice(&frame.buf[HEADER..HEADER + frame.header.payload_len as usize]);
                }
                bytes
            });
            copier.copy(unit);
            flush.join().unwrap()
        });
        let expected = records.iter().flat_map(|record| [&(record.len() as u32).to_le_bytes(), record.as_slice()].concat());
        assert!(bytes.into_iter().eq(expected));
    }

    #[test]
    fn a_copy_that_ends_early_fails_its_flush() {
        let dir = tempfile::tempdir().unwrap();
        let mut assembler = assembler(&dir).unwrap();
        let slices: [&[u8]; 1] = [&[7; 700_000]];
        let unit = Payload::records(&slices);
        let placed = place(&mut assembler, unit);
        drop(placed);
        assert!(assembler.take().iter_mut().all(|frame| frame.await_bytes().is_err()));
    }
}
