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
//! | append without waiting for the disk, or for anything; batches, futures | [`Log::append`], [`Log::try_append`], [`Log::commit_batch`], [`Log::commit_async`] |
//! | read: forward, backward, by LSN, by time, along the growing tail | [`Reader`]; from another process, [`View`] |
//! | drop what a checkpoint made unneeded, cut off the back | [`Log::truncate_front`], [`Log::hold`], [`Log::truncate_back`] |
//! | know what opening found | [`Log::recovery`], [`Verdict`], [`verify`] |
//! | do something about an error | [`Error`]: each variant says what |
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
//! Both are off by default, and then there is no code for them. `tracing`: events for operators (recovery verdicts, rotation, slow flushes). `metrics`:
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
mod commit;
mod copying;
pub mod disk;
mod error;
mod fork;
mod format;
pub mod inspect;
mod lock;
mod log;
mod lsn;
mod meters;
mod open;
mod options;
mod pace;
mod publish;
mod reader;
mod recent;
mod recovery;
mod remove;
mod reserve;
mod rotate;
mod segment;
mod stats;
mod strangers;
mod sync;
mod ticket;
mod trace;
mod truncate;
mod verify;
mod view;
mod walk;
mod watch;

pub use error::{Damage, DamageKind, Error, Result};
pub use format::{LogId, ParseLogIdError};
pub use log::{Durability, Log};
pub use lsn::Lsn;
pub use open::{RepairPlan, repair_plan, repair_plan_on};
pub use options::{OnDamage, Options, SyncPolicy};
pub use publish::Published;
pub use reader::{Iter, Reader, Record, RecordRef};
pub use recovery::Verdict;
pub use stats::{Histogram, RecoveryReport, Stats};
pub use ticket::Commit;
pub use verify::{VerifyReport, verify, verify_on};
pub use view::View;
