//! Where several rules meet: segments that are used again, the reserve, cuts, and a closed log that
//! goes on, on full disks and through crashes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foreword::disk::Disk;
use foreword::{Error, Log, Lsn, Options, Verdict, View};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};
use foreword_tests::hooked::{Gate, Op, hooked, until, within};
use foreword_tests::*;

const MIB: u64 = 1 << 20;

fn on(disk: &SimDisk) -> Options {
    small().on_error(|_| ()).disk(disk.handle())
}

fn mib(disk: &SimDisk) -> Options {
    on(disk).segment_bytes(MIB)
}

/// Commits a number of records of the given size.
fn commit_each(log: &Log, times: u32, len: usize) {
    (0..times).for_each(|_| _ = log.commit(&vec![7; len]).unwrap());
}

/// The same until there is no room: how many, and the error.
fn fill_until_full(log: &Log, len: usize) -> (u32, Error) {
    for n in 0..1000 {
        if let Err(error) = log.commit(&vec![9; len]) {
            return (n, error);
        }
    }
    panic!("never full");
}

/// What is left when the process that has the log open is killed.
fn kill(disk: &SimDisk, log: Log) -> SimDisk {
    let killed = disk.kill();
    drop(log);
    killed
}

/// A log that continues in a segment that a cut at the back had left, and that was dropped.
fn recycling(disk: &SimDisk) -> Log {
    let log = mib(disk).open("/log").unwrap();
    commit_each(&log, 10, 60 << 10);
    log.truncate_back(Lsn(8)).unwrap();
    commit_each(&log, 6, 60 << 10);
    log.truncate_front(log.last_lsn()).unwrap();
    log
}

/// A log that was killed, on a full disk.
fn full_and_killed() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = mib(&disk).open("/log").unwrap();
    commit_each(&log, 29, 30 << 10);
    disk.set_free(0);
    kill(&disk, log)
}

/// A segment that was left by a fork has holes; recycled, it has them still.
#[test]
fn recycled_segment_has_its_space() {
    let disk = SimDisk::new(1);
    let log = mib(&disk).open("/log").unwrap();
    commit_each(&log, 6, 60 << 10);
    let disk = kill(&disk, log);
    let log = mib(&disk).open("/log").unwrap();
    commit_each(&log, 6, 60 << 10);
    log.truncate_front(log.last_lsn()).unwrap();
    disk.set_free(0);
    let (n, error) = fill_until_full(&log, 60 << 10);
    assert!(matches!(error, Error::NoSpace { .. }), "{n}: {error:?}");
}

/// The same for a cut at the back, without a crash.
#[test]
fn recycled_segment_has_its_space_after_a_cut() {
    let disk = SimDisk::new(1);
    let log = recycling(&disk);
    disk.set_free(0);
    let (n, error) = fill_until_full(&log, 60 << 10);
    assert!(matches!(error, Error::NoSpace { .. }), "{n}: {error:?}");
}

/// Opening on a full disk, however often: also when a small segment has become too full to be
/// written again.
#[test]
fn opens_however_often() {
    let mut disk = full_and_killed();
    for round in 0..12 {
        let log = mib(&disk).open("/log").unwrap_or_else(|e| panic!("{round}: {e} {:?}", disk.files()));
        let _ = log.commit(&vec![7; 100 << 10]);
        disk = kill(&disk, log);
    }
}

