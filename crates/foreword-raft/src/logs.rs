//! The logs of all groups: opening, closing, and the calls that concern all groups.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use foreword::{Limit, Lsn};

use crate::cache::Cache;
use crate::compact::Compaction;
use crate::compactor::Compactor;
use crate::error::Damage;
use crate::group::Group;
use crate::record::Body;
use crate::recover::{self, Recovered};
use crate::shared::{Shared, Slot};
use crate::sync::lock;
use crate::waiters::Waiters;
use crate::{Error, Options, Result};

impl Options {
    /// Opens the logs in a directory, and creates them if there are none. Blocks: reads the whole
    /// log, to rebuild where each entry is; a log of more than a thousand records with as many
    /// threads besides as there are processors, but no more than four.
    ///
    /// # Errors
    /// [`Error::Log`] as [`foreword::Options::open`]; [`Error::Damaged`] with the groups hit;
    /// [`Error::UnknownRecord`], [`Error::BadRecord`]; [`Error::Invalid`]; [`Error::Thread`].
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<GroupLogs> {
        if !(2..=1_000_000).contains(&self.factor) {
            return Err(Error::Invalid { what: "compact_factor", why: format!("{} is not between 2 and 1000000", self.factor) });
        }
        let on_damage = if self.salvage { foreword::OnDamage::Salvage } else { foreword::OnDamage::Refuse };
        let log = self.log.clone().retain(Limit::NONE).on_damage(on_damage).open(dir)?;
        let Recovered { groups, live, damage } = recover::replay(&log)?;
        if let Some(damage) = &damage
            && !self.open_damaged
        {
            return Err(Error::Damaged(damage.clone()));
        }
        let shared = Arc::new(Shared {
            log,
            groups: Mutex::new(groups),
            waiters: Waiters::default(),
            cache: Cache::new(self.cache_bytes),
            compactor: Compactor::default(),
            live: AtomicU64::new(live),
            moved: AtomicU64::new(0),
            ended: AtomicBool::new(!self.background),
            damage,
            options: self.clone(),
        });
        let logs = GroupLogs { shared, threads: Mutex::default() };
        if self.background {
            logs.start("foreword-raft", |shared| shared.waiters.serve(&shared.log, &shared.cache))?;
            logs.start("foreword-compact", |shared| shared.compact_when_due())?;
        }
        Ok(logs)
    }
}

/// Counters of the logs; see [`GroupLogs::stats`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The bytes of the records in force: entries, votes, and so on.
    pub live_bytes: u64,
    /// The bytes that compaction has written since the logs were opened.
    pub moved_bytes: u64,
    /// The bytes of entries in memory.
    pub cached_bytes: u64,
    /// The number of waiting callbacks.
    pub waiting: u64,
    /// The underlying log's counters.
    pub log: foreword::Stats,
}

/// The logs of many Raft groups, in one [`foreword::Log`].
///
/// Any thread may use this, and any may [close](GroupLogs::close) it. Dropping it closes the logs,
/// too.
pub struct GroupLogs {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for GroupLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupLogs").field("log", &self.shared.log).finish_non_exhaustive()
    }
}

