//! Measures what a disk can do for a log, so that the figures can be trusted.
//!
//! - [`idle`]: is the machine idle? On a busy machine a measurement measures the other programs.
//! - [`machine`]: the machine, file system and device, for the report.
//! - [`floor`]: the raw durable write, by the state of the file and the method of flushing: no log
//!   can be faster.
//! - [`load`]: threads that repeat an operation, as fast as possible or at a given rate, and how
//!   long each took.
//! - [`sample`]: latencies, medians, spread, ratios of interleaved repetitions.
//! - [`report`]: plots and tables as one self-contained HTML page, and as JSON.
//!
//! Alternatives are measured interleaved, in rounds (`A B C A B C ..`), so that a change in the
//! disk's speed affects all of them:
//!
//! ```
//! use foreword_measure::floor::{FileState, Method, Probe, Shape, Strategy};
//! use foreword_measure::sample;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), foreword_measure::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! let mut probe = |state| Probe::open(dir.path(), Strategy { state, method: Method::Fdatasync }, 4 << 20);
//! let (mut growing, mut zeroed) = (probe(FileState::Growing)?, probe(FileState::Zeroed)?);
//! let (shape, time) = (Shape { block_bytes: 4096, in_flight: 1 }, Duration::from_millis(20));
//! let (mut a, mut b) = (Vec::new(), Vec::new());
//! for _round in 0..3 {
//!     a.push(growing.burst(shape, time)?.latencies.quantile(0.5).as_secs_f64());
//!     b.push(zeroed.burst(shape, time)?.latencies.quantile(0.5).as_secs_f64());
//! }
//! let ratio = sample::ratio(&a, &b).expect("three rounds");
//! println!("a growing file takes {:.2} times as long ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max);
//! # Ok(()) }
//! ```

mod error;
pub mod floor;
pub mod idle;
pub mod load;
pub mod machine;
pub mod report;
pub mod sample;
mod scratch;

pub use error::{Error, Result};
pub use scratch::Scratch;
