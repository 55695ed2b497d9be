//! Opening: replays the log from its front, and says which groups are whole. **Writes nothing.**
//!
//! Groups do not depend on each other; the records of one are applied in the log's order. Reading
//! takes most of the time. So threads read stretches of the log ahead, a part after the other, and
//! one thread applies what they found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use foreword::{Log, Lsn, Reader};

use crate::error::{Damage, DamagedGroup};
use crate::record::{Body, Previous, Record};
use crate::shared::Slot;
use crate::state::GroupState;
use crate::{Error, Result};

/// How many threads read at most.
const READERS: usize = 4;

/// How many LSNs a stretch has.
const STRETCH_MIN: u64 = 1 << 10;
const STRETCH_MAX: u64 = 1 << 16;

/// A part ends when what replay needs of its records takes so many bytes, or the records themselves.
/// A reader has one part in hand, and one ready.
const PART_KEPT: usize = 2 << 20;
const PART_READ: usize = 16 << 20;

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

/// What replay needs of a record.
struct Found {
    lsn: Lsn,
    bytes: usize,
    group: u64,
    said: Said,
}

enum Said {
    /// Without the data of an entry.
    Record(Record<'static>),
    /// A record whose data counts, as it is in the log.
    Bytes(Box<[u8]>),
}

/// Records without a gap between them. Those of a group stand together, in the log's order: groups
/// are many, and each is so found in memory once.
struct Run {
    first: Lsn,
    last: Lsn,
    records: Vec<Found>,
}

pub(crate) fn replay(log: &Log) -> Result<Recovered> {
    let records = log.last_lsn().0.saturating_sub(log.start_lsn().0) + 1;
    let readers = thread::available_parallelism().map_or(1, |processors| processors.get().min(READERS));
    // Each thread has several: records differ in what they take.
    let stretch = (records / (4 * readers as u64)).clamp(STRETCH_MIN, STRETCH_MAX);
    replay_in(log, stretch, readers)
}

/// Replays stretches of so many LSNs, which so many threads read.
fn replay_in(log: &Log, stretch: u64, readers: usize) -> Result<Recovered> {
    let (start, end) = (log.start_lsn(), log.last_lsn());
    let stretches: Vec<_> = (start.0..=end.0)
        .step_by(stretch as usize)
        .map(|first| (Lsn(first), end.min(Lsn(first.saturating_add(stretch - 1)))))
        .collect();
    let readers = if stretches.len() > 1 { readers } else { 1 };
    let mut replay = Replay { start, next: start, gaps: Vec::new(), groups: HashMap::new() };
    thread::scope(|scope| {
        let start_reader = |reader: usize| {
            let (to, from) = mpsc::sync_channel(1);
            let mine = stretches.iter().skip(reader).step_by(readers);
            let work = move || {
                for &(first, last) in mine {
                    let mut stretch = Stretch::new(log, first, last);
                    loop {
                        let part = stretch.part();
                        let ends = !matches!(part, Ok(Some(_)));
                        if to.send(part).is_err() {
                            return; // Nothing is read any more.
                        }
                        if ends {
                            break;
                        }
                    }
                }
            };
            thread::Builder::new().name("foreword-replay".to_owned()).spawn_scoped(scope, work).map(|_| from)
        };
        // If any cannot be started, this thread reads all.
        let started: std::io::Result<Vec<_>> = (0..readers).filter(|_| readers > 1).map(start_reader).collect();
        let mut ahead = started.iter().flatten().cycle();
        for &(first, last) in &stretches {
            if let Some(reader) = ahead.next() {
                // A reader that panics sends no more, and the scope panics, too.
                while let Ok(part) = reader.recv()
                    && let Some(runs) = part?
                {
                    replay.apply(runs)?;
                }
            } else {
                let mut stretch = Stretch::new(log, first, last);
                while let Some(runs) = stretch.part()? {
                    replay.apply(runs)?;
                }
            }
        }
        Ok(replay.end(end))
    })
}

/// Reads the records from one LSN up to another.
struct Stretch {
    reader: Reader,
    next: Lsn,
    last: Lsn,
    /// What it met behind the records of the part before.
    failed: Option<Error>,
}

impl Stretch {
    fn new(log: &Log, first: Lsn, last: Lsn) -> Stretch {
        Stretch { reader: log.reader_at(first), next: first, last, failed: None }
    }

