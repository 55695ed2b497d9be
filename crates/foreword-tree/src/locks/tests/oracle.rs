//! The graph of waits, made anew from what the table says, as naively as can be.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The holders of each lock, and those that wait for it, in order.
pub(super) type Picture = BTreeMap<Vec<u8>, (BTreeMap<u64, Mode>, Vec<(u64, Mode)>)>;

pub(super) fn picture(table: &Table) -> Picture {
    let of = |(name, lock): (&name::Name, &lock::Lock)| {
        let queue = lock.queue().map(|waiter| (waiter.owner, waiter.mode)).collect();
        (name.to_vec(), (lock.holders().collect(), queue))
    };
    table.locks().map(of).collect()
}

pub(super) fn is_empty(table: &Table) -> bool {
    table.locks().next().is_none() && table.owners().next().is_none()
}

/// For how many locks there is room.
pub(super) fn capacity(table: &Table) -> usize {
    table.room()
}

/// The lists of the owners say the same as the locks.
pub(super) fn check(table: &Table) {
    let (mut has, mut waits) = (BTreeSet::new(), BTreeSet::new());
    for (name, (holders, queue)) in picture(table) {
        assert!(!holders.is_empty(), "a lock that none has");
        has.extend(holders.keys().map(|&owner| (owner, name.clone())));
        waits.extend(queue.iter().map(|&(owner, _)| (owner, name.clone())));
        if let Some(&(owner, mode)) = queue.first() {
            let is_free = holders.iter().all(|(&other, &held)| other == owner || !clash(held, mode));
            assert!(!is_free, "{owner} waits for nothing");
        }
        let mut pairs = holders.iter().flat_map(|one| holders.iter().map(move |other| (one, other)));
        assert!(pairs.all(|(one, other)| one == other || !clash(*one.1, *other.1)), "{holders:?}");
    }
    let listed: Vec<_> = table.owners().flat_map(|(owner, has, _)| has.map(move |name| (owner, name.to_vec()))).collect();
    assert_eq!(listed.len(), has.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), has);
    let listed = table.owners().filter_map(|(owner, _, waits)| Some((owner, waits?.to_vec()))).collect::<BTreeSet<_>>();
    assert_eq!(listed, waits);
}

fn clash(one: Mode, other: Mode) -> bool {
    one == X || other == X
}

/// Who waits for whom.
pub(super) fn edges(picture: &Picture) -> BTreeSet<(u64, u64)> {
    let mut edges = BTreeSet::new();
    for (holders, queue) in picture.values() {
        for (at, &(owner, mode)) in queue.iter().enumerate() {
            let holders = holders.iter().map(|(&other, &held)| (other, held));
            let all = holders.chain(queue[..at].iter().copied());
            edges.extend(all.filter(|other| other.0 != owner && clash(other.1, mode)).map(|other| (owner, other.0)));
        }
    }
    edges
}

/// The length of the shortest circle through the owner.
pub(super) fn circle_through(edges: &BTreeSet<(u64, u64)>, owner: u64) -> Option<usize> {
    let mut reached = BTreeSet::from([owner]);
    for length in 1..=edges.len() {
        reached = edges.iter().filter(|edge| reached.contains(&edge.0)).map(|edge| edge.1).collect();
        if reached.contains(&owner) {
            return Some(length);
        }
    }
    None
}

pub(super) fn has_circle(edges: &BTreeSet<(u64, u64)>) -> bool {
    edges.iter().any(|edge| circle_through(edges, edge.0).is_some())
}
