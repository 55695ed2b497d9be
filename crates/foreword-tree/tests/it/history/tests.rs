//! The checker finds each anomaly, by its name, and agrees with an oracle that tries all orders.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::oracle::is_serializable;
use super::{Kind, Op, Outcome, Transaction, assert_serializable, check};
use Outcome::{Aborted, Committed, Unknown};

fn a(key: u64, value: u64) -> Op {
    Op::Append { key, value }
}

fn r(key: u64, list: &[u64]) -> Op {
    Op::Read { key, list: list.to_vec() }
}

fn scan(keys: std::ops::Range<u64>, found: &[(u64, &[u64])]) -> Op {
    Op::Scan { keys, found: found.iter().map(|(key, list)| (*key, list.to_vec())).collect() }
}

fn txn(outcome: Outcome, ops: &[Op]) -> Transaction {
    Transaction { ops: ops.to_vec(), outcome, time: None }
}

fn ok(ops: &[Op]) -> Transaction {
    txn(Committed, ops)
}

fn at(begin: u64, end: u64, ops: &[Op]) -> Transaction {
    Transaction { time: Some((begin, end)), ..ok(ops) }
}

/// There is this anomaly and no other, and it says so; and no serial order explains the history.
#[track_caller]
fn finds(history: &[Transaction], kind: Kind, is_by_time: bool, text: &str) {
    let found = check(history);
    let all: Vec<_> = found.iter().map(|anomaly| (anomaly.kind, anomaly.is_by_time, &*anomaly.text)).collect();
    assert_eq!(all, [(kind, is_by_time, text)]);
    assert!(kind == Kind::BadHistory || !is_serializable(history));
}

#[track_caller]
fn passes(history: &[Transaction]) {
    assert_serializable(history);
    assert!(is_serializable(history));
}

#[test]
fn serial_histories_pass() {
    passes(&[]);
    passes(&[ok(&[])]);
    passes(&[ok(&[a(1, 1), r(1, &[1]), a(1, 2), r(1, &[1, 2])]), ok(&[r(1, &[1, 2]), r(2, &[]), a(2, 3)]), ok(&[a(1, 4)])]);
    // In another order than that of the history.
    passes(&[ok(&[r(1, &[1]), a(2, 2)]), ok(&[r(1, &[]), a(1, 1)]), ok(&[r(2, &[2])])]);
    // Who aborted may have seen and done anything; none saw it.
    passes(&[txn(Aborted, &[a(1, 1), r(2, &[7, 7, 8])]), ok(&[r(1, &[])])]);
    passes(&[at(1, 9, &[r(1, &[])]), at(2, 3, &[a(1, 1)]), at(4, 5, &[r(1, &[1])])]);
    passes(&[ok(&[scan(1..9, &[]), a(3, 1), scan(1..9, &[(3, &[1])]), scan(5..5, &[])]), ok(&[scan(0..4, &[(3, &[1])])])]);
}

#[test]
fn what_is_not_known_to_have_committed_counts_if_it_was_seen() {
    let unknown = |ops: &[Op]| txn(Unknown, ops);
    passes(&[unknown(&[a(1, 1)]), ok(&[r(1, &[])])]);
    passes(&[unknown(&[a(1, 1)]), ok(&[r(1, &[1])])]);
    // It was not seen, so that what it read may be wrong.
    passes(&[unknown(&[r(2, &[]), a(1, 1)]), ok(&[r(1, &[]), a(2, 2)]), ok(&[r(1, &[])])]);
    // It was: by way of another that is not known, too.
    let skew = [unknown(&[r(2, &[]), a(1, 1)]), ok(&[r(1, &[]), a(2, 2)]), unknown(&[r(1, &[1]), a(3, 3)]), ok(&[r(3, &[3])])];
    finds(
        &skew,
        Kind::G2,
        false,
        "transaction 0 read key 2 without 2, which 1 appended (rw); transaction 1 read key 1 without 1, which 0 appended (rw)",
    );
    // It may end at any time later.
    let late = Transaction { time: Some((1, 2)), ..unknown(&[a(1, 1)]) };
    passes(&[late, at(3, 4, &[r(1, &[])]), at(5, 6, &[r(1, &[1])])]);
}

