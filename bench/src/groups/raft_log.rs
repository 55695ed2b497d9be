//! raft-log: a log for one Raft group, so each group has a log, a thread and files of its own.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::{Context, Result};
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Config, RaftLog, Types};

use super::stores::{Contestant, Pending, Store};
use crate::payload;

pub const STORE: Contestant = Contestant {
    name: "raft-log",
    setting: "a log for each group, as it is made; at most 1,000 groups, since each has a thread",
    groups_max: 1_000,
    open,
};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Bytes;

impl Types for Bytes {
    type LogId = u64;
    type LogPayload = Vec<u8>;
    type Vote = u64;
    type UserData = Vec<u8>;
    type Callback = SyncSender<std::io::Result<()>>;

    fn log_index(log_id: &u64) -> u64 {
        *log_id
    }

    fn payload_size(payload: &Vec<u8>) -> u64 {
        payload.len() as u64
    }
}

fn open(dir: &Path, _filled: bool) -> Result<Box<dyn Store>> {
    let open = Open { dir: dir.to_owned(), logs: RwLock::new(Vec::new()) };
    let there = std::fs::read_dir(dir)?.count() as u64;
    if let Some(last) = there.checked_sub(1) {
        open.group(last)?;
    }
    Ok(Box::new(open))
}

type One = Arc<Mutex<RaftLog<Bytes>>>;

struct Open {
    dir: PathBuf,
    /// By number of the group.
    logs: RwLock<Vec<One>>,
}

fn lock(log: &One) -> MutexGuard<'_, RaftLog<Bytes>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Open {
    fn group(&self, group: u64) -> Result<One> {
        let at = usize::try_from(group)?;
        if let Some(log) = self.logs.read().unwrap_or_else(PoisonError::into_inner).get(at) {
            return Ok(log.clone());
        }
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        while logs.len() <= at {
            let dir = self.dir.join(logs.len().to_string());
            std::fs::create_dir_all(&dir)?;
            let mut config = Config::new(dir.display());
            // Its cache is for one group; here there are many.
            config.log_cache_capacity = Some(1 << 20);
            logs.push(Arc::new(Mutex::new(RaftLog::open(Arc::new(config))?)));
        }
        Ok(logs[at].clone())
    }
}

impl Store for Open {
    fn append(&self, group: u64, first: u64, entries: &[&[u8]], purge: Option<u64>) -> Result<Pending> {
        let log = self.group(group)?;
        let (flushed, answer) = sync_channel(1);
        let mut log = lock(&log);
        log.append((first..).zip(entries.iter().map(|bytes| bytes.to_vec())))?;
        if let Some(index) = purge {
            log.purge(index)?;
        }
        log.flush(true, Some(flushed))?;
        Ok(Pending::Answer(answer))
    }

    fn pipelines(&self) -> bool {
        true
    }

    fn fill(&self, groups: Range<u64>, entries: u64) -> Result<()> {
        for group in groups {
            let log = self.group(group)?;
            let (flushed, answer) = sync_channel(1);
            lock(&log).append((1..=entries).map(|index| (index, payload::record(1 << 10, index as usize).to_vec())))?;
            lock(&log).flush(true, Some(flushed))?;
            answer.recv().context("it gave no answer")??;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
