//! How a log ends: once, whichever threads ask for it.

use crate::assemble::room::Urgency;
use crate::bug::bug;
use crate::sync::thread;
use crate::write::background::Background;
use crate::write::circle::{Wait, let_go};
use crate::write::inner::LogInner;
use crate::write::runtime::Tasks;
use crate::write::state::life::Ending;
use crate::write::state::{Guard, LogState};
use crate::{Error, Result};

impl LogInner {
    /// Closes the log, or waits for the thread that does; what that came to.
    ///
    /// The thread that closes waits for changes and for the background work. So those never wait
    /// for it: a waker or hook that runs on their thread gets [`Error::Busy`] where another thread
    /// is closing, and closes the log itself where none is. So does one that they wait for, in
    /// another log's hook: until it returns, they are as blocked as if it ran on their thread.
    pub(crate) fn end(&self, background: Option<&Background>) -> Result<()> {
        self.dir.check_process()?;
        self.may_wait()?;
        let this = thread::current().id();
        let mut state = self.lock();
        loop {
            let changes = state.change.by == Some(this);
            let _wait = match (state.life.ending, state.change.by) {
                (Ending::Ended, _) => return state.life.ended(),
                (Ending::By(_), _) if changes || self.tasks.get().is_some_and(Tasks::are_on_this_thread) => {
                    return Err(Error::Busy);
                }
                (Ending::By(by), _) => Wait::on(by, self.ending()).ok_or(Error::Busy)?,
                (Ending::NotYet, by) => {
                    let Some(wait) = by.and_then(|by| Wait::on(by, self.change())) else { break };
                    wait
                }
            };
            state = self.wait_changed(state);
        }
        (state.life.ending, state.life.stop) = (Ending::By(this), true);
        state.life.closed = true;
        bug!(AppendWhileClosing, state.life.closed = false);
        drop(state);
        if let Some(background) = background {
            background.stop(self);
        }
        let state = self.finish();
        let ended = state.life.ended();
        drop(state);
        self.shed_memory(0);
        self.dir.unlock();
        let mut state = self.lock();
        state.life.ending = Ending::Ended;
        let_go(self.ending());
        drop(state);
        self.changed.notify_all();
        if cfg!(feature = "metrics") {
            self.counters.meters.tell(&self.stats());
        }
        ended
    }

    /// Makes all durable that was appended, says that the log is closed, and tells everyone.
    fn finish(&self) -> Guard<'_> {
        let mut state = self.lock();
        while !state.life.has_failed() && !state.is_flushed() {
            state = if !state.flushes.has_uncounted() { self.unlock_and_flush(state, true) } else { self.wait_changed(state) };
        }
        let LogState { assembler, change, life, .. } = &mut *state;
        // If there is no room, the next opening finds the log unclosed, which costs it a scan.
        if !life.has_failed() && !assembler.is_closed() && assembler.mark(true, Urgency::Last, &change.control) {
            state = self.unlock_and_flush(state, true);
        }
        // Calls that were at it when the log was closed leave the directory as it is to be.
        while state.spares.preparing || state.removals.is_removing() || state.flushes.has_leader() {
            state = self.wait_changed(state);
        }
        if !state.life.has_failed() {
            // What was dropped goes before the lock is given up; a segment that is half filled has
            // gone.
            drop(state);
            self.remove_all();
            state = self.lock();
        }
        state = self.unlock_and_tell(state);
        state = self.unlock_and_await_told(state);
        state.life.close();
        self.wake_everyone(state);
        self.lock()
    }
}