impl GroupLogs {
    /// Opens the logs in a directory with the default [`Options`], and creates them if there are
    /// none. Blocks.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<GroupLogs> {
        Options::new().open(dir)
    }

    /// Options for opening; the same as [`Options::new`].
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    fn start(&self, name: &str, work: impl FnOnce(&Shared) + Send + 'static) -> Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared));
        lock(&self.threads).push(thread.map_err(|error| Error::Thread(Arc::new(error)))?);
        Ok(())
    }

    /// A handle to a group. The group need not exist: its first write creates it. Does not wait for
    /// the disk.
    #[must_use]
    pub fn group(&self, id: u64) -> Group {
        Group { id, slot: self.shared.slot(id), shared: self.shared.clone() }
    }

    /// The ids of all groups that have an entry, a vote, or anything else to keep, in ascending
    /// order. Damaged groups are among them.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let all: Vec<_> = lock(&self.shared.groups).iter().map(|(&id, slot)| (id, slot.clone())).collect();
        let there = |slot: &Slot| lock(&slot.state).is_there();
        let mut ids: Vec<u64> = all.into_iter().filter(|(_, slot)| there(slot)).map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// Removes a group and all that is in its log. Returns whether the group existed. Its handles
    /// return [`Error::Removed`] from then on; a handle taken later begins the group anew. A
    /// [damaged](Error::GroupDamaged) group can be removed, too.
    ///
    /// The removal becomes durable as [`Group::truncate_after`] does: [`sync`](GroupLogs::sync)
    /// waits for that.
    ///
    /// # Errors
    /// [`Error::Log`]: nothing was removed.
    pub fn remove(&self, id: u64) -> Result<bool> {
        let slot = self.shared.slot(id);
        let mut state = lock(&slot.state);
        if state.removed {
            return Ok(false); // Another thread has removed it.
        }
        let there = state.is_there();
        if there || state.last_record > Lsn::ZERO {
            self.shared.write(&mut state, id, false, Body::Removed)?;
        }
        state.removed = true;
        let mut groups = lock(&self.shared.groups);
        groups.remove(&id);
        if self.shared.damage.is_some() {
            // In a damaged log, the absence of an id does not prove that it is free; its removal
            // does.
            groups.insert(id, Arc::default());
        }
        drop(groups);
        drop(state);
        self.shared.after_write();
        Ok(there)
    }

    /// What the log has lost, if it was [opened nevertheless](Options::open_damaged).
    #[must_use]
    pub fn damage(&self) -> Option<Arc<Damage>> {
        self.shared.damage.clone()
    }

    /// Makes everything durable that all groups have written so far. Blocks for a flush.
    ///
    /// # Errors
    /// [`Error::Log`].
    pub fn sync(&self) -> Result<()> {
        let synced = self.shared.log.sync();
        self.shared.after_sync();
        synced?;
        Ok(())
    }

    /// Frees space, as far as that is due: drops the front of the log that no group needs. If the
    /// log then has more than [a factor](Options::compact_factor) times the bytes in force, copies
    /// the oldest records in force to the end, so that an idle group keeps no space. Proceeds in
    /// [steps](Options::compact_step): the copies of a step are durable before their originals are
    /// dropped. Blocks for reads, flushes and truncations; other calls proceed meanwhile.
    ///
    /// The background thread does this by itself. If another thread is compacting, this call does
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Log`]: the next compaction continues. A full disk is no error: compaction then does
    /// what it can.
    pub fn compact(&self) -> Result<Compaction> {
        self.shared.compact()
    }

    /// The current counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        Stats {
            live_bytes: shared.live.load(Ordering::Relaxed),
            moved_bytes: shared.moved.load(Ordering::Relaxed),
            cached_bytes: shared.cache.bytes() as u64,
            waiting: shared.waiters.len() as u64,
            log: shared.log.stats(),
        }
    }

    /// The error because of which the logs accept no more writes. `None` while they work.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.shared.log.failure().map(Error::from)
    }

    /// Closes the logs: makes everything durable that was written, calls all callbacks, and ends
    /// the threads. Blocks for that. From then on, writes through handles to groups fail with
    /// [`Closed`](foreword::Error::Closed). A callback may close the logs; a callback must not wait
    /// for another thread that closes them.
    ///
    /// # Errors
    /// [`Error::Log`] as [`foreword::Log::close`]; the logs are closed nevertheless.
    pub fn close(&self) -> Result<()> {
        let shared = &self.shared;
        let closed = shared.log.close();
        shared.compactor.stop();
        shared.waiters.stop();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                _ = thread.join();
            }
        }
        // Callbacks that arrive after the thread has ended are called by the calls that added them.
        shared.ended.store(true, Ordering::Release);
        shared.after_sync();
        Ok(closed?)
    }
}

impl Drop for GroupLogs {
    fn drop(&mut self) {
        if !matches!(self.shared.log.failure(), Some(foreword::Error::Closed)) || !lock(&self.threads).is_empty() {
            _ = self.close();
        }
    }
}
