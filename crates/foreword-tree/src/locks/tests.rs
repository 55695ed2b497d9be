//! Each rule of the locks; random requests against a model; threads.

mod model;
mod oracle;
mod threads;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Mode::{Exclusive as X, Shared as S};
use super::*;

/// A key of the tree 0.
fn key(name: &str) -> Target<'_> {
    Target::Key { tree: 0, key: name.as_bytes() }
}

/// A table whose owners are played by one thread.
struct Stage {
    table: Table,
    turns: VecDeque<(u64, Arc<Turn>)>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Granted,
    Waits,
    Circle(Vec<u64>),
    InUse,
    Limit,
}
use Answer::{Circle, Granted, Waits};

impl Stage {
    fn new() -> Stage {
        Stage { table: Table::new(usize::MAX), turns: VecDeque::new() }
    }

    fn lock(&mut self, owner: u64, target: Target<'_>, mode: Mode) -> Answer {
        match begin(&mut self.table, owner, target, mode) {
            Ok(None) => Granted,
            Ok(Some(turn)) => {
                self.turns.push_back((owner, turn));
                Waits
            }
            Err(Error::Deadlock { owners }) => Circle(owners),
            Err(Error::InUse { .. }) => Answer::InUse,
            Err(Error::TooManyLocks { .. }) => Answer::Limit,
            Err(error) => panic!("{error}"),
        }
    }

    fn try_lock(&mut self, owner: u64, target: Target<'_>, mode: Mode) -> bool {
        matches!(self.table.place(owner, target, mode, false), Ok(Placed::Granted))
    }

    fn unlock(&mut self, owner: u64, target: Target<'_>, mode: Mode) -> bool {
        let mut ended = Vec::new();
        let was_there = self.table.unlock(owner, target, mode, &mut ended);
        self.check(&ended);
        was_there
    }

    fn release(&mut self, owner: u64) {
        let mut ended = Vec::new();
        while self.table.release(owner, 0, 2, &mut ended) {}
        self.check(&ended);
    }

    fn withdraw(&mut self, owner: u64) {
        let mut ended = Vec::new();
        assert!(self.table.withdraw(owner, &mut ended).is_some());
        self.turns.retain(|turn| turn.0 != owner);
        self.check(&ended);
    }

    /// Those whose wait has ended are the ones to be told, and no others.
    fn check(&self, ended: &[Arc<Turn>]) {
        let known = |turn: &Arc<Turn>| self.turns.iter().any(|(_, other)| Arc::ptr_eq(turn, other));
        assert!(ended.iter().all(known));
        for (owner, turn) in &self.turns {
            let is_told = ended.iter().any(|other| Arc::ptr_eq(turn, other));
            assert_eq!(is_told, turn.is_granted.get().is_some(), "owner {owner}");
        }
    }

    /// Those whose wait has ended since, in the order in which they came, and whether they got the
    /// lock.
    fn ended(&mut self) -> Vec<(u64, bool)> {
        let ended = self.turns.iter().filter_map(|(owner, turn)| Some((*owner, *turn.is_granted.get()?))).collect();
        self.turns.retain(|(_, turn)| turn.is_granted.get().is_none());
        ended
    }
}

/// What was read is told by what was locked exclusively, also where the lock was waited for.
#[test]
fn marks_are_seen_by_those_that_come_after() {
    let locks = Locks::new();
    let key = |n: &'static str| Target::Key { tree: 1, key: n.as_bytes() };
    locks.lock(1, key("written"), Mode::Exclusive).unwrap();
    locks.lock(1, key("read"), Mode::Shared).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| locks.lock(2, key("written"), Mode::Shared).map(|()| locks.seen(2)));
        while !locks.table().owners().any(|(owner, _, waits)| owner == 2 && waits.is_some()) {
            std::thread::yield_now();
        }
        locks.release_marked(1, 70);
        assert_eq!(waits.join().unwrap().unwrap(), 70);
    });
    locks.release(2);
    locks.lock(3, key("written"), Mode::Exclusive).unwrap();
    assert_eq!(locks.seen(3), 70);
    locks.lock(4, key("read"), Mode::Exclusive).unwrap();
    assert_eq!((locks.seen(4), locks.seen(5)), (0, 0));
    // A lower one does not take its place, and none at all neither.
    locks.release_marked(3, 60);
    locks.lock(6, key("written"), Mode::Exclusive).unwrap();
    locks.release(6);
    locks.lock(7, key("written"), Mode::Shared).unwrap();
    assert_eq!(locks.seen(7), 70);
    locks.release(7);
    assert_eq!(locks.seen(7), 0);
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let locks = Locks::new();
    for owner in [1, 2, 3] {
        assert!(locks.try_lock(owner, key("a"), S).unwrap());
    }
    assert!(!locks.try_lock(4, key("a"), X).unwrap());
    assert!(locks.try_lock(4, key("b"), X).unwrap());
    for mode in [S, X] {
        assert!(!locks.try_lock(1, key("b"), mode).unwrap());
    }
    locks.release(4);
    assert!(locks.try_lock(1, key("b"), X).unwrap());
}

