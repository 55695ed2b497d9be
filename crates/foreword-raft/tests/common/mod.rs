//! A model of the logs, work on both, and the comparison.
#![allow(dead_code)] // Not each test program uses all of this.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foreword::SyncPolicy;
use foreword_raft::{Error, GroupLogs, Options};
use foreword_sim::SimDisk;

pub(crate) type Noted = Option<(u64, Vec<u8>)>;

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) vote: Option<Vec<u8>>,
    pub(crate) purged: Noted,
    pub(crate) committed: Noted,
    pub(crate) entries: BTreeMap<u64, Vec<u8>>,
}

/// Of each entry, its first byte and its length.
impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "vote {:?} purged {:?} committed {:?} entries", self.vote, self.purged, self.committed)?;
        self.entries.iter().try_for_each(|(i, data)| write!(f, " {i}={:?}x{}", data.first(), data.len()))
    }
}

impl Group {
    pub(crate) fn last(&self) -> Option<u64> {
        self.entries.keys().next_back().copied().or(self.purged.as_ref().map(|p| p.0))
    }
}

/// The groups that are there.
pub(crate) type Model = BTreeMap<u64, Group>;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Vote(u64, u8),
    /// The number of entries (4 are committed), and the bytes of each.
    Append(u64, u64, usize),
    /// How many of the last entries to remove.
    Truncate(u64, u64),
    /// Up to this many entries before the last, or behind it.
    Purge(u64, i64),
    Committed(u64, u64),
    Remove(u64),
    Sync,
    Compact,
    Reopen,
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    pub(crate) fn op(&mut self, groups: u64) -> Op {
        let group = self.below(groups);
        match self.below(40) {
            0..=14 => {
                let bytes = if self.below(12) == 0 { 5000 } else { self.below(200) as usize };
                Op::Append(group, self.below(5), bytes)
            }
            15..=18 => Op::Vote(group, self.below(256) as u8),
            19..=22 => Op::Truncate(group, self.below(6)),
            23..=27 => Op::Purge(group, self.below(8) as i64 - 2),
            28..=29 => Op::Committed(group, self.below(100)),
            30 => Op::Remove(group),
            31..=32 => Op::Sync,
            33..=38 => Op::Compact,
            _ => Op::Reopen,
        }
    }
}

/// Small segments, no threads, and compaction at every opportunity.
pub(crate) fn options(disk: &SimDisk) -> Options {
    let log = foreword::Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
    let log = log.on_error(|_| ()).disk(disk.handle());
    Options::new().log(log).background(false).cache_bytes(1000).compact_factor(2).compact_slack(100).compact_step(150)
}

/// Reads everything that can be read.
pub(crate) fn read(logs: &GroupLogs) -> Model {
    let mut model = Model::new();
    for id in logs.groups() {
        let group = logs.group(id);
        let noted = |n: Option<foreword_raft::Noted>| n.map(|n| (n.index, n.note));
        let entries = group.entries(.., u64::MAX).unwrap();
        assert_eq!(group.first().unwrap(), entries.first().map(|e| e.index));
        if let Some(last) = entries.last() {
            assert_eq!(group.last().unwrap(), Some(last.index));
            assert_eq!(group.get(last.index).unwrap().as_deref(), Some(&*last.data));
        }
        model.insert(
            id,
            Group {
                vote: group.vote().unwrap(),
                purged: noted(group.purged().unwrap()),
                committed: noted(group.committed().unwrap()),
                entries: entries.into_iter().map(|e| (e.index, e.data)).collect(),
            },
        );
    }
    model
}

/// Logs at work, and the states that they must have after each step.
pub(crate) struct Run {
    pub(crate) logs: Option<GroupLogs>,
    pub(crate) states: Vec<Model>,
    /// The last step that is known to be durable.
    pub(crate) acknowledged: Arc<AtomicUsize>,
    pub(crate) moved: u64,
    pub(crate) refused: u64,
}

impl Run {
    pub(crate) fn new(logs: GroupLogs, now: Model) -> Run {
        Run { logs: Some(logs), states: vec![now], acknowledged: Arc::default(), moved: 0, refused: 0 }
    }

    pub(crate) fn now(&self) -> &Model {
        self.states.last().unwrap()
    }

