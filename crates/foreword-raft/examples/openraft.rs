//! Two Raft groups on one node, in one log: each proposes, the process "restarts", and both go on
//! where they were.
//!
//! ```text
//! cargo run -p foreword-raft --features openraft --example openraft [DIR]
//! ```
//!
//! The state machine is in memory. After a restart openraft brings it back: from the log, up to
//! what was committed.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use foreword_raft::adapter::openraft::LogStore;
use foreword_raft::{GroupLogs, Options};
use futures_util::{Stream, TryStreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::{BasicNode, Config, EntryPayload, Raft, RaftNetworkFactory, RaftNetworkV2, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};

/// What is proposed: that a key has a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Set {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

openraft::declare_raft_types!(
    /// The answer to a proposal is the value before.
    pub(crate) Types: D = Set, R = Option<String>
);

/// The state of a group, in memory. Clones are handles to the same.
#[derive(Clone, Default)]
pub(crate) struct Map(Arc<Mutex<State>>);

#[derive(Clone, Default)]
pub(crate) struct State {
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    values: BTreeMap<String, String>,
    snapshot: Option<SnapshotOf<Types, BTreeMap<String, String>>>,
}

impl Map {
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.with(|state| state.values.get(key).cloned())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RaftStateMachine<Types> for Map {
    type SnapshotData = BTreeMap<String, String>;
    type SnapshotBuilder = Map;

    async fn applied_state(&mut self) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        Ok(self.with(|state| (state.applied, state.membership.clone())))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let before = self.with(|state| {
                state.applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => None,
                    EntryPayload::Normal(set) => state.values.insert(set.key, set.value),
                    EntryPayload::Membership(membership) => {
                        state.membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), membership);
                        None
                    }
                }
            });
            if let Some(responder) = responder {
                responder.send(before);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Map {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, values: BTreeMap<String, String>) -> io::Result<()> {
        self.with(|state| {
            let (applied, membership) = (meta.last_log_id, meta.last_membership.clone());
            let snapshot = SnapshotOf::<Types, _> { meta: meta.clone(), snapshot: values.clone() };
            *state = State { applied, membership, values, snapshot: Some(snapshot) };
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, BTreeMap<String, String>>>> {
        Ok(self.with(|state| state.snapshot.clone()))
    }
}

impl RaftSnapshotBuilder<Types> for Map {
    type SnapshotData = BTreeMap<String, String>;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, BTreeMap<String, String>>> {
        Ok(self.with(|state| {
            let meta = SnapshotMetaOf::<Types> { last_log_id: state.applied, last_membership: state.membership.clone() };
            let snapshot = SnapshotOf::<Types, _> { meta, snapshot: state.values.clone() };
            state.snapshot = Some(snapshot.clone());
            snapshot
        }))
    }
}

/// The way to other nodes. There are none.
pub(crate) struct NoNetwork;

fn nobody() -> Unreachable<Types> {
    Unreachable::from_string("there is one node")
}

impl RaftNetworkFactory<Types> for NoNetwork {
    type Network = NoNetwork;

    async fn new_client(&mut self, _target: u64, _node: &BasicNode) -> NoNetwork {
        NoNetwork
    }
}

impl RaftNetworkV2<Types> for NoNetwork {
    type SnapshotData = BTreeMap<String, String>;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(nobody().into())
    }

    async fn vote(&mut self, _request: VoteRequest<Types>, _option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(nobody().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<Types>,
        _snapshot: SnapshotOf<Types, BTreeMap<String, String>>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(nobody().into())
    }
}

/// A group of this node, as a Raft node of its own: what it knows is in the log.
async fn start(logs: &GroupLogs, group: u64) -> Result<(Raft<Types, Map>, Map), Box<dyn Error>> {
    let config = Arc::new(Config { cluster_name: format!("group {group}"), ..Config::default() }.validate()?);
    let map = Map::default();
    let raft = Raft::new(1, config, NoNetwork, LogStore::new(logs.group(group)), map.clone()).await?;
    if !raft.is_initialized().await? {
        raft.initialize(BTreeMap::from([(1, BasicNode::default())])).await?;
    }
    raft.wait(None).state(openraft::ServerState::Leader, "it leads").await?;
    Ok((raft, map))
}

pub(crate) async fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let options = Options::new().log(foreword::Options::new().segment_bytes(1 << 20));
    let logs = options.open(dir)?;
    let (red, _) = start(&logs, 1).await?;
    let (blue, _) = start(&logs, 2).await?;
    for n in 0..100 {
        let set = |color: &str| Set { key: format!("{color} {n}"), value: format!("{}", n * n) };
        let (red, blue) = tokio::join!(red.client_write(set("red")), blue.client_write(set("blue")));
        println!("committed {n} at {} of red and {} of blue", red?.log_id.index, blue?.log_id.index);
    }
    red.shutdown().await?;
    blue.shutdown().await?;
    logs.close()?;
    drop(logs);

    let logs = options.open(dir)?;
    println!("groups after a restart: {:?}", logs.groups());
    for (group, color, other) in [(1, "red", "blue"), (2, "blue", "red")] {
        let (raft, map) = start(&logs, group).await?;
        raft.wait_for_recovery(None).await?;
        for n in 0..100 {
            assert_eq!(map.get(&format!("{color} {n}")), Some(format!("{}", n * n)));
        }
        assert_eq!(map.get(&format!("{other} 1")), None);
        let set = Set { key: format!("{color} 7"), value: "changed".to_owned() };
        let before = raft.client_write(set).await?.data;
        println!("group {group} goes on: {color} 7 was {before:?}");
        assert_eq!(before.as_deref(), Some("49"));
        raft.shutdown().await?;
    }
    logs.close()?;
    Ok(())
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args_os().nth(1);
    run(dir.as_ref().map_or(temporary.path(), Path::new)).await
}
