//! Bugs that the suite found in the library, each at its smallest: what happened, and what must
//! happen.

use foreword::{Log, Lsn, OnDamage, Options, SyncPolicy, Verdict, View};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

fn open(disk: &SimDisk) -> foreword::Result<Log> {
    let options = Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
    options.on_error(|_| ()).disk(disk.handle()).open("/log")
}

fn records(log: &Log) -> Vec<(u64, Vec<u8>)> {
    log.iter(Lsn::ZERO).map(|r| r.map(|r| (r.lsn.0, r.data)).unwrap()).collect()
}

/// Runs the work with the power failing at each change. Returns the disks as they are then.
fn at_each_change(base: &SimDisk, run: impl Fn(&SimDisk)) -> impl Iterator<Item = SimDisk> {
    let whole = base.copy();
    run(&whole);
    (base.changes() + 1..=whole.changes()).map(move |change| {
        let disk = base.copy();
        disk.power_off_at(change);
        run(&disk);
        disk
    })
}

/// The process was killed in the write of a fork's LINK. The page cache showed the LINK, recovery
/// built on it, and the disk never had it.
#[test]
fn a_link_that_only_the_page_cache_has() {
    let base = SimDisk::new(1);
    let log = open(&base).unwrap();
    log.commit(b"one").unwrap();
    let base = base.kill();
    drop(log);
    for killed in at_each_change(&base, |disk| drop(open(disk))) {
        let killed = killed.kill();
        drop(open(&killed.copy()).unwrap());
        for crashed in at_each_change(&killed, |disk| drop(open(disk))) {
            for after in crashed.crash_states(16, 1) {
                assert_eq!(records(&open(&after).unwrap()), [(1, b"one".to_vec())]);
            }
        }
    }
}

/// A fork's LINK promises itself. When it was torn, its header alone counted as proof of damage.
#[test]
fn a_torn_link() {
    let base = SimDisk::new(1);
    let log = open(&base).unwrap();
    log.commit(b"one").unwrap();
    let base = base.kill();
    drop(log);
    for crashed in at_each_change(&base, |disk| drop(open(disk))) {
        for after in crashed.crash_states(256, 1) {
            assert_eq!(records(&open(&after).unwrap()), [(1, b"one".to_vec())]);
        }
    }
}

/// A recycled file got its new header while a power failure could still leave it under its old
/// name; and so did a temporary file that was left of one.
#[test]
fn a_recycled_file_under_its_old_name() {
    let truncate = |disk: &SimDisk| {
        let Ok(log) = open(disk) else { return };
        let commits = (0..4).try_for_each(|_| log.commit(&[7; 12_000]).map(drop));
        let _ = commits.and_then(|()| log.truncate_front(Lsn(4)));
    };
    for crashed in at_each_change(&SimDisk::new(1), truncate) {
        let killed = crashed.kill();
        for after in
            crashed.crash_states(64, 1).chain(at_each_change(&killed, |disk| drop(open(disk))).map(|d| d.crash(&Choice::None)))
        {
            open(&after).unwrap();
        }
    }
}

/// Front truncation left a chain that began inside a record of several frames. Recovery took the
/// part in the first frame for the whole record.
#[test]
fn a_record_that_begins_in_a_dropped_segment() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    log.commit(&[1; 159_165]).unwrap();
    log.commit(&[2; 100]).unwrap();
    log.truncate_front(Lsn(2)).unwrap();
    let after = disk.crash(&Choice::None);
    drop(log);
    assert_eq!(records(&open(&after).unwrap()), [(2, vec![2; 100])]);
}

/// Front truncation dropped the segment that had the last promise. Recovery went on from there.
#[test]
fn a_promise_that_was_dropped() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    log.append(&[1; 45_438]).unwrap();
    log.append(&[2; 100]).unwrap();
    log.truncate_front(Lsn(2)).unwrap();
    let after = disk.crash(&Choice::None);
    drop(log);
    assert_eq!(records(&open(&after).unwrap()), [(2, vec![2; 100])]);
}

/// Of the mark behind a CLOSED mark only later sectors were written. Opening read only the first
/// ones, and took the log for cleanly closed; `verify` did not.
#[test]
fn a_torn_mark_behind_a_closed_one() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    log.commit(b"one").unwrap();
    log.close().unwrap();
    for crashed in at_each_change(&disk, |disk| drop(open(disk).map(std::mem::forget))) {
        for after in crashed.crash_states(256, 1) {
            let verified = foreword::Verify::new().disk(after.handle()).run("/log").unwrap().verdict.unwrap();
            let log = open(&after).unwrap();
            assert_eq!(log.recovery().verdict, verified);
            assert_eq!(records(&log), [(1, b"one".to_vec())]);
        }
    }
}

