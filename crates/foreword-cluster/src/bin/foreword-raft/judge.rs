//! What clients of a cluster were told, and whether its nodes can have it so: for `foreword-raft
//! demo`, and for the campaign `scripts/cluster-chaos.sh` (`examples/chaos`).
//!
//! Each record has a number that no other has, and says so; its bytes follow from that.

// (The demo does not use all of it.)
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// An acknowledged record is not at its index, or nowhere.
    Lost,
    /// A record is at two indices.
    Twice,
    /// Something is there that nobody appended, or that was refused.
    Strange,
    /// An index had one record, and has another.
    Changed,
    /// A read that misses what was known before it began, or an append that lies before that.
    Stale,
    /// A part of a batch.
    Torn,
    /// An index without a record between others, or records that are gone and that nobody cut.
    Hole,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::Lost => "lost",
            Wrong::Twice => "twice",
            Wrong::Strange => "never appended",
            Wrong::Changed => "changed",
            Wrong::Stale => "stale",
            Wrong::Torn => "torn",
            Wrong::Hole => "hole",
        })
    }
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is under way, or its answer is lost.
    Open,
    Acknowledged(u64),
    Refused,
}

/// An append: a record, or a batch of records with numbers that follow each other. To be told of
/// how it ends; dropped, it is one of unknown outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Append {
    first: u64,
    count: u64,
    /// What was known when it was called.
    known: u64,
}

#[derive(Default)]
struct Seen {
    /// By number, from 1 on.
    fates: Vec<Fate>,
    batches: Vec<(u64, u64)>,
    /// Which record is at which index, as anybody was told or shown, and the other way.
    log: BTreeMap<u64, u64>,
    at: HashMap<u64, u64>,
    /// The last index that a client knew of by an acknowledgement or a linearizable read.
    known: u64,
    /// The largest front that anybody asked for.
    cut: u64,
    found: Vec<(Wrong, String)>,
}

/// What a node has, compared with what is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) node: u64,
    pub(crate) records: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) strange: u64,
    /// Whether it has the same as all others.
    pub(crate) same: bool,
}

impl Found {
    pub(crate) fn is_bad(&self) -> bool {
        self.lost + self.twice + self.strange > 0 || !self.same
    }
}

#[derive(Default)]
pub(crate) struct Judge(Mutex<Seen>);

/// A record: its number, its length, and dots.
fn text(number: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!("record {number} of {bytes} bytes ").into_bytes();
    text.resize(bytes.max(text.len()), b'.');
    text
}

/// The number of a record, if it is one.
fn number(data: &[u8]) -> Option<u64> {
    let head = String::from_utf8_lossy(&data[..data.len().min(64)]).into_owned();
    let mut words = head.strip_prefix("record ")?.split(' ');
    let number = words.next()?.parse().ok()?;
    let bytes: usize = words.nth(1)?.parse().ok()?;
    (data.len() <= bytes.max(64) && data == text(number, bytes)).then_some(number)
}

impl Seen {
    fn wrong(&mut self, wrong: Wrong, why: String) {
        self.found.push((wrong, why));
    }

    fn fate(&self, number: u64) -> Option<Fate> {
        number.checked_sub(1).and_then(|at| self.fates.get(at as usize)).copied()
    }

    /// A record is at an index, as `who` says.
    fn place(&mut self, who: &str, index: u64, number: u64) {
        match self.log.get(&index) {
            Some(before) if *before != number => {
                let acknowledged = self.fate(*before) == Some(Fate::Acknowledged(index));
                let why = format!("index {index} had record {before}, and has record {number}, says {who}");
                self.wrong(if acknowledged { Wrong::Lost } else { Wrong::Changed }, why);
            }
            Some(_) => return,
            None => _ = self.log.insert(index, number),
        }
        match self.at.get(&number) {
            Some(other) if *other != index => {
                let why = format!("record {number} is at {other} and at {index}, says {who}");
                self.wrong(Wrong::Twice, why);
            }
            _ => _ = self.at.insert(number, index),
        }
    }

    fn observe(&mut self, who: &str, index: u64, data: &[u8]) {
        let Some(number) = number(data).filter(|number| self.fate(*number).is_some()) else {
            let head = String::from_utf8_lossy(&data[..data.len().min(40)]).into_owned();
            return self.wrong(Wrong::Strange, format!("{who} has {head:?} at index {index}, which nobody appended"));
        };
        if self.fate(number) == Some(Fate::Refused) {
            self.wrong(Wrong::Strange, format!("{who} has record {number} at index {index}, which was refused"));
        }
        self.place(who, index, number);
    }
}