#[test]
fn wrong_reads_are_found() {
    finds(
        &[txn(Aborted, &[a(1, 1)]), ok(&[r(1, &[1])])],
        Kind::AbortedRead,
        false,
        "transaction 1 read key 1 as [1], but 0, which appended 1, aborted",
    );
    finds(
        &[ok(&[a(1, 1), a(1, 2)]), ok(&[r(1, &[1])])],
        Kind::IntermediateRead,
        false,
        "transaction 1 read key 1 as [1], but 0, which appended 1, appended more to it",
    );
    finds(&[ok(&[r(1, &[5])])], Kind::InventedValue, false, "transaction 0 read key 1 as [5], but no transaction appended 5");
    finds(&[ok(&[r(1, &[5]), a(1, 5)])], Kind::InventedValue, false, "transaction 0 read key 1 as [5], but appends 5 only later");
    finds(
        &[ok(&[a(1, 5), r(1, &[])])],
        Kind::OwnAppendUnseen,
        false,
        "transaction 0 read key 1 as [], after it had appended [5]",
    );
    finds(
        &[ok(&[a(1, 5)]), ok(&[r(1, &[5, 5])])],
        Kind::DuplicateAppend,
        false,
        "transaction 1 read key 1 as [5, 5], with 5 twice",
    );
    finds(
        &[ok(&[a(1, 1)]), ok(&[a(1, 2)]), ok(&[r(1, &[1, 2])]), ok(&[r(1, &[2])])],
        Kind::IncompatibleOrders,
        false,
        "transaction 2 read key 1 as [1, 2], and 3 as [2]",
    );
    finds(
        &[at(1, 2, &[a(1, 1)]), at(3, 4, &[r(1, &[])])],
        Kind::LostAppend,
        true,
        "transaction 0 appended 1 to key 1 and had ended when 1 began, which read the key without it",
    );
    finds(&[ok(&[a(1, 1)]), ok(&[a(1, 1)])], Kind::BadHistory, false, "transactions 0 and 1 both append 1 to key 1");
    for found in [&[(5, &[1][..])][..], &[(2, &[2]), (1, &[1])], &[(1, &[1]), (1, &[1])], &[(1, &[])]] {
        let history = [ok(&[a(1, 1), a(2, 2), a(5, 1)]), ok(&[scan(1..5, found)])];
        let kinds: Vec<_> = check(&history).iter().map(|anomaly| anomaly.kind).collect();
        assert_eq!(kinds, [Kind::WrongScan], "{found:?}");
        assert!(!is_serializable(&history));
    }
}

#[test]
fn circles_are_found_and_named() {
    // Two keys, appended to in two orders.
    finds(
        &[ok(&[a(1, 1), a(2, 1)]), ok(&[a(1, 2), a(2, 2)]), ok(&[r(1, &[1, 2]), r(2, &[2, 1])])],
        Kind::G0,
        false,
        "transaction 0 appended 1 to key 1 before 1 appended 2 (ww); transaction 1 appended 2 to key 2 before 0 appended 1 (ww)",
    );
    // Each sees the other's.
    finds(
        &[ok(&[a(1, 1), r(2, &[2])]), ok(&[a(2, 2), r(1, &[1])])],
        Kind::G1c,
        false,
        "transaction 0 appended 1 to key 1, which 1 read (wr); transaction 1 appended 2 to key 2, which 0 read (wr)",
    );
    // A read that does not repeat.
    finds(
        &[ok(&[a(1, 1)]), ok(&[r(1, &[]), r(1, &[1])])],
        Kind::GSingle,
        false,
        "transaction 1 read key 1 without 1, which 0 appended (rw); transaction 0 appended 1 to key 1, which 1 read (wr)",
    );
    // A lost update.
    finds(
        &[ok(&[r(1, &[]), a(1, 1)]), ok(&[r(1, &[]), a(1, 2)]), ok(&[r(1, &[1, 2])])],
        Kind::GSingle,
        false,
        "transaction 1 read key 1 without 1, which 0 appended (rw); transaction 0 appended 1 to key 1 before 1 appended 2 (ww)",
    );
    // A lost update whose outcome none saw.
    finds(
        &[ok(&[r(1, &[]), a(1, 1)]), ok(&[r(1, &[]), a(1, 2)])],
        Kind::G2,
        false,
        "transaction 0 read key 1 without 2, which 1 appended (rw); transaction 1 read key 1 without 1, which 0 appended (rw)",
    );
    // Write skew.
    finds(
        &[ok(&[r(1, &[]), a(2, 1)]), ok(&[r(2, &[]), a(1, 2)])],
        Kind::G2,
        false,
        "transaction 0 read key 1 without 2, which 1 appended (rw); transaction 1 read key 2 without 1, which 0 appended (rw)",
    );
    // Phantoms: the same, but each scans for what may come.
    finds(
        &[ok(&[scan(0..10, &[]), a(11, 1)]), ok(&[scan(10..20, &[]), a(3, 2)])],
        Kind::G2,
        false,
        "transaction 0 read key 3 without 2, which 1 appended (rw); transaction 1 read key 11 without 1, which 0 appended (rw)",
    );
    // A reader that sees the later of two and not the earlier.
    finds(
        &[ok(&[a(1, 1)]), ok(&[r(1, &[1]), a(2, 2)]), ok(&[r(2, &[2]), r(1, &[])])],
        Kind::GSingle,
        false,
        "transaction 2 read key 1 without 1, which 0 appended (rw); transaction 0 appended 1 to key 1, which 1 read (wr); \
         transaction 1 appended 2 to key 2, which 2 read (wr)",
    );
}

