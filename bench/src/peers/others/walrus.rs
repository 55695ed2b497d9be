//! walrus: topics in files of 1,000 MiB, opened with `O_SYNC` when each write is to be durable.

use std::path::Path;

use anyhow::{Result, ensure};
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::super::peer::{Feature, Log, Peer, WALRUS_DIR, Writer};

pub const PEER: Peer = Peer {
    name: "walrus",
    package: "walrus-rust",
    setting: "`SyncEach`, one topic",
    lacks: &[(Feature::Async, "no asynchronous interface"), (Feature::Append, "no call that syncs what was appended")],
    open: |dir, _| Ok(Box::new(Open(open(dir)?))),
    read: |dir, mut each| {
        let log = open(dir)?;
        loop {
            let entries = log.batch_read_for_topic(TOPIC, 1 << 20, true)?;
            if entries.is_empty() {
                return Ok(());
            }
            entries.iter().for_each(|entry| each(&entry.data));
        }
    },
};

const TOPIC: &str = "log";

fn open(dir: &Path) -> Result<Walrus> {
    ensure!(std::env::var_os(WALRUS_DIR).is_some_and(|d| d == dir.as_os_str()), "walrus needs {WALRUS_DIR}={}", dir.display());
    // Reading moves a cursor that outlives the process; this way it is not written before we are
    // done.
    let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Ok(Walrus::with_consistency_and_schedule(consistency, FsyncSchedule::SyncEach)?)
}

struct Open(Walrus);

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(&self.0)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct One<'a>(&'a Walrus);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        Ok(self.0.append_for_topic(TOPIC, record)?)
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        Ok(self.0.batch_append_for_topic(TOPIC, records)?)
    }
}