/// Front truncation dropped the last durable segment while its successor, with its LINK, waited for
/// a flush.
#[test]
fn a_successor_that_is_not_durable() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    // Commits until the next record goes to another segment.
    let mut last = log.commit(&[1; 15_000]).unwrap();
    assert_eq!(log.truncate_front(last.next()).unwrap(), last.next());
    while log.stats().rotations == 0 {
        log.sync().unwrap();
        log.truncate_front(last.next()).unwrap();
        last = log.append(&[2; 100]).unwrap();
    }
    log.truncate_front(last).unwrap();
    let after = disk.crash(&Choice::None);
    drop(log);
    let log = open(&after).unwrap();
    assert_eq!(log.start_lsn(), last);
    assert_eq!(records(&log), []);
}

/// The only evidence that a closed log had gone on was in the page cache when the process was
/// killed. Recovery sealed the log late, when it wrote its fork. A power failure before that left a
/// closed log, and behind it a segment with parts of the fork, which was taken for unused.
#[test]
fn a_fork_behind_a_log_that_the_disk_has_as_closed() {
    let open = |disk: &SimDisk| {
        let options = Options::new().segment_bytes(1 << 20).background(false).sync(SyncPolicy::manual());
        options.on_error(|_| ()).disk(disk.handle()).open("/log")
    };
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    log.commit(&[1; 20_000]).unwrap();
    log.close().unwrap();
    // The process is killed in the flush that continues the log.
    let go_on = |disk: &SimDisk| drop(open(disk).map(|log| log.commit(b"more")));
    let is_unwritten = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0));
    let mut closed = 0;
    for killed in at_each_change(&disk, go_on).map(|disk| disk.kill()) {
        // The power failure loses what the process had written, and keeps what recovery wrote: the
        // copied record.
        let lost = killed.undecided();
        for crashed in at_each_change(&killed, |disk| drop(open(disk))) {
            for first_kept in lost.saturating_sub(2)..lost + 8 {
                let kept = (0..crashed.undecided()).map(|unit| unit >= first_kept).collect();
                let after = crashed.crash(&Choice::These(kept));
                let next = after.peek("/log/00000000000000000002.seg", 0, 1 << 20).unwrap_or_default();
                // Behind a LINK the segment belongs to the log.
                if open(&after).unwrap().recovery().verdict == Verdict::Clean && is_unwritten(next.get(4096..8192)) {
                    closed += 1;
                    assert!(is_unwritten(next.get(8192..)), "{first_kept}");
                }
            }
        }
    }
    assert!(closed > 0);
}

/// A read failed while a view kept up with its log. The view had read further than it knew, and
/// later missed the segments between.
#[test]
fn a_view_that_could_not_read_on() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    log.commit(b"first").unwrap();
    for n in 0.. {
        let view = View::open_on(disk.handle(), "/log").unwrap();
        let mut reader = view.reader_at(Lsn::ZERO);
        while reader.next().unwrap().is_some() {}
        let before = disk.ops().len();
        (0..12).for_each(|_| assert!(log.commit(&[7; 5000]).is_ok()));
        disk.fault(Fault::new(OpKind::Read, Effect::Eio).skip(n));
        let mut read = |until: Lsn| {
            while reader.next()?.is_some_and(|record| record.lsn < until) {}
            Ok::<_, foreword::Error>(())
        };
        let failed = read(log.last_lsn());
        let struck = disk.ops()[before..].iter().any(|op| op.struck);
        disk.heal();
        log.commit(b"more").unwrap();
        log.commit(b"and more").unwrap();
        read(Lsn::MAX).unwrap_or_else(|error| panic!("after call {n} failed: {failed:?}: {error}"));
        if !struck {
            break;
        }
        log.truncate_front(log.last_lsn()).unwrap();
    }
}

