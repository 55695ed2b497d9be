//! Page stores and trees under shuttle. Run by `scripts/shuttle.sh`.
//!
//! Those of pages are here because the crate of pages has a command: with its tests cargo would build
//! that under shuttle, too, and put it in the place of the command that other tests run.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "../../foreword-sim/tests/shuttle/explore.rs"]
mod explore;
#[path = "shuttle/pages.rs"]
mod pages;
#[path = "shuttle/trees.rs"]
mod trees;
