//! What a log's users know of it, as they noted it down among the disk's writes; and whether what
//! is found after a power failure agrees with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// Which record of the workload it is; the record's bytes begin with this, and follow from it and
/// the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) life: u16,
    pub(crate) thread: u16,
    pub(crate) count: u32,
    /// Its place in its batch, and how many records that has.
    pub(crate) index: u16,
    pub(crate) of: u16,
    pub(crate) len: u32,
}

impl Id {
    /// The bytes of an id, and of the shortest record.
    pub(crate) const LEN: usize = 16;

    fn encode(self) -> [u8; Id::LEN] {
        let mut bytes = [0; Id::LEN];
        bytes[..2].copy_from_slice(&self.life.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.thread.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.index.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.of.to_le_bytes());
        bytes[12..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// The record's bytes.
    pub(crate) fn record(self, seed: u64) -> Vec<u8> {
        let id = self.encode();
        let salt = id.iter().fold(seed, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut bytes = vec![0; self.len as usize];
        fastrand::Rng::with_seed(salt).fill(&mut bytes);
        bytes[..Id::LEN].copy_from_slice(&id);
        bytes
    }

    /// Which record this is, if each of its bytes is right.
    pub(crate) fn of_record(bytes: &[u8], seed: u64) -> Option<Id> {
        let (&[l0, l1, t0, t1, c0, c1, c2, c3, i0, i1, o0, o1, n0, n1, n2, n3], _) = bytes.split_first_chunk()?;
        let id = Id {
            life: u16::from_le_bytes([l0, l1]),
            thread: u16::from_le_bytes([t0, t1]),
            count: u32::from_le_bytes([c0, c1, c2, c3]),
            index: u16::from_le_bytes([i0, i1]),
            of: u16::from_le_bytes([o0, o1]),
            len: u32::from_le_bytes([n0, n1, n2, n3]),
        };
        (id.len as usize == bytes.len() && id.record(seed) == bytes).then_some(id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}.{}.{}", self.life, self.thread, self.count, self.index, self.of, self.len)
    }
}

impl FromStr for Id {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Id> {
        let numbers = text.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        let &[life, thread, count, index, of, len] = &numbers[..] else { bail!("{text} is not an id") };
        Ok(Id { life: life.try_into()?, thread: thread.try_into()?, count, index: index.try_into()?, of: of.try_into()?, len })
    }
}

/// What a user notes down. Before it asks for something that changes what must be found, and after
/// it was told that it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The log is being opened, and this record is in it.
    Found(u64, Id),
    /// The log is open: all that was found in it, from the start to the last, is durable. This life
    /// of the workload begins.
    Opened {
        life: u16,
        start: u64,
        last: u64,
    },
    /// The record with this LSN.
    Record(u64, Id),
    /// Everything up to here was said to be durable.
    Durable(u64),
    /// The front is about to be dropped, up to here; it was.
    FrontTo(u64),
    FrontAt(u64),
    /// The back is about to be cut off, from here on; it was.
    CutFrom(u64),
    CutAt(u64),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Found(lsn, id) => write!(f, "found {lsn} {id}"),
            Note::Opened { life, start, last } => write!(f, "opened {life} {start} {last}"),
            Note::Record(lsn, id) => write!(f, "record {lsn} {id}"),
            Note::Durable(lsn) => write!(f, "durable {lsn}"),
            Note::FrontTo(lsn) => write!(f, "front-to {lsn}"),
            Note::FrontAt(lsn) => write!(f, "front-at {lsn}"),
            Note::CutFrom(lsn) => write!(f, "cut-from {lsn}"),
            Note::CutAt(lsn) => write!(f, "cut-at {lsn}"),
        }
    }
}

impl FromStr for Note {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Note> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |i: usize| -> Result<u64> { Ok(words.get(i).context("a number is missing")?.parse()?) };
        let id = |i: usize| words.get(i).context("an id is missing")?.parse::<Id>();
        Ok(match words.first().copied().unwrap_or_default() {
            "found" => Note::Found(number(1)?, id(2)?),
            "opened" => Note::Opened { life: number(1)?.try_into()?, start: number(2)?, last: number(3)? },
            "record" => Note::Record(number(1)?, id(2)?),
            "durable" => Note::Durable(number(1)?),
            "front-to" => Note::FrontTo(number(1)?),
            "front-at" => Note::FrontAt(number(1)?),
            "cut-from" => Note::CutFrom(number(1)?),
            "cut-at" => Note::CutAt(number(1)?),
            _ => bail!("{text:?} is not a note"),
        })
    }
}

