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
