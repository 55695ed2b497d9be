//! How a log ends: once, whoever asks for it, and wherever that is.

use crate::bug::{self, Bug};
use crate::sync::{ThreadId, thread};
use crate::write::assemble::Urgency;
use crate::write::background::Background;
use crate::write::commit::{Guard, Shared, State};
use crate::{Error, Result, strangers};

/// How far a log has come with closing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    NotYet,
    /// This thread is at it.
    By(ThreadId),
    /// Its lock is given up: what the state says is final, and nothing in the directory is this log's to change.
    Ended,
}

impl Shared {
    /// Closes the log, or waits for who does; what that came to.
    ///
    /// Who closes waits for changes and for the background work. So those never wait for it: a waker or hook that runs on their thread gets
    /// [`Error::Busy`] where another thread is closing, and closes the log itself where none is.
    pub(crate) fn end(&self, background: Option<&Background>) -> Result<()> {
        self.dir.check_process()?;
        self.may_wait()?;
        let this = thread::current().id();
        let mut state = self.lock();
        loop {
            let changes = state.changing == Some(this);
            match state.ending {
                Ending::Ended => return state.ended(),
                Ending::By(by) if by == this || changes || self.is_background() => {
                    return Err(Error::Busy);
                }
                Ending::NotYet if changes || state.changing.is_none() => break,
                _ => state = self.wait_changed(state),
            }
        }
        (state.ending, state.stop) = (Ending::By(this), true);
        state.closed = !bug::is(Bug::AppendWhileClosing);
        drop(state);
        if let Some(background) = background {
            background.stop(self);
        }
        let state = self.finish();
        let ended = state.ended();
        drop(state);
        strangers::run(|| self.recent.retain(|_| false));
        self.dir.unlock();
        self.lock().ending = Ending::Ended;
        self.changed.notify_all();
        if cfg!(feature = "metrics") {
            self.counters.meters.tell(&self.stats());
        }
        ended
    }

    /// Makes all durable that was appended, says that the log is closed, and tells everyone.
    fn finish(&self) -> Guard<'_> {
        let mut state = self.lock();
        while state.failed.is_none() && !(state.flights.is_empty() && state.assembler.is_empty() && state.dirty.is_empty()) {
            state = if state.flights.is_empty() { self.fly(state, true) } else { self.wait_changed(state) };
        }
        let State { assembler, control, failed, .. } = &mut *state;
        // If there is no room, the next opening finds the log unclosed, which costs it a scan.
        if failed.is_none() && !assembler.is_closed() && assembler.mark(true, Urgency::Last, control) {
            state = self.fly(state, true);
        }
        // Calls that were at it when the log was closed leave the directory as it is to be.
        while state.preparing || state.removing > 0 || state.aloft > 0 {
            state = self.wait_changed(state);
        }
        if state.failed.is_none() {
            // What was dropped goes before the lock is given up; a segment that is half filled has gone.
            drop(state);
            self.remove_all();
            state = self.lock();
        }
        state = self.tell(state);
        state.failed.get_or_insert(Error::Closed);
        self.wake_everyone(state);
        self.lock()
    }
}

impl State {
    /// What closing came to.
    fn ended(&self) -> Result<()> {
        match &self.failed {
            Some(Error::Closed) | None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }
}