/// What was found in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: u64,
    pub(crate) last: u64,
    pub(crate) records: Vec<(u64, Id)>,
}

/// How what was found disagrees with what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Something acknowledged is not there.
    Lost(String),
    /// Something is there that was never appended, not at that LSN, or not with those bytes.
    Phantom(String),
    /// Part of a batch.
    Split(String),
    /// The log does not open, or cannot be read or written.
    Unopened(String),
}

impl Violation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Violation::Lost(_) => "lost",
            Violation::Phantom(_) => "phantom",
            Violation::Split(_) => "split batch",
            Violation::Unopened(_) => "does not open",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Violation::Lost(seen) | Violation::Phantom(seen) | Violation::Split(seen) | Violation::Unopened(seen)) = self;
        write!(f, "{}: {seen}", self.name())
    }
}

/// What was known at one point.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Which branch of the log's history it is.
    branch: usize,
    life: u16,
    /// The last LSN that was acknowledged.
    floor: u64,
    start: u64,
    /// What was under way, and nobody had heard of its end: a start to come, a cut.
    start_to: Option<u64>,
    cut_from: Option<u64>,
    /// Whether the log was there.
    pub(crate) made: bool,
}

/// What a log could hold, until LSNs are given anew: because it was cut, or did not survive whole.
#[derive(Clone, Debug, Default)]
struct Branch {
    records: BTreeMap<u64, Id>,
    /// Where it was cut: it may end there within a batch.
    cuts: BTreeSet<u64>,
}

/// All that was noted.
pub(crate) struct History {
    branches: Vec<Branch>,
    /// What was known from each point on, ascending.
    known: Vec<(usize, Known)>,
}

impl History {
    /// Of a log that is not there yet.
    pub(crate) fn new(notes: &[(usize, Note)]) -> Result<History, Violation> {
        let known = Known { branch: 0, life: 0, floor: 0, start: 1, start_to: None, cut_from: None, made: false };
        History { branches: vec![Branch::default()], known: vec![(0, known)] }.grow(notes)
    }

    /// Of a log of which something is known already.
    pub(crate) fn after(&self, known: &Known, notes: &[(usize, Note)]) -> Result<History, Violation> {
        let branches = self.branches[..=known.branch].to_vec();
        History { branches, known: vec![(0, known.clone())] }.grow(notes)
    }

    pub(crate) fn known_at(&self, point: usize) -> &Known {
        let after = self.known.partition_point(|(at, _)| *at <= point);
        &self.known[after - 1].1
    }

    fn grow(mut self, notes: &[(usize, Note)]) -> Result<History, Violation> {
        let mut found = Vec::new();
        for &(point, note) in notes {
            let mut now = self.known_at(usize::MAX).clone();
            match note {
                Note::Found(lsn, id) => found.push((lsn, id)),
                Note::Opened { life, start, last } => {
                    // Of an opening that was killed, others may lie before them.
                    let records = found.split_off(found.len().saturating_sub((last + 1).saturating_sub(start) as usize));
                    now = Known { life, ..self.reopened(&now, &Found { start, last, records })? };
                    found.clear();
                }
                Note::Record(lsn, id) => {
                    let before = self.branches[now.branch].records.insert(lsn, id);
                    if before.is_some_and(|before| before != id) {
                        return Err(Violation::Phantom(format!("LSN {lsn} was given twice")));
                    }
                }
                Note::Durable(lsn) => now.floor = now.floor.max(lsn),
                Note::FrontTo(lsn) => now.start_to = Some(lsn),
                Note::FrontAt(lsn) => (now.start, now.start_to) = (lsn, None),
                Note::CutFrom(lsn) => now.cut_from = Some(lsn),
                Note::CutAt(from) => now = self.cut(&now, from),
            }
            self.known.push((point, now));
        }
        Ok(self)
    }

