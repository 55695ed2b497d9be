//! The logs of many Raft groups in one write-ahead log [foreword].
//!
//! A node of a Raft system has many groups, and each needs a durable vote and a log of entries that is appended to, cut at the back and purged at the front. Here all
//! of them are records of one [`foreword::Log`], so that the groups share its flushes, and votes and entries cannot overtake each other on the disk.
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
//! This is the core, for adapters to Raft libraries: it knows indices, and neither terms nor the types of any library. **The adapters are not there yet.** Votes, entries and the
//! notes with purged and committed indices are bytes of the caller's.
//!
//! # What is durable when
//!
//! | call | when it returns |
//! |---|---|
//! | [`Group::save_vote`] | durable, with all that the group wrote before |
//! | [`Group::append`] | readable; durable when the callback is called with `Ok` |
//! | [`Group::truncate_after`], [`Group::purge`], [`Group::save_committed`], [`GroupLogs::remove`] | in force; durable with whatever is written and made durable after it, or by [`foreword::Options::sync`], by default within 100 ms |
//! | [`Group::sync`], [`GroupLogs::sync`], [`GroupLogs::close`] | durable, with all before |
//!
//! All calls on all groups have one order, that of the records in the log. What is there after a crash is a prefix of it, with all that was acknowledged. So no entry that was truncated
//! comes back behind a later one that was acknowledged, no vote is older than one that was saved, and no entry is missing between others. This holds for a crash at any point,
//! also in compaction and in opening.
//!
//! Callbacks are called on one thread for all groups, which makes durable what they wait for: while it flushes, more gather, and share the next flush. A log that fails
//! calls all that wait with its error; so does one that is closed, unless they are durable by then, as they are if [`GroupLogs::close`] succeeds.
//!
//! # Space
//!
//! A record is *in force* if its group's state needs it. The front of the log goes up to the first that is. A group that is idle would so keep all that others write behind it:
//! where the log has more than [so many times](Options::compact_factor) the bytes in force, and more than [a slack](Options::compact_slack) beside them, those at the front are written again
//! at the end, the oldest first, and the front is dropped when the copies are durable. With a factor of *f*, the copies are at most 1/(*f* - 1) of what the groups write, and one
//! lap through the log. [`GroupLogs::stats`] says how many bytes it was.
//!
//! On a full disk, writes are [`NoSpace`](foreword::Error::NoSpace), and nothing is changed by them. [`Group::purge`] and [`GroupLogs::remove`] work, from the room that the log keeps for
//! itself, and so does compaction as far as the front has become unneeded; copies need room.
//!
//! # Memory
//!
//! About 13 bytes for each entry, wherever its bytes are; under 1 KiB for a group with few of them, and its vote and notes; the entries that are not durable; and
//! [a cache](Options::cache_bytes) of the newest, for all groups together. While the logs are opened, the same, and one record.
//!
//! # Damage
//!
//! Damage in the log is [`Corruption`](foreword::Error::Corruption), and nothing is opened. If what is damaged is given up ([`Options::salvage`], or `foreword repair`), records of groups are
//! missing, and a Raft node that lost a vote or an entry may break what its group has promised. So opening is [`Error::Damaged`], which names the groups and the indices. Each record names the one of
//! its group before it: a group is whole if a record behind the gap says that none of its own is in it. A group that says nothing behind the gap may have been hit, and counts as damaged.
//! [`Options::open_damaged`] opens the logs all the same, and refuses these groups alone.
//!
//! What the log itself does not detect is not detected here: an older copy of the whole directory ([`foreword::Options::expect_lsn`]), or a log that was repaired by
//! cutting it off at the damage.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

/// What the package's page shows, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod cache;
mod compact;
mod error;
mod group;
mod index;
mod logs;
mod record;
mod recover;
mod state;
mod waiters;

pub use compact::Compaction;
pub use error::{Damage, DamagedGroup, Error, Result};
pub use group::{Entry, Group, Noted};
pub use logs::{GroupLogs, Options, Stats};
