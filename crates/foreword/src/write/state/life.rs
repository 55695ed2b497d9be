//! How the log lives and ends, and how it is changed otherwise than by appends.

use crate::format::Control;
use crate::sync::ThreadId;
use crate::{Error, Result};

/// How far a log has come with closing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    NotYet,
    /// This thread closes it.
    By(ThreadId),
    /// Its lock is given up: the state is final, and nothing in the directory is this log's to
    /// change.
    Ended,
}

/// Any thread may set the failure, once; it never goes. The thread that closes the log (`ending`)
/// owns the rest.
#[derive(Debug, Default)]
pub(crate) struct Life {
    failed: Option<Error>,
    /// Nothing more is appended: the log is being closed, or was.
    pub(in crate::write) closed: bool,
    pub(in crate::write) ending: Ending,
    /// The background tasks do nothing more.
    pub(crate) stop: bool,
}

impl Life {
    /// Whether the log had not failed yet.
    pub(super) fn fail(&mut self, error: &Error) -> bool {
        let first = self.failed.is_none();
        if first {
            self.failed = Some(error.clone().poison());
        }
        first
    }

    /// Closing has come to its end: from now on this, unless the log has failed, is why it takes
    /// nothing.
    pub(in crate::write) fn close(&mut self) {
        self.failed.get_or_insert(Error::Closed);
    }

    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Whether its lock is given up.
    pub(crate) fn has_ended(&self) -> bool {
        self.ending == Ending::Ended
    }

    /// The error by which a call fails that needs the log to go on: not while it is being closed.
    #[inline]
    pub(in crate::write) fn not_failed(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// The same for a call that may not go on when the log is being closed.
    #[inline]
    pub(crate) fn usable(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// What closing came to.
    pub(in crate::write) fn ended(&self) -> Result<()> {
        match &self.failed {
            Some(Error::Closed) | None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }
}

/// The log's state that is not records: holds, the start, cuts, waivers. Owned by the thread that
/// holds the right to change it (`Changing`), one at a time.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) control: Control,
    /// The thread that has that right.
    pub(in crate::write) by: Option<ThreadId>,
    /// It cuts the log at the back: appends wait.
    pub(in crate::write) cutting: bool,
}

impl Change {
    pub(super) fn new(control: Control) -> Change {
        Change { control, by: None, cutting: false }
    }
}
