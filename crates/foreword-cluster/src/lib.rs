//! A log that survives the machine: several nodes agree on its records, by Raft ([openraft]), and
//! each keeps them in a write-ahead log ([foreword], [foreword_raft]).
//!
//! ```
//! use foreword_cluster::{Options, ReplicatedLog};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), foreword_cluster::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = |name| dir.path().join(name);
//! // A cluster of one: the same calls, without a network if nothing listens.
//! let first = Options::new().listen("127.0.0.1:0").open(path("one")).await?;
//! assert_eq!(first.append("hello").await?, 1);
//!
//! // Others join as learners, and vote when they are told to; usually in other processes.
//! let join = |id| Options::new().node(id).listen("127.0.0.1:0").join([first.address()]);
//! let second = join(2).open(path("two")).await?;
//! let third = join(3).open(path("three")).await?;
//! first.promote(2).await?;
//! first.promote(3).await?;
//!
//! // Any node takes any call. This returns when two of the three have it durable.
//! assert_eq!(third.append("world").await?, 2);
//! assert_eq!(second.read(1..).await?.len(), 2);
//!
//! // A call that may be repeated, here or elsewhere, and counts once.
//! let session = second.open_session().await?;
//! assert_eq!(second.append_once(session, 1, ["once"]).await?, 3);
//! first.close().await?; // hands over the lead
//! assert_eq!(third.append_once(session, 1, ["once"]).await?, 3);
//! # second.halt().await?;
//! # third.halt().await
//! # }
//! ```
//!
//! A [`ReplicatedLog`] is a node; a [`Client`] speaks to the nodes from elsewhere, with the same
//! calls. The command `foreword-raft` has both.
//!
//! What is promised, what each error means, and what to do when nodes are lost:
//! [replication](_docs::replication).
//!
//! # What a node keeps
//!
//! The log of the Raft group is the log: a record is stored once on each node, in the entry by
//! which it was agreed on. In memory there is where to find it (16 bytes for each 32 entries or 64
//! KiB), the sessions, and the cache of `foreword_raft`. A checkpoint (the front, the next index,
//! the sessions, the members) is written every 16 MiB of records; the newest of them that no kept
//! record lies before is the snapshot, which a node that was away for long gets first, and the
//! entries behind it after that.
//!
//! # Blocking
//!
//! All calls are asynchronous and need a runtime of tokio, with its clock and its network. What
//! waits for the disk runs on its threads for blocking work; but a node whose last handle is
//! dropped, and was not
//! [closed](ReplicatedLog::close), makes its last flush where that happens.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// What the package's page shows, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Documents that belong to this version, as they are in the repository.
#[cfg(all(doc, not(doctest)))]
pub mod _docs {
    // Of two definitions of a link the first counts.
    #[doc = "[GUARANTEES.md]: https://docs.rs/foreword/latest/foreword/_docs/guarantees\n"]
    #[doc = include_str!("../docs/REPLICATION.md")]
    pub mod replication {}
}

/// `bug!(Name, work)` does the work if a simulation has switched that deliberate bug on. Skip these
/// lines when you read: only tests have them.
macro_rules! bug {
    ($name:ident, $work:expr) => {
        #[cfg(test)]
        if $crate::sim::has($crate::sim::Bug::$name) {
            $work;
        }
    };
}

mod client;
mod error;
mod log;
mod machine;
#[cfg(feature = "metrics")]
mod meters;
mod node;
mod raft;
mod rpc;
#[cfg(test)]
mod sim;
mod status;
mod store;

pub use bytes::Bytes;

pub use client::{Client, Follow};
pub use error::{Error, Result};
pub use log::{Options, ReplicatedLog};
pub use rpc::tls::Tls;
pub use status::{Member, Record, Status};

/// Does what waits for the disk where that keeps no task from running.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    #[cfg(test)]
    let work = match sim::at_once(work) {
        Ok(done) => return Ok(done),
        Err(work) => work,
    };
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)
}
