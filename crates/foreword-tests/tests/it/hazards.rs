//! Accidents that have cost real logs their data, one test for each that this log could have: torn
//! and stale tails, recycled files, failed flushes, full disks, clocks, backups, readers. The unit
//! tests of `format/frame.rs` and the schedules of foreword-sim's `shuttle.rs` hold some of them,
//! too. Three have no test: the log does not read by mmap, syncs no ranges, and one file
//! (`disk/os.rs`) has all syncs.

use std::collections::BTreeSet;
use std::sync::Arc;

use foreword::disk::Disk;
use foreword::{DamageKind, Durability, Error, Log, Lsn, OnDamage, Options, Verdict, View};
use foreword_sim::{Effect, Fault, OpKind, SimDisk};
use foreword_tests::hooked::{Gate, Op, hooked};
use foreword_tests::*;

fn on(disk: &SimDisk) -> Options {
    small().on_error(|_| ()).disk(disk.handle())
}

fn lsns(log: &Log) -> Vec<u64> {
    let (records, error) = collect(log.iter(Lsn::ZERO));
    assert!(error.is_none(), "{error:?}");
    assert!(records.iter().all(|(lsn, data)| *data == record(*lsn)), "wrong bytes");
    records.into_iter().map(|r| r.0).collect()
}

#[test]
fn appending_after_a_torn_tail() {
    let mut files = Files::crashed(|log| {
        commit(log, 1..4);
        log.append_with(&[7; 10_000], Durability::Written).unwrap();
    });
    files.unwrite_sector(1, 45);
    let dir = files.dir();
    for round in 0..3 {
        // Acknowledged, and found again each time, though nothing was closed.
        let log = small().open(dir.path()).unwrap();
        assert_eq!(lsns(&log), (1..4 + round).collect::<Vec<_>>());
        commit(&log, 4 + round..5 + round);
        let crashed = Files::read(dir.path());
        drop(log);
        crashed.write(dir.path());
    }
}

#[test]
fn stale_tail_after_a_cut() {
    let files = Files::crashed(|log| {
        commit(log, 1..7);
        log.truncate_back(Lsn(3)).unwrap();
        log.commit(b"shorter").unwrap();
    });
    let (records, error) = collect(MemDisk::new(&files).view().iter(Lsn::ZERO));
    assert!(error.is_none());
    assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(records[2].1, b"shorter");
    let log = MemDisk::new(&files).open(OnDamage::Refuse).unwrap();
    assert_eq!(log.last_lsn(), Lsn(3));
}

#[test]
fn recycled_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..23);
    log.truncate_front(Lsn(22)).unwrap();
    assert!(log.stats().segments_recycled >= 1);
    commit(&log, 23..31);
    let crashed = Files::read(dir.path());
    let recovered = MemDisk::new(&crashed).open(OnDamage::Refuse).unwrap();
    // The file still holds whole frames of its earlier life behind the end: none comes up.
    assert_eq!(lsns(&recovered), (22..31).collect::<Vec<_>>());
    assert_eq!(recovered.recovery().garbled_sectors, 0);
}

#[test]
fn a_length_that_is_not_what_was_written() {
    for (at, what) in [(16, "the payload's"), (20, "the count"), (24, "the head's"), (80, "a record's")] {
        // Rot: the checksum covers it, and it is not believed.
        let mut rotten = Files::crashed(|log| commit(log, 1..5));
        rotten.segment(1)[3 * BLOCK + at..3 * BLOCK + at + 4].fill(0xff);
        // A program that errs: the checksum holds, and it is still not believed.
        let mut forged = Files::crashed(|log| commit(log, 1..5));
        forged.forge(1, 3, |frame| frame[at..at + 4].fill(0xff));
        // The same in a frame with CONTINUES.
        let mut going_on = Files::crashed(|log| commit(log, 1..5));
        going_on.forge(1, 3, |frame| {
            frame[at..at + 4].fill(0xff);
            frame[13] = 1;
        });
        for files in [rotten, forged, going_on] {
            let disk = MemDisk::new(&files);
            assert!(matches!(disk.verify().verdict, Some(Verdict::Corruption(_))), "{what}");
            let (records, error) = collect(disk.view().iter(Lsn::ZERO));
            assert_eq!(records, [(1, record(1))]);
            assert!(matches!(error, Some(Error::Corruption(_))), "{what}");
            disk.open(OnDamage::Salvage).unwrap();
        }
    }
}

