//! All serial orders of a small history, one after the other.

use std::collections::BTreeMap;

use super::{Op, Outcome, Transaction};

/// Whether a serial order explains what all committed transactions found, and that of some whose
/// outcome is not known.
pub fn is_serializable(history: &[Transaction]) -> bool {
    let of = |outcome| (0..history.len()).filter(move |&txn| history[txn].outcome == outcome).collect::<Vec<_>>();
    let (committed, unknown) = (of(Outcome::Committed), of(Outcome::Unknown));
    (0..1u32 << unknown.len()).any(|some| {
        let some = unknown.iter().enumerate().filter(|(at, _)| some >> at & 1 == 1).map(|(_, &txn)| txn);
        let mut left: Vec<_> = committed.iter().copied().chain(some).collect();
        explains(history, &mut left, &BTreeMap::new())
    })
}

fn explains(history: &[Transaction], left: &mut Vec<usize>, lists: &BTreeMap<u64, Vec<u64>>) -> bool {
    if left.is_empty() {
        return true;
    }
    (0..left.len()).any(|at| {
        let txn = left.remove(at);
        let must_wait = left.iter().any(|&other| ended_before(&history[other], &history[txn]));
        let mut lists = lists.clone();
        let is_right = !must_wait && history[txn].ops.iter().all(|op| run(op, &mut lists)) && explains(history, left, &lists);
        left.insert(at, txn);
        is_right
    })
}

fn ended_before(one: &Transaction, other: &Transaction) -> bool {
    let (Some((_, end)), Some((begin, _))) = (one.time, other.time) else { return false };
    one.outcome == Outcome::Committed && end < begin
}

/// Whether the operation finds what it has found.
fn run(op: &Op, lists: &mut BTreeMap<u64, Vec<u64>>) -> bool {
    match op {
        Op::Append { key, value } => {
            lists.entry(*key).or_default().push(*value);
            true
        }
        Op::Read { key, list } => lists.get(key).map_or(&[][..], |list| list) == list,
        Op::Scan { keys, found } => {
            let there = lists.iter().filter(|(key, _)| keys.contains(key));
            there.map(|(&key, list)| (key, list.clone())).collect::<Vec<_>>() == *found
        }
    }
}
