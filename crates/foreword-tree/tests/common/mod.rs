//! The suites' workloads, checked against models. They return a violation and do not panic, so that
//! deliberate bugs can be counted.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../foreword-pages/tests/common/rng.rs"]
mod rng;
mod world;

use std::path::{Path, PathBuf};
use std::process::Command;

use foreword_sim::SimDisk;
use foreword_tree::Options;
use foreword_tree::foreword_pages::foreword::{self, SyncPolicy};

pub use rng::Rng;
pub use world::World;

pub const DIR: &str = "/store";

/// A check: the value, or what went wrong, in words.
pub type Checked<T = ()> = Result<T, String>;

/// Options of a store without a background thread, and with so little memory that pages are stolen
/// all the time.
pub fn options(disk: &SimDisk, threads: usize) -> Options {
    let log = foreword::Options::new()
        .segment_bytes(64 << 10)
        .buffer_bytes(512 << 10)
        .background(false)
        .sync(SyncPolicy::manual())
        .on_error(|_| ());
    let options = Options::new().page_bytes(4096).pool_bytes(32 * 4096).recovery_bytes(20_000);
    options.background(false).recovery_threads(threads).disk(disk.handle()).log(log)
}

/// An example's program. Cargo builds it with all tests, but not with one alone.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !program.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--example", name, "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
        assert!(build.arg("--target-dir").arg(target.parent().unwrap()).status().unwrap().success());
    }
    program
}

/// The number of crashes: `default`, or `FOREWORD_CRASHES`.
pub fn crashes_wanted(default: u64) -> u64 {
    std::env::var("FOREWORD_CRASHES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}