#[test]
fn time_makes_circles_too() {
    // A read of what was replaced long since.
    let stale = |begin| [at(1, 2, &[a(1, 1)]), at(begin, begin + 1, &[r(1, &[])]), at(5, 6, &[r(1, &[1])])];
    passes(&stale(2));
    finds(
        &stale(3),
        Kind::GSingle,
        true,
        "transaction 1 read key 1 without 1, which 0 appended (rw); transaction 0 had ended when 1 began",
    );
    finds(
        &[at(3, 4, &[a(1, 1)]), at(1, 2, &[r(1, &[1])])],
        Kind::G1c,
        true,
        "transaction 0 appended 1 to key 1, which 1 read (wr); transaction 1 had ended when 0 began",
    );
    finds(
        &[at(3, 4, &[a(1, 1)]), at(1, 2, &[a(1, 2)]), at(5, 6, &[r(1, &[1, 2])])],
        Kind::G0,
        true,
        "transaction 0 appended 1 to key 1 before 1 appended 2 (ww); transaction 1 had ended when 0 began",
    );
}

/// However many transactions begin between the end of one and the beginning of another.
#[test]
fn the_shortest_circle_has_the_fewest_steps() {
    let mut history = vec![at(1, 2, &[a(1, 1)]), at(3, 90, &[r(1, &[1])]), at(100, 101, &[r(1, &[])])];
    history.extend((4..80).map(|begin| at(begin, 200, &[])));
    let text = "transaction 2 read key 1 without 1, which 0 appended (rw); transaction 0 had ended when 2 began";
    let found = check(&history);
    assert_eq!(found.iter().map(|anomaly| &*anomaly.text).collect::<Vec<_>>(), [text]);
}

#[test]
fn of_several_knots_each_is_found_and_the_worst_of_each() {
    let of = |key: u64| {
        // G0 between the first two, and a lost update as well.
        [
            ok(&[a(key, 1), a(key + 1, 1)]),
            ok(&[a(key, 2), a(key + 1, 2)]),
            ok(&[r(key, &[1, 2]), r(key + 1, &[2, 1]), a(key, 3)]),
            ok(&[r(key, &[1, 2]), a(key, 4)]),
            ok(&[r(key, &[1, 2, 3, 4])]),
        ]
    };
    let kinds: Vec<_> = check(&[of(1), of(11)].concat()).iter().map(|anomaly| anomaly.kind).collect();
    assert_eq!(kinds, [Kind::G0, Kind::GSingle, Kind::G0, Kind::GSingle]);
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A key-value store without any order of transactions, and sometimes with some.
struct Store<'a> {
    rng: &'a mut Rng,
    lists: BTreeMap<u64, Vec<u64>>,
    value: u64,
}

impl Store<'_> {
    fn op(&mut self, keys: u64) -> Op {
        let key = self.rng.below(keys);
        match self.rng.below(7) {
            0..3 => {
                self.value += 1;
                self.lists.entry(key).or_default().push(self.value);
                a(key, self.value)
            }
            3..6 => Op::Read { key, list: self.lists.get(&key).cloned().unwrap_or_default() },
            _ => {
                let end = key + 1 + self.rng.below(keys.min(10));
                Op::Scan { keys: key..end, found: self.lists.range(key..end).map(|(&key, list)| (key, list.clone())).collect() }
            }
        }
    }
}

fn outcome(rng: &mut Rng) -> Outcome {
    [Committed, Committed, Committed, Committed, Aborted, Unknown][rng.below(6) as usize]
}

/// Transactions one after the other. Who aborts leaves nothing.
fn serial(rng: &mut Rng, transactions: u64, keys: u64, ops: u64) -> Vec<Transaction> {
    let mut history = Vec::new();
    let mut store = Store { rng, lists: BTreeMap::new(), value: 0 };
    for i in 0..transactions {
        let outcome = outcome(store.rng);
        let is_undone = outcome == Aborted || outcome == Unknown && store.rng.below(2) == 0;
        let before = is_undone.then(|| store.lists.clone());
        let ops = (0..1 + store.rng.below(ops)).map(|_| store.op(keys)).collect();
        store.lists = before.unwrap_or(store.lists);
        history.push(Transaction { ops, outcome, time: Some((10 * i, 10 * i + 1 + store.rng.below(25))) });
    }
    history
}

