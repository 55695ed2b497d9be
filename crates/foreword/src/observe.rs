//! What the log says of itself: counters, metrics, and the file that other processes read.

pub(crate) mod counters;
pub(crate) mod meters;
pub(crate) mod publish;
pub(crate) mod stats;
