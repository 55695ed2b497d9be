//! A task queue on tokio: a task is a record, and so is its end. The worker and whoever else is
//! interested follow the log, and see what is durable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use foreword::{Log, Lsn, Reader};
use tokio::task::{JoinSet, spawn_blocking};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Tasks, each to be done at least once, whatever happens to the process. A record is a task,
/// behind a `+`, or the LSN of one that is done, behind a `-`.
#[derive(Clone)]
pub struct Queue(Arc<Log>);

impl Queue {
    /// Opens the queue in a directory, or makes one. Recovery reads files, and flushes: it is not
    /// for a thread that runs tasks.
    pub async fn open(dir: PathBuf) -> Result<Queue> {
        let log = spawn_blocking(move || Log::options().segment_bytes(1 << 20).open(dir)).await??;
        Ok(Queue(Arc::new(log)))
    }

    /// Durable when it returns. Given up before, the task may be there all the same.
    pub async fn push(&self, task: &str) -> Result<Lsn> {
        Ok(self.0.commit_async(format!("+{task}"))?.await?)
    }

    /// All that happens from now on. Each follower has one.
    pub fn follow(&self) -> Reader {
        self.0.reader_at(self.0.durable_lsn().next())
    }

    /// Does what is to be done, in order, until the queue is closed.
    pub async fn work<F: Future<Output = Result<()>>>(&self, mut run: impl FnMut(Lsn, &str) -> F) -> Result<()> {
        // What an earlier run left: all that is durable now is read before anything is done.
        let (mut tasks, now) = (BTreeMap::<Lsn, String>::new(), self.0.durable_lsn());
        let mut reader = self.0.reader();
        loop {
            while reader.position() > now
                && let Some((&lsn, task)) = tasks.first_key_value()
            {
                run(lsn, task).await?;
                self.0.commit_async(format!("-{lsn}"))?.await?;
                tasks.remove(&lsn);
                if lsn.0 % 1000 == 0 {
                    // What lies before the oldest task is not needed. That waits for flushes, which
                    // a thread that runs tasks should not.
                    let (log, first) = (self.0.clone(), tasks.keys().next().copied().unwrap_or(lsn.next()));
                    spawn_blocking(move || log.truncate_front(first)).await??;
                }
            }
            let Some(record) = reader.next_async().await? else { return Ok(()) };
            match str::from_utf8(record.data)?.split_at_checked(1) {
                Some(("+", task)) => _ = tasks.insert(record.lsn, task.to_owned()),
                Some(("-", lsn)) => _ = tasks.remove(&Lsn(lsn.parse()?)),
                _ => return Err("not a record of this queue".into()),
            }
        }
    }

    /// Makes everything durable, and ends who follows. Tasks that still push get
    /// [`foreword::Error::Closed`].
    pub async fn close(&self) -> Result<()> {
        let log = self.0.clone();
        Ok(spawn_blocking(move || log.close()).await??)
    }
}

async fn run(dir: PathBuf) -> Result<()> {
    let queue = Queue::open(dir).await?;
    let (mut follower, worker, mut done) = (queue.follow(), queue.clone(), 0);
    let working = tokio::spawn(async move { worker.work(|_, _| std::future::ready(Ok(()))).await });
    let mut pushing = JoinSet::new();
    for n in 0..100 {
        let queue = queue.clone();
        pushing.spawn(async move { queue.push(&n.to_string()).await });
    }
    let pushed = pushing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    while done < 100
        && let Some(record) = follower.next_async().await?
    {
        done += u32::from(record.data.starts_with(b"-"));
    }
    queue.close().await?;
    working.await??;
    println!("{} tasks pushed; who followed saw {done} done", pushed.len());
    Ok(())
}

/// Runs the example.
pub fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?.block_on(run(dir.path().to_owned()))
}
