//! The logs of many Raft groups in one write-ahead log [foreword].
//!
//! A node of a Raft system has many groups. Each group needs a durable vote, and a log of entries
//! that is appended to, truncated at the back and purged at the front. This crate writes all of
//! them as records of one [`foreword::Log`]. So the groups share its flushes, and votes and entries
//! cannot overtake each other on the disk.
//!
//! ```
//! # fn main() -> Result<(), foreword_raft::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let options = foreword_raft::Options::new().log(foreword::Options::new().segment_bytes(1 << 20));
//! let logs = options.open(dir.path())?;
//! let group = logs.group(7); //                                  its first write makes it
//! group.save_vote("term 1, for me")?; //                         durable when it returns
//! let (flushed, durable) = std::sync::mpsc::channel();
//! group.append([(1, "set x"), (2, "set y")], move |result| flushed.send(result).unwrap())?;
//! assert_eq!(group.get(2)?.unwrap(), b"set y"); //               readable, and perhaps not durable yet
//! durable.recv().unwrap()?; //                                   now it is
//! group.truncate_after(1)?; //                                   another leader has another entry 2
//! group.purge(1, "term 1")?; //                                  a snapshot stands for entry 1
//! logs.close()?; //                                              or the power fails
//!
//! let logs = options.open(dir.path())?;
//! assert_eq!(logs.group(7).vote()?.unwrap(), b"term 1, for me");
//! assert_eq!(logs.group(7).last()?, Some(1));
//! # logs.close()
//! # }
//! ```
//!
//! This is the core. It knows indices, but neither terms nor the types of any library: votes,
//! entries, and the notes with purged and committed indices are the caller's bytes.
//! [Adapters](#adapters) make storages for Raft libraries of it.
//!
//! # What is durable when
//!
//! | call | when it returns |
//! |---|---|
//! | [`Group::save_vote`], [`Group::commit`] | durable, with all that the group wrote before |
//! | [`Group::begin_commit`] | readable; durable when [`Commit::wait`] returns |
//! | [`Group::append`] | readable; durable when the callback is called with `Ok` |
//! | [`Group::truncate_after`], [`Group::purge`], [`Group::save_committed`], [`GroupLogs::remove`] | in force; durable with whatever is written and made durable after it, or by [`foreword::Options::sync`], by default within 100 ms |
//! | [`Group::sync`], [`GroupLogs::sync`], [`GroupLogs::close`] | durable, with all before |
//!
//! The calls on all groups have one order: that of their records in the log. A crash leaves a
//! prefix of that order, with everything that was acknowledged. So no truncated entry comes back
//! behind a later acknowledged one, no vote is older than one that was saved, and no entry is
//! missing between others. This holds for a crash at any point, also during compaction and opening.
//!
//! One thread calls the callbacks of all groups, and makes their records durable. Callbacks that
//! arrive during a flush share the next flush. If the log fails, all waiting callbacks get its
//! error. If the log is closed, callbacks whose records are not durable get an error; after a
//! successful [`GroupLogs::close`] there are none.
//!
//! # Space
//!
//! A record is *in force* if its group's state needs it. The log is dropped up to the first record
//! in force. An idle group would therefore keep everything that other groups write behind its
//! records. Compaction prevents that. It runs when the log has more than [a
//! factor](Options::compact_factor) times the bytes in force, and more than [a
//! slack](Options::compact_slack) beside them. It writes the oldest records in force again at the
//! end, and drops the front when the copies are durable. With a factor of *f*, the copies are at
//! most 1/(*f* - 1) of what the groups write, plus one pass through the log. [`GroupLogs::stats`]
//! has the number of copied bytes.
//!
//! On a full disk, writes fail with [`NoSpace`](foreword::Error::NoSpace) and change nothing.
//! [`Group::purge`] and [`GroupLogs::remove`] still work, in the space that the log reserves.
//! Compaction drops what no group needs; to copy records, it needs space.
//!
//! # Memory
//!
//! The logs use about 13 bytes of memory for each entry, wherever its bytes are; under 1 KiB for a
//! group with few entries, plus its vote and notes; the entries that are not durable yet; and [a
//! cache](Options::cache_bytes) of the newest entries of all groups. Opening uses the same, and up to
//! 8 MiB and a record for each of at most four threads that read.
//!
//! # Damage
//!
//! If the log is damaged, opening fails with [`Corruption`](foreword::Error::Corruption). If the
//! damaged part is given up ([`Options::salvage`], or `foreword repair`), records of groups are
//! missing, and a Raft node that lost a vote or an entry may break its group's promises. So opening
//! then fails with [`Error::Damaged`], which names the groups and the indices. Each record names
//! the previous record of its group. A group is whole if its first record behind the gap names a
//! record before the gap. A group without a record behind the gap may have lost some, and counts as
//! damaged. [`Options::open_damaged`] opens the logs nevertheless, and refuses only these groups.
//!
//! This crate does not detect what the log itself does not: an older copy of the whole directory
//! (see [`foreword::Options::expect_lsn`]), or a log that was repaired by truncating it at the
//! damage.

//! # Adapters
//!
//! Each is a feature of its own, and none is on by default.
//!
//! | feature | library | what it has |
//! |---|---|---|
//! | `openraft` | openraft 0.10.0-alpha.37, exactly | `adapter::openraft::LogStore`: `RaftLogStorage`, `RaftLogReader` |
//! | `openraft-09` | openraft 0.9 | `adapter::openraft_09::LogStore`: the same of 0.9, with its feature `storage-v2` |
//! | `raft-rs` | raft 0.7, with its default codec | `adapter::raft_rs::LogStore`: `Storage`, and what persists a `Ready` |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

/// What the package's page shows, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(any(feature = "openraft", feature = "openraft-09", feature = "raft-rs"))]
pub mod adapter;
mod batch;
mod cache;
mod compact;
mod compactor;
mod error;
mod group;
mod index;
mod logs;
mod options;
mod record;
mod recover;
mod shared;
mod state;
mod sync;
mod waiters;

pub use compact::Compaction;
pub use error::{Damage, DamagedGroup, Error, Result};
#[doc(hidden)]
pub use group::bounds;
pub use group::{Commit, Entry, Group, Noted};
pub use logs::{GroupLogs, Stats};
pub use options::Options;
