//! Opening: replays the log from its front, and says which groups are whole. **Writes nothing.**

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use foreword::{Log, Lsn};

use crate::error::{Damage, DamagedGroup};
use crate::record::{Body, Previous, Record};
use crate::shared::Slot;
use crate::state::GroupState;
use crate::{Error, Result};

pub(crate) struct Recovered {
    pub(crate) groups: HashMap<u64, Arc<Slot>>,
    /// The bytes of the records in force.
    pub(crate) live: u64,
    pub(crate) damage: Option<Arc<Damage>>,
}

/// A group while the log is replayed.
#[derive(Default)]
struct Replayed {
    state: GroupState,
    /// A record of the group names a previous one that was given up.
    hit: bool,
}

/// The gaps that a salvage left, and what they mean for each group. A group is whole if its first
/// record behind a gap names a record before the gap as the previous one. A group without such a
/// record may have lost records. (So may a group that is not there at all.)
pub(crate) fn replay(log: &Log) -> Result<Recovered> {
    let start = log.start_lsn();
    let mut gaps: Vec<(Lsn, Lsn)> = Vec::new();
    let mut groups: HashMap<u64, Replayed> = HashMap::new();
    let (mut reader, mut next) = (log.reader_at(start), start);
    while let Some(found) = reader.next()? {
        if found.lsn > next {
            gaps.push((next, found.lsn.prev()));
        }
        next = found.lsn.next();
        let record = Record::decode(found.lsn, found.data)?;
        let group = groups.entry(record.group).or_default();
        follow(group, found.lsn, record.previous, start, &gaps)?;
        group.hit &= record.body != Body::Removed;
        group.state.apply(found.lsn, found.data.len(), &record);
    }
    if log.last_lsn() >= next {
        gaps.push((next, log.last_lsn()));
    }
    let (mut live, mut damaged) = (0, Vec::new());
    // In a log with gaps, only a removal behind the last gap proves that the group's id is free.
    // Without gaps, absence does.
    let known_free = |group: &Replayed| gaps.last().is_some_and(|gap| group.state.last_record > gap.1);
    let free: Vec<u64> = groups.iter().filter(|(_, g)| g.state.removed && known_free(g)).map(|(&id, _)| id).collect();
    groups.retain(|_, group| !group.state.removed);
    for (&id, group) in &mut groups {
        let missing = group.state.holes();
        let unproven = gaps.last().is_some_and(|gap| group.state.last_record < gap.0);
        if group.hit || unproven || !missing.is_empty() {
            let group_damaged = DamagedGroup { group: id, proven: group.hit || !missing.is_empty(), missing };
            group.state.damaged = Some(Box::new(group_damaged.clone()));
            damaged.push(group_damaged);
        }
        live += group.state.live_bytes();
    }
    damaged.sort_unstable_by_key(|group| group.group);
    let damage = (!gaps.is_empty() || !damaged.is_empty()).then(|| Arc::new(Damage { lost: gaps, groups: damaged }));
    let slot = |group: Replayed| Arc::new(Slot { state: Mutex::new(group.state) });
    let mut slots: HashMap<_, _> = groups.into_iter().map(|(id, group)| (id, slot(group))).collect();
    slots.extend(free.into_iter().map(|id| (id, Arc::default())));
    Ok(Recovered { groups: slots, live, damage })
}

/// Checks that a record follows the last replayed record of its group.
fn follow(group: &mut Replayed, lsn: Lsn, previous: Previous, start: Lsn, gaps: &[(Lsn, Lsn)]) -> Result<()> {
    let previous = match previous {
        Previous::None => {
            *group = Replayed::default(); // Earlier records belonged to a group that was removed.
            return Ok(());
        }
        Previous::Adjacent => lsn.prev(),
        Previous::At(previous) => previous,
    };
    if gaps.iter().any(|gap| (gap.0..=gap.1).contains(&previous)) {
        group.hit = true;
    } else if previous >= start && previous != group.state.last_record {
        return Err(Error::BadRecord { lsn, why: "it does not follow the record of its group before it" });
    }
    Ok(())
}