    fn cut(&mut self, known: &Known, from: u64) -> Known {
        let mut kept = self.branches[known.branch].clone();
        kept.records.split_off(&from);
        kept.cuts.split_off(&from);
        kept.cuts.insert(from - 1);
        self.branches.push(kept);
        Known { branch: self.branches.len() - 1, floor: from - 1, cut_from: None, ..known.clone() }
    }

    /// The log was opened again, perhaps after its process was killed: what was appended just
    /// before that nobody noted.
    fn reopened(&mut self, known: &Known, found: &Found) -> Result<Known, Violation> {
        for &(lsn, id) in &found.records {
            let elsewhere = self.branches.iter().any(|branch| branch.records.get(&lsn) == Some(&id));
            if id.life == known.life && !elsewhere {
                self.branches[known.branch].records.entry(lsn).or_insert(id);
            }
        }
        self.check(known, found)?;
        let mut cuts = self.branches[known.branch].cuts.clone();
        cuts.extend(known.cut_from.map(|from| from - 1).filter(|&last| last == found.last));
        self.branches.push(Branch { records: found.records.iter().copied().collect(), cuts });
        let branch = self.branches.len() - 1;
        Ok(Known { branch, life: known.life, floor: found.last, start: found.start, start_to: None, cut_from: None, made: true })
    }

