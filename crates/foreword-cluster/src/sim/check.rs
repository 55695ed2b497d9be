//! Whether one log can have answered as clients saw it. A log that only grows is linearizable if
//! - a record stays where it was acknowledged, or seen, and is nowhere twice;
//! - what was acknowledged before a call was made has a smaller index than what that call appends;
//! - a read, or `last`, shows all that was acknowledged, or read, before it was called.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use bytes::Bytes;

use super::lock;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Append(Vec<Bytes>),
    /// In a session, with a sequence.
    Once(u64, u64, Vec<Bytes>),
    Read(u64),
    Last,
    Truncate(u64),
}

#[derive(Clone, Debug)]
pub(super) enum Saw {
    Index(u64),
    Records(Vec<(u64, Bytes)>),
    Last(u64),
    Front(u64),
    Dropped(u64),
    Expired,
    /// Nothing was written.
    Refused(String),
}

struct Event {
    op: Op,
    called: u64,
    returned: Option<(u64, Saw)>,
}

#[derive(Default)]
pub(super) struct History(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// Counts calls and returns, so that they have an order.
    clock: u64,
    numbers: u64,
    events: Vec<Event>,
    /// Each record that any node ever showed.
    log: BTreeMap<u64, Bytes>,
    violation: Option<String>,
    /// The largest index that anybody wanted to cut up to.
    cut: u64,
    last: u64,
}

fn short(record: &[u8]) -> String {
    let number = record.first_chunk::<8>().map_or(0, |number| u64::from_le_bytes(*number));
    format!("number {number} of {} bytes", record.len())
}

impl History {
    /// A number that no other record has.
    pub(super) fn number(&self) -> u64 {
        let mut seen = lock(&self.0);
        seen.numbers += 1;
        seen.numbers
    }

    pub(super) fn called(&self, op: Op) -> usize {
        let mut seen = lock(&self.0);
        seen.clock += 1;
        if let Op::Truncate(to) = op {
            seen.cut = seen.cut.max(to);
        }
        let called = seen.clock;
        seen.events.push(Event { op, called, returned: None });
        seen.events.len() - 1
    }

    pub(super) fn returned(&self, call: usize, saw: Saw) {
        if let Saw::Records(records) = &saw {
            records.iter().for_each(|(index, data)| self.observed(0, *index, data));
        }
        let mut seen = lock(&self.0);
        seen.clock += 1;
        let at = seen.clock;
        seen.events[call].returned = Some((at, saw));
    }

    pub(super) fn violated(&self, why: String) {
        lock(&self.0).violation.get_or_insert(why);
    }

    pub(super) fn violation(&self) -> Option<String> {
        lock(&self.0).violation.clone()
    }

    /// A node shows a record.
    pub(super) fn observed(&self, node: u64, index: u64, data: &Bytes) {
        let mut seen = lock(&self.0);
        let before = seen.log.entry(index).or_insert_with(|| data.clone()).clone();
        if before != *data {
            let why = format!("record {index} was {}, and node {node} has {}", short(&before), short(data));
            seen.violation.get_or_insert(why);
        }
    }

    pub(super) fn next_observed(&self) -> u64 {
        lock(&self.0).log.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// A node says that what lies before an index is gone.
    pub(super) fn may_have_dropped(&self, first: u64) {
        let mut seen = lock(&self.0);
        if first > seen.cut.max(1) {
            let why = format!("records before {first} are gone, and nobody cut behind {}", seen.cut);
            seen.violation.get_or_insert(why);
        }
    }

    /// What a node has at the end.
    pub(super) fn final_log(&self, node: u64, first: u64, last: u64) {
        self.may_have_dropped(first);
        let mut seen = lock(&self.0);
        seen.last = last;
        if let Some((beyond, _)) = seen.log.range(last + 1..).next() {
            let why = format!("record {beyond} was seen, and the log of node {node} ends with {last}");
            seen.violation.get_or_insert(why);
        }
    }

    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        let seen = lock(&self.0);
        let acknowledged = seen.events.iter().filter(|event| matches!(event.returned, Some((_, Saw::Index(_))))).count();
        let (calls, records) = (seen.events.len() as u64, seen.log.len() as u64);
        vec![("calls", calls), ("appends acknowledged", acknowledged as u64), ("records seen", records)]
    }

    pub(super) fn verdict(&self) -> Result<(), String> {
        let seen = lock(&self.0);
        match &seen.violation {
            Some(why) => Err(why.clone()),
            None => seen.records().and_then(|()| seen.order()).and_then(|()| seen.reads()),
        }
    }
}

/// When an append was first called, and first acknowledged.
struct Appended {
    index: u64,
    called: u64,
    acknowledged: u64,
}

impl Event {
    fn records(&self) -> &[Bytes] {
        match &self.op {
            Op::Append(records) | Op::Once(_, _, records) => records,
            _ => &[],
        }
    }

    fn index(&self) -> Option<u64> {
        match self.returned {
            Some((_, Saw::Index(index))) => Some(index),
            _ => None,
        }
    }
}

