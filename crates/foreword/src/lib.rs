//! A write-ahead log that recovers by evidence.
//!
//! A log is a directory of segment files; a record is bytes with an [`Lsn`], dense and from 1. The five calls most users need:
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
//! | append without waiting for the disk, or for anything; batches, parts, futures | [`Log::append`], [`Log::try_append`], [`Log::commit_batch`], [`Log::append_parts`], [`Log::commit_async`] |
//! | be told what became durable, or that a segment is complete | [`Options::on_durable`], [`Options::on_rotate`] |
//! | read: forward, backward, by LSN, by time, along the growing tail | [`Reader`]; from another process, [`View`] |
//! | drop what a checkpoint made unneeded, cut off the back | [`Log::truncate_front`], [`Log::hold`], [`Log::truncate_back`] |
//! | know what opening found | [`Log::recovery`], [`Verdict`], [`verify`] |
//! | do something about an error | [`Error`]: each variant says what; [`Error::is_retryable`], [`Log::failure`] |
//! | look into the files | [`inspect`] |
//!
//! In the repository: `docs/GUARANTEES.md` says what is promised, under which assumptions, and what is not detected; `docs/FORMAT.md`, what every byte is and
//! what follows from what is found; `guide/` explains how a log like this one works, with examples to run and exercises (`scripts/guide.sh` makes a book of it).
//!
//! # Buffered, written, synced
//!
//! Three different things, and each call says which one it gives ([`Durability`]): [`append`](Log::append) puts a record in
//! memory and returns its LSN; [`write`](Log::write) gives it to the operating system, so that it survives the process;
//! [`commit`](Log::commit) and [`sync`](Log::sync) make it survive the machine. What nobody waits for becomes durable by the
//! [`SyncPolicy`], in the background. [`commit_async`](Log::commit_async) waits without a thread.
//!
//! # The order of the log is the order of the state
//!
//! A log does not apply records; its user does, and must do so in the order of their LSNs, or recovery ends in another state than the one that was there. So
//! append under the lock that guards the state, which takes a microsecond, and wait for the disk outside of it: those who wait together share a flush.
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
//! What others read meanwhile may not be durable yet. Where that matters, answer them when [`Log::durable_lsn`] has reached the LSN of what they read.
//!
//! # Snapshot, truncate, restart
//!
//! A snapshot names the last LSN that is in it. When it is durable, the records up to there are not needed: a restart loads it, and applies what follows.
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
//! On a full disk, [`Log::commit_checkpoint`] has its room kept, and truncation makes more.
//!
//! # From async code (tokio, or any executor)
//!
//! - *Never blocks for the disk*: [`Log::try_append`]; [`Log::durable_lsn`], [`Log::stats`] and their like; awaiting a [`Commit`] or [`Reader::next_async`].
//! - *Blocks only where buffers are full or no segment is ready*: [`Log::append`], [`Log::commit_async`]. Most tasks may call them as they are.
//! - *Reads files*: [`Reader`], [`Log::iter`], [`Log::get`]; `next_async` and the stream, too, for the records that they return.
//! - *Blocks for flushes*: [`Options::open`], [`Log::commit`], [`Log::sync`], the truncations, [`Log::hold`], [`Log::close`], and the drop of a log that was not closed. In
//!   tokio: `spawn_blocking(move || log.close())`, with a clone of the `Arc<Log>` that the tasks share. Tasks that still use it get [`Error::Closed`], and readers that
//!   wait are told that there is no more.
//!
//! # Evidence
//!
//! After a crash, a log's tail may be torn: that is normal, and it opens by itself. Acknowledged data may rot: that is not
//! normal, and it must not pass for a torn tail. Other logs guess. Here the format carries the evidence: each sector of 512 bytes says whether it
//! was written, each frame says what was durable before it, each segment says where its predecessor ended, and that it has a successor. From
//! that follows a [`Verdict`], by the table in `docs/FORMAT.md`; [`Error::Corruption`] names file, offset, LSNs and evidence.
//!
//! # What is assumed, and what a failure means
//!
//! That an aligned sector is written whole or not at all, and that what a completed sync covered stays (`docs/GUARANTEES.md`). A failed flush is
//! final: the log is [`Poisoned`](Error::Poisoned), nothing is retried on bytes of which nothing is known, and reopening recovers. A full disk
//! is not a failure: [`Error::NoSpace`] comes before anything is half done, and the log goes on when there is room.
//!
//! # Features
//!
//! All are off by default, and then there is no code for them. `stream`: [`Reader`]s as streams (`Reader::into_stream`), for which `futures-core` is needed. `tracing`: events for operators (recovery verdicts, rotation, slow flushes). `metrics`:
//! counters, gauges and histograms for the recorder of the `metrics` facade that is installed when a log is opened; names and units are in
//! `docs/OPERATIONS.md`.

#[cfg(not(foreword_ablation))]
mod ablation;
#[cfg(foreword_ablation)]
#[doc(hidden)]
pub mod ablation;
mod assemble;
mod background;
#[cfg(not(foreword_bug))]
mod bug;
#[cfg(foreword_bug)]
#[doc(hidden)]
pub mod bug;
mod close;
mod commit;
mod copying;
pub mod disk;
mod error;
mod fork;
mod format;
mod hold;
pub mod inspect;
mod limit;
mod lock;
mod log;
mod lsn;
mod meters;
mod open;
mod options;
mod outside;
mod pace;
mod payload;
mod publish;
mod reader;
mod recent;
mod recovery;
mod remove;
mod reserve;
mod rotate;
mod runtime;
mod segment;
mod stats;
mod strangers;
mod sync;
mod tell;
mod text;
mod ticket;
mod trace;
mod truncate;
mod verify;
mod view;
mod walk;
mod watch;

pub use error::{Damage, DamageKind, Error, Result};
pub use format::{LogId, ParseLogIdError};
pub use limit::{Hold, Limit};
pub use log::{Durability, Log};
pub use lsn::Lsn;
pub use open::{RepairPlan, repair_plan, repair_plan_on};
pub use options::{OnDamage, Options, SyncPolicy};
pub use publish::Published;
#[cfg(feature = "stream")]
pub use reader::RecordStream;
pub use reader::{Iter, Reader, Record, RecordRef};
pub use recovery::Verdict;
pub use runtime::Runtime;
pub use stats::{Histogram, RecoveryReport, Stats};
pub use ticket::Commit;
pub use verify::{VerifyReport, verify, verify_on};
pub use view::View;
