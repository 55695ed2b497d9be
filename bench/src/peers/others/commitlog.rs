//! commitlog: segments and memory-mapped indexes; its flush is a `File::flush`, which reaches no
//! disk.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow};
use commitlog::message::MessageSet;
use commitlog::{CommitLog, LogOptions, ReadLimit};

use super::super::peer::{Feature, Log, Peer, Records, Writer};
use super::files;

pub const PEER: Peer = Peer {
    name: "commitlog",
    package: "commitlog",
    setting: "segments of 1 GiB; the bench itself syncs its files at the end of an append",
    lacks: &[
        (Feature::Commit, "never syncs its segments: `flush` is `File::flush`"),
        (Feature::Batch, "never syncs its segments: `flush` is `File::flush`"),
        (Feature::Async, "no asynchronous interface"),
    ],
    open: |dir, _| Ok(Box::new(Open { log: Mutex::new(open(dir)?), dir: dir.to_owned() })),
    read: |dir, mut each| {
        let log = open(dir)?;
        let mut next = 0;
        loop {
            // (Checks each message's checksum.)
            let messages = log.read(next, ReadLimit::max_bytes(1 << 20)).map_err(|e| anyhow!("{e}"))?;
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages.iter() {
                each(message.payload());
                next = message.offset() + 1;
            }
        }
    },
};

fn open(dir: &Path) -> Result<CommitLog> {
    let mut options = LogOptions::new(dir);
    options.segment_max_bytes(1 << 30).index_max_items(1 << 20).message_max_bytes(64 << 20);
    Ok(CommitLog::new(options)?)
}

struct Open {
    log: Mutex<CommitLog>,
    dir: PathBuf,
}

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.log.into_inner().unwrap_or_else(PoisonError::into_inner).flush()?)
    }
}

struct One<'a>(&'a Open);

impl Writer for One<'_> {
    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        let log = || self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(record) = next() {
            log().append_msg(record)?;
        }
        log().flush()?;
        files::sync_all(&self.0.dir)
    }
}
