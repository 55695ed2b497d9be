//! A flush that failed must not be tried again. `cargo run -p foreword-sim --example failed_flush`.
//!
//! The simulated disk does what ext4 and XFS do: when a flush fails, the pages that it could not
//! write are marked clean. The page cache goes on showing them. The next flush has nothing left to
//! write, and succeeds.

use std::io::IoSlice;
use std::path::Path;

use foreword::disk::Access;
use foreword::{Error, Log, Options, SyncPolicy};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The next flush fails, and no other.
fn one_failure() -> Fault {
    Fault::new(OpKind::Sync, Effect::Eio)
}

// ANCHOR: naive
/// Tries again until it works.
fn stubborn() -> Result<()> {
    let sim = SimDisk::new(1);
    let root = sim.handle().open_dir(Path::new("/"))?;
    let file = root.open("file", Access::Create)?;
    file.set_len(512)?;
    file.sync()?;
    root.sync()?;

    file.write_at(&[IoSlice::new(b"paid")], 0)?;
    sim.fault(one_failure());
    let mut tries = 1;
    while file.sync().is_err() {
        tries += 1;
    }
    println!("try {tries} to sync: fine. In the file: {:?}", text(&sim));
    let after = sim.crash(&Choice::None);
    println!("after a power failure:     {:?}", text(&after));
    assert_eq!(text(&after), "\0\0\0\0");
    Ok(())
}
// ANCHOR_END: naive

fn text(disk: &SimDisk) -> String {
    String::from_utf8_lossy(&disk.peek("/file", 0, 4).unwrap_or_default()).into_owned()
}

fn options(disk: &SimDisk) -> Options {
    Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual()).on_error(|_| ()).disk(disk.handle())
}

// ANCHOR: log
/// The log stops.
fn stopped() -> Result<()> {
    let sim = SimDisk::new(1);
    let log: Log = options(&sim).open("/log")?;
    log.commit(b"first")?;
    sim.fault(one_failure());
    for record in ["paid", "paid, second try"] {
        match log.commit(record.as_bytes()) {
            Err(Error::Poisoned(cause)) => println!("commit {record:?}: poisoned by: {cause}"),
            other => return Err(format!("expected a refusal, not {other:?}").into()),
        }
    }
    // Only opening the log again tells what survived.
    let reopened = options(&sim.crash(&Choice::None)).open("/log")?;
    println!("after a power failure: {} record, {:?}", reopened.last_lsn(), reopened.recovery().verdict);
    assert_eq!(reopened.last_lsn().0, 1);
    Ok(())
}
// ANCHOR_END: log

/// Runs the example.
pub fn main() -> Result<()> {
    stubborn()?;
    stopped()
}
