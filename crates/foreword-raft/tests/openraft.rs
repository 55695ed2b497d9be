//! openraft's own suite on the adapter to 0.10: as it is; reopened after every call; after a power failure behind every call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, unreachable_pub)]
#[path = "../examples/openraft.rs"]
mod example;

mod machine;

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use example::{Map, Types};
use foreword_raft::GroupLogs;
use foreword_raft::adapter::openraft::LogStore;
use foreword_sim::SimDisk;
use machine::{Disk, Machine, Machines};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::{OptionalSend, StorageError};
use tokio::sync::{Mutex, MutexGuard};

/// The storage of a machine, which something befalls behind each call.
#[derive(Clone)]
struct Proxy(Arc<Mutex<Machine>>);

impl Proxy {
    async fn lock(&self) -> (MutexGuard<'_, Machine>, LogStore<Types>) {
        let machine = self.0.lock().await;
        let store = LogStore::new(machine.group());
        (machine, store)
    }
}

impl RaftLogReader<Types> for Proxy {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<EntryOf<Types>>> {
        self.lock().await.1.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<EntryOf<Types>>> {
        self.lock().await.1.limited_get_log_entries(start, end).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        self.lock().await.1.read_vote().await
    }
}

impl RaftLogStorage<Types> for Proxy {
    type LogReader = Proxy;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.lock().await.1.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Proxy {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        let (mut machine, mut store) = self.lock().await;
        store.save_vote(vote).await?;
        machine.done();
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> io::Result<()> {
        let (mut machine, mut store) = self.lock().await;
        store.save_committed(committed).await?;
        store.group().sync()?; // It is a hint, and not durable by itself.
        machine.done();
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<Types>>> {
        self.lock().await.1.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let (mut machine, mut store) = self.lock().await;
        let (flushed, result) = Types::oneshot();
        store.append(entries, IOFlushed::signal(flushed)).await?;
        let result = result.await.unwrap();
        machine.done();
        callback.io_completed(result);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        let (mut machine, mut store) = self.lock().await;
        store.truncate_after(last).await?;
        machine.done();
        Ok(())
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> io::Result<()> {
        let (mut machine, mut store) = self.lock().await;
        store.purge(upto).await?;
        machine.done();
        Ok(())
    }
}

struct Proxies(Machines);

impl StoreBuilder<Types, Proxy, Map> for Proxies {
    async fn build(&self) -> Result<((), Proxy, Map), StorageError<Types>> {
        Ok(((), Proxy(Arc::new(Mutex::new(self.0.make()))), Map::default()))
    }
}

/// Without a proxy: each store is another group of the same logs.
struct Groups {
    logs: GroupLogs,
    next: AtomicU64,
}

impl StoreBuilder<Types, LogStore<Types>, Map> for Groups {
    async fn build(&self) -> Result<((), LogStore<Types>, Map), StorageError<Types>> {
        let group = self.logs.group(self.next.fetch_add(1, Ordering::Relaxed));
        Ok(((), LogStore::new(group), Map::default()))
    }
}

#[test]
fn the_suite() {
    for disk in [Disk::real(), Disk::Sim(SimDisk::new(1))] {
        Types::run(Suite::test_all(Groups { logs: disk.open(), next: AtomicU64::new(1) })).unwrap();
    }
}

#[test]
fn the_suite_through_openings_and_power_failures_behind_every_call() {
    Machines::all(|machines| Types::run(Suite::test_all(Proxies(machines))).unwrap());
}
