//! A disk in memory that crashes and fails on command, as a seed decides: to test what is built on
//! a [foreword] log, and the log itself.
//!
//! [`SimDisk`] takes the place of the operating system's files through
//! [`Options::disk`](foreword::Options::disk). Run a program on it, let the power fail at any
//! write, and open the log on what the disk could then hold:
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
//! - **Data**: after a power failure the disk has each 512-byte sector of each write that was not
//!   synced, or lacks it, whatever becomes of the other sectors. No sector is half written: that is
//!   what the log assumes of a disk.
//! - **Lengths** that were set, and **names** that were made, changed or removed, likewise, until
//!   the file or the directory is synced. Creating and syncing a file does not make its name
//!   durable. Changes of the same name or file stay in order, and a rename is done or not done, as
//!   on every journaling file system.
//! - **A killed process** ([`SimDisk::kill`]) leaves everything in the page cache. The disk stays
//!   as it was.
//! - **Faults** ([`Fault`]): errors, with pages dropped by a failed sync; a full disk; short and
//!   interrupted calls; lost, misdirected and flipped writes; syncs that lie; stalls.
//!   [`SimDisk::flip`] and its like damage what lies there.
//!
//! The disk never invents data, tears a sector, or loses what was synced, unless a fault does so.
//! Directories are durable once made. Each takes a page.
//!
//! # The suite
//!
//! [`suite`] is the test of the log itself, by a model: every crash state of small workloads, long
//! random workloads, and every kind of damage. To run as many random workloads as you like: `cargo
//! run -p foreword-sim --release -- --seeds 1000`.

mod content;
mod disk;
mod faults;
mod rng;
mod state;
pub mod suite;

pub use disk::{Choice, SimDisk};
pub use faults::{Effect, Fault, Op, OpKind};

/// Bytes that a disk writes as a whole or not at all.
pub const SECTOR: usize = 512;
