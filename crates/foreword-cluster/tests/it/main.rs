//! The tests of the replicated log, in one program: what they stand on is linked once. The test of
//! the metrics needs a feature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod cluster;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod tls;
