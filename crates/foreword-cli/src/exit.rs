//! How the command ends: its exit status, and what it says when it failed.

use std::fmt;
use std::io;

use foreword::{Error, Verdict};

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Fine = 0,
    /// Usage or I/O.
    Failed = 1,
    /// Of `verify` only: nothing acknowledged is missing.
    TornTail = 2,
    Corruption = 3,
    /// Of `append` only: a signal ended the input, and everything that was read is in the log. The
    /// status is that of a process ended by the signal, as shells report it.
    Interrupted = 130,
    Terminated = 143,
}

impl Status {
    /// The exit status for a verdict.
    pub(crate) fn of(verdict: Option<&Verdict>) -> Status {
        match verdict {
            Some(Verdict::TornTail) => Status::TornTail,
            Some(Verdict::Corruption(_)) => Status::Corruption,
            _ => Status::Fine,
        }
    }
}

/// Why a subcommand ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The reader of standard output has closed it, as `head` does: a quiet end, not an error.
    OutputClosed,
    Log(Error),
    Measure(foreword_measure::Error),
    Io {
        doing: &'static str,
        source: io::Error,
    },
    /// What was asked for, or came in, is wrong.
    Wrong(String),
}

impl Failure {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
        move |source| Failure::Io { doing, source }
    }

    pub(crate) fn output(source: io::Error) -> Failure {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Io { doing: "write to standard output", source },
        }
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            Failure::OutputClosed => Status::Fine,
            Failure::Log(Error::Corruption(_)) => Status::Corruption,
            _ => Status::Failed,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Log(error)
    }
}

impl From<foreword_measure::Error> for Failure {
    fn from(error: foreword_measure::Error) -> Failure {
        Failure::Measure(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::OutputClosed => f.write_str("standard output was closed"),
            Failure::Log(error) => error.fmt(f),
            Failure::Measure(error) => error.fmt(f),
            Failure::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            Failure::Wrong(why) => f.write_str(why),
        }
    }
}
