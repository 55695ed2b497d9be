//! Foreword itself.

use std::path::Path;

use anyhow::Result;
use foreword::{Lsn, Options, SyncPolicy};

use super::{Log, Peer, Records, Sink, Writer};
use crate::window::Window;

pub const PEER: Peer = Peer {
    name: "foreword",
    package: "foreword",
    setting: "defaults; syncs only when asked, as the others do",
    lacks: &[],
    open: |dir, _| Ok(Box::new(Open(Options::new().sync(SyncPolicy::manual()).open(dir)?))),
    read,
};

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