/// Their operations come as they come, and none is undone.
fn muddle(rng: &mut Rng) -> Vec<Transaction> {
    let n = 2 + rng.below(4);
    let mut history: Vec<_> = (0..n).map(|_| ok(&[])).collect();
    let mut store = Store { rng, lists: BTreeMap::new(), value: 0 };
    for now in 1..=n * (1 + store.rng.below(4)) {
        let txn = store.rng.below(n) as usize;
        let op = store.op(3);
        history[txn].ops.push(op);
        let begin = history[txn].time.map_or(now, |time| time.0);
        history[txn].time = Some((begin, now));
    }
    if rng.below(3) == 0 {
        history.iter_mut().for_each(|txn| txn.outcome = outcome(rng));
    }
    history
}

/// Makes one read find what another one found, or a part of it.
fn swap(rng: &mut Rng, history: &mut [Transaction]) {
    let lists = history.iter().flat_map(|txn| &txn.ops).filter_map(|op| match op {
        Op::Read { list, .. } => Some(list.clone()),
        _ => None,
    });
    let lists: Vec<_> = lists.collect();
    let reads = history.iter_mut().flat_map(|txn| &mut txn.ops).filter_map(|op| match op {
        Op::Read { list, .. } => Some(list),
        _ => None,
    });
    let mut reads: Vec<_> = reads.collect();
    if !reads.is_empty() {
        let at = rng.below(reads.len() as u64) as usize;
        let mut list = lists[rng.below(lists.len() as u64) as usize].clone();
        match rng.below(4) {
            0 => list.truncate(rng.below(1 + list.len() as u64) as usize),
            1 => list.clone_from(reads[at]),
            2 => list = reads[at][..rng.below(1 + reads[at].len() as u64) as usize].to_vec(),
            _ => (),
        }
        *reads[at] = list;
    }
}

#[test]
fn an_oracle_that_tries_all_orders_agrees() {
    let seeds = std::env::var("FOREWORD_HISTORY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let (mut right, mut wrong, mut kinds) = (0, 0, BTreeMap::new());
    for seed in 0..seeds {
        let mut rng = Rng(seed);
        let mut history = match seed % 4 {
            0 => {
                let history = serial(&mut rng, 2 + seed / 4 % 4, 3, 4);
                assert_serializable(&history);
                history
            }
            1 => muddle(&mut rng),
            _ => {
                let transactions = 2 + rng.below(4);
                let mut history = serial(&mut rng, transactions, 2, 4);
                swap(&mut rng, &mut history);
                history
            }
        };
        match rng.below(3) {
            0 => history.iter_mut().for_each(|txn| txn.time = None),
            1 => {
                for txn in &mut history {
                    let begin = rng.below(20);
                    txn.time = Some((begin, begin + rng.below(20)));
                }
            }
            _ => (),
        }
        let found = check(&history);
        assert_eq!(found.is_empty(), is_serializable(&history), "seed {seed}: {history:#?}\n{found:#?}");
        if found.is_empty() {
            right += 1
        } else {
            wrong += 1
        }
        found.iter().for_each(|anomaly| *kinds.entry((anomaly.kind, anomaly.is_by_time)).or_insert(0) += 1);
    }
    println!("{right} serializable, {wrong} not: {kinds:?}");
    assert!(right > seeds / 4 && wrong > seeds / 8 && kinds.len() > 11, "{right} {wrong} {kinds:?}");
}

/// The checker's work grows as the history does.
#[test]
fn large_histories_take_no_longer_than_their_length() {
    let mut rng = Rng(1);
    let mut history = serial(&mut rng, 5_000, 500, 4);
    // Many that read all and append what none reads: their number squared would be too many.
    let readers = (0..10_000).map(|i| at(300_000 + i, 300_000 + i, &[r(9_999, &[])]));
    let writers = (0..10_000).map(|i| at(300_000, 400_000, &[a(9_999, 1_000_000 + i)]));
    history.extend(readers.chain(writers));
    let begin = Instant::now();
    assert_serializable(&history);
    // And a circle through all of it, by time.
    history.push(at(500_000, 500_000, &[a(9_998, 1)]));
    history.push(at(0, 1, &[r(9_998, &[1])]));
    let found = check(&history);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