impl Judge {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records to append together, of so many bytes each, just before they are.
    pub(crate) fn append(&self, sizes: &[usize]) -> (Append, Vec<Vec<u8>>) {
        let mut seen = self.seen();
        let first = seen.fates.len() as u64 + 1;
        let count = sizes.len() as u64;
        seen.fates.extend(sizes.iter().map(|_| Fate::Open));
        if count > 1 {
            seen.batches.push((first, count));
        }
        let append = Append { first, count, known: seen.known };
        (append, sizes.iter().zip(first..).map(|(bytes, number)| text(number, *bytes)).collect())
    }

    /// The append was acknowledged, the first of its records at this index.
    pub(crate) fn acknowledge(&self, append: Append, index: u64) {
        let mut seen = self.seen();
        if index <= append.known {
            let why = format!("record {} came to {index}, and {} was known before", append.first, append.known);
            seen.wrong(Wrong::Stale, why);
        }
        for at in 0..append.count {
            let number = append.first + at;
            seen.fates[number as usize - 1] = Fate::Acknowledged(index + at);
            seen.place("an acknowledgement", index + at, number);
        }
        seen.known = seen.known.max(index + append.count - 1);
    }

    /// Nothing was written, the client was told.
    pub(crate) fn refuse(&self, append: Append) {
        let mut seen = self.seen();
        for number in append.first..append.first + append.count {
            seen.fates[number as usize - 1] = Fate::Refused;
            if let Some(index) = seen.at.get(&number).copied() {
                seen.wrong(Wrong::Strange, format!("record {number} was refused, and is at index {index}"));
            }
        }
    }

    /// What a linearizable read has to show that begins now.
    pub(crate) fn known(&self) -> u64 {
        self.seen().known
    }

    /// Somebody asks for the records before this index to be dropped.
    pub(crate) fn cut(&self, front: u64) {
        let mut seen = self.seen();
        seen.cut = seen.cut.max(front);
    }

    /// A client hears that the records before this index are gone.
    pub(crate) fn gone(&self, who: &str, first: u64) {
        let mut seen = self.seen();
        if first > seen.cut.max(1) {
            let why = format!("{who} has nothing before {first}, and nobody cut behind {}", seen.cut);
            seen.wrong(Wrong::Hole, why);
        }
    }

