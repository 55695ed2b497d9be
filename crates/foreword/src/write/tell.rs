//! What the log tells its owner as it goes: the hooks for what became durable, and for segments. They run under no lock, one call at a time, and in order.
//!
//! With background work, the thread that syncs tells them: no call of a user waits for a hook, and none wakes that thread if it is awake. Without, whoever made
//! something durable does; another that does so meanwhile leaves it to that one.

use crate::bug::{self, Bug};
use crate::format::{LINK_BLOCK, Position};
use crate::write::commit::{Guard, Shared, State};
use crate::{Lsn, strangers};

/// What a hook is to be told.
enum News {
    Durable(Lsn),
    Rotated(u64, Lsn),
}

impl Shared {
    /// The log has gone on in another segment, which is told when it is durable, and has an age from now on.
    pub(crate) fn note_rotation(&self, state: &mut State, epoch: u64, first: Lsn) {
        state.begun.insert(epoch, self.clock.now());
        if self.options.on_rotate.is_some() {
            state.rotated.push_back((epoch, first));
        }
    }

    /// Whether there is something to tell, and nobody tells it. Asked with every flight.
    #[inline]
    pub(crate) fn has_news(&self, state: &State) -> bool {
        let durable = self.options.on_durable.is_some();
        (durable || self.options.on_rotate.is_some())
            && (!state.telling || bug::is(Bug::TellAtOnce))
            && (state.has_rotated() || (durable && state.durable.lsn > state.told))
    }

    /// Tells all that there is to tell, unless another thread is telling, which then goes on until there is no more.
    pub(crate) fn tell<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        while self.has_news(&state) {
            let news = state.take_news();
            state.telling = true;
            drop(state);
            strangers::run(|| match (news, &self.options.on_durable, &self.options.on_rotate) {
                (News::Durable(lsn), Some(hook), _) => hook(lsn),
                (News::Rotated(epoch, first), _, Some(hook)) => hook(epoch, first),
                _ => {}
            });
            state = self.lock();
            state.telling = false;
        }
        state
    }
}

impl State {
    /// Whether the next segment that is to be told of has come to the disk: its LINK, and so the SEAL of the one before.
    fn has_rotated(&self) -> bool {
        self.rotated.front().is_some_and(|&(epoch, _)| Position::new(epoch, LINK_BLOCK) < self.durable.position)
    }

    /// A segment comes before the records in it.
    fn take_news(&mut self) -> News {
        if self.has_rotated()
            && let Some((epoch, first)) = self.rotated.pop_front()
        {
            return News::Rotated(epoch, first);
        }
        self.told = self.durable.lsn;
        News::Durable(self.told)
    }
}