/// What a view has shown as proven, it shows after a recovery that wrote it again.
#[test]
fn a_view_shows_after_a_recovery_what_it_showed_before() {
    let disk = SimDisk::new(1);
    let log = mib(&disk).background(true).open("/log").unwrap();
    for lsn in 1..21 {
        log.commit(&record(lsn)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    let killed = kill(&disk, log);
    let before = View::open_on(killed.handle(), "/log").unwrap().last_lsn().unwrap();
    assert_eq!(before, Lsn(20));
    let log = mib(&killed).open("/log").unwrap();
    let again = killed.kill();
    let beside = View::open_on(killed.handle(), "/log").unwrap();
    let beside = (beside.last_lsn().unwrap(), beside.has_writer());
    drop(log);
    let after = View::open_on(again.handle(), "/log").unwrap().last_lsn().unwrap();
    assert_eq!((before, before), (beside.0, after), "{beside:?}");
}

/// The disk, with a gate before what writes durably to the first segment. Other writes there are
/// told of, and whether the gate holds a thread up then.
fn gated(disk: &SimDisk, gate: &Arc<Gate>, wrote: impl Fn(bool) + Send + Sync + 'static) -> Arc<dyn Disk> {
    let gate = gate.clone();
    hooked(disk.clone(), move |op, name| {
        match op {
            Op::WriteDurable if name == segment_name(1) => gate.pass(),
            Op::Write | Op::Zero if name == segment_name(1) => wrote(gate.is_holding()),
            _ => {}
        }
        Ok(())
    })
}

/// A hold beside the first append to a log that was closed: its MARK does not reach the disk before
/// CLOSED and the MARK behind it.
#[test]
fn nothing_overtakes_the_reopening() {
    let (disk, gate) = (SimDisk::new(1), Arc::new(Gate::default()));
    let log = mib(&disk).open("/log").unwrap();
    for lsn in 1..3 {
        log.commit(&record(lsn)).unwrap();
    }
    log.close().unwrap();
    let log = Arc::new(mib(&disk).disk(gated(&disk, &gate, |_| ())).open("/log").unwrap());
    gate.hold(1);
    let (a, b) = (log.clone(), log.clone());
    let a = std::thread::spawn(move || a.commit(&vec![5; 400 << 10]).map(drop));
    gate.wait_held();
    let b = std::thread::spawn(move || b.hold("me", Lsn(1)).map(drop));
    std::thread::sleep(Duration::from_millis(500)); // If it is too short, only a fault is missed.
    let crashed = disk.crash(&Choice::None);
    gate.open();
    let _ = (a.join(), b.join());
    drop(log);
    let mut verdicts = Vec::new();
    let log = mib(&crashed).open("/log").unwrap();
    let verdict = log.recovery().verdict.clone();
    for lsn in 3..150 {
        log.commit(&record(lsn)).unwrap();
        let killed = crashed.kill();
        match mib(&killed).open("/log") {
            Ok(log) => {
                let last = log.last_lsn();
                if last != Lsn(lsn) {
                    verdicts.push(format!("{lsn}: ends at {last}"));
                }
            }
            Err(error) => verdicts.push(format!("{lsn}: {error}")),
        }
    }
    assert!(verdicts.is_empty(), "{verdict:?} {verdicts:#?}");
    assert_eq!(verdict, Verdict::Clean);
}

/// A reader that has read none of the cut records is not told of the cut. One in another process
/// may be, of records that were written again with it.
#[test]
fn no_cut_is_told_of_what_was_not_cut() {
    let disk = SimDisk::new(1);
    let log = mib(&disk).background(true).open("/log").unwrap();
    commit(&log, 1..11);
    std::thread::sleep(Duration::from_millis(300));
    let view = View::open_on(disk.handle(), "/log").unwrap();
    let mut reader = view.reader_at(Lsn(1));
    for lsn in 1..4 {
        assert_eq!(reader.next().unwrap().unwrap().lsn, Lsn(lsn));
    }
    let mut here = log.reader_at(Lsn(1));
    for lsn in 1..4 {
        assert_eq!(here.next().unwrap().unwrap().lsn, Lsn(lsn));
    }
    log.truncate_back(Lsn(9)).unwrap();
    commit(&log, 9..12);
    std::thread::sleep(Duration::from_millis(300));
    view.last_lsn().unwrap();
    assert_eq!(here.next().unwrap().unwrap().lsn, Lsn(4));
    match reader.next() {
        Err(foreword::Error::Cut { at, .. }) => assert!(at < Lsn(9)),
        read => assert_eq!(read.unwrap().unwrap().lsn, Lsn(4)),
    }
}

/// A closed log whose tip is a recycled segment opens on a full disk.
#[test]
fn a_closed_log_with_a_recycled_tip_opens_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let log = recycling(&disk);
    commit_each(&log, 10, 60 << 10);
    log.close().unwrap();
    disk.set_free(0);
    mib(&disk).open("/log").unwrap();
}

/// A disk that panics in a cut leaves no thread waiting.
#[test]
fn a_panic_in_a_cut_leaves_nobody_waiting() {
    let armed = Arc::new(AtomicBool::new(false));
    let flag = armed.clone();
    let disk = hooked(SimDisk::new(1), move |op, _| {
        if op == Op::Write || op == Op::WriteDurable {
            assert!(!flag.load(Ordering::SeqCst), "the disk panics");
        }
        Ok(())
    });
    let log = Arc::new(small().on_error(|_| ()).disk(disk).open("/log").unwrap());
    commit(&log, 1..6);
    armed.store(true, Ordering::SeqCst);
    let _ = catch_unwind(AssertUnwindSafe(|| log.truncate_back(Lsn(3))));
    armed.store(false, Ordering::SeqCst);
    let mine = log.clone();
    let _ = within(move || mine.append(b"x"));
    std::mem::forget(log);
}

/// What becomes the reserve has its space.
#[test]
fn the_reserve_has_its_space() {
    let mut disk = full_and_killed();
    for _ in 0..4 {
        let log = mib(&disk).open("/log").unwrap();
        let _ = log.commit(&vec![7; 100 << 10]);
        disk = kill(&disk, log);
    }
    let log = mib(&disk).open("/log").unwrap();
    let _ = log.commit(&vec![7; 100 << 10]);
    log.truncate_front(log.last_lsn()).unwrap();
    disk.set_free(0);
    fill_until_full(&log, 30 << 10);
    mib(&kill(&disk, log)).open("/log").unwrap();
}

/// The same as `nothing_overtakes_the_reopening`, by an append alone, which fills the buffers. The
/// flush that is to reopen the log is held up until the end.
#[test]
fn no_append_overtakes_the_reopening() {
    let (disk, gate, overtaken) = (SimDisk::new(1), Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let seen = overtaken.clone();
    let gated = gated(&disk, &gate, move |held| _ = seen.fetch_or(held, Ordering::SeqCst));
    let options = |disk: &SimDisk| on(disk).segment_bytes(16 * MIB).buffer_bytes(2 << 20);
    let log = options(&disk).open("/log").unwrap();
    commit(&log, 1..3);
    log.close().unwrap();
    let log = Arc::new(options(&disk).disk(gated).open("/log").unwrap());
    gate.hold(1);
    let (a, b) = (log.clone(), log.clone());
    let a = std::thread::spawn(move || a.commit(&vec![5; 400 << 10]).map(drop));
    gate.wait_held();
    let b = std::thread::spawn(move || b.append(&vec![6; 3 << 20]).map(drop));
    // The buffers have room again: a flush has taken the large record.
    until("a flush of the second record", || log.last_lsn() >= Lsn(4) && log.try_append(b"third").is_ok());
    // It must not write now. (Time to do so all the same: if it is too short, only a fault is missed.)
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) && !overtaken.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut found = Vec::new();
    for seed in 0..20 {
        let crashed = disk.crash(&Choice::Seed(seed));
        let log = options(&crashed).open("/log").unwrap();
        found.push((log.recovery().verdict.name(), log.last_lsn().0));
    }
    gate.open();
    a.join().unwrap().unwrap();
    b.join().unwrap().unwrap();
    assert!(!overtaken.load(Ordering::SeqCst), "nothing is written before CLOSED and its MARK are durable: {found:?}");
    assert!(found.iter().all(|f| *f == ("clean", 2)), "{found:?}");
}

/// A small segment made of the reserve does not count as a whole one.
#[test]
fn a_large_record_does_not_take_the_reserve() {
    for round in 0..12 {
        let disk = SimDisk::new(1);
        let log = Arc::new(mib(&disk).open("/log").unwrap());
        log.commit(b"first").unwrap();
        disk.set_free(0);
        fill_until_full(&log, 30 << 10);
        fill_until_full(&log, 100);
        let checkpoint = vec![1; 7000];
        log.commit_checkpoint(&checkpoint).unwrap();
        log.commit_checkpoint(&checkpoint).unwrap();
        disk.fault(Fault::new(OpKind::Rename, Effect::Stall(Duration::from_millis(600))));
        let (a, b, c) = (log.clone(), log.clone(), log.clone());
        let a = std::thread::spawn(move || a.commit_checkpoint(&vec![1; 7000]));
        std::thread::sleep(Duration::from_millis(200));
        let b = std::thread::spawn(move || b.truncate_back(b.last_lsn().next()));
        std::thread::sleep(Duration::from_millis(100));
        let c: Vec<_> = (0..4)
            .map(|_| {
                let c = c.clone();
                std::thread::spawn(move || c.commit(&vec![3; 600 << 10]))
            })
            .collect();
        let _ = (a.join(), b.join());
        let c: Vec<_> = c.into_iter().map(|c| c.join().map_err(|_| "panicked").map(|r| r.map_err(|e| e.to_string()))).collect();
        assert!(c.iter().all(Result::is_ok), "{round}: {c:?}");
    }
}

/// Three power failures: in a workload with cuts, in the recovery from it, and in the recovery from
/// that.
#[test]
fn three_crashes() {
    let options = |disk: &SimDisk, spares: usize| on(disk).spare_segments(spares);
    for spares in [0, 2] {
        let work = |disk: &SimDisk, kept: &mut (u64, u64)| -> Result<(), Error> {
            let log = options(disk, spares).open("/log")?;
            for _ in 0..3 {
                let lsn = log.last_lsn().0 + 1;
                log.commit(&record(lsn))?;
                *kept = (lsn, lsn);
            }
            let cut = kept.1 - 1;
            kept.0 = cut - 1;
            log.truncate_back(Lsn(cut))?;
            kept.1 = cut - 1;
            for lsn in cut..cut + 2 {
                kept.1 = lsn;
                log.commit(&record(lsn))?;
                kept.0 = lsn;
            }
            Ok(())
        };
        let start = SimDisk::new(1);
        let log = options(&start, spares).open("/log").unwrap();
        commit(&log, 1..5);
        drop(log);
        let start = start.kill();
        let began = std::time::Instant::now();
        for first in 1..60 {
            let disk = start.copy();
            disk.power_off_at(first);
            let mut kept = (4, 4);
            let done = work(&disk, &mut kept).is_ok() && !disk.is_off();
            for second in 0..24 {
                let disk = if (first + second) % 3 == 0 { disk.kill() } else { disk.crash(&Choice::Seed(second)) };
                disk.power_off_at(second + 1);
                let _ = options(&disk, spares).open("/log").map(drop);
                for third in [2, 5, 9, 14] {
                    let disk = if third % 2 == 0 { disk.kill() } else { disk.crash(&Choice::Seed(third)) };
                    disk.power_off_at(third);
                    let _ = options(&disk, spares).open("/log").map(drop);
                    let disk = if second % 2 == 0 { disk.kill() } else { disk.crash(&Choice::Seed(7 * third)) };
                    let what = format!("{spares} {first} {second} {third}");
                    let log = options(&disk, spares).open("/log").unwrap_or_else(|e| panic!("{what}: {e}"));
                    let last = log.last_lsn().0;
                    assert!(last >= kept.0, "{what}: {last} of {kept:?}");
                    let (records, error) = collect(log.iter(Lsn::ZERO));
                    assert!(error.is_none(), "{what} {error:?}");
                    assert!(records.iter().all(|(lsn, data)| *data == record(*lsn)), "{what}");
                    assert_eq!(records.len() as u64, last, "{what}");
                }
            }
            if done || began.elapsed() > Duration::from_secs(40) {
                break;
            }
        }
    }
}