#[test]
fn targets_are_told_apart() {
    let locks = Locks::new();
    let keys: [&[u8]; 5] = [b"", b"\0", b"\0\0", b"a", &[0; 8]];
    let mut owner = 0;
    for tree in [0, 1, 1 << 56, u64::MAX] {
        for target in keys.map(|key| Target::Key { tree, key }).into_iter().chain([Target::End { tree }]) {
            owner += 1;
            assert!(locks.try_lock(owner, target, X).unwrap(), "{target:?}");
            assert!(!locks.try_lock(100, target, S).unwrap(), "{target:?}");
        }
    }
}

#[test]
fn an_only_reader_upgrades_and_others_are_waited_for() {
    let mut stage = Stage::new();
    assert_eq!(stage.lock(1, key("a"), S), Granted);
    assert_eq!(stage.lock(1, key("a"), X), Granted);
    assert!(!stage.try_lock(2, key("a"), S));
    stage.release(1);
    assert_eq!([1, 2].map(|owner| stage.lock(owner, key("a"), S)), [Granted, Granted]);
    assert!(!stage.try_lock(1, key("a"), X), "the other reads");
    assert_eq!(stage.lock(1, key("a"), X), Waits);
    stage.release(2);
    assert_eq!(stage.ended(), [(1, true)]);
    assert!(!stage.try_lock(2, key("a"), S));
}

#[test]
fn two_upgrades_of_one_lock_are_a_circle() {
    let mut stage = Stage::new();
    assert_eq!([1, 2, 3].map(|owner| stage.lock(owner, key("a"), S)), [Granted, Granted, Granted]);
    assert_eq!(stage.lock(1, key("a"), X), Waits);
    assert_eq!(stage.lock(2, key("a"), X), Circle(vec![2, 1]));
    // The victim has what it had, and the other goes on when it lets go.
    stage.release(3);
    assert_eq!(stage.ended(), []);
    stage.release(2);
    assert_eq!(stage.ended(), [(1, true)]);
}

#[test]
fn first_come_first_served() {
    let mut stage = Stage::new();
    assert_eq!(stage.lock(1, key("a"), S), Granted);
    assert_eq!(stage.lock(2, key("a"), X), Waits);
    assert!(!stage.try_lock(3, key("a"), S), "it would pass the writer that waits");
    assert_eq!([3, 4].map(|owner| stage.lock(owner, key("a"), S)), [Waits, Waits]);
    assert_eq!(stage.lock(5, key("a"), X), Waits);
    assert_eq!(stage.lock(6, key("a"), S), Waits);
    for (release, then) in
        [(1, vec![(2, true)]), (2, vec![(3, true), (4, true)]), (3, vec![]), (4, vec![(5, true)]), (5, vec![(6, true)])]
    {
        stage.release(release);
        assert_eq!(stage.ended(), then, "after {release}");
    }
}

#[test]
fn an_upgrade_comes_before_new_locks() {
    let mut stage = Stage::new();
    assert_eq!([1, 2].map(|owner| stage.lock(owner, key("a"), S)), [Granted, Granted]);
    assert_eq!(stage.lock(3, key("a"), X), Waits);
    assert_eq!(stage.lock(1, key("a"), X), Waits);
    stage.release(2);
    assert_eq!(stage.ended(), [(1, true)]);
    // At once, if it need not wait, although others do.
    stage.release(1);
    assert_eq!(stage.ended(), [(3, true)]);
    assert_eq!(stage.lock(4, key("b"), S), Granted);
    assert_eq!(stage.lock(5, key("b"), X), Waits);
    assert_eq!(stage.lock(4, key("b"), X), Granted);
}

