//! openraft's own suite on the adapter to 0.10: as it is; reopened after every call; after a power
//! failure behind every call. And the example, whose assertions are part of the tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)] // Its `main`.
#[path = "../examples/openraft.rs"]
mod example;

mod machine;

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use example::{Map, Set, Types};
use foreword_raft::GroupLogs;
use foreword_raft::adapter::openraft::{LogStore, Undecodable};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};
use machine::{Disk, Machine, Machines};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::{EntryPayload, Membership, OptionalSend, StorageError};
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

type Id = openraft::impls::leader_id_adv::LeaderId<u64, u64>;

fn log_id(term: u64, index: u64) -> LogIdOf<Types> {
    LogIdOf::<Types>::new(Id { term, node_id: 1 }, index)
}

fn entry(term: u64, index: u64, value: &str) -> EntryOf<Types> {
    let set = Set { key: "k".to_owned(), value: value.to_owned() };
    EntryOf::<Types>::new(log_id(term, index), EntryPayload::Normal(set))
}

fn vote(term: u64) -> VoteOf<Types> {
    VoteOf::<Types>::new(term, 1)
}

async fn append(store: &mut LogStore<Types>, entries: Vec<EntryOf<Types>>) -> io::Result<()> {
    let (flushed, result) = Types::oneshot();
    store.append(entries, IOFlushed::signal(flushed)).await?;
    result.await.unwrap()
}

/// A call that was begun has its place in the order, whether anybody waits for it or not: a vote
/// stands before the entries that come after it.
#[tokio::test]
async fn a_vote_and_an_append_keep_their_order() {
    let disk = Disk::Sim(SimDisk::new(1));
    let logs = disk.open();
    let mut store = LogStore::<Types>::new(logs.group(1));
    let mut other = store.clone();
    for term in 1..30 {
        // The vote is not waited for.
        let vote = vote(term);
        let mut save = std::pin::pin!(other.save_vote(&vote));
        let saved = futures_util::poll!(&mut save);
        append(&mut store, vec![entry(term, term, "v")]).await.unwrap();
        let Disk::Sim(sim) = &disk else { unreachable!() };
        let crashed = Disk::Sim(sim.crash(&Choice::None)).open();
        let mut found = LogStore::<Types>::new(crashed.group(1));
        assert_eq!(found.read_vote().await.unwrap(), Some(vote), "an entry of term {term} is there");
        assert_eq!(found.get_log_state().await.unwrap().last_log_id, Some(log_id(term, term)));
        match saved {
            Poll::Ready(saved) => saved.unwrap(),
            Poll::Pending => save.await.unwrap(),
        }
    }
}

/// A disk that stalls holds nobody on the runtime: it has one thread, and goes on meanwhile.
#[tokio::test]
async fn a_flush_does_not_block_the_runtime() {
    let disk = Disk::Sim(SimDisk::new(1));
    let mut logs = disk.open();
    let mut store = LogStore::<Types>::new(logs.group(1));
    append(&mut store, (1..=40).map(|index| entry(1, index, &"x".repeat(500))).collect()).await.unwrap();
    let Disk::Sim(sim) = &disk else { unreachable!() };
    let stall = Duration::from_millis(400);
    for call in ["vote", "append", "truncate", "purge", "read"] {
        sim.heal();
        let op = if call == "read" { OpKind::Read } else { OpKind::Sync };
        if call == "read" {
            drop(logs);
            logs = disk.open(); // Nothing is in memory.
        }
        sim.fault(Fault::new(op, Effect::Stall(stall)).times(50));
        let (mut store, begun) = (LogStore::<Types>::new(logs.group(1)), Instant::now());
        let mut work = Box::pin(async move {
            match call {
                "vote" => store.save_vote(&vote(2)).await,
                "append" => append(&mut store, vec![entry(2, 41, "more")]).await,
                "truncate" => store.truncate_after(Some(log_id(2, 40))).await,
                "purge" => store.purge(log_id(1, 1)).await,
                _ => store.try_get_log_entries(2..4).await.map(|entries| assert_eq!(entries.len(), 2)),
            }
        });
        assert!(futures_util::poll!(&mut work).is_pending(), "{call}");
        assert!(begun.elapsed() < stall, "{call} held the runtime for {:?}", begun.elapsed());
        work.await.unwrap();
        assert!(begun.elapsed() >= stall / 2, "{call} was not held by the disk: {:?}", begun.elapsed());
    }
}

