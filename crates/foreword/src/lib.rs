//! A write-ahead log that recovers by evidence.
//!
//! A log is a directory of segment files; a record is bytes with an [`Lsn`], dense and from 1. The
//! five calls most users need:
//!
//! ```
//! # fn main() -> Result<(), foreword::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! use foreword::{Log, Lsn};
//!
//! let log = Log::open(dir.path())?; //          recovers, if there is anything to recover
//! log.commit(b"set x = 1")?; //                 durable when it returns; concurrent commits share a flush
//! for record in log.iter(Lsn::ZERO) {
//!     println!("{:?}", record?); //             only what is durable
//! }
//! log.truncate_front(Lsn(2))?; //               a checkpoint made record 1 unneeded
//! log.close()?; //                              a last sync, whose error is not lost
//! # Ok(()) }
//! ```
//!
//! | to | see |
//! |---|---|
//! | choose options | [`Options`], [`SyncPolicy`] |
//! | append without waiting for the disk, or for anything; batches, parts, futures | [`Log::append`], [`Log::try_append`], [`Log::commit_batch`], [`Log::append_parts`], [`Log::append_batch_parts`], [`Log::commit_async`] |
//! | be told what became durable, or that a segment is complete | [`Options::on_durable`], [`Options::on_rotate`] |
//! | read: forward, backward, by LSN, by time, along the growing tail | [`Reader`]; from another process, [`View`] |
//! | drop what a checkpoint made unneeded, cut off the back | [`Log::truncate_front`], [`Log::truncate_back`] |
//! | keep what others need, here or in other processes; keep a week, or so many bytes | [`Log::hold`], [`View::hold`], [`Limit`]; [`Options::retain`] |
//! | have many logs in one process | [`Runtime`] |
//! | know what opening found | [`Log::recovery`], [`Verdict`], [`verify`] |
//! | do something about an error | [`Error`]: each variant says what; [`Error::is_retryable`], [`Log::failure`] |
//! | look into the files | [`inspect`] |
//!
//! The documents that belong to this version: [what is promised](_docs::guarantees), under which
//! assumptions, and what is not detected; [what every byte is](_docs::format), and what follows
//! from what is found; [operations](_docs::operations): sizing, alarms, backups, metrics, what to
//! do for each verdict. In the repository, `guide/` explains how a log like this one works, with
//! examples to run and exercises.
//!
//! Three programs that an engine's author would write are among the crate's examples:
//! [`kv`](https://docs.rs/crate/foreword/latest/source/examples/kv.rs), a key-value store with
//! snapshots; [`queue`](https://docs.rs/crate/foreword/latest/source/examples/queue.rs), a task
//! queue on tokio; [`outbox`](https://docs.rs/crate/foreword/latest/source/examples/outbox.rs),
//! which ships records elsewhere.
//!
//! # Buffered, written, synced
//!
//! Three different things, and each call says which one it gives ([`Durability`]):
//! [`append`](Log::append) puts a record in memory and returns its LSN; [`write`](Log::write) gives
//! it to the operating system, so that it survives the process; [`commit`](Log::commit) and
//! [`sync`](Log::sync) make it survive the machine. What no caller waits for becomes durable by the
//! [`SyncPolicy`], in the background. [`commit_async`](Log::commit_async) waits without a thread.
//!
//! # The order of the log is the order of the state
//!
//! A log does not apply records; its user does, and must do so in the order of their LSNs, or
//! recovery ends in another state than the one that was there. So append under the lock that guards
//! the state, which takes a microsecond, and wait for the disk outside of it: threads that wait
//! together share a flush.
//!
//! ```
//! # fn main() -> Result<(), foreword::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//! let state = Mutex::new(HashMap::new());
//! let set = |key: &'static str, value: u32| -> Result<(), foreword::Error> {
//!     let mut state = state.lock().unwrap();
//!     let lsn = log.append(format!("{key}={value}"))?; // its place in the order
//!     state.insert(key, value); //                        the same order
//!     drop(state);
//!     log.sync_to(lsn) //                                 durable before it is acknowledged
//! };
//! std::thread::scope(|s| {
//!     s.spawn(|| set("x", 1));
//!     s.spawn(|| set("x", 2));
//! });
//! let last = log.get(log.last_lsn())?;
//! assert_eq!(last, format!("x={}", state.lock().unwrap()["x"]).as_bytes());
//! # log.close() }
//! ```
//!
//! What others read meanwhile may not be durable yet. Where that matters, answer them when
//! [`Log::durable_lsn`] has reached the LSN of what they read.
//!
//! If `append` fails, nothing has changed, in the log or in the state. If the wait fails, the log
//! is [poisoned](Error::Poisoned), and the state may hold more than a restart will bring back:
//! answer no request from it any more, drop it, and open the log again.
//!
//! # Snapshot, truncate, restart
//!
//! A snapshot names the last LSN that is in it: [`Log::last_lsn`], asked for under the lock that
//! appends are made under. When it is durable, the records up to there are not needed: a restart
//! loads it, and applies what follows.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let options = foreword::Options::new().segment_bytes(1 << 20);
//! use foreword::Lsn;
//! # let snapshot = dir.path().join("snapshot");
//! let log = options.open(dir.path().join("log"))?;
//! let mut sum = 0;
//! for n in 1..=10u64 {
//!     log.append(n.to_le_bytes())?;
//!     sum += n;
//! }
//! let last = log.sync()?; //                                      before the snapshot says that it holds them
//! std::fs::write(&snapshot, format!("{last} {sum}"))?; //         (durably: a new file, synced, renamed, its directory synced)
//! log.truncate_front(last.next())?;
//! log.commit(11u64.to_le_bytes())?;
//! log.close()?;
//!
//! let text = std::fs::read_to_string(&snapshot)?;
//! let (last, sum) = text.split_once(' ').unwrap();
//! let (last, mut sum) = (Lsn(last.parse()?), sum.parse::<u64>()?);
//! let log = options.expect_lsn(last).open(dir.path().join("log"))?; // it refuses an older log than the snapshot
//! for record in log.iter(last.next()) {
//!     sum += u64::from_le_bytes(record?.data.try_into().unwrap());
//! }
//! assert_eq!(sum, 66);
//! # Ok(()) }
//! ```
//!
//! A crash between the two steps leaves records that the snapshot has, too: nothing is applied
//! twice, for the restart begins behind its LSN. A log that is older than the snapshot, or is not
//! there at all, is [`Error::RolledBack`] ([`Options::expect_lsn`]); an older snapshot, whose
//! records were dropped, is [`Error::Dropped`] from the first record read.
//!
//! On a full disk, [`Log::commit_checkpoint`] has its room kept, and truncation makes more. What
//! others still need, an archiver or a replica, they keep by a [hold](Log::hold); its LSN is also
//! where they go on after a restart ([`Log::holds`]).
//!
//! # From async code (tokio, or any executor)
//!
//! - *Never blocks for the disk*: [`Log::try_append`]; [`Log::durable_lsn`], [`Log::stats`] and
//!   their like; awaiting a [`Commit`] or [`Reader::next_async`]; the drop of a log that was
//!   closed.
//! - *Blocks only where buffers are full or no segment is ready*: [`Log::append`],
//!   [`Log::commit_async`]. Most tasks may call them as they are.
//! - *Reads files*: [`Reader`], [`Log::iter`], [`Log::get`]; `next_async` and the stream, too, for
//!   the records that they return, in reads of up to 256 KiB. A task that follows the tail mostly
//!   finds them in memory; a replay from the start belongs on a thread that may block.
//! - *Blocks for flushes*: [`Options::open`], [`Log::commit`], [`Log::sync`], the truncations,
//!   [`Log::hold`], [`Log::close`], and the drop of a log that was not closed.
//!
//! What blocks goes to `spawn_blocking`, with a clone of the `Arc<Log>` that the tasks share. The
//! task that ends the program closes the log, whichever others have a clone: tasks that still write
//! get [`Error::Closed`], commits that are awaited complete, and readers that wait are told that
//! there is no more.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let dir = tempfile::tempdir()?;
//! # let (dir, options) = (dir.path().to_owned(), foreword::Options::new().segment_bytes(1 << 20));
//! use std::sync::Arc;
//! use tokio::task::spawn_blocking;
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let log = Arc::new(spawn_blocking(move || options.open(dir)).await??);
//! let mut reader = log.reader();
//! let follower = tokio::spawn(async move {
//!     let mut seen = 0;
//!     while let Some(record) = reader.next_async().await? { // None: it was closed, and all of it is read
//!         seen += record.data.len();
//!     }
//!     Ok::<_, foreword::Error>(seen)
//! });
//! let lsn = log.commit_async("durable when awaited")?.await?;
//! let shared = log.clone();
//! spawn_blocking(move || shared.close()).await??;
//! assert_eq!(follower.await??, 20);
//! # Ok(()) }) }
//! ```
//!
//! # Evidence
//!
//! After a crash, a log's tail may be torn: that is normal, and it opens by itself. Acknowledged
//! data may rot: that is not normal, and it must not pass for a torn tail. Other logs guess. Here
//! the format carries the evidence: each sector of 512 bytes says whether it was written, each
//! frame says what was durable before it, each segment says where its predecessor ended, and that
//! it has a successor. From that follows a [`Verdict`], by [the table](_docs::format);
//! [`Error::Corruption`] names file, offset, LSNs and evidence.
//!
//! # What is assumed, and what a failure means
//!
//! That an aligned sector is written whole or not at all, and that what a completed sync covered
//! stays ([all of it](_docs::guarantees)). A failed flush is final: the log is
//! [`Poisoned`](Error::Poisoned), nothing is retried on bytes of which nothing is known, and
//! reopening recovers. A full disk is not a failure: [`Error::NoSpace`] comes before anything is
//! half done, and the log goes on when there is room.
//!
//! # Features
//!
//! All are off by default, and then there is no code for them. `stream`: [`Reader`]s as streams
//! (`Reader::into_stream`), for which `futures-core` is needed. `tracing`: events for operators
//! (recovery verdicts, rotation, slow flushes). `metrics`: counters, gauges and histograms for the
//! recorder of the `metrics` facade that is installed when a log is opened; names and units are in
//! [operations](_docs::operations).

