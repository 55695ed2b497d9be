//! `writeahead`: one writer thread, groups of up to 64 commands, asynchronous only.

use std::path::Path;

use anyhow::Result;
use futures::StreamExt;
use futures::executor::block_on;
use writeahead::{SimpleFile, WriteAhead, WriteAheadOptions, WriteHandle};

use super::super::peer::{Feature, Log, Peer, Writer};
use crate::window::Window;

pub const PEER: Peer = Peer {
    name: "writeahead",
    package: "writeahead",
    // A window of zeros is written by the commit that crosses into it. The default is 256 KiB; 4
    // MiB makes that rare. The queue takes all that are in flight, so that no commit waits for a
    // place in it.
    setting: "zero-filled windows of 4 MiB, a queue of 8,192",
    lacks: &[(Feature::Append, "each write is synced")],
    open: |dir, _| {
        let wal = open(dir)?;
        let handle = wal.writer()?;
        Ok(Box::new(Open { wal, handle }))
    },
    read: |dir, mut each| {
        let wal = open(dir)?;
        let mut stream = wal.create_stream()?;
        while let Some(record) = block_on(stream.next()) {
            each(&record?.1);
        }
        Ok(())
    },
};

fn open(dir: &Path) -> Result<WriteAhead<SimpleFile>> {
    let mut wal = WriteAhead::<SimpleFile>::with_options(WriteAheadOptions {
        log_dir: dir.to_owned(),
        preallocation_chunk_size: Some(4 << 20),
        queue_capacity: 8192,
        max_batch_bytes: 16 << 20,
        ..Default::default()
    });
    wal.start()?;
    Ok(wal)
}

struct Open {
    wal: WriteAhead<SimpleFile>,
    handle: WriteHandle,
}

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self.handle.clone())))
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self.handle);
        drop(self.wal);
        Ok(())
    }
}

struct One(WriteHandle);

impl Writer for One {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        block_on(self.0.write(record.to_vec()))?;
        Ok(())
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        block_on(self.0.write_batch(records.iter().map(|r| r.to_vec()).collect()))?;
        Ok(())
    }

    fn commit_window(&mut self, window: &mut Window) -> Result<()> {
        // (A write is in the queue once its future was polled.)
        window.run(true, |record| Ok(Box::pin(self.0.write(record.to_vec()))))
    }
}
