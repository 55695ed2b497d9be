//! A disk that crashes and fails on command, in memory and from a seed: for testing what stands on a [foreword] log, and the log itself.
//!
//! [`SimDisk`] takes the place of the operating system's files through [`Options::disk`](foreword::Options::disk). Run your
//! program on it, let the power fail at any write, and open the log on what the disk could then hold:
//!
//! ```
//! use foreword::{Lsn, Options, SyncPolicy};
//! use foreword_sim::SimDisk;
//!
//! let options = |disk: &SimDisk| {
//!     Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual()).on_error(|_| ()).disk(disk.handle())
//! };
//! let run = |disk: &SimDisk| -> foreword::Result<Lsn> {
//!     let log = options(disk).open("/log")?;
//!     log.append(b"perhaps")?;
//!     log.commit(b"for sure")
//! };
//! let disk = SimDisk::new(1);
//! run(&disk)?;
//! for change in 1..=disk.changes() {
//!     let disk = SimDisk::new(1);
//!     disk.power_off_at(change);
//!     let committed = run(&disk).unwrap_or(Lsn::ZERO);
//!     for after in disk.crash_states(64, 7) {
//!         let log = options(&after).open("/log")?;
//!         assert!(log.last_lsn() >= committed);
//!     }
//! }
//! # Ok::<(), foreword::Error>(())
//! ```
//!
//! # What it does
//!
//! - **Data**: each 512-byte sector of each write that was not synced is on the disk after a power failure, or not, whatever becomes of
//!   the others. No sector is half written: what the log assumes of a disk.
//! - **Lengths** that were set, and **names** that were made, changed or removed, likewise, until the file or the directory is synced:
//!   creating and syncing a file does not make its name durable. Changes of the same name or file stay in order, and a rename is
//!   done or not done, as on every journaling file system.
//! - **A killed process** ([`SimDisk::kill`]) leaves everything in the page cache, and nothing more on the disk than there was.
//! - **Faults** ([`Fault`]): errors, with pages dropped by a failed sync; a full disk; short and interrupted calls; lost, misdirected and
//!   flipped writes; syncs that lie; stalls. [`SimDisk::flip`] and its like damage what lies there.
//!
//! What it does not: invent data that nobody wrote, tear a sector, or lose what was synced, unless a fault says so. Directories are durable once made.
//!
//! # The suite
//!
//! [`suite`] is the test of the log itself, by a model: every crash state of small workloads, random long ones, and
//! every kind of damage. `cargo run -p foreword-sim --release -- --seeds 1000` runs it for as long as you like.

mod content;
mod disk;
mod faults;
mod rng;
mod state;
pub mod suite;

pub use disk::{Choice, SimDisk};
pub use faults::{Effect, Fault, Op, OpKind};

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR: usize = 512;