    /// Whether what was found may be, after a crash when so much was known.
    pub(crate) fn check(&self, known: &Known, found: &Found) -> Result<(), Violation> {
        let branch = &self.branches[known.branch];
        let &Found { start, last, .. } = found;
        if start != known.start && Some(start) != known.start_to {
            let seen = format!("the log starts at {start}, not at {} or {:?}", known.start, known.start_to);
            return Err(if start > known.start { Violation::Lost(seen) } else { Violation::Phantom(seen) });
        }
        let cut = known.cut_from.is_some_and(|from| last == from - 1);
        if last < known.floor && !cut {
            return Err(Violation::Lost(format!("the log ends at {last}, and {} was acknowledged", known.floor)));
        }
        if !found.records.iter().map(|r| r.0).eq(start..=last) {
            return Err(Violation::Lost(format!("{} records from {start} to {last}", found.records.len())));
        }
        for (lsn, id) in &found.records {
            let appended = branch.records.get(lsn);
            if appended != Some(id) {
                return Err(Violation::Phantom(format!("record {lsn} is {id}, where {appended:?} was appended")));
            }
        }
        match found.records.last() {
            Some((lsn, id)) if id.index + 1 < id.of && !cut && !branch.cuts.contains(lsn) => {
                Err(Violation::Split(format!("the log ends at {lsn}, which is {id}")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(count: u32) -> Id {
        Id { life: 1, thread: 2, count, index: 0, of: 1, len: 40 }
    }

    fn notes(text: &[&str]) -> Vec<(usize, Note)> {
        text.iter().enumerate().map(|(i, note)| (i + 1, note.parse().unwrap())).collect()
    }

    fn found(start: u64, counts: &[u32]) -> Found {
        let records: Vec<_> = counts.iter().enumerate().map(|(i, &count)| (start + i as u64, id(count))).collect();
        Found { start, last: start + counts.len() as u64 - 1, records }
    }

    fn verdicts(history: &History, point: usize, of: &[Found]) -> Vec<&'static str> {
        let known = history.known_at(point);
        of.iter().map(|found| history.check(known, found).map_or_else(|v| v.name(), |()| "fine")).collect()
    }

    #[test]
    fn a_record_is_known_again_by_each_of_its_bytes() {
        let record = id(7).record(5);
        assert_eq!(Id::of_record(&record, 5), Some(id(7)));
        assert_eq!(Id::of_record(&record, 6), None);
        for byte in 0..record.len() {
            let mut wrong = record.clone();
            wrong[byte] ^= 1;
            assert_eq!(Id::of_record(&wrong, 5), None, "byte {byte}");
        }
        assert_eq!(Id::of_record(&record[..15], 5), None);
    }

    #[test]
    fn notes_are_read_as_they_are_written() {
        let all = [
            Note::Found(1, id(1)),
            Note::Opened { life: 1, start: 2, last: 3 },
            Note::Record(4, id(4)),
            Note::Durable(5),
            Note::FrontTo(6),
            Note::FrontAt(7),
            Note::CutFrom(8),
            Note::CutAt(9),
        ];
        all.iter().for_each(|note| assert_eq!(note.to_string().parse::<Note>().unwrap(), *note));
        assert!("durable".parse::<Note>().is_err() && "record 1 2.3".parse::<Note>().is_err());
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_nothing_else_may() {
        let history =
            History::new(&notes(&["opened 1 1 0", "record 1 1.2.1.0.1.40", "durable 1", "record 2 1.2.2.0.1.40"])).unwrap();
        let states = [found(1, &[]), found(1, &[1]), found(1, &[1, 2]), found(1, &[1, 2, 3]), found(1, &[2]), found(2, &[2])];
        assert_eq!(verdicts(&history, 1, &states), ["fine", "fine", "fine", "phantom", "phantom", "lost"]);
        assert_eq!(verdicts(&history, 3, &states), ["lost", "fine", "fine", "phantom", "phantom", "lost"]);
    }

    #[test]
    fn batches_are_whole_but_where_the_log_was_cut() {
        let begun = ["opened 1 1 0", "record 1 1.2.1.0.2.40", "record 2 1.2.1.1.2.40", "cut-from 2", "cut-at 2"];
        let history = History::new(&notes(&begun)).unwrap();
        let half = Found { start: 1, last: 1, records: vec![(1, Id { of: 2, ..id(1) })] };
        assert_eq!(verdicts(&history, 3, std::slice::from_ref(&half)), ["split batch"]);
        assert_eq!(verdicts(&history, 4, std::slice::from_ref(&half)), ["fine"]);
        assert_eq!(verdicts(&history, 5, &[half]), ["fine"]);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let text = [
            "opened 1 1 0",
            "record 1 1.2.1.0.1.40",
            "record 2 1.2.2.0.1.40",
            "durable 2",
            "cut-from 2",
            "cut-at 2",
            "record 2 1.2.3.0.1.40",
        ];
        let history = History::new(&notes(&text)).unwrap();
        let states = [found(1, &[1]), found(1, &[1, 2]), found(1, &[1, 3])];
        assert_eq!(verdicts(&history, 4, &states), ["lost", "fine", "phantom"]);
        assert_eq!(verdicts(&history, 5, &states), ["fine", "fine", "phantom"]);
        assert_eq!(verdicts(&history, 6, &states), ["fine", "phantom", "fine"]);
        // Nor when the process was killed and somebody else finds it.
        let killed = [&text[..], &["found 1 1.2.1.0.1.40", "found 2 1.2.2.0.1.40", "opened 2 1 2"]].concat();
        assert!(matches!(History::new(&notes(&killed)), Err(Violation::Phantom(_))));
    }

    #[test]
    fn what_nobody_noted_is_what_the_next_life_finds() {
        let text = [
            "opened 1 1 0",
            "record 1 1.2.1.0.1.40",
            "durable 1",
            "found 1 1.2.1.0.1.40",
            "found 2 1.2.2.0.1.40",
            "opened 2 1 2",
        ];
        let history = History::new(&notes(&text)).unwrap();
        let states = [found(1, &[1]), found(1, &[1, 2])];
        assert_eq!(verdicts(&history, 3, &states), ["fine", "fine"]);
        assert_eq!(verdicts(&history, 6, &states), ["lost", "fine"]);
        let lost = ["opened 1 1 0", "record 1 1.2.1.0.1.40", "durable 1", "opened 2 1 0"];
        assert!(matches!(History::new(&notes(&lost)), Err(Violation::Lost(_))));
    }

    #[test]
    fn the_front_is_dropped_or_not() {
        let text = ["opened 1 1 0", "record 1 1.2.1.0.1.40", "record 2 1.2.2.0.1.40", "durable 2", "front-to 2", "front-at 2"];
        let history = History::new(&notes(&text)).unwrap();
        let states = [found(1, &[1, 2]), found(2, &[2])];
        assert_eq!(verdicts(&history, 4, &states), ["fine", "lost"]);
        assert_eq!(verdicts(&history, 5, &states), ["fine", "fine"]);
        assert_eq!(verdicts(&history, 6, &states), ["phantom", "fine"]);
    }
}
