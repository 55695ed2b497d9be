//! The adapter to raft-rs: the cases of the tests of its own storage in memory (all but those of
//! how that makes a snapshot), reopened after every write and after a power failure there; and
//! three nodes with power failures.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod machine;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use foreword_raft::adapter::raft_rs::{LogStore, Persisted, Write};
use foreword_sim::SimDisk;
use machine::{Disk, Machine, Machines, Then};
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Message, Snapshot, SnapshotMetadata};
use raft::{Config, Error, GetEntriesContext, RawNode, Storage, StorageError};

type Store = LogStore<Snapshots>;
type Snapshots = Box<dyn Fn(u64, u64) -> raft::Result<Snapshot> + Send>;

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, ..Entry::default() }
}

fn meta(index: u64, term: u64) -> SnapshotMetadata {
    let mut meta = SnapshotMetadata { index, term, ..SnapshotMetadata::default() };
    meta.set_conf_state(ConfState::from((vec![1, 2], vec![])));
    meta
}

fn store(machine: &Machine) -> Store {
    let snapshot = |index, to| Ok(Snapshot { data: vec![index as u8, to as u8].into(), ..Snapshot::default() });
    LogStore::new(machine.group(), Box::new(snapshot))
}

/// Writes, and waits until it is durable; then the machine is reopened, or its power fails.
fn write(machine: &mut Machine, write: Write<'_>) -> raft::Result<()> {
    let (done, durable) = channel();
    store(machine).write(write, move |result| done.send(result).unwrap())?;
    durable.recv().unwrap().unwrap();
    machine.done();
    Ok(())
}

/// Entries 3 to 5, each of the term of its number, behind a snapshot.
fn three(machines: &Machines) -> Machine {
    let mut machine = machines.make();
    let (snapshot, entries) = (meta(2, 2), [entry(3, 3), entry(4, 4), entry(5, 5)]);
    write(&mut machine, Write { snapshot: Some(&snapshot), entries: &entries, ..Write::default() }).unwrap();
    machine
}

fn entries(machine: &Machine, low: u64, high: u64, max: impl Into<Option<u64>>) -> raft::Result<Vec<(u64, u64)>> {
    let entries = store(machine).entries(low, high, max, GetEntriesContext::empty(false))?;
    Ok(entries.iter().map(|entry| (entry.index, entry.term)).collect())
}

const COMPACTED: Error = Error::Store(StorageError::Compacted);
const UNAVAILABLE: Error = Error::Store(StorageError::Unavailable);