    /// Records that follow each other were shown, from an index on.
    pub(crate) fn shown<'a>(&self, who: &str, from: u64, records: impl IntoIterator<Item = (u64, &'a [u8])>) {
        let mut seen = self.seen();
        for (expected, (index, data)) in (from..).zip(records) {
            if index != expected {
                return seen.wrong(Wrong::Hole, format!("{who} shows index {index} where {expected} is next"));
            }
            seen.observe(who, index, data);
        }
    }

    /// A linearizable read, which was `whole`: nothing but the end of the log ended it.
    pub(crate) fn read<'a>(
        &self,
        who: &str,
        from: u64,
        known: u64,
        whole: bool,
        records: impl IntoIterator<Item = (u64, &'a [u8])>,
    ) {
        let mut last = from.saturating_sub(1);
        self.shown(who, from, records.into_iter().inspect(|(index, _)| last = *index));
        let mut seen = self.seen();
        if whole && last < known {
            seen.wrong(Wrong::Stale, format!("a read from {from} by {who} ends with {last}, and {known} was known before"));
        }
        seen.known = seen.known.max(last);
    }

    /// The logs of all nodes in the end, each with the index of its first record.
    pub(crate) fn compare<R: AsRef<[u8]> + PartialEq>(&self, nodes: &[(u64, u64, Vec<R>)]) -> Vec<Found> {
        let numbers = |records: &[R]| records.iter().map(|record| number(record.as_ref())).collect::<Vec<_>>();
        let mut found = Vec::new();
        let reference = nodes.first();
        for (node, first, records) in nodes {
            let who = format!("node {node}");
            self.gone(&who, *first);
            let has = numbers(records);
            let mut seen = self.seen();
            let behind = first + has.len() as u64;
            let at = |index: u64| index.checked_sub(*first).and_then(|at| has.get(at as usize)).copied().flatten();
            let mut lost = Vec::new();
            for (index, number) in seen.log.range(first..) {
                if seen.fate(*number) == Some(Fate::Acknowledged(*index)) && at(*index) != Some(*number) {
                    lost.push(format!("record {number} was acknowledged at {index}, and {who} does not have it there"));
                }
            }
            let shown: Vec<u64> = seen.log.range(behind.max(*first)..).map(|(index, _)| *index).collect();
            if let Some(beyond) = shown.first() {
                let why = format!("index {beyond} was seen, and the log of {who} ends before {behind}");
                seen.wrong(Wrong::Lost, why);
            }
            let mut counted = Found { node: *node, records: has.len() as u64, lost: lost.len() as u64, ..Found::default() };
            lost.into_iter().for_each(|why| seen.wrong(Wrong::Lost, why));
            let mut once = std::collections::HashSet::new();
            for (index, number) in (*first..).zip(&has) {
                match number {
                    Some(number) if seen.fate(*number).is_some_and(|fate| fate != Fate::Refused) => {
                        counted.twice += u64::from(!once.insert(*number));
                    }
                    _ => counted.strange += 1,
                }
                seen.observe(&who, index, records[(index - first) as usize].as_ref());
            }
            counted.same = reference.is_none_or(|(_, from, reference)| (from, reference) == (first, records));
            if !counted.same {
                let why = format!("{who} has {} records from {first} on, and they are not those of another node", has.len());
                seen.wrong(Wrong::Changed, why);
            }
            found.push(counted);
        }
        let mut seen = self.seen();
        for (first, count) in std::mem::take(&mut seen.batches) {
            let places: Vec<_> = (first..first + count).map(|number| seen.at.get(&number).copied()).collect();
            let whole = places.windows(2).all(|pair| pair[0].map(|at| at + 1) == pair[1]);
            if !whole {
                seen.wrong(Wrong::Torn, format!("the batch of records {first} to {} is at {places:?}", first + count - 1));
            }
        }
        found
    }

    /// How many records were acknowledged, were refused, and have an unknown outcome; and how many
    /// of the last are there.
    pub(crate) fn counts(&self) -> (u64, u64, u64, u64) {
        let seen = self.seen();
        let (mut acknowledged, mut refused, mut open, mut there) = (0, 0, 0, 0);
        for (fate, number) in seen.fates.iter().zip(1..) {
            match fate {
                Fate::Acknowledged(_) => acknowledged += 1,
                Fate::Refused => refused += 1,
                Fate::Open => {
                    open += 1;
                    there += u64::from(seen.at.contains_key(&number));
                }
            }
        }
        (acknowledged, refused, open, there)
    }

    /// What is wrong, in the order in which it was found, without the first some.
    pub(crate) fn wrong(&self, after: usize) -> Vec<(Wrong, String)> {
        self.seen().found.get(after..).unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many acknowledged records of 64 bytes.
    fn judge(count: u64) -> (Judge, Vec<Vec<u8>>) {
        let judge = Judge::default();
        let mut records = Vec::new();
        for index in 1..=count {
            let (append, mut record) = judge.append(&[64]);
            judge.acknowledge(append, index);
            records.append(&mut record);
        }
        (judge, records)
    }

    fn kinds(judge: &Judge) -> Vec<Wrong> {
        let mut kinds: Vec<_> = judge.wrong(0).into_iter().map(|(wrong, _)| wrong).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    fn with(records: &[Vec<u8>], change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<Vec<u8>> {
        let mut records = records.to_vec();
        change(&mut records);
        records
    }

    #[test]
    fn logs_as_they_should_be_are_passed() {
        let (judge, mut records) = judge(3);
        let (unknown, more) = judge.append(&[100, 30]); // Its answer is lost, and it is there.
        let (_, _nowhere) = judge.append(&[64]);
        let (refused, _) = judge.append(&[64]);
        judge.refuse(refused);
        assert_eq!(unknown.count, 2);
        records.extend(more);
        judge.cut(3);
        judge.shown("a reader", 1, records.iter().take(2).zip(1..).map(|(record, index)| (index, &record[..])));
        judge.read("a reader", 4, 3, true, [(4, &records[3][..])]);
        let (append, record) = judge.append(&[64]);
        judge.acknowledge(append, 6);
        records.extend(record);
        let found = judge.compare(&[(1, 3, records[2..].to_vec()), (2, 3, records[2..].to_vec())]);
        assert_eq!(judge.wrong(0), []);
        assert_eq!(found[1], Found { node: 2, records: 4, lost: 0, twice: 0, strange: 0, same: true });
        assert_eq!(judge.counts(), (4, 1, 3, 2));
    }

    #[test]
    fn what_is_lost_twice_strange_or_different_is_counted() {
        type Change = fn(&mut Vec<Vec<u8>>);
        let cases: [(Change, (u64, u64, u64), Wrong); 7] = [
            (|log| _ = log.pop(), (1, 0, 0), Wrong::Lost),
            (|log| _ = log.remove(1), (3, 0, 0), Wrong::Lost),
            (|log| log.swap(0, 1), (2, 0, 0), Wrong::Lost),
            (|log| log.push(log[1].clone()), (0, 1, 0), Wrong::Twice),
            (|log| log[2] = log[1].clone(), (1, 1, 0), Wrong::Twice),
            (|log| log.push(text(99, 64)), (0, 0, 1), Wrong::Strange),
            (|log| log[3].push(b'.'), (1, 0, 1), Wrong::Strange),
        ];
        for (at, (change, counts, kind)) in cases.into_iter().enumerate() {
            let (judge, records) = judge(4);
            let found = judge.compare(&[(1, 1, with(&records, change)), (2, 1, records)]);
            assert_eq!((found[0].lost, found[0].twice, found[0].strange), counts, "{at}");
            assert!(!found[1].same && found[1].is_bad() && kinds(&judge).contains(&kind), "{at}: {:?}", judge.wrong(0));
        }
    }

    #[test]
    fn acknowledgements_that_contradict_each_other_are_found() {
        let (judge, _) = judge(2);
        let (append, _) = judge.append(&[64]);
        judge.acknowledge(append, 2);
        assert_eq!(kinds(&judge), [Wrong::Lost, Wrong::Stale]);
        // Twice: once by a retry, once by a read.
        let (judge, _) = self::judge(1);
        let (append, record) = judge.append(&[64]);
        judge.shown("a reader", 2, [(2, &record[0][..])]);
        judge.acknowledge(append, 3);
        assert_eq!(kinds(&judge), [Wrong::Twice]);
    }

    #[test]
    fn what_was_refused_is_nowhere() {
        let (judge, mut records) = judge(1);
        let (append, record) = judge.append(&[64]);
        judge.refuse(append);
        records.extend(record);
        assert_eq!(judge.compare(&[(1, 1, records)])[0].strange, 1);
        assert_eq!(kinds(&judge), [Wrong::Strange]);
    }

    #[test]
    fn a_read_does_not_go_back_and_has_no_holes() {
        let (judge, records) = judge(3);
        let known = judge.known();
        let shown = |upto: usize| records[..upto].iter().zip(1..).map(|(record, index)| (index, &record[..]));
        judge.read("a reader", 1, known, true, shown(3));
        judge.read("a reader", 1, known, false, shown(2)); // A page was full.
        assert_eq!(judge.wrong(0), []);
        judge.read("a reader", 1, known, true, shown(2));
        assert_eq!(kinds(&judge), [Wrong::Stale]);
        let (judge, _) = self::judge(3);
        judge.shown("a follower", 1, shown(3).filter(|(index, _)| *index != 2));
        judge.gone("a follower", 2);
        assert_eq!((kinds(&judge), judge.wrong(0).len()), (vec![Wrong::Hole], 2));
    }

    #[test]
    fn an_index_does_not_change_and_a_batch_is_whole() {
        let judge = Judge::default();
        let (_, batch) = judge.append(&[64, 64]);
        let (_, other) = judge.append(&[64]);
        judge.shown("node 1", 1, [(1, &batch[0][..])]);
        judge.shown("node 2", 1, [(1, &other[0][..])]);
        assert_eq!(kinds(&judge), [Wrong::Changed]);
        let judge = Judge::default();
        let (_, batch) = judge.append(&[64, 64]);
        judge.compare(&[(1, 1, vec![batch[0].clone()])]);
        assert_eq!(kinds(&judge), [Wrong::Torn]);
    }
}