#[test]
fn an_owner_takes_again_what_it_has_though_others_wait() {
    let mut stage = Stage::new();
    assert_eq!(stage.lock(1, key("a"), X), Granted);
    assert_eq!(stage.lock(2, key("a"), X), Waits);
    assert_eq!([S, X, S].map(|mode| stage.lock(1, key("a"), mode)), [Granted, Granted, Granted]);
    assert!(stage.try_lock(1, key("a"), X));
    stage.release(1);
    assert_eq!(stage.ended(), [(2, true)]);
}

#[test]
fn an_instant_lock_neither_ends_nor_weakens_one_that_lasts() {
    // Whichever was first.
    for order in [[S, X], [X, S]] {
        let mut stage = Stage::new();
        assert_eq!(order.map(|mode| stage.lock(1, key("a"), mode)), [Granted, Granted]);
        // Shared for an instant, exclusive to the end.
        assert!(stage.unlock(1, key("a"), S));
        assert!(!stage.try_lock(2, key("a"), S));
        assert!(!stage.unlock(1, key("a"), S), "taken back already");
        // Exclusive for an instant, shared to the end: it is shared again, and who waits for that
        // goes on.
        assert_eq!(stage.lock(1, key("a"), S), Granted);
        assert_eq!(stage.lock(2, key("a"), S), Waits);
        assert!(stage.unlock(1, key("a"), X));
        assert_eq!(stage.ended(), [(2, true)]);
        assert!(!stage.try_lock(3, key("a"), X));
        // Twice, once for an instant.
        assert_eq!(stage.lock(1, key("a"), S), Granted);
        assert!(stage.unlock(1, key("a"), S));
        stage.release(2);
        assert!(!stage.try_lock(3, key("a"), X));
        // The last of them.
        assert!(stage.unlock(1, key("a"), S));
        assert!(stage.try_lock(3, key("a"), X));
    }
}

#[test]
fn what_is_not_there_is_not_unlocked() {
    let locks = Locks::new();
    assert!(!locks.unlock(1, key("a"), S));
    assert!(locks.try_lock(1, key("a"), S).unwrap());
    assert!(!locks.unlock(1, key("a"), X));
    assert!(!locks.unlock(2, key("a"), S));
    assert!(!locks.unlock(1, key("b"), S));
    locks.release(2);
    assert!(!locks.try_lock(3, key("a"), X).unwrap());
}

/// Zero is an owner as any other.
#[test]
fn the_owner_zero_may_hold_any_of_several() {
    let locks = Locks::new();
    for owner in [1, 0] {
        assert!(locks.try_lock(owner, key("a"), S).unwrap());
    }
    locks.release(1);
    assert!(!locks.try_lock(2, key("a"), X).unwrap());
    assert!(locks.unlock(0, key("a"), S));
    assert!(locks.try_lock(2, key("a"), X).unwrap());
}

#[test]
fn a_circle_of_several_is_named_in_order() {
    let mut stage = Stage::new();
    let keys = ["a", "b", "c", "d"];
    for (owner, name) in (1..).zip(keys) {
        assert_eq!(stage.lock(owner, key(name), X), Granted);
    }
    for (owner, name) in (1..).zip(&keys[1..]) {
        assert_eq!(stage.lock(owner, key(name), S), Waits);
    }
    // A bystander, and a way round that is longer.
    assert_eq!(stage.lock(9, key("a"), S), Waits);
    assert_eq!(stage.lock(4, key("a"), S), Circle(vec![4, 1, 2, 3]));
    stage.release(4);
    assert_eq!(stage.ended(), [(3, true)]);
}

#[test]
fn the_shortest_circle_is_named() {
    let mut stage = Stage::new();
    assert_eq!(stage.lock(9, key("mine"), X), Granted);
    for (owner, name) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c")] {
        assert_eq!(stage.lock(owner, key(name), S), Granted);
    }
    // By way of 4, none, and 5.
    for (owner, name) in [(1, "b"), (4, "mine"), (2, "mine"), (3, "c"), (5, "mine")] {
        assert_eq!(stage.lock(owner, key(name), if name == "mine" { S } else { X }), Waits);
    }
    assert_eq!(stage.lock(9, key("a"), X), Circle(vec![9, 2]));
}