#[test]
fn a_payload_that_is_an_image_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().segment_bytes(1 << 20).open(dir.path()).unwrap();
    commit(&log, 1..5);
    let image = Files::read(dir.path()).remove(1);
    log.commit(&image[..200_000]).unwrap();
    commit(&log, 6..8);
    let mut files = Files::read(dir.path());
    let large = files.frames(1).into_iter().find(|f| f.blocks > 10).unwrap();
    // Whether its beginning is lost or garbled: no frame is found in the payload behind it.
    for damage in [0, 0x5a] {
        let at = large.block * BLOCK;
        files.segment(1)[at..at + SECTOR].fill(damage);
        let log = MemDisk::new(&files).open(OnDamage::Salvage).unwrap();
        assert_eq!(lsns(&log), [1, 2, 3, 4, 6, 7]);
        assert_eq!(log.recovery().given_up, [(Lsn(5), Lsn(5))]);
    }
}

#[test]
fn holes() {
    let disk = SimDisk::new(7);
    let log = on(&disk).open("/log").unwrap();
    commit(&log, 1..3);
    for lsn in 3..7 {
        log.append_with(&record(lsn), Durability::Written).unwrap();
    }
    let mut holes = 0;
    for after in disk.crash_states(300, 1) {
        let log = on(&after).open("/log").unwrap();
        let there = lsns(&log);
        assert!(there.len() >= 2 && there == (1..=there.len() as u64).collect::<Vec<_>>(), "{there:?}");
        holes += usize::from(log.recovery().verdict == Verdict::TornTail);
    }
    assert!(holes > 10);
}

#[test]
fn replaying_past_a_damaged_segment() {
    // The last record of the first segment, with a whole second segment behind it.
    let files = || Files::crashed(|log| commit(log, 1..11));
    let mut flipped = files();
    flipped.flip(1, 8 * BLOCK + 70, 0);
    let mut zeroed = files();
    zeroed.unwrite(1, 8..9);
    for files in [flipped, zeroed] {
        let disk = MemDisk::new(&files);
        assert!(matches!(disk.verify().verdict, Some(Verdict::Corruption(damage)) if damage.first_lsn == Lsn(7)));
        let (records, error) = collect(disk.view().iter(Lsn::ZERO));
        assert_eq!(records.len(), 6);
        assert!(matches!(error, Some(Error::Corruption(_))));
    }
}