/// A disk that fails is told by every way there is.
#[tokio::test]
async fn a_failed_flush_fails_what_waits_for_it() {
    for call in 0..4 {
        let machine = Disk::Sim(SimDisk::new(call));
        let logs = machine.open();
        let mut store = LogStore::<Types>::new(logs.group(1));
        append(&mut store, vec![entry(1, 1, "v"), entry(1, 2, "v")]).await.unwrap();
        let Disk::Sim(disk) = &machine else { unreachable!() };
        disk.fault(Fault::new(OpKind::Sync, Effect::Eio).times(50));
        let failed = match call {
            0 => store.save_vote(&vote(1)).await,
            1 => append(&mut store, vec![entry(1, 3, "v")]).await,
            2 => store.truncate_after(Some(log_id(1, 1))).await,
            _ => store.purge(log_id(1, 1)).await,
        };
        let failed = failed.unwrap_err();
        let source = failed.get_ref().unwrap().downcast_ref::<foreword::Error>();
        assert!(matches!(source, Some(foreword::Error::Poisoned { .. })), "{call}: {failed:?}");
        drop(logs);
        assert!(store.save_vote(&vote(3)).await.is_err(), "its logs are gone");
    }
}

/// What is written is what docs say, byte by byte: what was written once is read for ever.
#[tokio::test]
async fn the_format_is_fixed_and_others_are_refused() {
    let logs = Disk::Sim(SimDisk::new(1)).open();
    let mut store = LogStore::<Types>::new(logs.group(1));
    store.save_vote(&VoteOf::<Types>::new_committed(300, 2)).await.unwrap();
    append(&mut store, vec![entry(300, 1, "v"), EntryOf::<Types>::new(log_id(300, 2), EntryPayload::Blank)]).await.unwrap();
    let membership = Membership::new_with_defaults(vec![[1, 2].into()], []);
    append(&mut store, vec![EntryOf::<Types>::new(log_id(300, 3), EntryPayload::Membership(membership))]).await.unwrap();
    store.save_committed(Some(log_id(300, 2))).await.unwrap();
    let group = store.group().clone();
    assert_eq!(group.vote().unwrap().unwrap(), [1, 0xac, 2, 2, 1]);
    assert_eq!(group.get(1).unwrap().unwrap(), [1, 0xac, 2, 1, 1, 1, 1, b'k', 1, b'v']);
    assert_eq!(group.get(2).unwrap().unwrap(), [1, 0xac, 2, 1, 2, 0]);
    let members = [&[1, 0xac, 2, 1, 3, 2, 1, 2, 1, 2, 2, 1, 9][..], b"localhost", &[2, 9], b"localhost"].concat();
    assert_eq!(group.get(3).unwrap().unwrap(), members);
    assert_eq!(group.committed().unwrap().unwrap().note, [1, 0xac, 2, 1, 2]);
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(300, 2)));
    store.save_committed(None).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), None);

    let other = logs.group(2);
    for (index, (data, why)) in [
        (vec![2, 1, 1, 1, 0], "its format is 2"),
        (vec![], "it is empty"),
        (vec![1, 1, 1, 3, 0, 0], "1 bytes follow"),
        (vec![1, 1, 1], "Hit the end"),
        (vec![1, 1, 1, 9, 0], "it says that it is entry 9"),
    ]
    .into_iter()
    .enumerate()
    {
        other.append([(index as u64 + 1, data)], drop).unwrap();
        let index = index as u64 + 1;
        let error = LogStore::<Types>::new(other.clone()).try_get_log_entries(index..=index).await.unwrap_err();
        let source = error.get_ref().unwrap().downcast_ref::<Undecodable>().unwrap();
        assert_eq!((source.group, source.index, error.kind()), (2, Some(index), io::ErrorKind::InvalidData));
        assert!(source.why.contains(why), "{source}");
    }
}

/// What is more than fits into one batch of the log; what is read in part; ranges that begin in
/// what was purged.
#[tokio::test]
async fn large_appends_and_reads() {
    let logs = Disk::Sim(SimDisk::new(1)).open();
    let mut store = LogStore::<Types>::new(logs.group(1));
    let value = "x".repeat(300_000);
    append(&mut store, (0..12).map(|index| entry(1, index, &value)).collect()).await.unwrap();
    let indices = |entries: io::Result<Vec<EntryOf<Types>>>| entries.unwrap().iter().map(|e| e.log_id.index).collect::<Vec<_>>();
    assert_eq!(indices(store.try_get_log_entries(..).await), (0..12).collect::<Vec<_>>());
    assert_eq!(indices(store.limited_get_log_entries(2, 12).await), [2, 3, 4]);
    store.purge(log_id(1, 4)).await.unwrap();
    assert_eq!(indices(store.try_get_log_entries(0..8).await), [5, 6, 7]);
    assert_eq!(indices(store.try_get_log_entries(0..5).await), [0; 0]);
    assert_eq!(indices(store.try_get_log_entries(12..20).await), [0; 0]);
    store.purge(log_id(2, 30)).await.unwrap();
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(2, 30)), Some(log_id(2, 30))));
    append(&mut store, vec![entry(3, 31, "v")]).await.unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(3, 31)));
}

#[tokio::test]
async fn the_example_runs_to_its_end() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    example::run(dir.path()).await
}
