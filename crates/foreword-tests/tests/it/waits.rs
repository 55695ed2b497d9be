//! No call waits for what it does not need: not for zero-filling, not for removals, not for
//! another's copy.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use foreword::{Error, Log, Lsn, Options, SyncPolicy};
use foreword_tests::hooked::*;
use foreword_tests::*;

const MIB: u64 = 1 << 20;

/// Segments of 1 MiB, and background threads.
fn options() -> Options {
    Options::new().segment_bytes(MIB).sync(SyncPolicy::manual())
}

/// A gate on one kind of operation, and the disk in memory behind it.
fn gated(gated: Op) -> (Arc<Gate>, MemDisk, Arc<Hooked<MemDisk>>) {
    let (gate, disk) = (Arc::new(Gate::default()), MemDisk::default());
    let keeper = gate.clone();
    let hooked = hooked(disk.clone(), move |op, _| {
        if op == gated {
            keeper.pass();
        }
        Ok(())
    });
    (gate, disk, hooked)
}

/// Commits records of 10 kB until the log has this many segments.
fn fill_segments(log: &Log, segments: u64) {
    while log.stats().segments < segments {
        // (What is appended in bulk, without a flush for each, is not worth zeros.)
        log.commit(&[7; 10_000]).unwrap();
    }
}

#[test]
fn truncations_and_holds_do_not_wait_for_zero_filling() {
    let (gate, disk, hooked) = gated(Op::Zero);
    let log = Arc::new(options().disk(hooked).open(MEM).unwrap());
    fill_segments(&log, 5);
    gate.shut();
    // The next segment is begun, and its filling stands still.
    for _ in 0..60 {
        log.commit(&[7; 10_000]).unwrap();
    }
    gate.wait_held();
    let last = log.last_lsn();
    let acting = log.clone();
    within(move || {
        acting.hold("held", last).unwrap();
        assert_eq!(acting.truncate_front(last).unwrap(), last);
        assert!(acting.release("held").unwrap());
        acting.hold("again", last).unwrap();
    });
    assert_eq!(log.start_lsn(), last);
    gate.open();
    until("the old segments are gone", || !disk.files().epochs().contains(&1));
}

#[test]
fn nothing_waits_for_removals() {
    let (gate, disk, hooked) = gated(Op::Remove);
    let log = Arc::new(options().disk(hooked).open(MEM).unwrap());
    fill_segments(&log, 8);
    gate.shut();
    let acting = log.clone();
    within(move || {
        let last = acting.last_lsn();
        assert_eq!(acting.truncate_front(last).unwrap(), last);
        acting.hold("held", last).unwrap();
        acting.release("held").unwrap();
        acting.commit(b"more").unwrap();
        acting.get(last).unwrap();
    });
    gate.wait_held();
    assert!(disk.files().epochs().len() > 4);
    gate.open();
    // The one in use, and the two that are kept ready.
    until("what was dropped is removed", || disk.files().epochs().len() <= 3);
}

/// A disk with space for this many segments.
fn small_disk(segments: usize, also: impl Fn(Op) -> io::Result<()> + Send + Sync + 'static) -> (MemDisk, Arc<Hooked<MemDisk>>) {
    let disk = MemDisk::default();
    let files = disk.clone();
    let hooked = hooked(disk.clone(), move |op, _| {
        if matches!(op, Op::Allocate(_)) && files.files().epochs().len() >= segments {
            return Err(io::ErrorKind::StorageFull.into());
        }
        also(op)
    });
    (disk, hooked)
}

#[test]
fn without_room_an_append_waits_for_removals_that_are_under_way() {
    let gate = Arc::new(Gate::default());
    let keeper = gate.clone();
    let (disk, hooked) = small_disk(4, move |op| {
        if op == Op::Remove {
            keeper.pass();
        }
        Ok(())
    });
    let log = Arc::new(options().disk(hooked).open(MEM).unwrap());
    fill_segments(&log, 4);
    until("there is no room", || matches!(log.append(&[7; 10_000]), Err(Error::NoSpace { .. })));
    log.sync().unwrap();
    gate.shut();
    // Of the three that this drops two are used again, and one is removed.
    let truncating = log.clone();
    within(move || truncating.truncate_front(truncating.last_lsn()).unwrap());
    gate.wait_held();
    let appending = log.clone();
    let appended = thread::spawn(move || {
        // Each holds a hundred: through the two, and into one more.
        for _ in 0..250 {
            appending.append(&[8; 10_000]).unwrap();
        }
    });
    thread::sleep(Duration::from_millis(100));
    assert!(!appended.is_finished(), "there was room for all of it");
    gate.open();
    until("it goes on", || appended.is_finished());
    appended.join().expect("there was room behind the removals");
    assert!(disk.files().epochs().len() <= 4);
}

