//! mrecordlog: queues in memory, multiplexed into one log; the version on the registry flushes to
//! the operating system and never syncs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use mrecordlog::{MultiRecordLog, SyncPolicy};
use tokio::runtime::Runtime;

use super::super::peer::{Feature, Log, Peer, Records, Writer};
use super::files;

pub const PEER: Peer = Peer {
    name: "mrecordlog",
    package: "mrecordlog",
    setting: "one queue; the bench itself syncs its files at the end of an append",
    lacks: &[
        (Feature::Commit, "never syncs: its `sync` flushes a buffer to the operating system"),
        (Feature::Batch, "never syncs: its `sync` flushes a buffer to the operating system"),
        (Feature::Async, "one writer at a time (`&mut self`)"),
        (Feature::Together, "one writer at a time (`&mut self`)"),
    ],
    open: |dir, _| {
        let runtime = runtime()?;
        let mut log = runtime.block_on(open(dir))?;
        if !log.queue_exists(QUEUE) {
            runtime.block_on(log.create_queue(QUEUE))?;
        }
        Ok(Box::new(Open { log: Mutex::new(log), runtime, dir: dir.to_owned() }))
    },
    read: |dir, mut each| {
        let log = runtime()?.block_on(open(dir))?;
        for (_, record) in log.range(QUEUE, ..).map_err(|_| anyhow!("the queue is not there"))? {
            each(&record);
        }
        Ok(())
    },
};

const QUEUE: &str = "log";

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?)
}

async fn open(dir: &Path) -> Result<MultiRecordLog> {
    let never = SyncPolicy::OnDelay(Duration::from_secs(3600));
    MultiRecordLog::open_with_prefs(dir, never).await.map_err(|e| anyhow!("{e}"))
}

struct Open {
    log: Mutex<MultiRecordLog>,
    runtime: Runtime,
    dir: PathBuf,
}

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Open { log, runtime, .. } = *self;
        let mut log = log.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(runtime.block_on(log.sync())?)
    }
}

struct One<'a>(&'a Open);

impl Writer for One<'_> {
    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        let mut log = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.runtime.block_on(async {
            while let Some(record) = next() {
                log.append_record(QUEUE, None, record).await?;
            }
            anyhow::Ok(log.sync().await?)
        })?;
        files::sync_all(&self.0.dir)
    }
}
