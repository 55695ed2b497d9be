//! The tests of the library, in one program: the parts that they share are compiled once, and tests
//! that wait run beside tests that compute. Tests that look at or change the whole process, and
//! those that need a feature or all processors, are programs of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod basics;
mod close;
mod copies;
mod corners;
mod counts;
mod cuts;
mod errors;
mod first_lsn;
mod full_disk;
mod golden;
mod growth;
mod hazards;
mod holds;
mod inspect;
mod layers;
mod publish;
mod regressions;
mod repair;
mod salvaged;
mod strangers;
mod streams;
mod verdicts;
mod waiting;
mod waits;
