//! The logs of all groups: opening, closing, and what the groups share.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use foreword::{Limit, Log, Lsn};

use crate::cache::Cache;
use crate::compact::{Compaction, Compactor};
use crate::error::{Damage, DamagedGroup};
use crate::group::{Group, Slot};
use crate::index::Place;
use crate::record::{Body, Previous, Record};
use crate::recover::{self, Recovered};
use crate::state::GroupState;
use crate::waiters::{Waiters, lock};
use crate::{Error, Result};

/// How the logs are opened. The defaults are right for most.
///
/// ```
/// # fn main() -> Result<(), foreword_raft::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let log = foreword::Options::new().segment_bytes(1 << 20);
/// let logs = foreword_raft::Options::new().log(log).cache_bytes(4 << 20).open(dir.path())?;
/// logs.close()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) log: foreword::Options,
    pub(crate) cache_bytes: usize,
    pub(crate) factor: u64,
    pub(crate) slack: u64,
    pub(crate) step: u64,
    pub(crate) background: bool,
    salvage: bool,
    open_damaged: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Options {
        Options {
            log: foreword::Options::new(),
            cache_bytes: 64 << 20,
            factor: 4,
            slack: 64 << 20,
            step: 1 << 20,
            background: true,
            salvage: false,
            open_damaged: false,
        }
    }

    /// How the one log is opened. Two of its options are not used: [`retain`](foreword::Options::retain), for compaction alone knows what may be dropped; and
    /// [`on_damage`](foreword::Options::on_damage), see [`salvage`](Options::salvage).
    #[must_use]
    pub fn log(mut self, options: foreword::Options) -> Options {
        self.log = options;
        self
    }

    /// How many bytes of the newest entries are kept in memory, for all groups together; 64 MiB by default. Entries that are not durable are kept in any case.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Options {
        self.cache_bytes = bytes;
        self
    }

    /// How many times the bytes in force the log may have before compaction rewrites them: 2 to 1,000,000; 4 by default. With a factor *f*, compaction writes at most
    /// 1/(*f* - 1) of the bytes that the groups write, in the long run: a third with 4.
    #[must_use]
    pub fn compact_factor(mut self, factor: u64) -> Options {
        self.factor = factor;
        self
    }

    /// How many bytes that are not in force the log may have in any case: 64 MiB by default. With less than a segment, compaction frees nothing the sooner.
    #[must_use]
    pub fn compact_slack(mut self, bytes: u64) -> Options {
        self.slack = bytes;
        self
    }

    /// After how many rewritten bytes compaction makes them durable and drops what they stood for: 1 MiB by default. So much, and one record, is in memory for it.
    #[must_use]
    pub fn compact_step(mut self, bytes: u64) -> Options {
        self.step = bytes;
        self
    }

    /// Whether there are threads, one that makes durable what callbacks wait for, and calls them, and one for compaction (the default). Without, the calls that make records durable
    /// call the callbacks, and [`compact`](GroupLogs::compact) is the caller's to call: for tests. The log's own thread is
    /// [another option](foreword::Options::background).
    #[must_use]
    pub fn background(mut self, background: bool) -> Options {
        self.background = background;
        self
    }

    /// Whether what is damaged in the log is given up ([`foreword::OnDamage::Salvage`]). Without (the default) that is
    /// [`Corruption`](foreword::Error::Corruption), and nothing is changed. After a salvage, opening is [`Error::Damaged`], unless
    /// [`open_damaged`](Options::open_damaged) is set.
    #[must_use]
    pub fn salvage(mut self, salvage: bool) -> Options {
        self.salvage = salvage;
        self
    }

    /// Whether logs are opened of which a part was given up. Then each call on a group that is not proven to be whole is [`Error::GroupDamaged`], also on one that is not in
    /// the log, for it may have been only in that part. [`GroupLogs::remove`] gives such a group up; the others work. Such a log is not compacted, so that it keeps what it knows.
    #[must_use]
    pub fn open_damaged(mut self, open: bool) -> Options {
        self.open_damaged = open;
        self
    }

    /// Opens the logs in a directory, making them if there are none. Blocks: it reads the whole log, and rebuilds from it where each entry stands.
    ///
    /// # Errors
    /// [`Error::Log`] as [`foreword::Options::open`]; [`Error::Damaged`] with the groups hit; [`Error::UnknownRecord`], [`Error::BadRecord`]; [`Error::Invalid`];
    /// [`Error::Thread`].
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

/// What the groups share.
pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) groups: Mutex<HashMap<u64, Arc<Slot>>>,
    pub(crate) waiters: Waiters,
    pub(crate) cache: Cache,
    pub(crate) compactor: Compactor,
    /// The bytes of the records in force.
    pub(crate) live: AtomicU64,
    /// The bytes that compaction has written.
    pub(crate) moved: AtomicU64,
    /// There is no thread that calls callbacks, or none any more.
    ended: AtomicBool,
    pub(crate) damage: Option<Arc<Damage>>,
    pub(crate) options: Options,
}

impl Shared {
    /// Appends a record and makes it count, under the lock of its group. If it fails, nothing has changed.
    ///
    /// What frees space does not need any: on a full disk it goes where the log keeps room for checkpoints (and is durable then).
    pub(crate) fn write(&self, state: &mut GroupState, group: u64, moved: bool, body: Body<'_>) -> Result<Place> {
        let record = Record { group, previous: Previous::after(state.last_record), moved, body };
        let bytes = record.encode();
        let lsn = match self.log.append(&bytes) {
            Err(foreword::Error::NoSpace { .. }) if !moved && matches!(body, Body::Purge(..) | Body::Removed) => {
                self.log.commit_checkpoint(&bytes)?
            }
            appended => appended?,
        };
        self.apply(state, lsn, bytes.len(), &record);
        Ok(Place { lsn, bytes: bytes.len() as u32 })
    }

