//! Deadlocks.
//!
//! An owner that waits does so for each holder of the lock, and each owner before it in the queue,
//! whose mode does not go with its own. That is exact: when all of them are gone, the lock is its.
//! (What goes with its mode and stands before it waits for some of the same, and no longer.)
//!
//! Invariant: there is no circle of owners that wait for each other. All that a request to wait
//! adds leads from its owner, or, as an upgrade comes before others, to it. So a new circle leads
//! through the owner, and is found when that begins to wait. A lock that is granted adds no path:
//! those that wait for it waited for its owner before.

use std::collections::{HashMap, HashSet, VecDeque};

use super::table::{Table, Wait};

/// The shortest circle of waits through an owner: it, the one it waits for, the one that this one
/// waits for, and so on.
pub(super) fn through(table: &Table, owner: u64) -> Option<Vec<u64>> {
    // For each that was found, one that waits for it. The search is breadth first.
    let mut found_from: HashMap<u64, u64> = HashMap::new();
    // The locks whose queue was looked at from one that waits for them in a mode. From others it
    // leads nowhere else: those between the two wait for the same holders. (Not so from the owner,
    // which others wait for and it does not. And it is not between two: it has just come, and is
    // the last, or a holder.)
    let mut looked_at = HashSet::new();
    let mut next = VecDeque::from([owner]);
    while let Some(waiting) = next.pop_front() {
        let Some(Wait { lock, place, mode }) = table.wait_of(waiting) else { continue };
        if waiting != owner && !looked_at.insert((std::ptr::from_ref(lock), mode)) {
            continue;
        }
        let before = lock.queue().take(place).map(|waiter| (waiter.owner, waiter.mode));
        for (other, _) in lock.holders().chain(before).filter(|other| other.0 != waiting && !other.1.goes_with(mode)) {
            if other == owner {
                let mut circle = vec![waiting];
                while let Some(&from) = found_from.get(&circle[circle.len() - 1]) {
                    circle.push(from);
                }
                circle.reverse();
                return Some(circle);
            }
            found_from.entry(other).or_insert_with(|| {
                next.push_back(other);
                waiting
            });
        }
    }
    None
}