impl Seen {
    /// Each record where it was acknowledged, and nowhere twice.
    fn records(&self) -> Result<(), String> {
        let mut places = HashMap::new();
        for (index, record) in &self.log {
            if let Some(before) = places.insert(record.clone(), *index) {
                return Err(format!("{} is at {before} and at {index}", short(record)));
            }
        }
        for event in &self.events {
            if let Some((_, Saw::Refused(why))) = &event.returned
                && matches!(event.op, Op::Append(_))
                && let Some(index) = event.records().first().and_then(|record| places.get(record))
            {
                return Err(format!("an append was refused ({why}), and is at {index}"));
            }
            let placed: Vec<Option<u64>> = event.records().iter().map(|record| places.get(record).copied()).collect();
            if let Some(first) = placed.first().copied().flatten()
                && let Some(wrong) = (first..).zip(&placed).find(|(index, at)| **at != Some(*index))
            {
                return Err(format!("a batch begins at {first}, and a record of it is at {:?} and not {}", wrong.1, wrong.0));
            }
            let Some(index) = event.index() else { continue };
            for (index, record) in (index..).zip(event.records()) {
                match self.log.get(&index) {
                    Some(there) if there == record => {}
                    Some(there) => {
                        return Err(format!("{} was acknowledged at {index}, and there is {}", short(record), short(there)));
                    }
                    None if index < self.cut => {}
                    None => return Err(format!("{} was acknowledged at {index}, and is lost", short(record))),
                }
            }
        }
        Ok(())
    }

    /// All appends of which the index is known, by it. All calls with the same sequence of a
    /// session are one.
    fn appends(&self) -> BTreeMap<u64, Appended> {
        let places: HashMap<&Bytes, u64> = self.log.iter().map(|(index, record)| (record, *index)).collect();
        let mut appends = BTreeMap::<u64, Appended>::new();
        for event in &self.events {
            let there = event.records().first().and_then(|record| places.get(record).copied());
            let Some(index) = event.index().or(there) else { continue };
            let acknowledged = match event.returned {
                Some((at, Saw::Index(_))) => at,
                _ => u64::MAX,
            };
            let append = appends.entry(index).or_insert(Appended { index, called: event.called, acknowledged });
            append.called = append.called.min(event.called);
            append.acknowledged = append.acknowledged.min(acknowledged);
        }
        appends
    }

    fn order(&self) -> Result<(), String> {
        let mut once = HashMap::new();
        for event in &self.events {
            if let (Op::Once(session, sequence, _), Some(index)) = (&event.op, event.index())
                && let Some(before) = once.insert((*session, *sequence), index).filter(|before| *before != index)
            {
                return Err(format!("sequence {sequence} of session {session} was acknowledged at {before} and at {index}"));
            }
        }
        let mut earliest = (u64::MAX, 0);
        for append in self.appends().values().rev() {
            if earliest.0 < append.called {
                return Err(format!("{} was acknowledged before {} was called", earliest.1, append.index));
            }
            earliest = earliest.min((append.acknowledged, append.index));
        }
        Ok(())
    }

    /// At which time how much was known to be there, or cut: `(when, next, front)`.
    fn known(&self) -> Vec<(u64, u64, u64)> {
        let mut known: Vec<(u64, u64, u64)> = Vec::new();
        for event in &self.events {
            let Some((at, saw)) = &event.returned else { continue };
            known.push(match saw {
                Saw::Index(index) => (*at, index + event.records().len() as u64, 0),
                Saw::Last(last) => (*at, last + 1, 0),
                Saw::Records(records) => (*at, records.last().map_or(0, |(index, _)| index + 1), 0),
                Saw::Front(front) => (*at, 0, *front),
                _ => continue,
            });
        }
        known.sort_unstable();
        let (mut next, mut front) = (0, 0);
        for at in &mut known {
            (next, front) = (next.max(at.1), front.max(at.2));
            (at.1, at.2) = (next, front);
        }
        known
    }

    fn reads(&self) -> Result<(), String> {
        let known = self.known();
        for event in &self.events {
            let Some((_, saw)) = &event.returned else { continue };
            let before = known.partition_point(|(at, ..)| *at < event.called);
            let (next, front) = before.checked_sub(1).map_or((1, 0), |at| (known[at].1, known[at].2));
            match (&event.op, saw) {
                (Op::Last, Saw::Last(last)) if last + 1 < next => {
                    return Err(format!("last was {last}, and {} was known before it was called", next - 1));
                }
                (Op::Last, Saw::Last(last)) if *last > self.last => {
                    return Err(format!("last was {last}, and the log ends with {}", self.last));
                }
                (Op::Read(from), Saw::Records(_)) if *from < front => {
                    return Err(format!("a read from {from} was answered, and {front} was the front before it was called"));
                }
                (Op::Read(from), Saw::Records(records)) => {
                    if let Some((wrong, _)) = (*from..).zip(records).find(|(index, record)| record.0 != *index).map(|(_, r)| r) {
                        return Err(format!("a read from {from} has {wrong} out of order"));
                    }
                    let end = from + records.len() as u64;
                    if end < next && records.iter().map(|(_, data)| data.len()).sum::<usize>() < 900_000 && records.len() < 16_000
                    {
                        return Err(format!(
                            "a read from {from} ends before {end}, and {} was known before it was called",
                            next - 1
                        ));
                    }
                }
                (Op::Read(from), Saw::Dropped(first)) if *first > self.cut.max(1) => {
                    return Err(format!("a read from {from} was refused for {first}, and nobody cut behind {}", self.cut));
                }
                (Op::Truncate(to), Saw::Front(now)) if now < to => {
                    return Err(format!("the front was cut to {to}, and is {now}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
