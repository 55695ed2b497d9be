//! Which thread waits for which, where one may wait for a stranger's code that another runs: so that
//! no threads wait for each other in a circle.
//!
//! A log that is closed waits for its hooks, and these may close, hold or truncate other logs, whose
//! hooks may do the same. A thread notes for whom it waits before it does, and does not wait where
//! that thread, or one that it waits for in turn, waits for this one. Only calls that close or change
//! a log and must wait come here.

use std::sync::Mutex;

use crate::sync::{self, ThreadId, thread};

/// What a thread waits for another to let go of. A thread holds none that has an address of its own
/// in another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thing(usize);

impl Thing {
    pub(crate) fn of<T>(place: &T) -> Thing {
        Thing(std::ptr::from_ref(place).addr())
    }
}

struct Edge {
    by: ThreadId,
    on: ThreadId,
    thing: Thing,
}

/// Taken last, under whichever lock says who holds the thing. So a wait is in the list as long as
/// its thing is held, and not longer.
static WAITS: Mutex<Vec<Edge>> = Mutex::new(Vec::new());

/// This thread waits for another, while this lives.
pub(crate) struct Wait(ThreadId);

impl Wait {
    /// `None` if it would wait for itself. To be called, and dropped, under the lock that says that
    /// the other thread holds the thing.
    pub(crate) fn on(other: ThreadId, thing: Thing) -> Option<Wait> {
        let this = thread::current().id();
        // (Shuttle's threads have the same ids in each of its runs, some of which are at once.)
        if cfg!(shuttle) {
            return (other != this).then_some(Wait(this));
        }
        let mut waits = sync::lock(&WAITS);
        let mut at = other;
        while at != this {
            match waits.iter().find(|wait| wait.by == at) {
                Some(wait) => at = wait.on,
                None => {
                    waits.push(Edge { by: this, on: other, thing });
                    return Some(Wait(this));
                }
            }
        }
        None
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        sync::lock(&WAITS).retain(|wait| wait.by != self.0);
    }
}

/// A thing is let go of: those who waited for it do not any more, though they have not woken yet.
/// To be called under its lock.
pub(crate) fn let_go(thing: Thing) {
    sync::lock(&WAITS).retain(|wait| wait.thing != thing);
}
