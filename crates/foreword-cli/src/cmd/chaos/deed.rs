//! What is done to the log and its directory while the writer runs: nothing that people and their
//! tools do not do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use foreword::{Error, Log, Lsn, View};

use super::check::Ledger;
use super::place::aside;
use super::words::Word;
use super::worker;
use crate::exit::Failure;

/// How many of each.
pub(super) type Deeds = BTreeMap<&'static str, u64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Opens the log for writing, too, which must be refused.
    SecondWriter,
    /// Renames the log's directory.
    Rename,
    /// Renames it, and makes another log under its name.
    Replace,
    /// Removes the file LOCK, which must stop the writer.
    RemoveLock,
}

impl Deed {
    /// Those that this system lets one do. (On Windows a directory in which a file is open cannot
    /// be renamed, nor LOCK be removed.)
    pub(super) const ALL: &[Deed] =
        if cfg!(unix) { &[Deed::SecondWriter, Deed::Rename, Deed::RemoveLock, Deed::Replace] } else { &[Deed::SecondWriter] };

    pub(super) fn name(self) -> &'static str {
        match self {
            Deed::SecondWriter => "second_writer",
            Deed::Rename => "renamed",
            Deed::Replace => "replaced",
            Deed::RemoveLock => "lock_removed",
        }
    }
}

/// Tries to be the second writer of a log: it is as it must be if another has it open.
pub(super) fn is_locked(log: &Path) -> Result<bool, Failure> {
    match worker::options().open(log) {
        Err(Error::Locked { .. }) => Ok(true),
        opened => opened.map(|_| false).map_err(Failure::from),
    }
}

/// The log's directory under another name, and perhaps another log under its own.
pub(super) struct Moved<'a> {
    log: &'a Path,
    other: Option<(Log, Ledger)>,
}

impl Moved<'_> {
    pub(super) fn rename(log: &Path) -> Result<Moved<'_>, Failure> {
        std::fs::rename(log, aside(log)).map_err(Failure::io("rename the log's directory"))?;
        Ok(Moved { log, other: None })
    }

    /// Makes the other log, and writes to it, as far as there is room.
    pub(super) fn make_other(&mut self, seed: u64) -> Result<(), Failure> {
        const RECORDS: u64 = 200;
        let mut ledger = Ledger::new(!seed);
        let written = worker::options().open(self.log).and_then(|log| {
            while log.last_lsn() < Lsn(RECORDS) {
                let first = log.last_lsn().next();
                log.commit_batch(&ledger.eras.script_of(first).unit(first))?;
                ledger.hear(Word::Acknowledged(log.last_lsn(), 0, "commit_batch".to_owned()));
            }
            Ok(log)
        });
        match written {
            Ok(log) => self.other = Some((log, ledger)),
            Err(Error::NoSpace { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Gives the log its name back; what is wrong with the other, which goes. If anything is, both
    /// stay as they are, and the log's own name is the first of the two.
    pub(super) fn undo(self) -> Result<Vec<String>, Failure> {
        let Moved { log, other } = self;
        if let Some((other, ledger)) = other {
            other.close()?;
            let view = View::open(log)?;
            let found = ledger.check(view.start_lsn(), view.reader_at(Lsn::ZERO));
            if !found.is_sound() {
                return Ok(found.wrong.into_iter().map(|what| format!("the log made under the name of this: {what}")).collect());
            }
        }
        if log.exists() {
            std::fs::remove_dir_all(log).map_err(Failure::io("remove the other log"))?;
        }
        std::fs::rename(aside(log), log).map_err(Failure::io("rename the log's directory"))?;
        Ok(Vec::new())
    }
}

/// Whether anything is where the writer went when the log was open, and where a log of this name
/// would be.
pub(super) fn litter(elsewhere: &Path) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(elsewhere).into_iter().flatten().flatten();
    entries.find_map(|entry| {
        let path = entry.path();
        let inside = std::fs::read_dir(&path);
        match inside {
            Ok(mut inside) => inside.next().and_then(|entry| entry.ok()).map(|entry| entry.path()),
            Err(_) => Some(path),
        }
    })
}
