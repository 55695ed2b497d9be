//! What opening a log comes to.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::assemble::Assembler;
use crate::files::segment::Segment;
use crate::format::{Control, Entry, LogId, Promise};
use crate::observe::stats::RecoveryReport;

/// A log, ready for its first append.
pub(crate) struct Opened {
    pub(crate) log: LogId,
    pub(crate) assembler: Assembler,
    pub(crate) spares: VecDeque<Arc<Segment>>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) control: Control,
    pub(crate) durable: Promise,
    pub(crate) report: RecoveryReport,
}

impl Opened {
    /// Whether a segment is of the log, or prepared for it.
    pub(crate) fn has(&self, epoch: u64) -> bool {
        self.entries.binary_search_by_key(&epoch, |e| e.epoch).is_ok() || self.spares.iter().any(|s| s.epoch() == epoch)
    }
}