#[test]
fn the_newest_segment_replaced_by_an_older_copy() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..4);
    let old = Files::read(dir.path());
    commit(&log, 4..6);
    log.close().unwrap();
    old.write(dir.path());
    // There is no evidence inside the directory; a caller that knows of an LSN can name it.
    assert_eq!(check_dir(dir.path()).verdict, Some(Verdict::Unclosed));
    match small().expect_lsn(Lsn(5)).open(dir.path()) {
        Err(Error::RolledBack { expected: Lsn(5), found: Lsn(3), .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(Files::read(dir.path()), old, "the refusal changes nothing");
}

#[test]
fn a_failed_fsync_is_final() {
    let disk = SimDisk::new(11);
    let log = on(&disk).open("/log").unwrap();
    commit(&log, 1..3);
    disk.fault(Fault::new(OpKind::Sync, Effect::Eio).on(".seg"));
    assert!(matches!(log.commit(&record(3)), Err(Error::Poisoned(_))));
    // The disk works again, and would say that all is synced; the log does not ask it.
    let asked = disk.ops().len();
    for _ in 0..3 {
        assert!(matches!(log.commit(&record(3)), Err(Error::Poisoned(_))));
        assert!(matches!(log.append(&record(3)), Err(Error::Poisoned(_))));
        assert!(matches!(log.sync(), Err(Error::Poisoned(_))));
    }
    assert_eq!(disk.ops().len(), asked);
    assert_eq!(log.durable_lsn(), Lsn(2));
    assert!(matches!(log.close(), Err(Error::Poisoned(_))));
    // What the page cache shows is not what the disk has: opening makes durable what it returns.
    let killed = disk.kill();
    let log = on(&killed).open("/log").unwrap();
    let there = lsns(&log);
    assert!(there == [1, 2] || there == [1, 2, 3]);
    for after in killed.crash_states(100, 3) {
        assert_eq!(lsns(&on(&after).open("/log").unwrap()), there, "what opening returned is durable");
    }
}

#[test]
fn a_failed_sync_does_not_clear_what_needs_one() {
    let disk = SimDisk::new(12);
    let log = on(&disk).open("/log").unwrap();
    log.append_with(&record(1), Durability::Written).unwrap();
    disk.fault(Fault::new(OpKind::Sync, Effect::Eio).on(".seg"));
    assert!(log.sync().is_err());
    assert!(log.sync().is_err(), "there is still something that is not synced");
    assert!(log.sync_to(Lsn(1)).is_err());
    assert_eq!(log.durable_lsn(), Lsn(0));
    assert!(matches!(log.close(), Err(Error::Poisoned(_))), "the last sync's error is not swallowed");
}

#[test]
fn an_error_after_the_bytes_reached_the_disk() {
    let disk = SimDisk::new(13);
    let log = on(&disk).open("/log").unwrap();
    commit(&log, 1..3);
    disk.fault(Fault::new(OpKind::Sync, Effect::Eio).on(".seg"));
    log.commit(&record(3)).unwrap_err();
    // Two outcomes, and no other: it is there, or it is not. What was acknowledged is there in
    // both.
    let seen: BTreeSet<usize> = disk.crash_states(100, 1).map(|after| lsns(&on(&after).open("/log").unwrap()).len()).collect();
    assert!(seen.iter().all(|n| (2..=3).contains(n)), "{seen:?}");
}

#[test]
fn what_only_the_page_cache_has() {
    let disk = SimDisk::new(14);
    let log = on(&disk).open("/log").unwrap();
    commit(&log, 1..3);
    for lsn in 3..6 {
        log.append_with(&record(lsn), Durability::Written).unwrap();
    }
    let killed = disk.kill();
    let reopened = on(&killed).open("/log").unwrap();
    assert_eq!(lsns(&reopened), [1, 2, 3, 4, 5]);
    assert_eq!(reopened.durable_lsn(), Lsn(5));
    for after in killed.crash_states(200, 1) {
        assert_eq!(lsns(&on(&after).open("/log").unwrap()), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_commit_changes_no_file_metadata() {
    let disk = SimDisk::new(15);
    let log = on(&disk).open("/log").unwrap();
    let (before, lengths) = (disk.ops().len(), disk.files());
    commit(&log, 1..7);
    let kinds: Vec<OpKind> = disk.ops()[before..].iter().map(|op| op.kind).collect();
    assert_eq!(kinds, [OpKind::DurableWrite; 6], "one write and nothing else for each");
    assert_eq!(disk.files(), lengths);
}

#[test]
fn names_are_synced_before_anything_stands_on_them() {
    let disk = SimDisk::new(16);
    let log = on(&disk).open("/new/log").unwrap();
    commit(&log, 1..16); // Two rotations.
    let (mut unsynced, mut named) = (0, BTreeSet::new());
    for op in disk.ops() {
        match op.kind {
            OpKind::Rename => {
                unsynced += 1;
                named.insert(op.path.clone());
            }
            OpKind::SyncDir => unsynced = 0,
            // (A file is known here by the path under which it was opened: that before it got its
            // name.)
            OpKind::DurableWrite if named.contains(&op.path) => {
                assert_eq!(unsynced, 0, "{op:?} follows a rename that no sync of the directory follows");
            }
            _ => {}
        }
    }
    assert!(named.len() >= 4);
    // And so no crash in creation, or in a rotation, loses what was acknowledged.
    for after in disk.crash_states(100, 1) {
        assert_eq!(lsns(&on(&after).open("/new/log").unwrap()).len(), 15);
    }
}

#[test]
fn no_space() {
    let disk = SimDisk::new(17);
    let log = on(&disk).open("/log").unwrap();
    disk.set_free(3 * (64 << 10) / 2);
    let mut last = 0;
    let error = loop {
        match log.commit(&record(last + 1)) {
            Ok(lsn) => last = lsn.0,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert_eq!(last, 14, "one segment more had room");
    // Nothing is half done: reading works, a checkpoint finds room, the front can be dropped, and
    // the log goes on.
    assert_eq!(lsns(&log).len(), 14);
    assert_eq!(log.last_lsn(), Lsn(14));
    assert!(matches!(log.commit_batch(&[vec![1; 90_000]]), Err(Error::NoSpace { .. })));
    assert_eq!(log.commit_checkpoint(&record(15)).unwrap(), Lsn(15));
    assert_eq!(log.truncate_front(Lsn(15)).unwrap(), Lsn(15));
    commit(&log, 16..18);
    assert_eq!(lsns(&log), [15, 16, 17]);
    // In recovery itself: what the directory holds is enough.
    let full = disk.kill();
    full.set_free(0);
    assert_eq!(lsns(&on(&full).open("/log").unwrap()), [15, 16, 17]);
}

#[test]
fn no_space_for_all_spare_segments() {
    let disk = SimDisk::new(17);
    // (Two are kept for a full disk.)
    disk.set_free(6 * (64 << 10));
    let log = on(&disk).spare_segments(10).open("/log").unwrap();
    let spares = log.stats().segments_prepared;
    assert!((1..4).contains(&spares), "{spares}");
    // They are as good as room on the disk.
    commit(&log, 1..15);
    assert_eq!(lsns(&log).len(), 14);
    log.truncate_front(Lsn(14)).unwrap();
    commit(&log, 15..17);
    log.close().unwrap();
}

#[test]
fn no_space_and_the_front_is_dropped_whatever_was_done_before() {
    type Waste = fn(&Log, u64) -> foreword::Result<()>;
    let checkpoint: Waste = |log, _| log.commit_checkpoint(b"again and again").map(drop);
    let hold: Waste = |log, n| log.hold("somebody", Lsn(25 + n % 5));
    // (Each drops a record of the first segment, and frees nothing.)
    let truncation: Waste = |log, n| log.truncate_front(Lsn(2 + n)).map(drop);
    for (waste, most) in [(checkpoint, 60), (hold, 60), (truncation, 6)] {
        let disk = SimDisk::new(17);
        let log = on(&disk).open("/log").unwrap();
        commit(&log, 1..29); // Four segments are full, but for what is kept at the end of each.
        disk.set_free(0);
        // What is kept in the segment, and in two more that are kept.
        let wasted = (0..most).map_while(|n| waste(&log, n).ok()).count() as u64;
        assert!(wasted >= 6, "{wasted}");
        assert!(wasted == 6 || matches!(waste(&log, wasted), Err(Error::NoSpace { .. })), "{wasted}");
        // Three segments are dropped: two are the reserve again, and one is for records.
        assert_eq!(log.truncate_front(Lsn(25)).unwrap(), Lsn(25));
        let next = log.last_lsn().0 + 1;
        commit(&log, next..next + 2);
        log.close().unwrap();
    }
}

#[test]
fn no_space_while_opening() {
    // However little room there is: it is said that there is too little, and with more the log
    // opens.
    for pages in 0..40 {
        let disk = SimDisk::new(17);
        disk.set_free(pages * 4096);
        let opened = on(&disk).open("/log");
        assert!(matches!(opened, Ok(_) | Err(Error::NoSpace { .. })), "{pages} pages: {opened:?}");
        drop(opened);
        disk.set_capacity(None);
        commit(&on(&disk).open("/log").unwrap(), 1..3);
    }
    // A log that was closed opens without any: how else could its owner drop records to make room?
    let disk = SimDisk::new(17);
    let log = on(&disk).open("/log").unwrap();
    commit(&log, 1..20);
    log.close().unwrap();
    assert!(disk.cut("/log/LOCK", 0), "so that its text needs room");
    disk.set_free(0);
    let log = on(&disk).open("/log").unwrap();
    log.truncate_front(Lsn(15)).unwrap();
    assert_eq!(lsns(&log), [15, 16, 17, 18, 19]);
}

#[test]
fn short_and_interrupted_calls() {
    let disk = SimDisk::new(18);
    disk.fault(Fault::new(OpKind::Any, Effect::Short).forever());
    for skip in 0..20 {
        disk.fault(Fault::new(OpKind::Read, Effect::Interrupted).skip(skip));
        disk.fault(Fault::new(OpKind::Write, Effect::Interrupted).skip(skip));
    }
    let log = on(&disk).open("/log").unwrap();
    commit(&log, 1..12);
    assert_eq!(lsns(&log).len(), 11);
    log.close().unwrap();
    let log = on(&disk).open("/log").unwrap();
    assert_eq!(log.recovery().verdict, Verdict::Clean);
    assert_eq!(lsns(&log).len(), 11);
}

#[test]
fn no_acknowledged_block_is_written_again() {
    let disk = SimDisk::new(19);
    let log = on(&disk).open("/log").unwrap();
    for lsn in 1..25 {
        log.append_with(&record(lsn), if lsn % 3 == 0 { Durability::Synced } else { Durability::Written }).unwrap();
    }
    log.hold("archiver", Lsn(1)).unwrap();
    log.close().unwrap();
    let (mut written, mut named) = (BTreeSet::new(), BTreeSet::new());
    for op in disk.ops() {
        if op.kind == OpKind::Rename {
            named.insert(op.path.clone());
        } else if matches!(op.kind, OpKind::Write | OpKind::DurableWrite) && named.contains(&op.path) {
            for block in op.offset / 4096..(op.offset + op.len as u64).div_ceil(4096) {
                assert!(written.insert((op.path.clone(), block)), "{op:?} writes block {block} again");
            }
        }
    }
    assert!(written.len() > 25, "{written:?}");
}

#[test]
fn a_file_that_shrinks_under_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..8);
    // (What a log has written last itself it has in memory.)
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    let mut reader = log.reader_at(Lsn(5));
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(segment_name(1))).unwrap();
    file.set_len(3 * BLOCK as u64).unwrap();
    // An error, where a mapping would be a signal.
    assert!(matches!(reader.next(), Err(Error::Corruption(_))));
}

#[test]
fn readers_of_what_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..4);
    log.append_with(&record(4), Durability::Written).unwrap();
    log.append(&record(5)).unwrap();
    let view = View::open(dir.path()).unwrap();
    for _ in 0..2 {
        assert_eq!(collect(log.iter(Lsn::ZERO)).0.len(), log.durable_lsn().0 as usize);
        assert!(view.last_lsn().unwrap() <= log.durable_lsn());
        assert!(matches!(log.get(log.durable_lsn().next()), Err(Error::NotAppended { .. })));
        log.append_with(&record(6), Durability::Written).unwrap();
    }
    log.sync().unwrap();
    assert_eq!(log.get(Lsn(6)).unwrap(), record(6));
}

#[test]
fn a_crash_in_recovery_and_in_the_recovery_after() {
    let disk = SimDisk::new(25);
    let log = on(&disk).open("/log").unwrap();
    commit(&log, 1..10);
    log.append_with(&record(10), Durability::Written).unwrap();
    let killed = disk.kill();
    let whole = killed.copy();
    on(&whole).open("/log").unwrap();
    for change in 1..=whole.changes() - killed.changes() {
        let first = killed.copy();
        first.power_off_at(killed.changes() + change);
        let _ = on(&first).open("/log");
        for second in first.crash_states(4, change) {
            second.power_off_at(second.changes() + change / 2 + 1);
            let _ = on(&second).open("/log");
            for third in second.crash_states(4, change) {
                let there = lsns(&on(&third).open("/log").unwrap());
                assert!((9..=10).contains(&there.len()), "{there:?}");
            }
        }
    }
}

#[test]
fn the_leader_fails_and_all_followers_hear_of_it() {
    let disk = SimDisk::new(26);
    let log = Arc::new(on(&disk).open("/log").unwrap());
    disk.fault(Fault::new(OpKind::Write, Effect::Eio).on(".seg").skip(5).forever());
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                while log.commit(b"x").is_ok() {}
                assert!(matches!(log.commit(b"x"), Err(Error::Poisoned(_))));
            });
        }
    });
    assert!(log.durable_lsn() >= Lsn(1));
}

