//! The tests of the command, in one program: the parts that they share are compiled once, and tests
//! that wait run beside tests that compute. Beside it is a program with the tests that measure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod append_and_cat;
#[cfg(unix)]
mod arguments;
mod chaos;
#[cfg(target_os = "linux")]
mod full_disk;
mod operations;
mod repair;
#[cfg(unix)]
mod terminal;
mod tools;
#[cfg(unix)]
mod top;
