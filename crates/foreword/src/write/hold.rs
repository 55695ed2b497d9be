//! Holds: what is kept for an owner, by name, here or in another process.

use crate::assemble::room::Urgency;
use crate::files::outside::Outside;
use crate::limit::{Holds, Limit, check_hold, judged, place};
use crate::read::source::Source;
use crate::write::inner::LogInner;
use crate::{Lsn, Result};

/// Whether what other processes ask for is all in the log by now, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Stays,
    IsInTheLog,
}

impl LogInner {
    pub(crate) fn hold(&self, name: &str, lsn: Lsn, limit: Option<Limit>) -> Result<()> {
        check_hold(name, limit)?;
        self.change_holds(|start, last, holds| {
            let hold = place(name, lsn, limit, (start, Some(last)), holds)?;
            holds.insert(name.to_owned(), hold);
            Ok(())
        })
    }

    pub(crate) fn release(&self, name: &str) -> Result<bool> {
        self.change_holds(|_, _, holds| Ok(holds.remove(name).is_some()))
    }

    /// Changes the holds, of which those are that other processes have placed: durably, if that
    /// makes a difference. It is told where the log starts, and the last LSN. What the change says.
    fn change_holds<T>(&self, change: impl FnOnce(Lsn, Lsn, &mut Holds) -> Result<T>) -> Result<T> {
        let _changing = self.one_at_a_time()?;
        let outside = self.outside()?;
        let mut state = self.open_state()?;
        let (start, last) = (state.change.control.start, state.last_lsn());
        let before = state.change.control.holds.clone();
        outside.iter().for_each(|outside| outside.apply(&mut state.change.control.holds));
        let changed = change(start, last, &mut state.change.control.holds);
        if changed.is_err() {
            state.change.control.holds = before;
            return changed;
        }
        // (Where the log says so already, others may have asked for something else.)
        if state.change.control.holds == before {
            drop(state);
        } else {
            self.mark(state, Urgency::Mark).inspect_err(|_| self.lock().change.control.holds = before)?;
        }
        self.let_go(outside, Asked::IsInTheLog)?;
        changed
    }

    /// What other processes ask for, with the lock on that. None where there is no room for a file
    /// ([`Dir::outside_if_possible`](crate::files::dir::Dir::outside_if_possible)).
    pub(crate) fn outside(&self) -> Result<Option<Outside>> {
        drop(self.open_state()?); // A log that has failed asks the disk for nothing.
        let take = || self.dir.outside_if_possible(self.id);
        self.attempt("look at the holds of other processes", &self.dir.path, take)
    }

    /// Lets go of what other processes ask for.
    pub(crate) fn let_go(&self, outside: Option<Outside>, asked: Asked) -> Result<()> {
        self.attempt("clear the holds of other processes", &self.dir.path, move || match (outside, asked) {
            (Some(mut outside), Asked::IsInTheLog) => outside.clear(),
            _ => Ok(()),
        })
    }

    /// The holds, with those that others have placed.
    pub(crate) fn holds(&self) -> Result<Holds> {
        self.may_wait()?;
        let look = || self.dir.with_outside(self.id, || self.own_holds());
        self.attempt("look at the holds of other processes", &self.dir.path, look)
    }

    /// Where the log starts, and its own holds.
    fn own_holds(&self) -> (Lsn, Holds) {
        match self.peek() {
            // (Not the start that a truncation under way is about to have.)
            Some(state) => (self.chain().start, state.change.control.holds.clone()),
            None => (self.chain().start, Holds::new()),
        }
    }

    /// The holds as far as they are known here, whatever the disk says of others.
    pub(crate) fn known_holds(&self) -> Holds {
        self.holds().unwrap_or_else(|_| {
            let (start, holds) = self.own_holds();
            judged(holds, start)
        })
    }
}