#[test]
fn two_openers() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..3);
    let before = Files::read(dir.path());
    for action in [OnDamage::Refuse, OnDamage::StopAtDamage, OnDamage::Salvage] {
        assert!(matches!(small().on_damage(action).open(dir.path()), Err(Error::Locked { .. })));
    }
    assert_eq!(Files::read(dir.path()), before);
    // It is the lock that counts, not the file or what it says.
    drop(log);
    std::fs::write(dir.path().join("LOCK"), "process 1\n").unwrap();
    small().open(dir.path()).unwrap();
}

#[test]
fn a_backup_mixed_with_newer_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..10);
    let mut backup = Files::read(dir.path());
    commit(&log, 10..20);
    let now = Files::read(dir.path());
    drop(log);
    // The backup's second segment with the third of today: its predecessor's end is not there.
    let mut mixed = now.clone();
    mixed.insert(2, backup.remove(2));
    match MemDisk::new(&mixed).verify().verdict {
        Some(Verdict::Corruption(damage)) => {
            assert_eq!((damage.kind, damage.proven, damage.first_lsn), (DamageKind::Missing, true, Lsn(10)));
        }
        other => panic!("{other:?}"),
    }
    // Another log where this one should be.
    let other = Files::crashed(|log| commit(log, 1..3)).dir();
    let expected = foreword::LogId(now.uuid());
    let refused = small().expect_id(expected).open(other.path());
    assert!(matches!(refused, Err(Error::Replaced { .. })), "{refused:?}");
    MemDisk::new(&now);
    small().expect_id(expected).open(now.dir().path()).unwrap();
}

