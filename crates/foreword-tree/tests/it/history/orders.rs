//! What was read, and in which order values were appended to each key.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Anomaly, Kind, Op, Outcome, Transaction};

#[derive(Default)]
pub struct Orders {
    /// Which transactions count: the committed ones, and those that they saw.
    pub counts: Vec<bool>,
    /// What the transactions that count read.
    pub reads: Vec<Read>,
    pub keys: BTreeMap<u64, Key>,
}

pub struct Read {
    pub txn: usize,
    pub key: u64,
    /// How many values others had appended.
    pub others: usize,
}

#[derive(Default)]
pub struct Key {
    /// The longest list that was read: each value, and the transaction that appended it.
    pub order: Vec<(u64, usize)>,
    /// Transactions that count and appended what was never read, each with its first such value.
    /// They come after all in the order.
    pub unread: Vec<(u64, usize)>,
}

/// By key and value: which transaction appended it, and whether it appended more to that key.
type Appends = HashMap<(u64, u64), (usize, bool)>;

pub fn find(history: &[Transaction]) -> (Orders, Vec<Anomaly>) {
    let mut found = Found::default();
    let appends = found.appends(history);
    let reads = found.plain(history);
    let counts = counting(history, &appends, &reads);
    let mut longest: BTreeMap<u64, (usize, &[u64])> = BTreeMap::new();
    let mut orders = Orders::default();
    for (txn, ops) in reads.iter().enumerate().filter(|(txn, _)| counts[*txn]) {
        let mut own: HashMap<u64, Vec<u64>> = HashMap::new();
        for op in ops {
            match op {
                Plain::Append(key, value) => own.entry(*key).or_default().push(*value),
                Plain::Read(key, list) => {
                    let own = own.get(key).map_or(&[][..], |own| own);
                    let others = found.read(history, &appends, txn, (*key, list), own);
                    orders.reads.push(Read { txn, key: *key, others });
                    let best = longest.entry(*key).or_insert((txn, list));
                    let (long, short) = if list.len() > best.1.len() { ((txn, *list), *best) } else { (*best, (txn, *list)) };
                    if !long.1.starts_with(short.1) {
                        let text =
                            format!("transaction {} read key {key} as {:?}, and {} as {:?}", long.0, long.1, short.0, short.1);
                        found.add(Kind::IncompatibleOrders, text);
                    }
                    *best = long;
                }
            }
        }
    }
    let of = |key: u64, list: &[u64]| list.iter().filter_map(|&value| Some((value, appends.get(&(key, value))?.0))).collect();
    orders.keys = longest.iter().map(|(&key, &(_, list))| (key, Key { order: of(key, list), unread: Vec::new() })).collect();
    found.unread(history, &counts, &mut orders);
    orders.counts = counts;
    (orders, found.0)
}

/// An operation without scans.
enum Plain<'a> {
    Append(u64, u64),
    Read(u64, &'a [u64]),
}

