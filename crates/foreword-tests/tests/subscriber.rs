//! A subscriber of events that panics: no caller is affected, nothing hangs, and no lock stays
//! held.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use foreword::{Error, Log, Lsn, Options, SyncPolicy};
use foreword_tests::hooked::*;
use foreword_tests::*;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static HEARD: AtomicUsize = AtomicUsize::new(0);
static IN_ENABLED: AtomicBool = AtomicBool::new(false);

/// The log that is used from within each event, and how often it was.
static USES: Mutex<Weak<Log>> = Mutex::new(Weak::new());
static USED: AtomicUsize = AtomicUsize::new(0);

struct Panics;

/// There is one subscriber in a process: for one test at a time.
fn subscribe() -> MutexGuard<'static, ()> {
    static ONCE: Once = Once::new();
    static ALONE: Mutex<()> = Mutex::new(());
    ONCE.call_once(|| tracing::subscriber::set_global_default(Panics).unwrap());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    IN_ENABLED.store(false, SeqCst);
    alone
}

impl Subscriber for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        assert!(!IN_ENABLED.load(SeqCst), "the subscriber panics");
        true
    }

    fn event(&self, _: &Event<'_>) {
        let log = USES.lock().unwrap().upgrade();
        if let Some(log) = log {
            use_log(&log);
            USED.fetch_add(1, SeqCst);
            return;
        }
        HEARD.fetch_add(1, SeqCst);
        panic!("the subscriber panics");
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        tracing::subscriber::Interest::sometimes()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Opens, rotates, truncates at both ends, closes, opens again, and fails: all that there are
/// events of.
#[test]
fn a_subscriber_that_panics_harms_nobody() {
    let _alone = subscribe();
    for in_enabled in [false, true] {
        IN_ENABLED.store(in_enabled, SeqCst);
        for background in [false, true] {
            let (failing, full) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let (fails, fills) = (failing.clone(), full.clone());
            let files = MemDisk::default();
            let disk = hooked(files.clone(), move |op, name| match op {
                Op::WriteDurable if fails.load(SeqCst) => Err(io::Error::other("broken")),
                Op::Allocate(_) if fills.load(SeqCst) => Err(io::ErrorKind::StorageFull.into()),
                Op::WriteDurable if name.ends_with("3.seg") => {
                    std::thread::sleep(std::time::Duration::from_millis(150)); // A slow flush is told of.
                    Ok(())
                }
                _ => Ok(()),
            });
            let options =
                Options::new().segment_bytes(64 << 10).background(background).sync(SyncPolicy::manual()).on_error(|_| ());
            let options = options.disk(disk);
            within(move || {
                let log = options.open(MEM).unwrap();
                commit(&log, 1..30);
                full.store(true, SeqCst);
                log.truncate_front(Lsn(12)).unwrap(); // (And there is no room for the reserve.)
                log.truncate_back(Lsn(29)).unwrap();
                full.store(false, SeqCst);
                commit(&log, 29..40);
                log.close().unwrap();
                let log = options.open(MEM).unwrap();
                assert_eq!((log.start_lsn(), log.last_lsn()), (Lsn(12), Lsn(39)));
                failing.store(true, SeqCst);
                assert!(matches!(log.commit(b"x"), Err(Error::Poisoned(_))));
                assert!(matches!(log.truncate_back(Lsn(20)), Err(Error::Poisoned(_))));
                assert!(matches!(log.close(), Err(Error::Poisoned(_))));
                failing.store(false, SeqCst);
                let log = options.open(MEM).unwrap();
                commit(&log, log.last_lsn().0 + 1..log.last_lsn().0 + 9);
            });
            assert_eq!(files.verify().verdict, Some(foreword::Verdict::Clean));
        }
        if !in_enabled {
            assert!(HEARD.load(SeqCst) > 20, "{HEARD:?}");
        }
    }
}

/// Calls that hold, truncate, commit and append: each works, or fails because it would have to
/// wait.
fn use_log(log: &Log) {
    let last = log.last_lsn();
    let results = [
        log.hold("held", last).map(drop),
        log.truncate_front(Lsn(1)).map(drop),
        log.commit(b"an event").map(drop),
        log.sync().map(drop),
        log.append(b"an event").map(drop),
    ];
    assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(Error::Busy))), "{results:?}");
}

/// Bug: what holds, truncates or commits from within an event of a flush waited for that flush.
#[test]
fn a_subscriber_may_use_the_log_and_waits_for_nothing() {
    let _alone = subscribe();
    let used = USED.load(SeqCst);
    within(|| {
        let full = Arc::new(AtomicBool::new(false));
        let fills = full.clone();
        let disk = hooked(MemDisk::default(), move |op, _| match op {
            Op::Allocate(_) if fills.load(SeqCst) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        });
        let options = Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
        let log = Arc::new(options.disk(disk).open(MEM).unwrap());
        *USES.lock().unwrap() = Arc::downgrade(&log);
        (0..60).for_each(|_| _ = log.commit([1; 5000]).unwrap());
        log.hold("held", Lsn(50)).unwrap();
        full.store(true, SeqCst);
        log.truncate_front(Lsn(40)).unwrap(); // (And there is no room for the reserve.)
        full.store(false, SeqCst);
        log.truncate_back(Lsn(55)).unwrap();
        log.close().unwrap();
    });
    assert!(USED.load(SeqCst) > used + 4, "{USED:?}");
}
