//! The tests of the page store, in one program: the parts that they share are compiled once. Beside
//! it are programs for the test that counts allocations, and for the deliberate bugs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod availability;
mod backup;
mod basics;
mod command;
mod crash;
mod examples;
mod nested;
mod replay;
mod tasks;
mod types;
