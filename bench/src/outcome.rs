//! What a measurement gives.

use serde::{Deserialize, Serialize};

use crate::gauge::{Latency, Spent};

/// Before anything counts, a contestant runs for this part of the time.
pub const WARM_UP: f64 = 0.15;

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Records acknowledged, appended or read.
    pub records: u64,
    pub spent: Spent,
    /// Of each commit, or each batch.
    pub latency: Option<Latency>,
    /// Of those during which the log went on in another segment; `latency` is then of the others.
    #[serde(default)]
    pub at_rotation: Option<Latency>,
    /// Of that time, until the last append returned; the sync at the end is the rest.
    pub append_seconds: Option<f64>,
    /// Flushes, by the contestant's own count.
    pub flushes: Option<u64>,
    /// Memory before the log was opened, and the most while it was.
    pub memory_before: u64,
    pub memory_peak: u64,
    /// Of the whole process, from its beginning to its end.
    pub process_cpu_seconds: f64,
}
