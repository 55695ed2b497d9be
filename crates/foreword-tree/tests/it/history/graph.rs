//! Which transaction comes before which, and why.
//!
//! Where many come before many others, there is a point between: a node that stands for no
//! transaction, so that the number of edges grows with that of the transactions.

use std::collections::{BTreeMap, HashMap};

use super::orders::Orders;
use super::{Outcome, Transaction};

/// Why one transaction comes before another, as bits.
pub const APPENDS: u8 = 1; // ww: both appended to a key.
pub const READS: u8 = 2; // wr: the other read what this one appended.
pub const MISSES: u8 = 4; // rw: this one read a key without what the other appended.
pub const TIME: u8 = 8; // This one had ended when the other began.
/// From a point on: what led to the point is the reason.
pub const ON: u8 = 16;

#[derive(Clone, Copy, Debug)]
pub struct Edge {
    pub to: usize,
    pub why: u8,
    pub key: u64,
    /// What the first appended (ww).
    pub before: u64,
    /// What it is about: what the second appended, or (wr) the first.
    pub value: u64,
}

pub struct Graph {
    /// Nodes before this one are transactions, those from it on are points.
    pub transactions: usize,
    pub edges: Vec<Vec<Edge>>,
}

impl Graph {
    fn point(&mut self) -> usize {
        self.edges.push(Vec::new());
        self.edges.len() - 1
    }

    fn add(&mut self, from: usize, to: usize, why: u8, key: u64, before: u64, value: u64) {
        if from != to {
            self.edges[from].push(Edge { to, why, key, before, value });
        }
    }
}

pub fn build(history: &[Transaction], orders: &Orders) -> Graph {
    let mut graph = Graph { transactions: history.len(), edges: vec![Vec::new(); history.len()] };
    // For each key, who read all of the order, or appended last to it.
    let mut at_end: HashMap<u64, Vec<(usize, u8, u64)>> = HashMap::new();
    for (&key, of) in &orders.keys {
        for pair in of.order.windows(2) {
            graph.add(pair[0].1, pair[1].1, APPENDS, key, pair[0].0, pair[1].0);
        }
        at_end.insert(key, of.order.last().map(|&(value, txn)| (txn, APPENDS, value)).into_iter().collect());
    }
    for read in &orders.reads {
        let order = &orders.keys[&read.key].order;
        if let Some(&(value, writer)) = order[..read.others].last() {
            graph.add(writer, read.txn, READS, read.key, 0, value);
        }
        match order.get(read.others) {
            Some(&(value, writer)) => graph.add(read.txn, writer, MISSES, read.key, 0, value),
            None => at_end.entry(read.key).or_default().push((read.txn, MISSES, 0)),
        }
    }
    for (&key, of) in &orders.keys {
        add_unread(&mut graph, key, &of.unread, &at_end[&key]);
    }
    add_times(&mut graph, history, &orders.counts);
    graph
}

/// All `before` come before all that appended what was never read; but none before itself.
fn add_unread(graph: &mut Graph, key: u64, unread: &[(u64, usize)], before: &[(usize, u8, u64)]) {
    if unread.is_empty() {
        return;
    }
    let point = graph.point();
    let values: HashMap<usize, u64> = unread.iter().map(|&(value, txn)| (txn, value)).collect();
    unread.iter().for_each(|&(value, txn)| graph.add(point, txn, ON, key, 0, value));
    // Of those that are on both sides, any two are a circle: to know one before all is enough.
    let mut first = None;
    for &(txn, why, appended) in before {
        if !values.contains_key(&txn) {
            graph.add(txn, point, why, key, appended, 0);
        } else if let Some(first) = first
            && first != txn
        {
            graph.add(txn, first, why, key, appended, values[&first]);
        } else {
            first = Some(txn);
            unread.iter().for_each(|&(value, other)| graph.add(txn, other, why, key, appended, value));
        }
    }
}

/// A chain of points, one for each time at which transactions began.
fn add_times(graph: &mut Graph, history: &[Transaction], counts: &[bool]) {
    let counting = || history.iter().enumerate().filter(|(txn, _)| counts[*txn]);
    let mut points = BTreeMap::new();
    for (txn, Transaction { time, .. }) in counting() {
        let Some((begin, _)) = *time else { continue };
        let point = *points.entry(begin).or_insert_with(|| graph.point());
        graph.add(point, txn, ON, 0, 0, 0);
    }
    let chain: Vec<usize> = points.values().copied().collect();
    chain.windows(2).for_each(|pair| graph.add(pair[0], pair[1], ON, 0, 0, 0));
    for (txn, Transaction { time, outcome, .. }) in counting() {
        // One whose end is not known may have ended later.
        if let (Some((_, end)), Outcome::Committed) = (*time, outcome)
            && let Some((_, &point)) = points.range((std::ops::Bound::Excluded(end), std::ops::Bound::Unbounded)).next()
        {
            graph.add(txn, point, TIME, 0, 0, 0);
        }
    }
}
