//! What recovery found and did, for people.

use std::fmt;
use std::time::Duration;

use foreword::{Lsn, RecoveryReport};

/// What opening a store found and did. `Display` and [`to_svg`](Recovery::to_svg) show it to
/// people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// The log's own recovery.
    pub log: RecoveryReport,
    /// The begin of the last complete checkpoint; [`Lsn::ZERO`] if there is none.
    pub checkpoint: Lsn,
    /// Dirty pages, by that checkpoint.
    pub listed: u64,
    /// Transactions that were alive, by that checkpoint.
    pub live: u64,
    /// The LSN from which redo read: the checkpoint, or before it the LSN from which on the log
    /// rebuilds the oldest dirty page.
    pub redo_from: Lsn,
    /// The last LSN that recovery found.
    pub last_lsn: Lsn,
    /// Pages that redo looked at.
    pub pages: u64,
    /// Pages that redo did not look at, though the log has changes of them: those were on disk when
    /// the checkpoint was taken.
    pub pages_skipped: u64,
    /// Transactions whose commit or abort redo met.
    pub winners: u64,
    /// Transactions that had not ended: they were undone.
    pub losers: u64,
    /// Changes that were made again.
    pub applied: u64,
    /// Changes that redo passed over: the pages have them.
    pub skipped: u64,
    /// Pages that were taken from a full image in the log, whatever the page file had.
    pub images: u64,
    /// Threads that redid changes.
    pub threads: u64,
    /// The time to find the checkpoint. Redo reads the records behind it, in one pass.
    pub analysis: Phase,
    /// The pass from `redo_from` to the end, which also finds the transactions that ended.
    pub redo: Phase,
    /// The undo of the losers. The records are the changes undone.
    pub undo: Phase,
}

/// A phase of recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Phase {
    /// Records that the phase read.
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
            listed: 0,
            live: 0,
            redo_from: Lsn::ZERO,
            last_lsn: Lsn::ZERO,
            pages: 0,
            pages_skipped: 0,
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
            "analysis   checkpoint at {}: {} pages were not on disk, {} transactions alive; since then {} ended, {} lost, {:.1} ms",
            self.checkpoint,
            self.listed,
            self.live,
            self.winners,
            self.losers,
            ms(self.analysis.took)
        )?;
        if !self.has_worked() {
            return write!(f, "redo, undo nothing: every page is as the log has it");
        }
        writeln!(
            f,
            "redo       {} to {} with {} threads: {} changes made, {} skipped; {} pages, {} of them from their image, {} skipped, {:.1} ms",
            self.redo_from,
            self.last_lsn,
            self.threads,
            self.applied,
            self.skipped,
            self.pages,
            self.images,
            self.pages_skipped,
            ms(self.redo.took)
        )?;
        write!(f, "undo       {} changes of {} transactions, {:.1} ms", self.undo.records, self.losers, ms(self.undo.took))
    }
}
