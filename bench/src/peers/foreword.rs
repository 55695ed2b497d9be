//! Foreword itself.

use std::path::Path;

use anyhow::Result;
use foreword::{Lsn, Options, SyncPolicy};

use super::peer::{Log, Need, Peer, Records, Sink, Writer};
use crate::ablation;
use crate::window::Window;

/// In steady state, as a log that is truncated, and as its peers are set: zero-filled ahead.
pub const PEER: Peer = Peer {
    name: "foreword",
    package: "foreword",
    setting: "segments zero-filled ahead, as if recycled; syncs only when asked, as the others do",
    lacks: &[],
    open: |dir, need| Ok(Box::new(Open(steady(need).open(dir)?))),
    read,
};

/// A log that only grows, as by default.
pub const GROWING: Peer = Peer {
    name: "foreword-growing",
    setting: "the next segment is zero-filled while the log fills this one; segments of 8 MiB where few bytes are written, so that half a second sees some",
    open: |dir, need| Ok(Box::new(Open(options().segment_bytes(need.bytes.clamp(8 << 20, SEGMENT)).open(dir)?))),
    ..PEER
};

const SEGMENT: u64 = 64 << 20;

fn options() -> Options {
    ablation::without_choice(Options::new().sync(SyncPolicy::manual()))
}

/// Twice the need, because a flush takes at least a block; at most as much as raft-engine prefills.
fn steady(need: Need) -> Options {
    let spares = need.bytes.saturating_mul(2).min(1 << 30).div_ceil(SEGMENT);
    options().segment_bytes(SEGMENT).spare_segments(spares as usize)
}

fn read(dir: &Path, mut each: Sink) -> Result<()> {
    let log = foreword::Log::open(dir)?;
    let mut reader = log.reader_at(Lsn::FIRST);
    while let Some(record) = reader.next()? {
        each(record.data);
    }
    Ok(log.close()?)
}

struct Open(foreword::Log);

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(&self.0)))
    }

    fn flushes(&self) -> Option<u64> {
        Some(self.0.stats().flushes)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}

struct One<'a>(&'a foreword::Log);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.0.commit(record)?;
        Ok(())
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        self.0.commit_batch(records)?;
        Ok(())
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        while let Some(record) = next() {
            self.0.append(record)?;
        }
        self.0.sync()?;
        Ok(())
    }

    fn commit_window(&mut self, window: &mut Window) -> Result<()> {
        window.run(false, |record| Ok(self.0.commit_async(record)?))
    }
}
