//! A checker of histories: could the transactions have run one after the other?
//!
//! The ideas are Elle's (Kingsbury and Alvaro, VLDB 2020). Each key has a list, transactions append
//! values to lists, each value once, and read whole lists: a read tells all that was appended
//! before and in which order. What follows of that is a graph of which transaction comes before
//! which. It has a circle, or a read cannot be explained at all, if and only if no serial order
//! explains all that the transactions read (the tests of this module try all orders of small
//! histories).
//!
//! The work grows with the length of all lists that were read, and with the number of transactions.

#![allow(unreachable_pub)]

mod circles;
mod graph;
mod oracle;
mod orders;
mod tests;

use std::fmt;
use std::ops::Range;

/// What a transaction did, with what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// No two appends of a history have the same key and value.
    Append { key: u64, value: u64 },
    /// A key that is not there has an empty list.
    Read { key: u64, list: Vec<u64> },
    /// A read of each key in the range: those that are there, in order, with their lists. The
    /// others were found absent.
    Scan { keys: Range<u64>, found: Vec<(u64, Vec<u64>)> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// What it read counts for nothing, and none may see what it appended.
    Aborted,
    /// Its commit was under way when the process ended, say. It counts if another saw what it
    /// appended.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// In its own order.
    pub ops: Vec<Op>,
    pub outcome: Outcome,
    /// When it began and when its end had returned, by a clock that all share. What ended before
    /// another began must come before that.
    pub time: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The history itself is wrong: a value is appended twice.
    BadHistory,
    /// A scan found a key outside its range, a key twice, keys out of order, or an empty list.
    WrongScan,
    /// A value was read that no transaction appended.
    InventedValue,
    /// A transaction did not see what it had appended itself, at the end of the list.
    OwnAppendUnseen,
    /// A list has a value twice.
    DuplicateAppend,
    /// Of two lists of a key, neither is the beginning of the other.
    IncompatibleOrders,
    /// G1a: what an aborted transaction appended was read.
    AbortedRead,
    /// G1b: a list was read to which its last writer appended more.
    IntermediateRead,
    /// An append that had returned is missing from a later read.
    LostAppend,
    /// A circle of appends.
    G0,
    /// A circle of appends and reads of them.
    G1c,
    /// A circle with one read that missed an append: also a lost update.
    GSingle,
    /// A circle with several such reads: write skew, phantoms.
    G2,
}

/// What no serial order explains.
#[derive(Clone, Debug)]
pub struct Anomaly {
    pub kind: Kind,
    /// It is one only by the times of the transactions: a serial order would explain it.
    pub is_by_time: bool,
    /// Names the transactions (by their position in the history), keys and values.
    pub text: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}: {}", self.kind, if self.is_by_time { " by time" } else { "" }, self.text)
    }
}

/// All reads that are wrong by themselves. Without any: of each knot of transactions (each comes
/// before each) one circle of the worst kind, a shortest one. In a knot of more than some thousand
/// transactions only a part of the circles is looked at: there may be a shorter one, and one with a
/// single read, where G2 is reported.
pub fn check(history: &[Transaction]) -> Vec<Anomaly> {
    let (orders, anomalies) = orders::find(history);
    if anomalies.is_empty() { circles::find(&graph::build(history, &orders)) } else { anomalies }
}

pub fn assert_serializable(history: &[Transaction]) {
    let anomalies = check(history);
    let first: Vec<_> = anomalies.iter().take(10).map(|anomaly| format!("{anomaly}")).collect();
    assert!(anomalies.is_empty(), "{} anomalies:\n{}", anomalies.len(), first.join("\n"));
}
