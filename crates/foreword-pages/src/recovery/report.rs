//! What recovery found and did, for people.

use std::fmt;
use std::time::Duration;

use foreword::{Lsn, RecoveryReport};

/// What opening a store found and did. Its `Display` is for people, and so is [`to_svg`](Recovery::to_svg).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// What the log says of itself.
    pub log: RecoveryReport,
    /// The begin of the last complete checkpoint; [`Lsn::ZERO`] if there is none.
    pub checkpoint: Lsn,
    /// Where redo began.
    pub redo_from: Lsn,
    /// The last LSN that recovery found.
    pub last_lsn: Lsn,
    /// Pages that were not known to be on disk.
    pub pages: u64,
    /// Transactions that had ended since the checkpoint.
    pub winners: u64,
    /// Transactions that had not ended: they were undone.
    pub losers: u64,
    /// Changes that were made again.
    pub applied: u64,
    /// Changes that the pages had already, or that a later image of the page held.
    pub skipped: u64,
    /// Pages that were taken from a full image in the log, whatever the page file had.
    pub images: u64,
    /// Threads that redid changes.
    pub threads: u64,
    /// From the end of the log back to the checkpoint.
    pub analysis: Phase,
    /// From `redo_from` to the end.
    pub redo: Phase,
    /// Of the losers: its records are the changes undone.
    pub undo: Phase,
}

/// A phase of recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    /// Records that it read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Recovery {
    pub(crate) fn new(log: &RecoveryReport) -> Recovery {
        Recovery {
            log: log.clone(),
            checkpoint: Lsn::ZERO,
            redo_from: Lsn::ZERO,
            last_lsn: Lsn::ZERO,
            pages: 0,
            winners: 0,
            losers: 0,
            applied: 0,
            skipped: 0,
            images: 0,
            threads: 0,
            analysis: Phase::default(),
            redo: Phase::default(),
            undo: Phase::default(),
        }
    }

    /// Whether there was anything to redo or to undo.
    #[must_use]
    pub fn has_worked(&self) -> bool {
        self.pages > 0 || self.losers > 0
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |took: Duration| took.as_secs_f64() * 1e3;
        writeln!(
            f,
            "log        {:?}, records {} to {}, {:.1} ms",
            self.log.verdict,
            self.log.start_lsn,
            self.log.last_lsn,
            ms(self.log.took)
        )?;
        writeln!(
            f,
            "analysis   {} records back to the checkpoint at {}: {} pages to look after, {} transactions ended, {} lost, {:.1} ms",
            self.analysis.records,
            self.checkpoint,
            self.pages,
            self.winners,
            self.losers,
            ms(self.analysis.took)
        )?;
        if !self.has_worked() {
            return write!(f, "redo, undo nothing: every page is as the log has it");
        }
        writeln!(
            f,
            "redo       {} to {} with {} threads: {} changes made, {} skipped, {} pages from their image, {:.1} ms",
            self.redo_from,
            self.last_lsn,
            self.threads,
            self.applied,
            self.skipped,
            self.images,
            ms(self.redo.took)
        )?;
        write!(f, "undo       {} changes of {} transactions, {:.1} ms", self.undo.records, self.losers, ms(self.undo.took))
    }
}