    /// The next records; `None` at the end. Records before an error come before it.
    fn part(&mut self) -> Result<Option<Vec<Run>>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut runs: Vec<Run> = Vec::new();
        let (mut kept, mut read) = (0, 0);
        while kept < PART_KEPT && read < PART_READ {
            let found = match self.next() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) if runs.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            };
            kept += found.kept();
            read += found.bytes;
            match runs.last_mut().filter(|run| run.last.next() == found.lsn) {
                Some(run) => {
                    run.last = found.lsn;
                    run.records.push(found);
                }
                None => runs.push(Run { first: found.lsn, last: found.lsn, records: vec![found] }),
            }
        }
        runs.iter_mut().for_each(|run| run.records.sort_by_key(|found| found.group));
        Ok((!runs.is_empty()).then_some(runs))
    }

    fn next(&mut self) -> Result<Option<Found>> {
        if self.next <= self.last
            && let Some(record) = self.reader.next()?
            && record.lsn <= self.last
        {
            self.next = record.lsn.next();
            return Ok(Some(Found::new(record.lsn, record.data)?));
        }
        self.next = self.last.next();
        Ok(None)
    }
}

impl Found {
    fn new(lsn: Lsn, data: &[u8]) -> Result<Found> {
        let record = Record::decode(lsn, data)?;
        let Record { group, previous, moved, body } = record;
        let body = match body {
            Body::Append(index, _) => Some(Body::Append(index, &[])),
            Body::TruncateAfter(index) => Some(Body::TruncateAfter(index)),
            Body::Removed => Some(Body::Removed),
            Body::Vote(_) | Body::Purge(..) | Body::Committed(..) => None,
        };
        let said = match body {
            Some(body) => Said::Record(Record { group, previous, moved, body }),
            None => Said::Bytes(data.into()),
        };
        Ok(Found { lsn, bytes: data.len(), group, said })
    }

    /// How many bytes it takes.
    fn kept(&self) -> usize {
        let apart = if let Said::Bytes(bytes) = &self.said { bytes.len() } else { 0 };
        size_of::<Found>() + apart
    }
}

/// The groups while the log is replayed.
struct Replay {
    start: Lsn,
    /// Behind the last record so far.
    next: Lsn,
    /// The gaps that a salvage left, so far.
    gaps: Vec<(Lsn, Lsn)>,
    groups: HashMap<u64, Replayed>,
}