#[test]
fn clocks_that_run_backward() {
    let mut files = Files::crashed(|log| commit(log, 1..20));
    for (epoch, time) in [(1, u64::MAX), (2, 0), (3, 1)] {
        files.forge(epoch, 0, |frame| frame[88..96].copy_from_slice(&time.to_le_bytes()));
    }
    assert_eq!(MemDisk::new(&files).verify().verdict, Some(Verdict::Unclosed));
    let log = MemDisk::new(&files).open(OnDamage::Refuse).unwrap();
    assert_eq!(lsns(&log).len(), 19);
}

#[test]
fn segments_that_somebody_still_needs() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..30);
    log.hold("archiver", Lsn(3)).unwrap();
    log.hold("replica", Lsn(12)).unwrap();
    assert_eq!(log.truncate_front(Lsn(28)).unwrap(), Lsn(3));
    let crashed = Files::read(dir.path()).dir();
    drop(log);
    for dir in [dir.path(), crashed.path()] {
        // Holds outlive the process, however it ended.
        let log = small().open(dir).unwrap();
        assert_eq!(log.holds().unwrap().len(), 2);
        assert_eq!(log.truncate_front(Lsn(28)).unwrap(), Lsn(3));
        assert_eq!(lsns(&log)[0], 3);
        assert!(log.release("archiver").unwrap());
        assert_eq!(log.truncate_front(Lsn(28)).unwrap(), Lsn(12));
        assert_eq!(lsns(&log)[0], 12);
    }
}