    pub(crate) fn apply(&self, state: &mut GroupState, lsn: Lsn, bytes: usize, record: &Record<'_>) {
        let before = state.live_bytes();
        state.apply(lsn, bytes, record);
        let after = state.live_bytes();
        self.live.fetch_add(after.wrapping_sub(before), Ordering::Relaxed); // It wraps back.
        self.compactor.note(bytes as u64 + before.saturating_sub(after));
    }

    /// What is due after a write, under no lock.
    pub(crate) fn after_write(&self) {
        self.compactor.wake_if_due(self.options.slack);
        if self.ended.load(Ordering::Acquire) {
            self.waiters.settle(&self.log);
        }
    }

    /// What is due after records became durable, under no lock.
    pub(crate) fn after_sync(&self) {
        if self.ended.load(Ordering::Acquire) {
            self.waiters.settle(&self.log);
            self.cache.trim(self.log.durable_lsn());
        }
    }

    fn slot(&self, id: u64) -> Arc<Slot> {
        lock(&self.groups)
            .entry(id)
            .or_insert_with(|| {
                // A group that is not in a log that has lost records may have been in what is lost.
                let unknown = || Box::new(DamagedGroup { group: id, missing: Vec::new(), proven: false });
                let damaged = self.damage.as_ref().map(|_| unknown());
                Arc::new(Slot { state: Mutex::new(GroupState { damaged, ..GroupState::default() }) })
            })
            .clone()
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
    /// Callbacks that wait.
    pub waiting: u64,
    /// The log's own.
    pub log: foreword::Stats,
}

/// The logs of many Raft groups, in one [`foreword::Log`].
///
/// Any thread may use it, and any may [close](GroupLogs::close) it; dropping it closes it, too.
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
    /// Opens the logs in a directory with the default [`Options`], making them if there are none. Blocks.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<GroupLogs> {
        Options::new().open(dir)
    }

    /// How the logs may be opened; the same as [`Options::new`].
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

    /// A handle to a group. The group need not be there: its first write makes it. Does not wait for the disk.
    #[must_use]
    pub fn group(&self, id: u64) -> Group {
        Group { id, slot: self.shared.slot(id), shared: self.shared.clone() }
    }

    /// The ids of the groups that are there, in ascending order: with an entry, a vote, or anything else to keep; damaged ones among them.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let all: Vec<_> = lock(&self.shared.groups).iter().map(|(&id, slot)| (id, slot.clone())).collect();
        let there = |slot: &Slot| lock(&slot.state).is_there();
        let mut ids: Vec<u64> = all.into_iter().filter(|(_, slot)| there(slot)).map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// Removes a group, with all that is in its log: whether it was there. Handles to it give [`Error::Removed`] from then on; one that is taken later begins it anew. A group that is
    /// [damaged](Error::GroupDamaged) can be removed, too.
    ///
    /// Durable as [`Group::truncate_after`] is: [`sync`](GroupLogs::sync) waits for it.
    ///
    /// # Errors
    /// [`Error::Log`]: nothing was removed.
    pub fn remove(&self, id: u64) -> Result<bool> {
        let slot = self.shared.slot(id);
        let mut state = lock(&slot.state);
        if state.removed {
            return Ok(false); // Another thread did.
        }
        let there = state.is_there();
        if there || state.last_record > Lsn::ZERO {
            self.shared.write(&mut state, id, false, Body::Removed)?;
        }
        state.removed = true;
        let mut groups = lock(&self.shared.groups);
        groups.remove(&id);
        if self.shared.damage.is_some() {
            // There an id is not known to be free by being absent: this one is, by its removal.
            groups.insert(id, Arc::default());
        }
        drop(groups);
        drop(state);
        self.shared.after_write();
        Ok(there)
    }

    /// What the log has lost, if it was [opened all the same](Options::open_damaged).
    #[must_use]
    pub fn damage(&self) -> Option<Arc<Damage>> {
        self.shared.damage.clone()
    }

    /// Makes all durable that was written so far, by all groups. Blocks for a flush.
    ///
    /// # Errors
    /// [`Error::Log`].
    pub fn sync(&self) -> Result<()> {
        let synced = self.shared.log.sync();
        self.shared.after_sync();
        synced?;
        Ok(())
    }

    /// Frees space, as far as it is due: drops the front of the log that no group needs, and, where the log has more than [so many times](Options::compact_factor) the bytes
    /// in force, rewrites the oldest of these at its end, so that a group that has long been idle keeps no space. In [steps](Options::compact_step), each of which
    /// is durable before anything is dropped for it. Blocks for reading, for flushes and truncations; other calls go on meanwhile.
    ///
    /// The background does this by itself. If another thread is at it, this does nothing.
    ///
    /// # Errors
    /// [`Error::Log`]: what was not finished is tried again by the next. On a full disk it does what it can, and is no error.
    pub fn compact(&self) -> Result<Compaction> {
        self.shared.compact()
    }

    /// Counters.
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

    /// The error by which the logs accept nothing more. `None` while they are well.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.shared.log.failure().map(Error::from)
    }

    /// Closes the logs: makes all durable that was written, calls all callbacks, and ends the threads. Blocks for that. Handles to groups give
    /// [`Closed`](foreword::Error::Closed) from then on where they write. A callback may close the logs; it must not wait for another thread that does.
    ///
    /// # Errors
    /// [`Error::Log`] as [`foreword::Log::close`]; they are closed all the same.
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
        // What came after the thread had ended is called by those who wrote it.
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
