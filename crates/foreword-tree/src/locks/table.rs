//! All locks and their owners. No thread waits here: what is to be told is handed out.
//!
//! Invariant: an owner's list has each lock of which it is a holder, once. An owner waits for one
//! lock at most, and stands in the queue of that one only. A lock that no owner has or waits for is
//! not in the table, and neither is an owner without locks.

use std::collections::HashMap;
use std::sync::Arc;

use super::lock::{Lock, Turn};
use super::marks::Marks;
use super::name::{AtHand, ByNumber, Name, Named};
use super::target::{Mode, Target};
use crate::error::{Error, Result};

/// What is not worth giving back.
const SMALL: usize = 1024;

#[derive(Debug)]
pub(super) struct Table {
    locks: HashMap<Name, Lock, ByNumber>,
    owners: HashMap<u64, Owner, ByNumber>,
    /// How many locks an owner may have.
    limit: usize,
    at_hand: AtHand,
    marks: Marks,
}

#[derive(Debug, Default)]
struct Owner {
    has: Vec<Name>,
    waits_for: Option<Name>,
    /// The highest mark of the locks that it has, as they were when it got them.
    seen: u64,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Placed {
    Granted,
    /// It would have to wait, and is not to.
    Refused,
    /// It waits.
    Queued(Arc<Turn>),
}

/// Where an owner waits.
#[derive(Clone, Copy)]
pub(super) struct Wait<'a> {
    pub(super) lock: &'a Lock,
    /// How many stand before it in the queue.
    pub(super) place: usize,
    pub(super) mode: Mode,
}

impl Owner {
    fn gets(&mut self, name: Name, mark: u64) {
        self.has.push(name);
        self.seen = self.seen.max(mark);
    }
}

impl Table {
    pub(super) fn new(limit: usize) -> Table {
        let (locks, owners) = (HashMap::default(), HashMap::default());
        Table { locks, owners, limit, at_hand: AtHand::default(), marks: Marks::new() }
    }

    /// Grants a lock, or has its owner wait for it, if it may.
    pub(super) fn place(&mut self, owner: u64, target: Target<'_>, mode: Mode, may_wait: bool) -> Result<Placed> {
        self.at_hand.set(target);
        if let Some(lock) = self.locks.get_mut(&self.at_hand as &dyn Named) {
            let (has_it, gets_it) = (lock.mode_of(owner).is_some(), lock.admits(owner, mode));
            match (has_it, gets_it) {
                (true, true) => {
                    lock.add(owner, mode);
                    return Ok(Placed::Granted);
                }
                (false, true) => (),
                (_, false) if !may_wait => return Ok(Placed::Refused),
                (_, false) => return self.enqueue(owner, mode, has_it).map(Placed::Queued),
            }
        }
        self.check_limit(owner)?;
        let name = self.name();
        self.locks.entry(name.clone()).or_default().add(owner, mode);
        let mark = self.marks.of(&name);
        self.owners.entry(owner).or_default().gets(name, mark);
        Ok(Placed::Granted)
    }

    /// Whether the owner would get a lock without waiting.
    pub(super) fn admits(&mut self, owner: u64, target: Target<'_>, mode: Mode) -> bool {
        self.at_hand.set(target);
        self.locks.get(&self.at_hand as &dyn Named).is_none_or(|lock| lock.admits(owner, mode))
    }

    fn enqueue(&mut self, owner: u64, mode: Mode, has_it: bool) -> Result<Arc<Turn>> {
        if self.owners.get(&owner).is_some_and(|owner| owner.waits_for.is_some()) {
            return Err(Error::InUse { owner });
        }
        if !has_it {
            self.check_limit(owner)?;
        }
        let name = self.name();
        self.owners.entry(owner).or_default().waits_for = Some(name.clone());
        Ok(self.locks.entry(name).or_default().enqueue(owner, mode))
    }

    /// Whether the owner may have one more. One that it waits for counts.
    fn check_limit(&self, owner: u64) -> Result<()> {
        let has = self.owners.get(&owner).map_or(0, |owner| owner.has.len() + usize::from(owner.waits_for.is_some()));
        if has < self.limit { Ok(()) } else { Err(Error::TooManyLocks { limit: self.limit }) }
    }

    /// The name at hand, shared with the lock if there is one.
    fn name(&self) -> Name {
        let found = self.locks.get_key_value(&self.at_hand as &dyn Named);
        found.map_or_else(|| self.at_hand.to_name(), |(name, _)| name.clone())
    }