#[test]
fn a_removal_that_fails_is_tried_again_and_is_no_error_of_the_truncation() {
    for background in [true, false] {
        let failing = Arc::new(AtomicBool::new(true));
        let fails = failing.clone();
        let disk = MemDisk::default();
        let hooked = hooked(disk.clone(), move |op, name| match op {
            Op::Remove if name.ends_with(".seg") && fails.load(SeqCst) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        });
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = heard.clone();
        let options = options()
            .background(background)
            .disk(hooked)
            .on_error(move |told| hears.lock().unwrap().push(told.error.to_string()));
        let log = options.open(MEM).unwrap();
        fill_segments(&log, 8);
        let last = log.last_lsn();
        assert_eq!(log.truncate_front(last).unwrap(), last);
        until("the failure is told", || !heard.lock().unwrap().is_empty());
        assert!(disk.files().epochs().len() > 3);
        failing.store(false, SeqCst);
        if !background {
            // A later truncation tries what is left.
            log.commit(b"more").unwrap();
            log.truncate_front(last.next()).unwrap();
        }
        until("they are removed", || disk.files().epochs().len() <= 3);
        log.close().unwrap();
    }
}

#[test]
fn closing_finishes_the_removals_and_not_the_filling() {
    let (gate, steps) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (keeper, counting) = (gate.clone(), steps.clone());
    let disk = MemDisk::default();
    let hooked = hooked(disk.clone(), move |op, _| {
        if op == Op::Zero {
            keeper.pass();
            counting.fetch_add(1, SeqCst);
        }
        Ok(())
    });
    let log = options().segment_bytes(16 * MIB).disk(hooked).open(MEM).unwrap();
    gate.shut();
    for _ in 0..60 {
        log.commit(&[7; 100_000]).unwrap();
    }
    gate.wait_held();
    let before = steps.load(SeqCst);
    let closed = thread::spawn(move || log.close());
    thread::sleep(Duration::from_millis(50));
    gate.open();
    closed.join().unwrap().unwrap();
    let done = steps.load(SeqCst) - before;
    assert!(done <= 2, "{done} of 64 steps were done by the close");
    assert_eq!(disk.files().epochs(), [1], "nothing half made is left");

    let (gate, disk, hooked) = gated(Op::Remove);
    let log = options().disk(hooked).open(MEM).unwrap();
    fill_segments(&log, 12);
    gate.shut();
    let log = within(move || log.truncate_front(log.last_lsn()).map(|_| log)).unwrap();
    let closed = thread::spawn(move || log.close());
    gate.wait_held();
    gate.open();
    closed.join().unwrap().unwrap();
    assert!(disk.files().epochs().len() <= 3, "{:?}", disk.files().epochs());
}

/// What an appender waits for is not filled: neither what it prepares itself, nor what another
/// does.
#[test]
fn whoever_waits_for_a_segment_gets_it_unfilled() {
    let (gate, zeros) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (keeper, filling) = (gate.clone(), zeros.clone());
    let hooked = hooked(MemDisk::default(), move |op, _| {
        match op {
            Op::Allocate(_) => keeper.pass(),
            Op::Zero => _ = filling.fetch_add(1, SeqCst),
            _ => {}
        }
        Ok(())
    });
    let log = Arc::new(options().background(false).disk(hooked).open(MEM).unwrap());
    let (before, created) = (zeros.load(SeqCst), log.stats().segments_created);
    gate.shut();
    let appenders: Vec<_> = (0..4)
        .map(|_| {
            let log = log.clone();
            thread::spawn(move || (0..40).for_each(|_| _ = log.append(&[7; 10_000]).unwrap()))
        })
        .collect();
    gate.wait_held();
    thread::sleep(Duration::from_millis(50)); // So that the others wait for it, too.
    gate.open();
    until("they go on", || appenders.iter().all(|a| a.is_finished()));
    let stats = log.stats();
    assert_eq!(zeros.load(SeqCst) - before, 0, "steps of zeros, while an append waited");
    assert_eq!((stats.rotations, stats.segments_created - created), (1, 1), "one segment was needed, by all of them");
}

