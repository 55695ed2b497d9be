//! A task queue on tokio: a task is a record, and so is its end. The worker and whoever else is interested follow the log, and see what is durable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use foreword::{Log, Lsn, Reader};
use tokio::task::spawn_blocking;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Tasks, each to be done at least once, whatever happens to the process.
#[derive(Clone)]
pub struct Queue {
    log: Arc<Log>,
}

/// What a record says.
enum Event<'r> {
    Task(&'r str),
    Done(Lsn),
}

impl<'r> Event<'r> {
    fn of(record: &'r [u8]) -> Result<Event<'r>> {
        let record = std::str::from_utf8(record)?;
        match record.split_once(' ') {
            Some(("task", what)) => Ok(Event::Task(what)),
            Some(("done", lsn)) => Ok(Event::Done(Lsn(lsn.parse()?))),
            _ => Err(format!("not a record of this queue: {record}").into()),
        }
    }
}

impl Queue {
    /// Opens the queue in a directory, or makes one. Recovery reads files, and flushes: it is not for a thread that runs tasks.
    pub async fn open(dir: PathBuf) -> Result<Queue> {
        let log = spawn_blocking(move || Log::options().segment_bytes(1 << 20).open(dir)).await??;
        Ok(Queue { log: Arc::new(log) })
    }

    /// Durable when it returns. Given up before, the task may be there all the same.
    pub async fn push(&self, task: &str) -> Result<Lsn> {
        Ok(self.log.commit_async(format!("task {task}"))?.await?)
    }

    /// Everything that happens from now on, and before if there is an LSN. One for each follower.
    pub fn follow(&self, from: Option<Lsn>) -> Reader {
        self.log.reader_at(from.unwrap_or(self.log.durable_lsn().next()))
    }

    /// Does what is to be done, in order, until the queue is closed.
    pub async fn work<F: Future<Output = Result<()>>>(&self, mut run: impl FnMut(Lsn, &str) -> F) -> Result<()> {
        // What an earlier run left: all that is durable now is read before anything is done.
        let (mut tasks, now) = (BTreeMap::<Lsn, String>::new(), self.log.durable_lsn());
        let mut reader = self.log.reader();
        loop {
            while reader.position() > now
                && let Some((&lsn, task)) = tasks.first_key_value()
            {
                run(lsn, task).await?;
                self.log.commit_async(format!("done {lsn}"))?.await?;
                tasks.remove(&lsn);
                if lsn.0 % 1000 == 0 {
                    // What lies before the oldest task is not needed. That waits for flushes, which a thread that runs tasks should not.
                    let (log, first) = (self.log.clone(), tasks.keys().next().copied().unwrap_or(lsn.next()));
                    spawn_blocking(move || log.truncate_front(first)).await??;
                }
            }
            let Some(record) = reader.next_async().await? else { return Ok(()) };
            match Event::of(record.data)? {
                Event::Task(what) => _ = tasks.insert(record.lsn, what.to_owned()),
                Event::Done(lsn) => _ = tasks.remove(&lsn),
            }
        }
    }

    /// Makes everything durable, and ends who follows. Tasks that still push get [`foreword::Error::Closed`].
    pub async fn close(&self) -> Result<()> {
        let log = self.log.clone();
        Ok(spawn_blocking(move || log.close()).await??)
    }
}

async fn run(dir: PathBuf) -> Result<()> {
    let queue = Queue::open(dir).await?;
    let mut follower = queue.follow(None);
    let watching = tokio::spawn(async move {
        let mut done = 0;
        while let Some(record) = follower.next_async().await? {
            done += u32::from(matches!(Event::of(record.data)?, Event::Done(_)));
        }
        Result::Ok(done)
    });
    let (worker, (did, mut done)) = (queue.clone(), tokio::sync::mpsc::unbounded_channel());
    let working =
        tokio::spawn(
            async move { worker.work(|_, what| std::future::ready(did.send(what.to_owned()).map_err(Into::into))).await },
        );

    let pushing: Vec<_> = (0..100)
        .map(|n| (queue.clone(), n))
        .map(|(queue, n)| tokio::spawn(async move { queue.push(&format!("task {n}")).await }))
        .collect();
    for pushed in pushing {
        pushed.await??;
    }
    for _ in 0..100 {
        done.recv().await;
    }
    queue.close().await?;
    match working.await? {
        Err(error) if !matches!(error.downcast_ref(), Some(foreword::Error::Closed)) => return Err(error),
        _ => {} // It was closed between a task and its end.
    }
    println!("100 tasks pushed and done; who followed saw {} ends", watching.await??);
    Ok(())
}

/// Runs the example.
pub fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(run(dir.path().to_owned()))
}