#[test]
fn a_reader_after_an_error_in_mid_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let large: Vec<u8> = (0..150_000u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    log.commit(b"before").unwrap();
    log.commit(&large).unwrap();
    log.commit(b"after").unwrap();
    // (What a log has written last itself it has in memory.)
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    let path = dir.path().join(segment_name(2));
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[4 * BLOCK + 9] ^= 1;
    let mut reader = log.reader();
    assert_eq!(reader.next().unwrap().unwrap().data, b"before");
    std::fs::write(&path, &bad).unwrap();
    for _ in 0..2 {
        assert!(matches!(reader.next(), Err(Error::Corruption(_))));
        assert_eq!(reader.position(), Lsn(2), "it stays where it is");
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().data, large, "nothing of the failed attempt is left in it");
    assert_eq!(reader.next().unwrap().unwrap().data, b"after");
    assert_eq!(reader.prev().unwrap().unwrap().data, b"after");
    assert_eq!(reader.prev().unwrap().unwrap().data, large);
}

/// `LOCK` and `LOG` are removed under a writer, one of whose flushes is under way for so long that
/// a second one repairs the log, works, drops what the first had written and uses its files again.
/// Wherever the first was in its segments, what it writes then meets nothing of the second's.
#[test]
fn a_write_of_a_writer_whose_locks_were_removed_meets_nothing_of_the_next() {
    for before in 0..20 {
        for recycles in [false, true] {
            let (gate, disk) = (Arc::new(Gate::default()), MemDisk::default());
            let keeper = gate.clone();
            let hooked = hooked(disk.clone(), move |op, name| {
                if op == Op::WriteDurable && name.ends_with(".seg") {
                    keeper.pass();
                }
                Ok(())
            });
            let first = small().on_error(|_| ()).disk(hooked).open(MEM).unwrap();
            commit(&first, 1..before + 1);
            gate.hold(1);
            let stuck = std::thread::spawn(move || (first.commit(&[9; 20_000]), first));
            gate.wait_held();
            let dir = disk.open_dir(MEM.as_ref()).unwrap();
            ["LOCK", "LOG"].iter().for_each(|name| dir.remove(name).unwrap());
            let second = disk.open(OnDamage::Salvage).unwrap();
            assert_eq!(second.last_lsn(), Lsn(before));
            commit(&second, before + 1..before + 20);
            if recycles {
                second.truncate_front(second.last_lsn()).unwrap();
            }
            commit(&second, before + 20..before + 40);
            gate.open();
            let (told, first) = stuck.join().unwrap();
            assert!(told.is_err(), "{before}: {told:?}");
            drop(first);
            second.close().unwrap();
            assert_eq!(disk.verify().verdict, Some(Verdict::Clean), "{before}, {recycles}");
            let (records, error) = collect(disk.view().iter(Lsn::ZERO));
            assert!(error.is_none(), "{before}, {recycles}: {error:?}");
            assert!(records.iter().all(|(lsn, data)| *data == record(*lsn)), "{before}, {recycles}");
            assert_eq!(records.last().unwrap().0, before + 39);
        }
    }
}
