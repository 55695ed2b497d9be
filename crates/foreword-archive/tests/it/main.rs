//! The tests of the archive, in one program.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod backup;
mod command;
mod damage;
mod faults;
mod fencing;
#[cfg(target_os = "linux")]
mod full_disk;
mod histories;
#[cfg(feature = "cloud")]
mod http;
mod operating;
mod pages;
mod races;
mod reader;
#[cfg(feature = "cloud")]
mod server;
mod support;