/// The wait for one that stands before in the queue closes the circle, and has not the lock.
#[test]
fn a_circle_may_lead_through_a_queue() {
    let mut stage = Stage::new();
    assert_eq!(stage.lock(1, key("a"), S), Granted);
    assert_eq!(stage.lock(3, key("b"), X), Granted);
    assert_eq!(stage.lock(2, key("a"), X), Waits);
    assert_eq!(stage.lock(3, key("a"), S), Waits);
    assert_eq!(stage.lock(1, key("b"), S), Circle(vec![1, 3, 2]));
}

/// An upgrade makes others wait for its owner that did not before it... but by way of a writer.
#[test]
fn a_circle_may_lead_through_an_upgrade() {
    let mut stage = Stage::new();
    assert_eq!([1, 2].map(|owner| stage.lock(owner, key("a"), S)), [Granted, Granted]);
    assert_eq!(stage.lock(3, key("b"), X), Granted);
    assert_eq!(stage.lock(2, key("b"), X), Waits);
    assert_eq!(stage.lock(3, key("a"), X), Circle(vec![3, 2]));
    assert_eq!(stage.lock(1, key("a"), X), Waits);
    assert_eq!(stage.lock(3, key("a"), S), Circle(vec![3, 1, 2]));
}

#[test]
fn what_looks_like_a_circle_and_is_none_waits() {
    let mut stage = Stage::new();
    // 1 and 2 share; both wait for 3, which waits for none.
    assert_eq!([1, 2].map(|owner| stage.lock(owner, key("a"), S)), [Granted, Granted]);
    assert_eq!(stage.lock(3, key("b"), X), Granted);
    assert_eq!([1, 2].map(|owner| stage.lock(owner, key("b"), S)), [Waits, Waits]);
    assert_eq!(stage.lock(3, key("a"), S), Granted);
    assert_eq!(stage.lock(4, key("a"), X), Waits);
    stage.release(3);
    assert_eq!(stage.ended(), [(1, true), (2, true)]);
    // 2 waits behind 5 for what 1 has: 1 waits for 5 and not for 2.
    assert_eq!(stage.lock(5, key("c"), S), Granted);
    assert_eq!(stage.lock(2, key("c"), S), Granted);
    assert_eq!(stage.lock(1, key("c"), S), Granted);
}

#[test]
fn one_that_gives_up_lets_those_behind_it_go_on() {
    let mut stage = Stage::new();
    assert_eq!(stage.lock(1, key("a"), S), Granted);
    assert_eq!(stage.lock(2, key("a"), X), Waits);
    assert_eq!([3, 4].map(|owner| stage.lock(owner, key("a"), S)), [Waits, Waits]);
    stage.withdraw(2);
    assert_eq!(stage.ended(), [(3, true), (4, true)]);
    // And it may be a victim, or none, as if it had never asked.
    assert_eq!(stage.lock(2, key("b"), X), Granted);
    assert_eq!(stage.lock(1, key("b"), S), Waits);
}

#[test]
fn an_owner_has_no_more_locks_than_it_may() {
    let mut stage = Stage { table: Table::new(2), ..Stage::new() };
    assert_eq!(
        [("a", S), ("b", S), ("a", X), ("b", S)].map(|(name, mode)| stage.lock(1, key(name), mode)),
        [Granted, Granted, Granted, Granted]
    );
    assert_eq!(stage.lock(1, key("c"), S), Answer::Limit);
    assert_eq!(stage.lock(2, key("c"), S), Granted);
    assert_eq!(stage.lock(1, key("c"), X), Answer::Limit, "also where it would wait");
    assert!(stage.unlock(1, key("b"), S) && stage.unlock(1, key("b"), S));
    assert_eq!(stage.lock(1, key("c"), X), Waits);
    assert_eq!(
        begin(&mut stage.table, 1, key("d"), S).unwrap_err().to_string(),
        "the transaction has all 2 locks that one may have"
    );
    stage.release(2);
    assert_eq!(stage.ended(), [(1, true)]);
    assert_eq!(stage.lock(1, key("d"), S), Answer::Limit);
    // An upgrade is no new lock, also if it waits.
    let mut stage = Stage { table: Table::new(1), ..Stage::new() };
    assert_eq!([1, 2].map(|owner| stage.lock(owner, key("a"), S)), [Granted, Granted]);
    assert_eq!(stage.lock(1, key("a"), X), Waits);
    stage.release(2);
    assert_eq!(stage.ended(), [(1, true)]);
}