/// A transaction counts if it committed, or one that counts read what it appended.
fn counting(history: &[Transaction], appends: &Appends, reads: &[Vec<Plain<'_>>]) -> Vec<bool> {
    let mut counts: Vec<_> = history.iter().map(|txn| txn.outcome == Outcome::Committed).collect();
    let mut next: Vec<_> = (0..history.len()).filter(|&txn| counts[txn]).collect();
    while let Some(txn) = next.pop() {
        for op in &reads[txn] {
            let Plain::Read(key, list) = op else { continue };
            for value in *list {
                if let Some(&(writer, _)) = appends.get(&(*key, *value))
                    && history[writer].outcome == Outcome::Unknown
                    && !std::mem::replace(&mut counts[writer], true)
                {
                    next.push(writer);
                }
            }
        }
    }
    counts
}

#[derive(Default)]
struct Found(Vec<Anomaly>);

impl Found {
    fn add(&mut self, kind: Kind, text: String) {
        self.0.push(Anomaly { kind, is_by_time: kind == Kind::LostAppend, text });
    }

    fn appends(&mut self, history: &[Transaction]) -> Appends {
        let mut appends = Appends::new();
        for (txn, Transaction { ops, .. }) in history.iter().enumerate() {
            let mut later = HashSet::new();
            for op in ops.iter().rev() {
                let Op::Append { key, value } = *op else { continue };
                if let Some((other, _)) = appends.insert((key, value), (txn, !later.insert(key))) {
                    let text = format!("transactions {other} and {txn} both append {value} to key {key}");
                    self.add(Kind::BadHistory, text);
                }
            }
        }
        appends
    }

    /// The operations of each transaction, with a read of each key that the history knows in place
    /// of a scan.
    fn plain<'a>(&mut self, history: &'a [Transaction]) -> Vec<Vec<Plain<'a>>> {
        let keys = |op: &Op| match op {
            Op::Append { key, .. } | Op::Read { key, .. } => vec![*key],
            Op::Scan { found, .. } => found.iter().map(|(key, _)| *key).collect(),
        };
        let known: BTreeSet<u64> = history.iter().flat_map(|txn| txn.ops.iter().flat_map(keys)).collect();
        let mut all = Vec::new();
        for (txn, Transaction { ops, outcome, .. }) in history.iter().enumerate() {
            let mut plain = Vec::new();
            for op in ops {
                match op {
                    Op::Append { key, value } => plain.push(Plain::Append(*key, *value)),
                    Op::Read { key, list } => plain.push(Plain::Read(*key, list)),
                    Op::Scan { keys, found } => {
                        let is_ordered = found.is_sorted_by(|a, b| a.0 < b.0);
                        if !is_ordered || !found.iter().all(|(key, list)| keys.contains(key) && !list.is_empty()) {
                            if *outcome != Outcome::Aborted {
                                self.add(Kind::WrongScan, format!("transaction {txn} scanned {keys:?} and found {found:?}"));
                            }
                            continue;
                        }
                        let mut found = found.iter().peekable();
                        for &key in known.range(keys.start..keys.end.max(keys.start)) {
                            let there = found.next_if(|found| found.0 == key);
                            plain.push(Plain::Read(key, there.map_or(&[], |found| &found.1)));
                        }
                    }
                }
            }
            all.push(plain);
        }
        all
    }

    /// Checks a read by itself. How many of its values others appended.
    fn read(&mut self, history: &[Transaction], appends: &Appends, txn: usize, read: (u64, &[u64]), own: &[u64]) -> usize {
        let (key, list) = read;
        let what = format!("transaction {txn} read key {key} as {list:?}");
        let others = list.strip_suffix(own).unwrap_or(list);
        if others.len() + own.len() != list.len() {
            self.add(Kind::OwnAppendUnseen, format!("{what}, after it had appended {own:?}"));
        }
        let mut seen = HashSet::new();
        for value in list {
            if !seen.insert(value) {
                self.add(Kind::DuplicateAppend, format!("{what}, with {value} twice"));
            }
            match appends.get(&(key, *value)) {
                None => self.add(Kind::InventedValue, format!("{what}, but no transaction appended {value}")),
                Some(&(writer, _)) if history[writer].outcome == Outcome::Aborted && writer != txn => {
                    self.add(Kind::AbortedRead, format!("{what}, but {writer}, which appended {value}, aborted"));
                }
                Some(&(writer, _)) if writer == txn && !own.contains(value) => {
                    self.add(Kind::InventedValue, format!("{what}, but appends {value} only later"));
                }
                Some(_) => (),
            }
        }
        if let Some(last) = others.last()
            && let Some(&(writer, true)) = appends.get(&(key, *last))
            && writer != txn
        {
            self.add(Kind::IntermediateRead, format!("{what}, but {writer}, which appended {last}, appended more to it"));
        }
        others.len()
    }

    /// Finds what was never read, and which of that should have been.
    fn unread(&mut self, history: &[Transaction], counts: &[bool], orders: &mut Orders) {
        let mut newest: HashMap<u64, (u64, usize)> = HashMap::new();
        for read in &orders.reads {
            if let Some((begin, _)) = history[read.txn].time {
                let newest = newest.entry(read.key).or_insert((begin, read.txn));
                *newest = (*newest).max((begin, read.txn));
            }
        }
        let ordered: HashSet<_> =
            orders.keys.iter().flat_map(|(&key, of)| of.order.iter().map(move |&(value, _)| (key, value))).collect();
        for (txn, Transaction { ops, outcome, time }) in history.iter().enumerate().filter(|(txn, _)| counts[*txn]) {
            for op in ops {
                let Op::Append { key, value } = *op else { continue };
                if ordered.contains(&(key, value)) {
                    continue;
                }
                let unread = &mut orders.keys.entry(key).or_default().unread;
                if unread.last().is_none_or(|last| last.1 != txn) {
                    unread.push((value, txn));
                }
                if let (Some((_, end)), Outcome::Committed) = (time, outcome)
                    && let Some((begin, reader)) = newest.get(&key)
                    && end < begin
                {
                    let text = format!(
                        "transaction {txn} appended {value} to key {key} and had ended when {reader} began, which read the key without it"
                    );
                    self.add(Kind::LostAppend, text);
                }
            }
        }
    }
}