fn storage(machines: Machines) {
    // Of a new one.
    let mut new = machines.make();
    let s = store(&new);
    assert_eq!((s.first_index(), s.last_index(), s.term(0), s.term(1)), (Ok(1), Ok(0), Ok(0), Err(UNAVAILABLE)));
    assert!(!s.initial_state().unwrap().initialized());
    assert_eq!(entries(&new, 1, 1, None), Ok(vec![]));
    assert_eq!(&s.snapshot(7, 8).unwrap().data[..], [7, 8]);
    s.save_conf_state(0, &ConfState::from((vec![1, 2, 3], vec![4]))).unwrap();
    new.done();
    assert_eq!(store(&new).initial_state().unwrap().conf_state.learners, [4]);
    assert!(store(&new).initial_state().unwrap().initialized());

    // Terms; the first and the last index.
    let machine = three(&machines);
    let s = store(&machine);
    let terms = [1, 2, 3, 4, 5, 6].map(|index| s.term(index));
    assert_eq!(terms, [Err(COMPACTED), Ok(2), Ok(3), Ok(4), Ok(5), Err(UNAVAILABLE)]);
    assert_eq!((s.first_index(), s.last_index()), (Ok(3), Ok(5)));
    let state = s.initial_state().unwrap();
    assert_eq!((state.hard_state.commit, state.hard_state.term, &state.conf_state.voters[..]), (2, 2, &[1, 2][..]));

    // Ranges of entries, and their size.
    let mut machine = three(&machines);
    write(&mut machine, Write { entries: &[entry(6, 6)], ..Write::default() }).unwrap();
    let size = |indices: &[u64]| indices.iter().map(|&index| u64::from(entry(index, index).compute_size())).sum::<u64>();
    let four = size(&[4]);
    for (low, high, max, expected) in [
        (2, 6, None, Err(COMPACTED)),
        (3, 4, None, Ok(vec![3])),
        (4, 5, None, Ok(vec![4])),
        (4, 6, None, Ok(vec![4, 5])),
        (4, 7, None, Ok(vec![4, 5, 6])),
        (4, 7, Some(0), Ok(vec![4])),
        (4, 7, Some(size(&[4, 5])), Ok(vec![4, 5])),
        (4, 7, Some(size(&[4, 5, 6]) - four / 2), Ok(vec![4, 5])),
        (4, 7, Some(size(&[4, 5, 6]) - 1), Ok(vec![4, 5])),
        (4, 7, Some(size(&[4, 5, 6])), Ok(vec![4, 5, 6])),
        (4, 8, None, Err(UNAVAILABLE)),
    ] {
        let expected = expected.map(|indices| indices.into_iter().map(|index| (index, index)).collect());
        assert_eq!(entries(&machine, low, high, max), expected, "{low}..{high}, {max:?}");
    }

    // Compaction.
    for (index, first) in [(2, 3), (3, 3), (4, 4), (5, 5), (6, 6)] {
        let mut machine = three(&machines);
        store(&machine).compact(index).unwrap();
        write(&mut machine, Write::default()).unwrap();
        assert_eq!((store(&machine).first_index(), store(&machine).last_index()), (Ok(first), Ok(5)));
        assert_eq!(store(&machine).term(first - 1), Ok(first - 1));
        assert_eq!(entries(&machine, first, 6, None).unwrap(), (first..6).map(|index| (index, index)).collect::<Vec<_>>());
        assert_eq!(store(&machine).initial_state().unwrap().hard_state.commit, first - 1, "what was purged was committed");
    }
    assert_eq!(store(&three(&machines)).compact(7), Err(UNAVAILABLE));

    // Entries take the place of others, and leave no hole.
    for (new, expected) in [
        (vec![(3, 3), (4, 4), (5, 5)], Some(vec![(3, 3), (4, 4), (5, 5)])),
        (vec![(3, 3), (4, 6), (5, 6)], Some(vec![(3, 3), (4, 6), (5, 6)])),
        (vec![(3, 3), (4, 4), (5, 5), (6, 5)], Some(vec![(3, 3), (4, 4), (5, 5), (6, 5)])),
        (vec![(2, 3), (3, 3), (4, 5)], None),
        (vec![(4, 5)], Some(vec![(3, 3), (4, 5)])),
        (vec![(6, 6)], Some(vec![(3, 3), (4, 4), (5, 5), (6, 6)])),
        (vec![(7, 6)], None),
    ] {
        let mut machine = three(&machines);
        let new: Vec<Entry> = new.into_iter().map(|(index, term)| entry(index, term)).collect();
        let written = write(&mut machine, Write { entries: &new, ..Write::default() });
        assert_eq!(written.is_ok(), expected.is_some(), "{written:?}");
        let last = store(&machine).last_index().unwrap();
        assert_eq!(entries(&machine, 3, last + 1, None).unwrap(), expected.unwrap_or(vec![(3, 3), (4, 4), (5, 5)]));
    }

    // A snapshot takes the place of all; an older one does not.
    for index in [4, 9] {
        let mut machine = three(&machines);
        let hard_state = HardState { term: 9, vote: 2, commit: index, ..HardState::default() };
        let snapshot = meta(index, 7);
        write(&mut machine, Write { snapshot: Some(&snapshot), hard_state: Some(&hard_state), ..Write::default() }).unwrap();
        let s = store(&machine);
        assert_eq!((s.first_index(), s.last_index(), s.term(index)), (Ok(index + 1), Ok(index), Ok(7)));
        assert_eq!(s.initial_state().unwrap().hard_state, hard_state);
        let older = meta(3, 3);
        let refused = write(&mut machine, Write { snapshot: Some(&older), ..Write::default() });
        assert_eq!(refused, Err(Error::Store(StorageError::SnapshotOutOfDate)));
        write(&mut machine, Write { entries: &[entry(index + 1, 9)], ..Write::default() }).unwrap();
        assert_eq!(entries(&machine, index + 1, index + 2, None), Ok(vec![(index + 1, 9)]));
    }
}

#[test]
fn the_cases_of_its_own_storage() {
    storage(Machines::new(true, Then::Nothing));
    for then in [Then::Nothing, Then::Reopen, Then::PowerFailure, Then::PowerFailures(1 << 32)] {
        storage(Machines::new(false, then));
    }
}

/// What a node has applied, as its state machine keeps it through power failures: it saves it now
/// and then.
#[derive(Clone, Default)]
struct Applied {
    index: u64,
    term: u64,
    values: Vec<u8>,
}

struct Node {
    machine: Machine,
    raft: RawNode<Store>,
    persisted: (Sender<Persisted>, Receiver<Persisted>),
    /// How many of its batches are not durable yet, as far as it knows.
    waiting: usize,
    applied: Applied,
    saved: Arc<Mutex<Applied>>,
}

fn members() -> ConfState {
    ConfState::from((vec![1, 2, 3], vec![]))
}

fn start(id: u64, machine: Machine, saved: Arc<Mutex<Applied>>) -> Node {
    let applied = saved.lock().unwrap().clone();
    let snapshot = {
        let saved = saved.clone();
        move |request: u64, _| {
            let saved = saved.lock().unwrap();
            if saved.index < request || saved.index == 0 {
                return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
            }
            let mut snapshot = Snapshot { data: saved.values.clone().into(), ..Snapshot::default() };
            *snapshot.mut_metadata() = SnapshotMetadata { index: saved.index, term: saved.term, ..SnapshotMetadata::default() };
            snapshot.mut_metadata().set_conf_state(members());
            Ok(snapshot)
        }
    };
    let store: Store = LogStore::new(machine.group(), Box::new(snapshot) as Snapshots).applied(applied.index);
    if !store.initial_state().unwrap().initialized() {
        store.save_conf_state(0, &members()).unwrap();
    }
    let config = Config { id, applied: applied.index, election_tick: 5, heartbeat_tick: 1, ..Config::default() };
    let raft = RawNode::new(&config, store, &slog::Logger::root(slog::Discard, slog::o!())).unwrap();
    Node { machine, raft, persisted: channel(), waiting: 0, applied, saved }
}