#[test]
fn an_owner_waits_in_one_thread() {
    let mut stage = Stage::new();
    assert_eq!(stage.lock(1, key("a"), X), Granted);
    assert_eq!(stage.lock(1, key("b"), X), Granted);
    assert_eq!(stage.lock(2, key("a"), X), Waits);
    assert_eq!(stage.lock(2, key("b"), X), Answer::InUse);
    assert_eq!(stage.lock(2, key("a"), X), Answer::InUse);
    assert_eq!(stage.lock(2, key("c"), X), Granted, "it need not wait");
    // And its wait ends if it lets go.
    stage.release(2);
    assert_eq!(stage.ended(), [(2, false)]);
    assert!(stage.try_lock(3, key("c"), X));
    stage.release(1);
    assert!(stage.try_lock(3, key("a"), X));
}

#[test]
fn nothing_is_left_of_locks_that_are_gone() {
    let mut stage = Stage::new();
    let names: Vec<_> = (0..100_000).map(|i| i.to_string()).collect();
    for name in &names {
        assert_eq!(stage.lock(1, key(name), X), Granted);
    }
    assert_eq!(stage.lock(2, key("7"), X), Waits);
    assert_eq!(stage.lock(2, key("8"), X), Answer::InUse);
    stage.release(1);
    assert_eq!(stage.ended(), [(2, true)]);
    assert!(oracle::capacity(&stage.table) < 4000, "{}", oracle::capacity(&stage.table));
    stage.release(2);
    assert!(oracle::is_empty(&stage.table));
    // What took no lock.
    assert_eq!(stage.lock(1, key("a"), X), Granted);
    assert_eq!(stage.lock(2, key("a"), X), Waits);
    stage.withdraw(2);
    assert!(stage.unlock(1, key("a"), X));
    assert!(oracle::is_empty(&stage.table));
}

/// 16 bytes in its owner's list and 40 in the table, of which up to half is empty; and the name.
#[test]
fn a_lock_is_small() {
    assert!(size_of::<(Arc<[u8]>, lock::Lock)>() <= 40);
}

#[test]
fn a_wait_has_an_end() {
    let locks = Locks::new();
    locks.lock(1, key("a"), S).unwrap();
    let begin = Instant::now();
    assert!(!locks.lock_until(2, key("a"), X, begin + Duration::from_millis(20)).unwrap());
    assert!(begin.elapsed() >= Duration::from_millis(20));
    assert!(!locks.lock_until(2, key("a"), X, begin).unwrap(), "over already");
    assert!(locks.lock_until(2, key("a"), S, begin).unwrap(), "no need to wait");
    assert!(!locks.try_lock(1, key("a"), X).unwrap());
    locks.release(2);
    assert!(locks.try_lock(1, key("a"), X).unwrap());
}

#[test]
fn the_mutex_may_be_poisoned() {
    let locks = Locks::new();
    locks.lock(1, key("a"), X).unwrap();
    std::thread::scope(|scope| {
        let poisons = scope.spawn(|| {
            let _table = locks.table.lock();
            panic!("deliberate");
        });
        assert!(poisons.join().is_err());
        let waits = scope.spawn(|| locks.lock(2, key("a"), X));
        assert!(!locks.try_lock(3, key("a"), S).unwrap());
        locks.release(1);
        waits.join().unwrap().unwrap();
    });
    assert!(!locks.try_lock(3, key("a"), S).unwrap());
}

#[test]
fn errors_say_what_happened() {
    let mut stage = Stage::new();
    for (owner, name) in [(1, "a"), (2, "b")] {
        assert_eq!(stage.lock(owner, key(name), X), Granted);
    }
    assert_eq!(stage.lock(1, key("b"), X), Waits);
    let error = begin(&mut stage.table, 2, key("a"), X).unwrap_err();
    let text = "deadlock: transaction 2 would wait for 1, which waits for 2: roll back and begin again";
    assert_eq!(error.to_string(), text);
}
