//! The tests of the tree, in one program. Beside it is a program for the deliberate bugs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../common/mod.rs"]
mod common;

mod availability;
mod basics;
mod crash;
mod damage;
mod example;
mod graph;
mod history;
#[cfg(feature = "sabotage")]
mod sabotage;
mod serial;