impl Replay {
    fn apply(&mut self, runs: Vec<Run>) -> Result<()> {
        for Run { first, last, records } in runs {
            self.lacks_before(first);
            self.next = last.next();
            // Of what each group makes of its records, the error that comes first in the log.
            let of_groups = records.chunk_by(|one, other| one.group == other.group);
            let failed = of_groups.filter_map(|records| self.apply_to_group(records).err()).min_by_key(|(lsn, _)| *lsn);
            if let Some((_, error)) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Applies records of one group, up to one that is none.
    fn apply_to_group(&mut self, records: &[Found]) -> Result<(), (Lsn, Error)> {
        let Some(first) = records.first() else { return Ok(()) };
        let group = self.groups.entry(first.group).or_default();
        for found in records {
            let record = match &found.said {
                Said::Record(record) => *record,
                Said::Bytes(bytes) => Record::decode(found.lsn, bytes).map_err(|error| (found.lsn, error))?,
            };
            follow(group, found.lsn, record.previous, self.start, &self.gaps).map_err(|error| (found.lsn, error))?;
            group.hit &= record.body != Body::Removed;
            group.state.apply(found.lsn, found.bytes, &record);
        }
        Ok(())
    }

    fn lacks_before(&mut self, lsn: Lsn) {
        if lsn > self.next {
            self.gaps.push((self.next, lsn.prev()));
        }
    }

    /// What the gaps mean for each group. A group is whole if its first record behind a gap names a
    /// record before the gap as the previous one. A group without such a record may have lost
    /// records. (So may a group that is not there at all.)
    fn end(mut self, last: Lsn) -> Recovered {
        self.lacks_before(last.next());
        let Replay { gaps, mut groups, .. } = self;
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
        Recovered { groups: slots, live, damage }
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use foreword::OnDamage;
    use foreword_sim::SimDisk;

    use super::*;
    use crate::Options;

    const GROUPS: u64 = 5;

    fn options(disk: &SimDisk) -> foreword::Options {
        foreword::Options::new().segment_bytes(64 << 10).background(false).disk(disk.handle())
    }

    fn said(recovered: Result<Recovered>) -> String {
        let Recovered { groups, live, damage } = match recovered {
            Ok(recovered) => recovered,
            Err(error) => return error.to_string(),
        };
        let group = |id| {
            let state = groups.get(&id)?.state.lock().unwrap();
            let entries: Vec<_> = (0..2000).filter_map(|index| Some((index, state.entries.get(index)?))).collect();
            Some((
                state.vote.as_ref().map(|vote| vote.value.clone()),
                state.purged_to(),
                state.last_record,
                state.removed,
                entries,
            ))
        };
        format!("{live} {damage:?} {:?}", (0..=GROUPS).map(group).collect::<Vec<_>>())
    }

    /// However the log is divided, and however many threads read it, the groups are the same: of a
    /// whole log, of one with gaps, and of one with a record that follows no other.
    #[test]
    fn stretches_make_no_difference() {
        let disk = SimDisk::new(1);
        let logs = Options::new().log(options(&disk)).background(false).open("/log").unwrap();
        for i in 0..400_u64 {
            let group = logs.group(i % GROUPS);
            group.append([(i / GROUPS + 1, [7; 400])], |_| ()).unwrap();
            match i % 60 {
                20 => group.save_vote(i.to_le_bytes()).unwrap(),
                40 => group.purge(i / GROUPS / 2, "note").unwrap(),
                59 => _ = logs.remove(GROUPS).unwrap(),
                50 => logs.group(GROUPS).save_vote("it is there again").unwrap(),
                _ if i % 7 == 0 => logs.sync().unwrap(),
                _ => {}
            }
        }
        logs.close().unwrap();
        let log = options(&disk).open("/log").unwrap();
        let same = |log: &Log| {
            let whole = said(replay_in(log, u64::MAX, 1));
            for (stretch, readers) in [(1, 1), (1, 3), (2, 2), (7, 4), (100, 2), (1000, 2)] {
                assert_eq!(said(replay_in(log, stretch, readers)), whole, "{stretch} {readers}");
            }
            whole
        };
        assert!(same(&log).contains(" None "));
        log.close().unwrap();
        let segments: Vec<_> = disk.files().into_iter().filter(|(path, _)| path.to_string_lossy().ends_with(".seg")).collect();
        for (path, _) in &segments[..3] {
            assert!([30_000, 31_000].iter().all(|&at| disk.flip(path, at, 3)));
        }
        let log = options(&disk).on_damage(OnDamage::Salvage).open("/log").unwrap();
        assert_eq!(same(&log).matches("missing: [").count(), GROUPS as usize);
        // Of several that follow no other, the first; and none that is unknown behind them.
        let stray = Record { group: 4, previous: Previous::At(log.start_lsn()), moved: false, body: Body::Append(9, b"") };
        log.commit(stray.encode()).unwrap();
        let strays = [stray, Record { group: 1, ..stray }, Record { group: 9, previous: Previous::None, ..stray }];
        let first = log.last_lsn();
        strays[1..].iter().for_each(|stray| _ = log.commit(stray.encode()).unwrap());
        (0..100).for_each(|_| _ = log.commit([9, 9]).unwrap());
        assert!(same(&log).starts_with(&format!("record {first} is not one of a group's log")));
    }
}