/// Documents that belong to this version, as they are in the repository.
#[cfg(all(doc, not(doctest)))]
pub mod _docs {
    // Of two definitions of a link the first counts: so what leads to a file there leads to a page
    // here.
    #[doc = "[OPERATIONS.md]: crate::_docs::operations"]
    #[doc = "[FORMAT.md]: crate::_docs::format\n"]
    #[doc = include_str!("../docs/GUARANTEES.md")]
    pub mod guarantees {}

    #[doc = include_str!("../docs/FORMAT.md")]
    pub mod format {}

    #[doc = "[FORMAT.md]: crate::_docs::format"]
    #[doc = "[alerts.yml]: https://docs.rs/crate/foreword/latest/source/docs/alerts.yml\n"]
    #[doc = "[grafana.json]: https://docs.rs/crate/foreword/latest/source/docs/grafana.json\n"]
    #[doc = include_str!("../docs/OPERATIONS.md")]
    pub mod operations {}
}

/// What the package's page shows, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod assemble;
#[cfg(not(foreword_bug))]
mod bug;
#[cfg(foreword_bug)]
#[doc(hidden)]
pub mod bug;
mod error;
mod files;
mod format;
pub mod inspect;
mod limit;
mod log;
mod lsn;
mod observe;
mod open;
mod options;
mod read;
mod recovery;
mod strangers;
mod sync;
mod trace;
mod write;

pub use error::{Damage, DamageKind, Error, Result};
pub use files::disk;
pub use format::{LogId, ParseLogIdError};
pub use limit::{Hold, Limit};
pub use log::{Durability, Log};
pub use lsn::Lsn;
pub use observe::publish::Published;
pub use observe::stats::{Histogram, RecoveryReport, Stats};
pub use open::repair::{RepairPlan, repair_plan, repair_plan_on};
pub use options::{BackgroundError, Durable, OnDamage, Options, Rotated, SyncPolicy};
pub use read::iter::Iter;
pub use read::reader::Reader;
pub use read::record::{Record, RecordRef};
#[cfg(feature = "stream")]
pub use read::stream::RecordStream;
pub use read::verify::{Verify, VerifyProgress, VerifyReport, verify};
pub use read::view::View;
pub use recovery::Verdict;
pub use write::runtime::Runtime;
pub use write::ticket::Commit;
