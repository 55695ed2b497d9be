//! What a log publishes for other processes: correct, soon, and without slowing any call.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

use foreword::disk::OsDisk;
use foreword::inspect::{self, Writer};
use foreword::{Error, Log, Lsn, Options, Published};
use foreword_tests::hooked::{Hooked, Op, hooked};

fn options() -> Options {
    Options::new().publish(true).segment_bytes(64 << 10).on_error(|_| ())
}

/// What the writer says, once it is so.
#[track_caller]
fn published(log: &Log, is: impl Fn(&Published) -> bool) -> Published {
    let started = Instant::now();
    loop {
        let Writer { holder, published, .. } = inspect::writer(log.dir()).unwrap().expect("the log is open");
        assert_eq!(holder, format!("process {}", std::process::id()));
        if let Some(published) = published.clone().filter(&is) {
            return published;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{published:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_log_is_doing_is_known_outside() {
    let dir = tempfile::tempdir().unwrap();
    assert!(inspect::writer(dir.path()).unwrap().is_none());
    let log = options().open(dir.path()).unwrap();
    let mut tail = log.reader();
    for _ in 0..10 {
        log.commit_batch(&[[7; 1000]; 20]).unwrap();
    }
    // A reader counts once it follows the tail.
    assert_eq!(log.stats().readers, 0);
    for _ in 0..50 {
        tail.wait_next(None).unwrap();
    }
    log.hold("an archiver", Lsn(40)).unwrap();
    let said = published(&log, |p| p.stats.durable_lsn == Lsn(200) && !p.holds.is_empty());
    let stats = log.stats();
    assert_eq!(said.process, std::process::id());
    assert_eq!(said.holds, log.holds().unwrap());
    assert!(said.open_for >= Duration::from_millis(900) && said.open_for < Duration::from_secs(60), "{said:?}");
    assert_eq!((said.stats.records, said.stats.record_bytes), (200, 200_000));
    assert_eq!((said.stats.segments, said.stats.rotations), (stats.segments, stats.rotations));
    assert!(said.stats.flushes >= 10 && said.stats.flush_nanos.count() == said.stats.flushes, "{said:?}");
    assert!(said.stats.group_records.buckets()[4] >= 9, "groups of 20: {:?}", said.stats.group_records);
    // The reader has read 50, and what it is behind by is counted by the frame, of 20 records here.
    assert_eq!(said.stats.readers, 1);
    assert!((Lsn(40)..=Lsn(50)).contains(&said.stats.slowest_reader_lsn), "{said:?}");
    while tail.wait_next(Some(Duration::ZERO)).unwrap().is_some() {}
    assert_eq!(published(&log, |p| p.stats.slowest_reader_lsn == Lsn(200)).stats.readers, 1);
    drop(tail);
    published(&log, |p| p.stats.readers == 0);
    assert!(dir.path().join("STATS").exists());
    log.close().unwrap();
    assert!(inspect::writer(dir.path()).unwrap().is_none());
    assert!(!dir.path().join("STATS").exists(), "what is not true any more is not said");
}

#[test]
fn an_idle_log_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    log.commit(b"one").unwrap();
    // The mark of an idle log is a flush, too.
    let said = published(&log, |p| p.stats.flushes == 2);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(published(&log, |_| true).open_for, said.open_for);
    log.commit(b"two").unwrap();
    let later = published(&log, |p| p.open_for > said.open_for && p.stats.durable_lsn == Lsn(2));
    // Nothing happened until a second before it was said, at the most.
    let quiet = later.quiet_for - said.quiet_for;
    let between = later.open_for - said.open_for;
    assert!(
        quiet >= Duration::from_secs(1) && quiet < between && between - quiet < Duration::from_millis(1900),
        "{quiet:?} of {between:?}"
    );
}

#[test]
fn what_another_process_left_is_not_believed_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    log.commit(b"one").unwrap();
    published(&log, |_| true);
    let file = dir.path().join("STATS");
    let text = std::fs::read_to_string(&file).unwrap();
    log.close().unwrap();
    // No process has the log open: nothing is published, whatever the file contains.
    std::fs::write(&file, &text).unwrap();
    assert!(inspect::writer(dir.path()).unwrap().is_none());
    let log = options().publish(false).open(dir.path()).unwrap();
    assert!(!file.exists(), "the next writer removes it");
    let said = || inspect::writer(dir.path()).unwrap().unwrap().published.map(|p| p.stats.durable_lsn);
    std::fs::write(&file, &text).unwrap();
    assert_eq!(said(), Some(Lsn(1)));
    // By its process it is seen to be another's; by its checksum, to be damaged.
    let lock = dir.path().join("LOCK");
    let holder = std::fs::read(&lock).unwrap();
    std::fs::write(&lock, "process 1\n").unwrap();
    assert_eq!(said(), None);
    std::fs::write(&lock, holder).unwrap();
    std::fs::write(&file, text.replace("records 1", "records 2")).unwrap();
    assert_eq!(said(), None);
    // Whatever lies there, a log that does not publish leaves alone until the next is opened.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(said(), None);
    log.close().unwrap();
    // A log in which it lies verifies and opens.
    assert!(matches!(foreword::verify(dir.path()).unwrap().verdict, Some(foreword::Verdict::Clean)));
    options().open(dir.path()).unwrap().close().unwrap();
    std::fs::write(dir.path().join("STATS"), text).unwrap();
    options().open(dir.path()).unwrap().close().unwrap();
}

const STALL: u8 = 1;
const FAIL: u8 = 2;
const NO_STATS: u8 = 3;

/// The real disk, until its mood is another.
fn moody() -> (Arc<AtomicU8>, Arc<Hooked<OsDisk>>) {
    let mood = Arc::new(AtomicU8::new(0));
    let now = mood.clone();
    let disk = hooked(OsDisk::new(), move |op, name| {
        if op == Op::WriteDurable {
            while now.load(SeqCst) == STALL {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        match (op, now.load(SeqCst)) {
            (Op::WriteDurable, FAIL) => Err(io::Error::other("the disk\nis gone")),
            (Op::Open(_), NO_STATS) if name == "STATS" => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        }
    });
    (mood, disk)
}

#[test]
fn a_disk_that_stalls_or_fails_is_told_of() {
    let (dir, (mood, disk)) = (tempfile::tempdir().unwrap(), moody());
    let log = options().disk(disk).open(dir.path()).unwrap();
    log.commit(b"one").unwrap();
    assert_eq!(published(&log, |p| p.stats.flushes_under_way == 0).stats.oldest_flush_nanos, 0);
    mood.store(STALL, SeqCst);
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| log.commit(b"two"));
        let said = published(&log, |p| p.stats.oldest_flush_nanos > 500_000_000);
        assert_eq!((said.stats.flushes_under_way, said.stats.appended_lsn, said.stats.durable_lsn), (1, Lsn(2), Lsn(1)));
        // The figures are published repeatedly, since the stall continues.
        published(&log, |p| p.stats.oldest_flush_nanos > said.stats.oldest_flush_nanos);
        mood.store(FAIL, SeqCst);
        assert!(matches!(stalled.join().unwrap(), Err(Error::Poisoned(_))));
    });
    let said = published(&log, |p| p.failure.is_some());
    assert!(said.failure.as_ref().unwrap().contains("the disk\nis gone"), "{said:?}");
    assert!(said.stats.failed && said.stats.flushes_under_way == 0 && log.stats().failed, "{said:?}");
}

#[test]
fn a_log_whose_stats_cannot_be_written_works() {
    let (dir, (mood, disk)) = (tempfile::tempdir().unwrap(), moody());
    mood.store(NO_STATS, SeqCst);
    let log = options().disk(disk).open(dir.path()).unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        log.commit(b"x").unwrap();
    }
    assert!(!dir.path().join("STATS").exists());
    mood.store(0, SeqCst);
    published(&log, |p| p.stats.durable_lsn == log.durable_lsn());
    log.close().unwrap();
}