    /// Whether the logs continue to work.
    pub(crate) fn step(&mut self, op: &Op, disk: &SimDisk) -> bool {
        let step = self.states.len();
        let mut next = self.now().clone();
        let logs = self.logs.as_ref().unwrap();
        let acknowledged = self.acknowledged.clone();
        let acknowledge = move || _ = acknowledged.fetch_max(step, Ordering::SeqCst);
        let mut write = true;
        let result = match *op {
            Op::Vote(id, vote) => {
                next.entry(id).or_default().vote = Some(vec![vote; 3]);
                logs.group(id).save_vote([vote; 3]).inspect(|()| acknowledge())
            }
            Op::Append(id, count, bytes) => {
                let mut group = next.get(&id).cloned().unwrap_or_default();
                let first = group.last().map_or(step as u64 % 2, |last| last + 1);
                let entries: Vec<(u64, Vec<u8>)> =
                    (0..count).map(|n| (first + n, vec![(step as u64 + n) as u8; bytes + n as usize])).collect();
                group.entries.extend(entries.iter().cloned());
                if count > 0 {
                    next.insert(id, group);
                }
                if count == 4 {
                    logs.group(id).commit(entries).inspect(|()| acknowledge())
                } else {
                    logs.group(id).append(entries, move |result| {
                        if result.is_ok() && count > 0 {
                            acknowledge();
                        }
                    })
                }
            }
            Op::Truncate(id, back) => {
                let group = next.get(&id).cloned().unwrap_or_default();
                let index = group.last().and_then(|last| last.checked_sub(back));
                let purged = group.purged.as_ref().map(|p| p.0);
                let allowed = purged.is_none_or(|purged| index.is_some_and(|index| index >= purged));
                if allowed && let Some(group) = next.get_mut(&id) {
                    group.entries.retain(|&i, _| index.is_some_and(|index| i <= index));
                }
                let result = logs.group(id).truncate_after(index);
                assert!(allowed || matches!(result, Err(Error::Purged { .. })), "{result:?}");
                if allowed { result } else { Ok(()) }
            }
            Op::Purge(id, back) => {
                let last = next.get(&id).and_then(Group::last).unwrap_or(0);
                let index = (last as i64 - back).max(0) as u64;
                let note = index.to_le_bytes().to_vec();
                if next.get(&id).and_then(|g| g.purged.as_ref()).is_none_or(|purged| purged.0 < index) {
                    let group = next.entry(id).or_default();
                    group.purged = Some((index, note.clone()));
                    group.entries.retain(|&i, _| i > index);
                }
                logs.group(id).purge(index, note)
            }
            Op::Committed(id, index) => {
                next.entry(id).or_default().committed = Some((index, vec![7]));
                logs.group(id).save_committed(index, [7])
            }
            Op::Remove(id) => {
                let there = next.remove(&id).is_some();
                logs.remove(id).map(|removed| assert_eq!(removed, there))
            }
            Op::Sync => {
                write = false;
                logs.sync().inspect(|()| acknowledge())
            }
            Op::Compact => {
                write = false;
                logs.compact().map(|done| self.moved += done.moved_bytes)
            }
            Op::Reopen => {
                let closed = logs.close();
                self.logs = None;
                match closed.and_then(|()| options(disk).open("/log")) {
                    Ok(logs) => {
                        self.logs = Some(logs);
                        acknowledge();
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        };
        next.retain(|_, group| *group != Group::default());
        let goes_on = match &result {
            Ok(()) => true,
            // Nothing was written.
            Err(Error::Log(error)) if error.is_retryable() && self.logs.is_some() => {
                self.refused += 1;
                next = self.now().clone();
                true
            }
            Err(_) => false,
        };
        assert!(write || next == *self.now());
        self.states.push(next);
        goes_on
    }

    /// Compares the logs with the newest state.
    pub(crate) fn check_now(&self) {
        if let Some(logs) = &self.logs {
            assert_eq!(&read(logs), self.now());
        }
    }

    /// The state found after a crash must be that after a step, and none before what was
    /// acknowledged.
    pub(crate) fn check_found(&self, found: &Model, what: &dyn std::fmt::Debug) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        if !self.states[acknowledged..].contains(found) {
            let older = self.states[..acknowledged].iter().rposition(|state| state == found);
            panic!(
                "{what:?}: after {} steps, {acknowledged} acknowledged, the state is that after {older:?}:\n{found:#?}\nacknowledged:\n{:#?}",
                self.states.len() - 1,
                self.states[acknowledged]
            );
        }
    }
}