/// An opening wrote an unproven burst again over several segments, and was killed. The fork's later
/// segments had LINKs, and began before the start LSN: the next opening took them for the log.
#[test]
fn an_unfinished_fork_of_a_log_whose_front_was_dropped() {
    let large = Options::new().segment_bytes(1 << 20).background(false).sync(SyncPolicy::manual()).idle_mark(None);
    let disk = SimDisk::new(1);
    let log = large.disk(disk.handle()).open("/log").unwrap();
    (1..=100).for_each(|n| assert!(log.append(&[n; 2_000]).is_ok()));
    assert_eq!(log.truncate_front(Lsn(75)).unwrap(), Lsn(75));
    let killed = disk.kill();
    drop(log);
    let (mut forks, mut states) = (0, 0);
    for dead in at_each_change(&killed, |disk| drop(open(disk).map(std::mem::forget))) {
        for after in [dead.kill(), dead.crash(&Choice::All)] {
            let segments = after.files().iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg")).count();
            (forks, states) = (forks + usize::from(segments > 3), states + 1);
            let view = View::open_on(after.handle(), "/log").unwrap();
            assert_eq!(view.recoverable().unwrap().last_lsn().unwrap(), Lsn(100));
            let log = open(&after).unwrap();
            assert_eq!((log.start_lsn(), log.last_lsn()), (Lsn(75), Lsn(100)), "{:?}", after.files());
            assert!(records(&log).into_iter().eq((75..=100).map(|n| (n, vec![n as u8; 2_000]))));
        }
    }
    assert!(forks > 10, "{forks} of {states}");
}

/// A repair moved to `damaged/` what followed the damage, and with it the MARK that told of the
/// start LSN. It was killed before the log had gone on, and the next one gave all of it up.
#[test]
fn a_repair_that_is_killed_when_it_has_put_files_aside() {
    let repair = |disk: &SimDisk| {
        let options = Options::new().segment_bytes(64 << 10).background(false).on_damage(OnDamage::StopAtDamage);
        options.on_error(|_| ()).disk(disk.handle()).open("/log")
    };
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    (0..60).for_each(|_| assert!(log.commit(&[7; 3_000]).is_ok()));
    log.truncate_front(Lsn(20)).unwrap();
    log.close().unwrap();
    let damaged = disk.files()[2].0.clone();
    assert!(disk.flip(&damaged, 30_000, 3));
    let whole = disk.copy();
    let last = repair(&whole).unwrap().last_lsn();
    let aside = |disk: &SimDisk| disk.files().into_iter().filter(|f| f.0.starts_with("/log/damaged")).collect::<Vec<_>>();
    for killed in at_each_change(&disk, |disk| drop(repair(disk).map(std::mem::forget))) {
        for after in [killed.kill(), killed.crash(&Choice::None), killed.crash(&Choice::Seed(1))] {
            let log = repair(&after).unwrap();
            assert_eq!((log.start_lsn(), log.last_lsn()), (Lsn(20), last), "{:?}", after.files());
            // All that is put aside is there; a copy may be there twice.
            let (kept, want) = (aside(&after), aside(&whole));
            let is_kept = |(path, len): &(std::path::PathBuf, u64)| {
                kept.iter().any(|(p, l)| l == len && p.to_str().unwrap().starts_with(path.to_str().unwrap()))
            };
            assert!(want.iter().all(is_kept), "{kept:?}, not {want:?}");
        }
    }
}

/// A power failure left of what a closed log had gone on with the SEAL alone. An opening with
/// segments of another size had no use for the file for which it vouches, and removed it.
#[test]
fn a_seal_behind_a_closed_log_vouches_for_a_segment_of_any_size() {
    let open_large = |disk: &SimDisk| {
        let options = Options::new().segment_bytes(128 << 10).background(false).sync(SyncPolicy::manual());
        drop(options.on_error(|_| ()).disk(disk.handle()).open("/log").map(std::mem::forget));
    };
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    log.commit(&[1; 20_000]).unwrap();
    log.close().unwrap();
    let mut sealed = 0;
    for killed in at_each_change(&disk, |disk| drop(open(disk).map(|log| log.commit(b"more")))).map(|disk| disk.kill()) {
        for crashed in at_each_change(&killed, |disk| drop(open(disk).map(std::mem::forget))) {
            let after = crashed.crash(&Choice::None);
            let seal = after.peek("/log/00000000000000000001.seg", 15 * 4096, 4096).unwrap_or_default();
            let verified = foreword::Verify::new().disk(after.handle()).run("/log").unwrap().verdict;
            if verified != Some(Verdict::Clean) || seal.iter().all(|&byte| byte == 0) {
                continue;
            }
            sealed += 1;
            for dead in at_each_change(&after, open_large) {
                let again = dead.kill();
                assert_eq!(open(&again).unwrap().last_lsn(), Lsn(1), "{:?}", again.files());
            }
        }
    }
    assert!(sealed > 0);
}