impl Node {
    /// Hears of what has become durable; waits for the first if it may.
    fn hear(&mut self, wait: bool, network: &mut Vec<Message>) {
        let heard = if wait && self.waiting > 0 { self.persisted.1.recv().ok() } else { self.persisted.1.try_recv().ok() };
        for Persisted { number, messages, .. } in heard.into_iter().chain(self.persisted.1.try_iter()) {
            self.waiting -= 1;
            self.raft.on_persist_ready(number);
            network.extend(messages);
        }
    }

    fn work(&mut self, network: &mut Vec<Message>, history: &mut BTreeMap<u64, Vec<u8>>) {
        while self.raft.has_ready() {
            let mut ready = self.raft.ready();
            network.extend(ready.take_messages());
            let has_snapshot = !ready.snapshot().is_empty();
            if has_snapshot {
                let meta = ready.snapshot().get_metadata();
                self.applied = Applied { index: meta.index, term: meta.term, values: ready.snapshot().data.to_vec() };
                *self.saved.lock().unwrap() = self.applied.clone();
            }
            for entry in ready.take_committed_entries() {
                let data = entry.data.to_vec();
                assert_eq!(entry.index, self.applied.index + 1, "applied in order");
                let known = history.entry(entry.index).or_insert(data.clone());
                assert_eq!(*known, data, "entry {} was committed, and is another now", entry.index);
                (self.applied.index, self.applied.term) = (entry.index, entry.term);
                self.applied.values.extend(data);
            }
            let persisted = self.persisted.0.clone();
            let done = move |result: foreword_raft::Result<Persisted>| _ = result.map(|done| persisted.send(done));
            self.raft.raft.store().persist(&mut ready, done).unwrap();
            self.waiting += 1;
            self.raft.advance_append_async(ready);
            while has_snapshot && self.waiting > 0 {
                self.hear(true, network); // Raft counts it as applied only then.
            }
            self.raft.advance_apply();
        }
    }
}

/// Power failures, lost messages, snapshots: what one node has applied, no node takes back.
#[test]
fn three_nodes_and_power_failures() {
    let (mut failures, mut snapshots, mut committed) = (0, 0, 0);
    for seed in 0..40 {
        let mut random = random_numbers(seed);
        let mut network = Vec::new();
        let mut history = BTreeMap::new();
        let new = |id: u64| {
            let machine = Machine::new(Disk::Sim(SimDisk::new(seed + id)), Then::PowerFailures(seed << 32), Arc::default());
            start(id, machine, Arc::default())
        };
        let mut nodes: BTreeMap<u64, Node> = (1..=3).map(|id| (id, new(id))).collect();
        let mut proposed = 0;
        for step in 0..700 {
            let calm = step > 600;
            let id = 1 + random(3);
            let node = nodes.get_mut(&id).unwrap();
            match random(20) {
                0..=5 => _ = node.raft.tick(),
                6..=9 if node.raft.raft.state == raft::StateRole::Leader && !calm => {
                    proposed += 1;
                    _ = node.raft.propose(vec![], vec![proposed as u8, (proposed >> 8) as u8]);
                }
                10 if !calm => {
                    let mut node = nodes.remove(&id).unwrap();
                    failures += 1;
                    network.retain(|_| random(2) == 0);
                    node.machine.done();
                    nodes.insert(id, start(id, node.machine, node.saved));
                }
                11 if !calm => {
                    *node.saved.lock().unwrap() = node.applied.clone();
                    let behind = node.applied.index + 1;
                    node.raft.raft.store().compact(behind).unwrap();
                }
                _ => {
                    for _ in 0..4 {
                        if network.is_empty() {
                            break;
                        }
                        let message: Message = network.swap_remove(random(network.len() as u64) as usize);
                        snapshots += u64::from(!message.get_snapshot().is_empty());
                        if let Some(node) = nodes.get_mut(&message.to)
                            && (calm || random(10) > 0)
                        {
                            _ = node.raft.step(message);
                        }
                    }
                }
            }
            for node in nodes.values_mut() {
                node.work(&mut network, &mut history);
                node.hear(calm || random(3) == 0, &mut network);
            }
        }
        let values: Vec<_> = nodes.values().map(|node| &node.applied.values).collect();
        let longest = history.into_values().flatten().collect::<Vec<u8>>();
        assert!(values.iter().all(|&values| longest.starts_with(values)), "{seed}");
        assert!(values.iter().any(|&values| *values == longest), "{seed}: somebody has it all");
        committed += longest.len() / 2;
    }
    println!("{failures} power failures, {snapshots} snapshots, {committed} entries committed");
    assert!(failures > 50 && snapshots > 5 && committed > 200);
}

fn random_numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}
