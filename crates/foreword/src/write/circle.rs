//! Which thread waits for which, where one may wait for a stranger's code that another runs: so
//! that no threads wait for each other in a circle.
//!
//! A log that is closed waits for its hooks, and these may close, hold or truncate other logs,
//! whose hooks may do the same. A thread notes for whom it waits before it does, and does not wait
//! where that thread, or one that it waits for in turn, waits for this one. Only calls that close
//! or change a log and must wait come here, and appends that wait for a cut.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

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

/// The edges of a process. Their lock is taken last, under whichever lock says who holds the thing.
/// So a wait is in the list as long as its thing is held, and not longer.
struct Waits {
    /// 0: of none yet.
    process: AtomicU32,
    edges: Mutex<Vec<Edge>>,
    /// Of a process that was forked from that one: there a thread that held the lock does not
    /// exist, and nobody waits.
    forked: OnceLock<Box<Waits>>,
}

static WAITS: Waits = Waits::new();

/// How many edges the list of this process has: stored under its lock. (A forked process begins
/// with its parent's number, which does no harm.)
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Waits {
    const fn new() -> Waits {
        Waits { process: AtomicU32::new(0), edges: Mutex::new(Vec::new()), forked: OnceLock::new() }
    }

    fn of_this_process() -> &'static Waits {
        let (mut waits, this) = (&WAITS, std::process::id());
        while waits.process.compare_exchange(0, this, Relaxed, Relaxed).is_err_and(|process| process != this) {
            waits = waits.forked.get_or_init(|| Box::new(Waits::new()));
        }
        waits
    }
}

fn change<T>(change: impl FnOnce(&mut Vec<Edge>) -> T) -> T {
    let mut edges = sync::lock(&Waits::of_this_process().edges);
    let changed = change(&mut edges);
    COUNT.store(edges.len(), Relaxed);
    changed
}

/// To be called under the lock of the thing that these edges have, or by the thread that pushed
/// them.
///
/// Takes the list's lock only if some thread waits. It misses no edge of theirs, though the loads
/// and stores are relaxed: the edge was pushed and counted before, under the thing's lock or on
/// this thread. A load sees that count or a later one, and each count is at least 1 as long as the
/// edge is in the list.
fn take_out(over: impl Fn(&Edge) -> bool) {
    if COUNT.load(Relaxed) > 0 {
        change(|edges| edges.retain(|edge| !over(edge)));
    }
}

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
        change(|edges| {
            let mut at = other;
            while at != this {
                let Some(edge) = edges.iter().find(|edge| edge.by == at) else {
                    edges.push(Edge { by: this, on: other, thing });
                    return Some(Wait(this));
                };
                at = edge.on;
            }
            None
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        take_out(|edge| edge.by == self.0);
    }
}

/// A thing is let go of: those who waited for it do not any more, though they have not woken yet.
/// To be called under its lock.
pub(crate) fn let_go(thing: Thing) {
    take_out(|edge| edge.thing == thing);
}

#[cfg(all(test, unix, not(shuttle)))]
mod tests {
    use super::*;
    use crate::sync::fork::Child;

    fn edges() -> std::sync::MutexGuard<'static, Vec<Edge>> {
        sync::lock(&Waits::of_this_process().edges)
    }

    #[test]
    fn a_forked_process_has_a_list_of_its_own() {
        let (thing, this) = (Thing::of(&WAITS), thread::current().id());
        let other = thread::spawn(|| ()).thread().id();
        let wait = Wait::on(other, thing).unwrap();
        let held = edges();
        // It calls what a log of its own would.
        let child = Child::fork(|| {
            let_go(thing);
            drop(Wait::on(other, thing).unwrap());
            true
        });
        drop(held);
        assert_eq!(child.status(), 0, "it hangs");
        assert!(edges().iter().any(|edge| edge.by == this));
        drop(wait);
        assert!(!edges().iter().any(|edge| edge.by == this));
    }

    #[test]
    fn what_nobody_waits_for_is_let_go_of_without_the_lock() {
        let (done, is_done) = std::sync::mpsc::channel();
        // (Other tests wait, too.)
        let held = std::iter::repeat_with(edges).find(|edges| edges.is_empty()).unwrap();
        thread::spawn(move || {
            let_go(Thing::of(&done));
            done.send(()).unwrap();
        });
        is_done.recv_timeout(std::time::Duration::from_secs(20)).expect("it waits for the lock");
        drop(held);
    }
}
