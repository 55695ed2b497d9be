//! The kept corpus of each target, and each finding that there ever was, on any toolchain.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use cap::Cap;
use foreword_fuzz::{TARGETS, recipe};

/// No input is larger than some kilobytes, no file of a case than a few megabytes: who asks for
/// more than this believed a length.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 256 << 20);

/// An input takes milliseconds.
const TIME: Duration = Duration::from_secs(10);

fn fuzz() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Of a folder, for a target: in the order of their names.
fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fuzz().join(folder).join(target)).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Tries each input in a thread of its own, so that one that does not end is named, too.
fn replay(target: &str) {
    let run = TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
    let (findings, corpus) = (inputs("findings", target), inputs("corpus", target));
    assert!(corpus.len() >= 20, "{} inputs", corpus.len());
    let all = [findings, corpus].concat();
    let (done, tried) = mpsc::channel();
    let inputs = all.clone();
    let worker = std::thread::spawn(move || {
        for path in inputs {
            run(&std::fs::read(path).unwrap());
            done.send(()).unwrap();
        }
    });
    for path in &all {
        if let Err(error) = tried.recv_timeout(TIME) {
            panic!("{0} fails ({error}). To try it again: cargo run -p foreword-fuzz --bin {target} {0}", path.display());
        }
    }
    worker.join().unwrap();
}

#[test]
fn segment() {
    replay("segment");
}

#[test]
fn directory() {
    replay("directory");
}

#[test]
fn options() {
    replay("options");
}

#[test]
fn input() {
    replay("input");
}

/// What the seeds are made by: each golden log is to the byte what its input stands for.
#[test]
fn a_recipe_of_a_real_log_makes_that_log() {
    let golden = fuzz().join("../crates/foreword-tests/tests/golden");
    let dirs = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut logs = 0;
    for dir in dirs {
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        };
        let files: foreword_fuzz::forge::Files = std::fs::read_dir(&dir).unwrap().map(read).collect();
        let made = recipe::directory(&recipe::of(&files)).unwrap();
        assert!(made.keys().eq(files.keys()), "{}", dir.display());
        files.iter().for_each(|(name, bytes)| assert!(made[name] == *bytes, "{}/{name}", dir.display()));
        logs += 1;
    }
    assert!(logs >= 12);
}

#[test]
fn the_corpus_is_small() {
    let bytes: u64 =
        TARGETS.iter().flat_map(|(target, _)| inputs("corpus", target)).map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes");
}