#[test]
fn who_waits_for_a_record_that_is_cut_hears_of_it() {
    for _ in 0..10 {
        let log = Arc::new(options().disk(Arc::new(MemDisk::default())).open(MEM).unwrap());
        log.commit(b"stays").unwrap();
        for _ in 0..16 {
            log.append(b"is cut").unwrap();
        }
        let waiting = log.clone();
        let waiters = within(move || {
            let waiters: Vec<_> = (2..18)
                .map(|lsn| {
                    let log = waiting.clone();
                    thread::spawn(move || log.wait_durable(Lsn(lsn), None).unwrap())
                })
                .collect();
            thread::sleep(Duration::from_millis(20));
            waiting.truncate_back(Lsn(2)).unwrap();
            waiters
        });
        until("all of them return", || waiters.iter().all(|w| w.is_finished()));
        for waiter in waiters {
            // (One that came after the cut was told that there is no such record.)
            if let Ok(durable) = waiter.join() {
                assert!(durable, "it was durable before it was cut");
            }
        }
    }
}

/// A record that comes while a sync is under way is as old as that when the sync ends: it is not
/// given the interval once more.
#[test]
fn the_interval_counts_from_the_append_while_a_sync_is_under_way() {
    const INTERVAL: Duration = Duration::from_millis(200);
    let slow = Arc::new(AtomicBool::new(false));
    let (slows, syncs) = (slow.clone(), Arc::new(Mutex::new(Vec::new())));
    let takes = syncs.clone();
    let hooked = hooked(MemDisk::default(), move |op, _| {
        if matches!(op, Op::Sync | Op::WriteDurable) && slows.load(SeqCst) {
            let started = Instant::now();
            thread::sleep(INTERVAL);
            takes.lock().unwrap().push((started, Instant::now()));
        }
        Ok(())
    });
    let log = Options::new().sync(SyncPolicy::interval(INTERVAL)).disk(hooked).segment_bytes(64 * MIB).open(MEM).unwrap();
    slow.store(true, SeqCst);
    while syncs.lock().unwrap().len() < 5 {
        log.append(b"again and again").unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    slow.store(false, SeqCst);
    let syncs = syncs.lock().unwrap();
    let pauses: Vec<_> = syncs.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
    // Their records had waited for the interval when the sync before ended. (One of them may have
    // been late on a busy machine.)
    assert!(pauses.iter().filter(|&&pause| pause < INTERVAL / 2).count() >= 3, "{pauses:?}");
}

#[test]
fn a_timeout_beyond_all_time_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(options().open(dir.path()).unwrap());
    log.append(b"one").unwrap();
    let waiting = log.clone();
    let waiters = [thread::spawn(move || waiting.wait_durable(Lsn(1), Some(Duration::MAX)).unwrap()), {
        let mut reader = log.reader_at(Lsn(1));
        thread::spawn(move || reader.wait_next(Some(Duration::MAX)).unwrap().is_some())
    }];
    thread::sleep(Duration::from_millis(20));
    log.sync().unwrap();
    until("they hear of it", || waiters.iter().all(|w| w.is_finished()));
    for waiter in waiters {
        assert!(waiter.join().unwrap());
    }
}

