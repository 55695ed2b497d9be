//! How the command ends: its exit status, and what it says when it failed.

use std::fmt;

use foreword_archive::Error;
use foreword_command::output::NotWritten;

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Fine = 0,
    /// Usage, I/O, the store, or a refusal.
    Failed = 1,
    /// Another archiver, or another log.
    Fenced = 2,
    /// Something of the archive is damaged or missing.
    Damaged = 3,
}

/// Why a subcommand ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The reader of standard output has closed it, as `head` does: a quiet end, not an error.
    OutputClosed,
    Archive(Error),
    /// What was asked for, or came in, is wrong.
    Wrong(String),
}

impl Failure {
    pub(crate) fn status(&self) -> Status {
        match self {
            Failure::OutputClosed => Status::Fine,
            Failure::Archive(Error::Fenced { .. } | Error::Foreign { .. } | Error::Diverged { .. }) => Status::Fenced,
            Failure::Archive(Error::Damaged { .. } | Error::Missed { .. } | Error::NotThere { .. }) => Status::Damaged,
            _ => Status::Failed,
        }
    }
}

impl From<NotWritten> for Failure {
    fn from(error: NotWritten) -> Failure {
        if error.is_closed() { Failure::OutputClosed } else { Failure::Wrong(error.to_string()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Archive(error)
    }
}

impl From<foreword::Error> for Failure {
    fn from(error: foreword::Error) -> Failure {
        Failure::Archive(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::OutputClosed => f.write_str("standard output was closed"),
            Failure::Archive(error) => error.fmt(f),
            Failure::Wrong(why) => f.write_str(why),
        }
    }
}
