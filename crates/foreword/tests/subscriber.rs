//! A subscriber of events that panics: it harms nobody, nothing hangs, and no lock stays held.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::hooked::*;
use common::*;
use foreword::{Error, Lsn, Options, SyncPolicy};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static HEARD: AtomicUsize = AtomicUsize::new(0);
static IN_ENABLED: AtomicBool = AtomicBool::new(false);

struct Panics;

impl Subscriber for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        assert!(!IN_ENABLED.load(SeqCst), "the subscriber panics");
        true
    }

    fn event(&self, _: &Event<'_>) {
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

/// Opens, rotates, truncates at both ends, closes, opens again, and fails: all that there are events of.
#[test]
fn a_subscriber_that_panics_harms_nobody() {
    tracing::subscriber::set_global_default(Panics).unwrap();
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