    /// Takes one lock back, once. `false`: the owner does not have it in this mode.
    pub(super) fn unlock(&mut self, owner: u64, target: Target<'_>, mode: Mode, ended: &mut Vec<Arc<Turn>>) -> bool {
        self.at_hand.set(target);
        let lock = self.locks.get_mut(&self.at_hand as &dyn Named);
        let Some(has_it) = lock.and_then(|lock| lock.take_back(owner, mode)) else { return false };
        let name = self.name();
        if !has_it && let Some(owned) = self.owners.get_mut(&owner) {
            // What is taken back is mostly what was taken last.
            owned.has.iter().rposition(|other| other.is(&name)).map(|at| owned.has.swap_remove(at));
            self.forget_if_idle(owner);
        }
        self.advance(&name, ended);
        true
    }

    /// Takes back up to so many of the owner's locks, marks those that it had exclusively, and ends
    /// its wait. Whether it has any left.
    pub(super) fn release(&mut self, owner: u64, mark: u64, most: usize, ended: &mut Vec<Arc<Turn>>) -> bool {
        if let Some(turn) = self.withdraw(owner, ended) {
            _ = turn.is_granted.set(false);
            ended.push(turn);
        }
        let Some(owned) = self.owners.get_mut(&owner) else { return false };
        let names = match owned.has.len().checked_sub(most) {
            Some(at) => owned.has.split_off(at),
            None => std::mem::take(&mut owned.has),
        };
        for name in &names {
            if let Some(lock) = self.locks.get_mut(name) {
                if mark > 0 && lock.mode_of(owner) == Some(Mode::Exclusive) {
                    self.marks.raise(name, mark);
                }
                lock.let_go(owner);
            }
            self.advance(name, ended);
        }
        self.forget_if_idle(owner);
        if self.locks.capacity() > SMALL && self.locks.len() < self.locks.capacity() / 8 {
            self.locks.shrink_to(self.locks.len() * 2);
        }
        self.owners.contains_key(&owner)
    }

    /// Takes an owner that waits out of the queue. It is not told.
    pub(super) fn withdraw(&mut self, owner: u64, ended: &mut Vec<Arc<Turn>>) -> Option<Arc<Turn>> {
        let name = self.owners.get_mut(&owner)?.waits_for.take()?;
        let waiter = self.locks.get_mut(&name)?.dequeue(owner);
        self.forget_if_idle(owner);
        self.advance(&name, ended);
        Some(waiter?.turn)
    }

    /// Grants a lock to those whose turn it is, and forgets it if nothing is left of it.
    fn advance(&mut self, name: &Name, ended: &mut Vec<Arc<Turn>>) {
        let Some(lock) = self.locks.get_mut(name) else { return };
        while let Some(waiter) = lock.next() {
            let owner = self.owners.entry(waiter.owner).or_default();
            owner.waits_for = None;
            if lock.add(waiter.owner, waiter.mode) {
                owner.gets(name.clone(), self.marks.of(name));
            }
            _ = waiter.turn.is_granted.set(true);
            ended.push(waiter.turn);
        }
        if lock.is_unused() {
            self.locks.remove(name);
        }
    }

    /// The highest mark of what the owner has got.
    pub(super) fn seen(&self, owner: u64) -> u64 {
        self.owners.get(&owner).map_or(0, |owner| owner.seen)
    }

    fn forget_if_idle(&mut self, owner: u64) {
        if self.owners.get(&owner).is_some_and(|owner| owner.has.is_empty() && owner.waits_for.is_none()) {
            self.owners.remove(&owner);
        }
    }

    /// Where the owner waits, if it does.
    pub(super) fn wait_of(&self, owner: u64) -> Option<Wait<'_>> {
        let lock = self.locks.get(self.owners.get(&owner)?.waits_for.as_ref()?)?;
        let (place, waiter) = lock.queue().enumerate().find(|(_, waiter)| waiter.owner == owner)?;
        Some(Wait { lock, place, mode: waiter.mode })
    }
}

/// What only tests look at.
#[cfg(test)]
impl Table {
    pub(super) fn locks(&self) -> impl Iterator<Item = (&Name, &Lock)> {
        self.locks.iter()
    }

    /// Each owner, what it has, and what it waits for.
    pub(super) fn owners(&self) -> impl Iterator<Item = (u64, impl Iterator<Item = &Name>, Option<&Name>)> {
        self.owners.iter().map(|(&id, owner)| (id, owner.has.iter(), owner.waits_for.as_ref()))
    }

    pub(super) fn room(&self) -> usize {
        self.locks.capacity()
    }
}
