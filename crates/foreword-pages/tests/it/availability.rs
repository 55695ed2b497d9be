//! Availability: a full disk, a file that is lost or another's, waiting threads and a panicking
//! disk do no harm, and the caller gets an error.

mod files;
mod full_disk;
mod full_disk_opening;
mod panics;
mod threads;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use foreword_pages::{Error, Options, PageId, Store};

fn small() -> Options {
    let log = foreword::Options::new().segment_bytes(256 << 10);
    Options::new().page_bytes(4096).pool_bytes(64 * 4096).background(false).log(log)
}

/// Allocates pages in one transaction, and fills each with a byte.
fn fill(store: &Store, pages: usize, byte: u8) -> foreword_pages::Result<Vec<PageId>> {
    let mut txn = store.begin();
    let pages: Vec<_> = (0..pages).map(|_| txn.allocate()).collect::<Result<_, _>>()?;
    for &page in &pages {
        txn.update(page, 0, &vec![byte; store.page_len()])?;
    }
    txn.commit()?;
    Ok(pages)
}

fn put(store: &Store, page: PageId, byte: u8) -> foreword_pages::Result<()> {
    let mut txn = store.begin();
    txn.update(page, 0, &vec![byte; store.page_len()])?;
    txn.commit()?;
    Ok(())
}

fn holds(store: &Store, page: PageId, byte: u8) -> bool {
    store.read(page).unwrap().iter().all(|&b| b == byte)
}

/// Runs some work in a thread of its own. Panics if the work takes longer than `patience`, or
/// panics.
fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || say.send(work()));
    said.recv_timeout(patience).expect("it hangs, or panicked")
}

fn make(dir: &Path, pages: usize) -> Vec<PageId> {
    let store = small().open(dir).unwrap();
    let pages = fill(&store, pages, 5).unwrap();
    store.close().unwrap();
    pages
}

#[test]
fn options_that_are_as_large_as_can_be_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let options = small().background(true).checkpoint_interval(Some(Duration::MAX)).checkpoint_bytes(u64::MAX);
        let store = options.recovery_bytes(usize::MAX).open(dir.path()).unwrap();
        (0..50).for_each(|_| drop(fill(&store, 1, 1).unwrap()));
        store.begin().allocate().unwrap();
        drop(store);
    }
    assert!(matches!(small().checkpoint_interval(Some(Duration::ZERO)).open(dir.path()), Err(Error::Invalid { .. })));
    assert!(matches!(small().pool_bytes(usize::MAX).open(dir.path()), Err(Error::Invalid { .. })));
}

/// `Stats` shows that a background checkpoint failed, and that a later one succeeded.
#[test]
fn a_checkpoint_that_failed_is_in_the_stats() {
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("PAGES"), dir.path().join("aside"));
    let interval = Some(Duration::from_millis(10));
    let store = small().background(true).checkpoint_interval(interval).open(dir.path()).unwrap();
    let until = |is: &dyn Fn(&Option<Error>) -> bool| {
        let started = Instant::now();
        while !is(&store.stats().checkpoint_failure) {
            assert!(started.elapsed().as_secs() < 20, "{:?}", store.stats().checkpoint_failure);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    std::fs::rename(&path, &aside).unwrap();
    fill(&store, 1, 1).unwrap();
    until(&|failure| matches!(failure, Some(Error::Displaced { .. })));
    // The checkpoint is tried again, though nothing changes.
    std::fs::rename(&aside, &path).unwrap();
    until(&Option::is_none);
}

#[test]
fn the_command_does_not_panic_when_its_output_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 5);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = |args: &[&str], out: Stdio, err: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foreword-pages"));
        command.args(args).stdout(out).stderr(err).status().unwrap().code()
    };
    let path = dir.path().to_str().unwrap();
    assert_eq!(run(&["recover", "/nowhere"], Stdio::null(), full().into()), Some(1));
    assert_eq!(run(&["what"], Stdio::null(), full().into()), Some(2));
    // The output is what the user asked for: without it the command fails.
    assert_eq!(run(&["recover", path], full().into(), full().into()), Some(1));
    assert_eq!(run(&["--help"], full().into(), full().into()), Some(1));
}
