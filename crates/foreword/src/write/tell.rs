//! What the log tells its owner as it goes: the hooks for what became durable, and for segments.
//! They run under no lock, one call at a time, and in order.
//!
//! With background work, the thread that syncs tells them: no call of a user waits for a hook, and
//! none wakes that thread if it is awake. Without, the thread that made something durable does;
//! another that does so meanwhile leaves it to that one.

use crate::Lsn;
use crate::bug::bug;
use crate::format::Promise;
use crate::options::{Durable, Rotated};
use crate::strangers;
use crate::sync::thread;
use crate::write::circle::{Thing, Wait, let_go};
use crate::write::inner::LogInner;
use crate::write::state::waiting::News;
use crate::write::state::{Guard, LogState};

impl LogInner {
    /// The log has gone on in another segment, which is told when it is durable, and has an age
    /// from now on.
    pub(crate) fn note_rotation(&self, state: &mut LogState, epoch: u64, first: Lsn) {
        state.ages.begun.insert(epoch, self.clock.now());
        if self.options.on_rotate.is_some() {
            state.hooks.rotated.push_back((epoch, first));
        }
    }

    /// Whether there is something to tell, and no thread tells it. Asked with every flush.
    #[inline]
    pub(crate) fn has_news(&self, state: &LogState) -> bool {
        let (hooks, durable) = (&state.hooks, told_up_to(state));
        let mut free = hooks.telling.is_none();
        bug!(TellAtOnce, free = true);
        let tells_durable = self.options.on_durable.is_some();
        (tells_durable || self.options.on_rotate.is_some())
            && free
            && (hooks.has_rotated(durable) || (tells_durable && hooks.has_durable(durable)))
    }

    /// Tells all that there is to tell, unless another thread is telling, which then goes on until
    /// there is no more.
    pub(crate) fn unlock_and_tell<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        while self.has_news(&state) {
            let durable = told_up_to(&state);
            let news = state.hooks.take(durable);
            state.hooks.telling = Some(thread::current().id());
            drop(state);
            strangers::run(|| match (news, &self.options.on_durable, &self.options.on_rotate) {
                (News::Durable(lsn), Some(hook), _) => hook(Durable { log: self.id, lsn }),
                (News::Rotated(epoch, first_lsn), _, Some(hook)) => hook(Rotated { log: self.id, epoch, first_lsn }),
                _ => {}
            });
            state = self.lock();
            state.hooks.telling = None;
            let_go(self.telling());
            if state.life.closed {
                self.changed.notify_all();
            }
        }
        state
    }

    /// Waits until all is told that another thread is telling, unless that waits for this one. Of a
    /// log that is closed.
    pub(crate) fn unlock_and_await_told<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        bug!(CloseUntold, return state);
        while let Some(_wait) = state.hooks.telling.and_then(|by| Wait::on(by, self.telling())) {
            state = self.wait_changed(state);
        }
        state
    }

    /// What a thread waits for that waits for the one that tells the hooks.
    fn telling(&self) -> Thing {
        Thing::of(&self.options)
    }
}

#[inline]
fn told_up_to(state: &LogState) -> Promise {
    bug!(TellEarly, return state.assembler.end());
    state.flushes.durable()
}
