//! `foreword-raft`: the groups are in one log. A thread commits, and so leads or
//! shares a flush.

use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use foreword_raft::{Group, GroupLogs, Options};

use super::stores::{Contestant, Pending, SLACK, Store};
use crate::payload;

pub const STORE: Contestant = Contestant {
    name: "foreword-raft",
    setting: "segments of 64 MiB, four of them filled with zeros before; compaction by its own thread",
    groups_max: u64::MAX,
    open,
};

fn open(dir: &Path, filled: bool) -> Result<Box<dyn Store>> {
    let spares = if filled { 4 } else { 0 };
    let log = foreword::Options::new().segment_bytes(64 << 20).spare_segments(spares).sync(foreword::SyncPolicy::manual());
    let logs = Options::new().log(log).compact_slack(SLACK).open(dir)?;
    Ok(Box::new(Open(logs)))
}

struct Open(GroupLogs);

impl Open {
    fn group(&self, group: u64) -> Group {
        self.0.group(group)
    }
}

impl Store for Open {
    fn append(&self, group: u64, first: u64, entries: &[&[u8]], purge: Option<u64>) -> Result<Pending> {
        let group = self.group(group);
        if let Some(index) = purge {
            group.purge(index, "")?;
        }
        Ok(Pending::Commit(group.begin_commit((first..).zip(entries))?))
    }

    fn pipelines(&self) -> bool {
        true
    }

    fn fill(&self, groups: Range<u64>, entries: u64) -> Result<()> {
        for index in 1..=entries {
            for group in groups.clone() {
                self.group(group).append([(index, payload::record(1 << 10, index as usize))], |_| ())?;
            }
        }
        Ok(self.0.sync()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}
