//! The lock of one target: its holders, and those that wait for it.
//!
//! Invariant: the holders go with each other. The first in the queue does not go with them, or the
//! queue is empty. An upgrade stands before all that wait for a new lock; otherwise those that came
//! first stand first.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::target::Mode;
use crate::sync::Condvar;

/// 24 bytes, and no allocation while one owner has it and none waits.
#[derive(Debug, Default)]
pub(super) struct Lock {
    /// Unused, if its counts are zero.
    first: Hold,
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    others: Vec<Hold>,
    queue: VecDeque<Waiter>,
}

/// What one owner has of a lock: how often it took it in each mode, and did not take that back.
#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    owner: u64,
    shared: u32,
    exclusive: u32,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) owner: u64,
    pub(super) mode: Mode,
    pub(super) turn: Arc<Turn>,
}

/// How a waiting thread learns that its wait has ended.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Told when the other is set.
    pub(super) came: Condvar,
    /// Set with the table locked. `false`: the owner has let all go, and does not get this lock.
    pub(super) is_granted: OnceLock<bool>,
}

impl Hold {
    /// The stronger of the modes in which it has the lock.
    fn mode(&self) -> Option<Mode> {
        match (self.shared, self.exclusive) {
            (0, 0) => None,
            (_, 0) => Some(Mode::Shared),
            _ => Some(Mode::Exclusive),
        }
    }

    fn count(&mut self, mode: Mode) -> &mut u32 {
        match mode {
            Mode::Shared => &mut self.shared,
            Mode::Exclusive => &mut self.exclusive,
        }
    }
}

impl Lock {
    /// The holders, each with the mode in which it has the lock.
    pub(super) fn holders(&self) -> impl Iterator<Item = (u64, Mode)> {
        let others = self.more.iter().flat_map(|more| &more.others);
        std::iter::once(&self.first).chain(others).filter_map(|hold| Some((hold.owner, hold.mode()?)))
    }

    /// Those that wait, in the order in which they get the lock.
    pub(super) fn queue(&self) -> impl DoubleEndedIterator<Item = &Waiter> + ExactSizeIterator {
        const NONE: &VecDeque<Waiter> = &VecDeque::new();
        self.more.as_ref().map_or(NONE, |more| &more.queue).iter()
    }

    /// In which mode the owner has the lock.
    pub(super) fn mode_of(&self, owner: u64) -> Option<Mode> {
        self.holders().find(|holder| holder.0 == owner).map(|(_, mode)| mode)
    }

    /// Whether the owner gets the lock without waiting.
    pub(super) fn admits(&self, owner: u64, mode: Mode) -> bool {
        let held = self.mode_of(owner);
        held >= Some(mode) || (held.is_some() || self.queue().len() == 0) && self.is_free_for(owner, mode)
    }

    fn is_free_for(&self, owner: u64, mode: Mode) -> bool {
        self.holders().all(|holder| holder.0 == owner || holder.1.goes_with(mode))
    }

    /// What the owner has, if it has any.
    fn hold(&mut self, owner: u64) -> Option<&mut Hold> {
        let others = self.more.iter_mut().flat_map(|more| &mut more.others);
        std::iter::once(&mut self.first).chain(others).find(|hold| hold.owner == owner && hold.mode().is_some())
    }

    /// Counts one more of the owner's. Whether it had none.
    pub(super) fn add(&mut self, owner: u64, mode: Mode) -> bool {
        if let Some(hold) = self.hold(owner) {
            let count = hold.count(mode);
            *count = count.saturating_add(1);
            return false;
        }
        let mut hold = Hold { owner, ..Hold::default() };
        *hold.count(mode) = 1;
        match self.first.mode() {
            None => self.first = hold,
            Some(_) => self.more.get_or_insert_default().others.push(hold),
        }
        true
    }

    /// Counts one less of the owner's. `None`: it has none in this mode. Otherwise whether it has
    /// any left.
    pub(super) fn take_back(&mut self, owner: u64, mode: Mode) -> Option<bool> {
        let hold = self.hold(owner)?;
        match hold.count(mode) {
            0 => return None,
            &mut u32::MAX => (), // There may have been more: it stays until all is let go.
            count => *count -= 1,
        }
        let is_left = hold.mode().is_some();
        self.tidy();
        Some(is_left)
    }

    /// Takes back all that the owner has.
    pub(super) fn let_go(&mut self, owner: u64) {
        if let Some(hold) = self.hold(owner) {
            *hold = Hold::default();
        }
        self.tidy();
    }

    pub(super) fn enqueue(&mut self, owner: u64, mode: Mode) -> Arc<Turn> {
        let turn = Arc::<Turn>::default();
        let (is_upgrade, waiter) = (self.mode_of(owner).is_some(), Waiter { owner, mode, turn: turn.clone() });
        let queue = &mut self.more.get_or_insert_default().queue;
        // Two upgrades would wait for each other: at most one does wait.
        if is_upgrade {
            queue.push_front(waiter)
        } else {
            queue.push_back(waiter)
        }
        turn
    }

    /// Takes the owner out of the queue.
    pub(super) fn dequeue(&mut self, owner: u64) -> Option<Waiter> {
        let queue = &mut self.more.as_mut()?.queue;
        let at = queue.iter().position(|waiter| waiter.owner == owner)?;
        let waiter = queue.remove(at);
        self.tidy();
        waiter
    }

    /// The next in the queue, if it is its turn.
    pub(super) fn next(&mut self) -> Option<Waiter> {
        let waiter = self.queue().next()?;
        if !self.is_free_for(waiter.owner, waiter.mode) {
            return None;
        }
        self.dequeue(waiter.owner)
    }

    /// Has no memory for what is not there.
    fn tidy(&mut self) {
        if let Some(more) = &mut self.more {
            more.others.retain(|hold| hold.mode().is_some());
            if more.others.is_empty() && more.queue.is_empty() {
                self.more = None;
            }
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.first.mode().is_none() && self.more.is_none()
    }
}