fn busy<T: std::fmt::Debug>(result: foreword::Result<T>) -> bool {
    match result {
        Err(Error::Busy) => true,
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

#[test]
fn a_try_does_not_wait_for_the_buffers() {
    let (gate, _, hooked) = gated(Op::Write);
    let log = Arc::new(options().segment_bytes(64 * MIB).disk(hooked).open(MEM).unwrap());
    gate.shut();
    let trying = log.clone();
    let appended = within(move || {
        let mut appended = 0;
        while !busy(trying.try_append(&[7; 10_000])) {
            appended += 1;
        }
        appended
    });
    // (The lock may have been taken for a moment before that.)
    gate.wait_held();
    until("the buffers are full", || {
        let full = (0..1000).all(|_| log.try_append(&[7; 10_000]).is_err());
        full && log.last_lsn().0 >= 800
    });
    assert!(log.last_lsn().0 <= 2 * 850 + 100, "{} records after {appended}", log.last_lsn());
    gate.open();
    until("there is room again", || !busy(log.try_append_batch(&[[7; 100]; 3])));
    let (last, synced) = (log.last_lsn(), log.sync().unwrap());
    assert_eq!(last, synced);
    assert_eq!(collect(log.iter(Lsn::ZERO)).0.len() as u64, last.0);
}

#[test]
fn a_try_does_not_wait_for_a_cut() {
    let (gate, _, hooked) = gated(Op::WriteDurable);
    let log = Arc::new(options().disk(hooked).open(MEM).unwrap());
    (0..5).for_each(|_| _ = log.append(b"one of five").unwrap());
    log.sync().unwrap();
    gate.shut();
    let cutting = log.clone();
    let cut = thread::spawn(move || cutting.truncate_back(Lsn(3)));
    gate.wait_held();
    let trying = log.clone();
    assert!(within(move || (0..100).all(|_| busy(trying.try_append(b"new")))), "appended while it is cut");
    gate.open();
    cut.join().unwrap().unwrap();
    until("it goes on", || !busy(log.try_append(b"new")));
    assert_eq!(log.last_lsn(), Lsn(3));
}

#[test]
fn a_try_does_not_wait_for_segments_and_gets_them_later() {
    let (gate, full) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let (keeper, is_full) = (gate.clone(), full.clone());
    let hooked = hooked(MemDisk::default(), move |op, _| match op {
        Op::Allocate(_) if is_full.load(SeqCst) => Err(io::ErrorKind::StorageFull.into()),
        Op::Allocate(_) => {
            keeper.pass();
            Ok(())
        }
        _ => Ok(()),
    });
    let log = Arc::new(options().disk(hooked).open(MEM).unwrap());
    gate.shut();
    let trying = log.clone();
    within(move || until("a segment is missing", || (0..50).all(|_| busy(trying.try_append(&[7; 10_000])))));
    assert!(log.last_lsn().0 < 110);
    gate.open();
    until("the segment is there", || !busy(log.try_append(&[7; 10_000])));
    // A record of several segments gets as many as it needs.
    let large: Vec<u8> = (0..5 * MIB).map(|i| ((i * 31) >> 7) as u8).collect();
    until("the segments are there", || !busy(log.try_append(&large)));
    assert_eq!(log.sync().unwrap(), log.last_lsn());
    assert_eq!(log.get(log.last_lsn()).unwrap(), large);
    // And if there is no room for them, that is what it hears.
    full.store(true, SeqCst);
    until("the disk is full", || matches!(log.try_append(&large), Err(Error::NoSpace { .. })));
}

#[test]
fn a_record_that_is_refused_gives_back_what_was_prepared_for_it() {
    for background in [true, false] {
        let (disk, hooked) = small_disk(12, |_| Ok(()));
        let log = options().background(background).disk(hooked).open(MEM).unwrap();
        assert!(matches!(log.append(&vec![7; 20 << 20]), Err(Error::NoSpace { .. })));
        let epochs = disk.files().epochs();
        assert!(epochs.len() <= 3, "{epochs:?} are left");
        // There is room for less.
        let lsn = log.commit(&vec![7; 5 << 20]).unwrap();
        assert_eq!(log.get(lsn).unwrap().len(), 5 << 20);
        log.close().unwrap();
    }
}

/// Each segment that is not synced keeps a handle.
#[test]
fn however_much_is_appended_without_a_sync_few_files_are_open() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened, peak) = (open.clone(), most.clone());
    let hooked = hooked(MemDisk::default(), move |op, _| {
        match op {
            Op::Open(_) => _ = peak.fetch_max(opened.fetch_add(1, SeqCst) + 1, SeqCst),
            Op::Close => _ = opened.fetch_sub(1, SeqCst),
            _ => {}
        }
        Ok(())
    });
    for background in [true, false] {
        let dir = format!("{MEM}-{background}");
        let options = options().segment_bytes(64 << 10).background(background).disk(hooked.clone());
        let log = options.open(dir).unwrap();
        (0..2000).for_each(|_| _ = log.append(&[7; 10_000]).unwrap());
        assert!(log.stats().segments > 600);
        log.close().unwrap();
        assert!(most.load(SeqCst) < 400, "{} files were open at once", most.load(SeqCst));
    }
}
