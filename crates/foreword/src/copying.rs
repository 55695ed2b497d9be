//! The bytes of a large unit: its frames get their places under the lock, and its appender copies the bytes into them afterwards, without it.
//! Whoever flies with the frames waits for that.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::assemble::FrameBuf;
use crate::bug::{self, Bug};
use crate::format::{FRAME_MAX, HEADER};
use crate::sync::{Event, Mutex, MutexGuard, PoisonError};

/// What is copied, and taken by the flights in the order of the frames.
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
            if bug::is(Bug::FlyUncopied) {
                return Ok(FrameBuf::zeroed(FRAME_MAX));
            }
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

/// What is still to be copied, and where to. Dropped before all is, it fails the flight.
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

    /// Copies the records that the frames were laid out for: each with its length before it, which no frame divides.
    pub(crate) fn copy(mut self, records: &[&[u8]]) {
        let mut records = records.iter();
        let mut rest: &[u8] = &[];
        for (mut buf, len) in std::mem::take(&mut self.frames) {
            if buf.is_empty() {
                buf = FrameBuf::zeroed(FRAME_MAX);
            }
            let (mut at, end) = (HEADER, HEADER + len);
            while at < end {
                if rest.is_empty() {
                    let Some(record) = records.next() else { break };
                    buf[at..at + 4].copy_from_slice(&(record.len() as u32).to_le_bytes());
                    (rest, at) = (record, at + 4);
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
