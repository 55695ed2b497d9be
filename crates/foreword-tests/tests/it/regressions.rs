//! Bugs that were found once: each has a test here that holds what was broken.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use foreword::disk::{Access, OsDisk};
use foreword::{DamageKind, Error, Log, Lsn, OnDamage, Options, SyncPolicy, Verdict, View};
use foreword_tests::hooked::{Gate, Hooked, Op, hooked, hooked_unreserving, until, within_time};
use foreword_tests::*;

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
const CLOSED: u8 = 4;
const CONTINUED: u8 = 2;

/// A disk on which writes to the first segment go through a gate.
fn gated(disk: &MemDisk) -> (Arc<Gate>, Arc<Hooked<MemDisk>>) {
    let gate = Arc::new(Gate::default());
    let keeper = gate.clone();
    let hooked = hooked_unreserving(disk.clone(), move |op, name| {
        if op.writes() && name.starts_with(&segment_name(1)) {
            keeper.pass();
        }
        Ok(())
    });
    (gate, hooked)
}

/// A commit on a thread of its own, which has its LSN when this returns.
fn commit_beside(log: &Arc<Log>, lsn: u64) -> mpsc::Receiver<Lsn> {
    let (done, wait) = mpsc::channel();
    let committer = log.clone();
    thread::spawn(move || done.send(committer.commit(&record(lsn)).unwrap()));
    until("an LSN", || log.last_lsn() >= Lsn(lsn));
    wait
}

#[track_caller]
fn is_sound(verdict: Option<&Verdict>) {
    assert!(!matches!(verdict, None | Some(Verdict::Corruption(_))), "{verdict:?}");
}

#[track_caller]
fn holds_records(log: &Log, lsns: impl IntoIterator<Item = u64>) {
    let (found, error) = collect(log.iter(Lsn::ZERO));
    assert!(error.is_none(), "{error:?}");
    let expected: Vec<_> = lsns.into_iter().map(|lsn| (lsn, record(lsn))).collect();
    let lsns = |records: &[(u64, Vec<u8>)]| records.iter().map(|r| r.0).collect::<Vec<_>>();
    assert_eq!(lsns(&found), lsns(&expected));
    assert!(found == expected, "the LSNs are right, and the bytes are not");
}

/// Bug: a log with acknowledged records was made anew. Cause: an opener looked whether there is a
/// log, waited for the lock, and went by what it had seen. Fix: it looks again under the lock.
#[test]
fn an_opener_finds_the_log_that_was_made_while_it_waited_for_the_lock() {
    for create_new in [false, true] {
        let (disk, raced) = (MemDisk::default(), AtomicBool::new(false));
        let other = disk.clone();
        let slow = hooked_unreserving(disk.clone(), move |op, _| {
            if op == Op::Lock && !raced.swap(true, Ordering::Relaxed) {
                let log = other.open(OnDamage::Refuse).unwrap();
                commit(&log, 1..3);
                log.close().unwrap();
            }
            Ok(())
        });
        let options = if create_new { small().create_new() } else { small() };
        let opened = options.disk(slow).open(MEM);
        if create_new {
            assert!(matches!(opened, Err(Error::AlreadyExists { .. })), "{opened:?}");
            holds_records(&disk.open(OnDamage::Refuse).unwrap(), 1..3);
        } else {
            let log = opened.unwrap();
            assert_eq!(log.recovery().verdict, Verdict::Clean);
            holds_records(&log, 1..3);
        }
    }
}

/// Bug: a log never opened again. Cause: its last promise lay in a segment that was dropped, since
/// the same flush left it behind, and recovery would continue from there. Fix: without that
/// segment, recovery continues from the first that is left.
#[test]
fn a_log_opens_whose_last_promise_lies_in_a_dropped_segment() {
    let files = Files::crashed(|log| {
        log.commit(&record(1)).unwrap();
        for _ in 2..=9 {
            log.append(&[2; 10_000]).unwrap();
        }
        assert_eq!(log.truncate_front(Lsn(10)).unwrap(), Lsn(10));
    });
    assert!(!files.epochs().contains(&1), "{:?}", files.epochs());
    let disk = MemDisk::new(&files);
    is_sound(disk.verify().verdict.as_ref());
    let log = disk.open(OnDamage::Refuse).unwrap();
    assert_eq!((log.start_lsn(), log.last_lsn()), (Lsn(10), Lsn(9)));
    commit(&log, 10..12);
    holds_records(&log, 10..12);
    log.close().unwrap();
    assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
}

/// Bug: corruption was seen in a sound log. Cause: its first segment began with the second and
/// further frames of a dropped record, and only one such frame was expected. Fix: such a record may
/// continue for any number of frames.
#[test]
fn a_segment_may_begin_with_several_frames_of_a_dropped_record() {
    let disk = MemDisk::default();
    let log = small().segment_bytes(MIB).disk(Arc::new(disk.clone())).open(MEM).unwrap();
    for _ in 0..3 {
        log.commit(&[1; 100_000]).unwrap();
    }
    assert_eq!(log.commit(&vec![7; 1_500_000]).unwrap(), Lsn(4));
    commit(&log, 5..6);
    assert_eq!(log.truncate_front(Lsn(5)).unwrap(), Lsn(5));
    commit(&log, 6..7);

    let killed = disk.files();
    let front = killed.epochs()[0];
    let continued = killed.frames(front).iter().filter(|f| f.kind == DATA && f.flags & CONTINUED != 0).count();
    assert!(front > 1 && continued > 1, "{continued} frames of segment {front}");
    let killed = MemDisk::new(&killed);
    assert_eq!(killed.verify().verdict, Some(Verdict::Unclosed));
    holds_records(&killed.open(OnDamage::Refuse).unwrap(), 5..7);

    log.close().unwrap();
    assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
    holds_records(&disk.open(OnDamage::Refuse).unwrap(), 5..7);
}

/// Bug: segments were destroyed that the log still needed. Cause: a front truncation took the start
/// for durable that another was still writing. Fix: one change of the state that is not records at
/// a time.
#[test]
fn a_front_truncation_waits_for_another_to_be_durable() {
    within_time(PATIENCE * 3, || {
        let disk = MemDisk::default();
        let gate = Arc::new(Gate::default());
        let keeper = gate.clone();
        let held = hooked_unreserving(disk.clone(), move |op, _| {
            if op.writes() {
                keeper.pass();
            }
            Ok(())
        });
        let log = small().disk(held).open(MEM).unwrap();
        for _ in 1..=20 {
            log.commit(&[5; 10_000]).unwrap();
        }
        log.truncate_front(Lsn(1)).unwrap(); // Makes `HOLDS`.
        let before = disk.files();
        gate.hold(1);
        thread::scope(|s| {
            let first = s.spawn(|| log.truncate_front(Lsn(12)).unwrap());
            gate.wait_held();
            let second = s.spawn(|| log.truncate_front(Lsn(12)).unwrap());
            thread::sleep(Duration::from_millis(200)); // More than it needs to drop segments, if it would.
            let (acknowledged, crash) = (second.is_finished(), disk.files());
            gate.open();
            assert_eq!([first.join().unwrap(), second.join().unwrap()], [Lsn(12); 2]);
            assert!(!acknowledged, "the start was not durable");
            assert!(crash == before, "{:?} are left", crash.epochs());
        });
        assert!(!disk.files().epochs().contains(&1));
        log.close().unwrap();
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
        assert_eq!(disk.open(OnDamage::Refuse).unwrap().start_lsn(), Lsn(12));
    });
}

/// Bug: new records were acknowledged and not to be read. Cause: a LINK beyond the break named a
/// start beyond the end, and recovery went by it. Fix: the start is never beyond the end.
#[test]
fn a_start_beyond_the_end_does_not_hide_new_records() {
    within_time(PATIENCE * 3, || {
        let disk = MemDisk::default();
        let (gate, held) = gated(&disk);
        let log = small().disk(held).open(MEM).unwrap();
        commit(&log, 1..3);
        log.append(&record(3)).unwrap();
        gate.hold(1);
        let crash = thread::scope(|s| {
            let log = &log;
            s.spawn(|| log.truncate_front(Lsn(4)).unwrap());
            gate.wait_held();
            // So much that it is written beside what is in the air.
            s.spawn(|| {
                for _ in 0..300 {
                    log.append(&[5; 10_000]).unwrap();
                }
                log.sync().unwrap();
            });
            until("the next segment's LINK", || disk.files().frame(2, 1).is_some());
            let crash = disk.files();
            gate.open();
            crash
        });
        assert_eq!(
            u64::from_le_bytes(crash.0[&segment_name(2)][BLOCK + 80 + 24..][..8].try_into().unwrap()),
            4,
            "the LINK's start"
        );
        let disk = MemDisk::new(&crash);
        let log = disk.open(OnDamage::Refuse).unwrap();
        assert_eq!(log.last_lsn(), Lsn(2));
        commit(&log, 3..4);
        assert_eq!(log.get(Lsn(3)).unwrap(), record(3));
        assert_eq!(collect(log.iter(Lsn::ZERO)).0.last(), Some(&(3, record(3))));
        log.close().unwrap();
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
        assert_eq!(disk.open(OnDamage::Refuse).unwrap().get(Lsn(3)).unwrap(), record(3));
    });
}

/// Bug: a damaged LINK hid acknowledged records, and the log counted as closed. Cause: the fast
/// path looked at the CLOSED mark at the end of the segment before, but not at its seal. Fix: a
/// sealed segment is not the end of a closed log.
#[test]
fn a_damaged_link_behind_a_closed_and_sealed_segment_is_corruption() {
    let disk = MemDisk::default();
    let log = disk.open(OnDamage::Refuse).unwrap();
    let next = fill_segment(&log, 1);
    for lsn in 1..=5 {
        log.hold("each a block of the reserve", Lsn(lsn)).unwrap();
    }
    log.close().unwrap();
    let last = disk.files().frame(1, 14).unwrap();
    assert_eq!((last.kind, last.flags), (MARK, CLOSED), "in the last block but for the seal's");
    let log = disk.open(OnDamage::Refuse).unwrap();
    commit(&log, next..next + 5);

    let mut files = disk.files();
    assert_eq!(files.frame(1, 15).unwrap().kind, SEAL);
    assert_eq!(files.frame(2, 1).unwrap().kind, LINK);
    files.flip(2, BLOCK + 40, 0);
    let damaged = MemDisk::new(&files);
    for verdict in [damaged.verify().verdict, damaged.view().verdict()] {
        let Some(Verdict::Corruption(damage)) = verdict else { panic!("{verdict:?}") };
        assert_eq!((damage.kind, damage.proven, damage.offset), (DamageKind::Garbled, true, BLOCK as u64));
        assert!(damage.path.ends_with(segment_name(2)));
    }
    let opened = damaged.open(OnDamage::Refuse);
    assert!(matches!(opened, Err(Error::Corruption(_))), "{opened:?}");
}

/// Bug: after a salvage, records had the LSNs of others. Cause: what lay behind the damage and had
/// no promise was copied, with LSNs in a row. Fix: it is made durable where it is.
#[test]
fn a_salvage_keeps_the_lsns_of_records_that_no_promise_covers() {
    let disk = MemDisk::default();
    let log = small().segment_bytes(2 * MIB).disk(Arc::new(disk.clone())).open(MEM).unwrap();
    let large = |lsn: u64| vec![lsn as u8; 30_000];
    log.commit(&large(1)).unwrap();
    for lsn in 2..=13 {
        log.append(&large(lsn)).unwrap(); // Two in a frame, all in one flush.
    }
    log.sync().unwrap();

    let mut files = disk.files();
    let frame = *files.frames(1).iter().find(|f| f.first_lsn == 4).unwrap();
    assert_eq!(frame.promise_lsn, 1);
    files.flip(1, frame.block * BLOCK + 1000, 0);
    let lost = 4..4 + u64::from(frame.records);
    assert_eq!(lost, 4..6);
    let disk = MemDisk::new(&files);
    let check = |log: &Log| {
        for lsn in 1..=13 {
            let got = log.get(Lsn(lsn));
            match lost.contains(&lsn) {
                true => assert!(matches!(got, Err(Error::GivenUp { .. })), "{lsn}: {:?}", got.map(|r| r[0])),
                false => assert!(got.unwrap() == large(lsn), "{lsn}"),
            }
        }
        let read = collect(log.iter(Lsn::ZERO)).0;
        assert!(read.iter().all(|(lsn, data)| *data == large(*lsn)));
        assert_eq!(read.len(), 11);
    };
    let log = disk.open(OnDamage::Salvage).unwrap();
    assert_eq!(log.recovery().given_up, [(Lsn(4), Lsn(5))]);
    check(&log);
    assert_eq!(log.last_lsn(), Lsn(13));
    log.close().unwrap();
    assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
    check(&disk.open(OnDamage::Refuse).unwrap());
}

/// Bug: a commit hung. Cause: a leader gathered its group; a hold's flush took its record along;
/// committer that arrived meanwhile left the lead to the leader, which saw nothing left to do for
/// itself. Fix: the thread that gathers leads, whatever became of its own record.
#[test]
fn a_leader_whose_record_was_taken_along_leads_all_the_same() {
    for _ in 0..5 {
        let disk = MemDisk::default();
        let (gate, held) = gated(&disk);
        let log = Arc::new(small().segment_bytes(MIB).disk(held).open(MEM).unwrap());
        // A slow flush, and behind it one of four committers: for them the next leader waits, half
        // as long as a flush takes.
        gate.hold(1);
        let mut warm = Vec::new();
        for lsn in 1..=5 {
            warm.push(commit_beside(&log, lsn));
            gate.wait_held();
        }
        thread::sleep(Duration::from_millis(200));
        gate.open();
        for commit in warm {
            commit.recv_timeout(PATIENCE).expect("a commit hangs");
        }

        let leader = commit_beside(&log, 6);
        let holder = log.clone();
        within_time(PATIENCE, move || holder.hold("a hold", Lsn(1)).unwrap());
        let follower = commit_beside(&log, 7);
        assert_eq!(leader.recv_timeout(PATIENCE).expect("the leader hangs"), Lsn(6));
        assert_eq!(follower.recv_timeout(PATIENCE).expect("a follower hangs"), Lsn(7));
    }
}

/// The same with random timing: whichever thread flushes which record, no thread hangs.
#[test]
fn commits_holds_and_syncs_that_race_all_end() {
    within_time(PATIENCE * 3, || {
        let disk = Arc::new(MemDisk::default());
        let log = small().segment_bytes(4 * MIB).disk(disk.clone()).open(MEM).unwrap();
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..400 {
                        log.commit(b"a record").unwrap();
                    }
                });
            }
            s.spawn(|| (0..400).for_each(|_| log.hold("a hold", log.last_lsn()).unwrap()));
            s.spawn(|| {
                for _ in 0..400 {
                    log.append(b"a record").unwrap();
                    log.sync().unwrap();
                }
            });
        });
        assert_eq!(log.durable_lsn(), Lsn(1600));
        log.close().unwrap();
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
    });
}

/// Bug: a log did not reopen well after a cut at the back for which there was no space. Cause: the
/// segments it had begun stayed, with copies in them, and were used as prepared ones. Fix: they are
/// removed, and a segment that is not blank does not count as prepared.
#[test]
fn a_cut_at_the_back_without_space_changes_nothing() {
    let disk = MemDisk::default();
    let budget = Arc::new(AtomicU64::new(u64::MAX));
    let left = budget.clone();
    let full = hooked_unreserving(disk.clone(), move |op, _| {
        let Op::Allocate(bytes) = op else { return Ok(()) };
        let spend = |left: u64| left.checked_sub(bytes);
        match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    });
    let log = small().disk(full).open(MEM).unwrap();
    commit(&log, 1..2);
    // One unit over many segments: cutting off its end means to write all before it again.
    let batch: Vec<_> = (2..=200).map(record).collect();
    log.commit_batch(&batch).unwrap();
    let before = disk.files();
    assert!(before.epochs().len() > 3, "{:?}", before.epochs());
    for segments in 0..3 {
        budget.store(segments * (64 << 10), Ordering::Relaxed);
        let cut = log.truncate_back(Lsn(200));
        assert!(matches!(cut, Err(Error::NoSpace { .. })), "{cut:?}");
        assert!(disk.files().epochs() == before.epochs(), "{:?} are left", disk.files().epochs());
        assert_eq!(log.last_lsn(), Lsn(200));
    }
    budget.store(u64::MAX, Ordering::Relaxed);
    holds_records(&log, 1..201);
    commit(&log, 201..203);
    log.close().unwrap();
    for last in [230, 260] {
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
        let log = disk.open(OnDamage::Refuse).unwrap();
        assert_eq!(log.recovery().verdict, Verdict::Clean);
        let next = log.last_lsn().0 + 1;
        holds_records(&log, 1..next);
        commit(&log, next..last + 1);
        log.close().unwrap();
    }
    holds_records(&disk.open(OnDamage::Refuse).unwrap(), 1..261);
}

/// Bug: records that were never appended. Cause: what an attempt left that got as far as writing
/// frames, but no LINK, counted as a prepared segment, and behind the first new frame there the
/// old ones counted. Fix: only a blank segment is a prepared one.
#[test]
fn a_segment_that_an_attempt_began_is_not_taken_for_a_prepared_one() {
    let closed = Files::closed(|log| _ = log.commit_batch(&[record(1), record(2), record(3), record(4)]).unwrap());
    let disk = MemDisk::new(&closed);
    let log = disk.open(OnDamage::Refuse).unwrap();
    log.truncate_back(Lsn(3)).unwrap();
    // The cut as it was before its LINK: copies of the records that it keeps.
    let mut begun = disk.files();
    assert_eq!(begun.frame(2, 2).map(|f| (f.first_lsn, f.records)), Some((1, 2)));
    begun.unwrite(2, 1..2);
    begun.unwrite(2, 3..16);
    let mut files = closed;
    files.insert(2, begun.remove(2));

    let disk = MemDisk::new(&files);
    assert_eq!(disk.verify().verdict, Some(Verdict::TornTail));
    let log = disk.open(OnDamage::Refuse).unwrap();
    assert_eq!(log.recovery().verdict, Verdict::TornTail);
    holds_records(&log, 1..5);
    commit(&log, 5..9);
    let killed = MemDisk::new(&disk.files());
    assert_eq!(killed.verify().verdict, Some(Verdict::Unclosed));
    holds_records(&killed.open(OnDamage::Refuse).unwrap(), 1..9);
}

/// Bug: a salvage did not get past a damaged LINK. Cause: the chain needs the LINK that the waiver
/// leads past. Fix: the waiver stands for it.
#[test]
fn a_salvage_leads_past_a_damaged_link() {
    let files = Files::closed(|log| commit(log, 1..40));
    assert!(files.epochs().len() > 4);
    for epoch in [2, 3] {
        let mut files = files.clone();
        files.flip(epoch, BLOCK + 40, 0);
        let disk = MemDisk::new(&files);
        let log = disk.open(OnDamage::Salvage).unwrap();
        assert!(matches!(log.recovery().verdict, Verdict::Corruption(_)));
        assert_eq!(log.recovery().given_up, []);
        holds_records(&log, 1..40);
        commit(&log, 40..42);
        log.close().unwrap();
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
        holds_records(&disk.open(OnDamage::Refuse).unwrap(), 1..42);
    }
}

/// Bug: a salvage was refused, for more than 32 stretches, or never ended. Cause: it resumed in a
/// file with neither its LINK nor its length, of which the survey makes no use, so that each round
/// found the same damage. Fix: such a file is given up whole.
#[test]
fn a_salvage_gives_up_a_cut_file_whose_link_is_damaged() {
    for epoch in [1, 2, 3] {
        let mut files = Files::closed(|log| commit(log, 1..40));
        files.flip(epoch, BLOCK + 40, 0);
        let segment = files.segment(epoch);
        segment.truncate(segment.len() - BLOCK);
        let disk = MemDisk::new(&files);
        let log = within_time(PATIENCE, {
            let disk = disk.clone();
            move || disk.open(OnDamage::Salvage).unwrap()
        });
        let [(first, last)] = log.recovery().given_up[..] else { panic!("{:?}", log.recovery().given_up) };
        for lsn in (1..40).map(Lsn) {
            let given_up = (first..=last).contains(&lsn);
            assert!(if given_up { log.get(lsn).is_err() } else { log.get(lsn).unwrap() == record(lsn.0) }, "{lsn}");
        }
        assert!(last < Lsn(39));
        log.close().unwrap();
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
    }
}

/// Bug: a log was salvaged, and what lay behind the damage could not be read. Cause: a reader
/// looked for it from the LINK on, though the waiver led from an earlier segment to a place behind
/// it. Fix: it looks from there.
#[test]
fn a_salvage_that_leads_into_the_middle_of_a_segment_can_be_read() {
    let mut files = Files::closed(|log| {
        commit(log, 1..3);
        // Its end is in the segment behind the next.
        log.commit(&[7; 70_000]).unwrap();
        commit(log, 4..7);
    });
    let rest = *files.frames(3).iter().find(|f| f.flags == CONTINUED).unwrap();
    assert_eq!((rest.block, rest.first_lsn), (2, 4));
    assert!(rest.blocks > 3, "its end is longer than what follows it");
    // A write that was acknowledged and never came.
    files.unwrite(3, rest.block..rest.block + rest.blocks);
    let disk = MemDisk::new(&files);
    let check = |log: &Log| {
        (4..7).for_each(|lsn| assert_eq!(log.get(Lsn(lsn)).unwrap(), record(lsn)));
        holds_records(log, [1, 2, 4, 5, 6]);
        assert!(matches!(log.get(Lsn(3)), Err(Error::GivenUp { .. })));
    };
    let log = disk.open(OnDamage::Salvage).unwrap();
    assert_eq!(log.recovery().given_up, [(Lsn(3), Lsn(3))]);
    check(&log);
    log.close().unwrap();
    assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
    check(&disk.open(OnDamage::Refuse).unwrap());
}

/// Bug: after a salvage and a cut at the back, records had the LSNs of others. Cause: the place of
/// the cut was looked for across what had been given up, and found before it if nothing was written
/// there; what was copied from there on closed the gap. Fix: it is looked for behind it.
#[test]
fn a_cut_behind_a_salvage_keeps_the_lsns() {
    let mut files = Files::closed(|log| commit(log, 1..9));
    assert_eq!(files.frame(1, 5).map(|f| f.first_lsn), Some(4));
    files.unwrite(1, 5..7);
    for cut in 1..9 {
        let disk = MemDisk::new(&files);
        let log = disk.open(OnDamage::Salvage).unwrap();
        assert_eq!(log.recovery().given_up, [(Lsn(4), Lsn(5))]);
        log.truncate_back(Lsn(cut)).unwrap();
        // A cut within a part that was given up removes all of that part.
        let next = if cut == 5 { 4 } else { cut };
        let there = (1..next).filter(|lsn| !(4..6).contains(lsn)).chain(next..12);
        commit(&log, next..12);
        holds_records(&log, there.clone());
        log.close().unwrap();
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
        holds_records(&disk.open(OnDamage::Refuse).unwrap(), there);
    }
}

/// Bug: verifying never ended. Cause: a waiver may lead a reader backward, to where it comes by the
/// waiver again. Fix: a state with such a waiver does not add up.
#[test]
fn a_waiver_that_leads_backward_ends_no_reader_in_a_circle() {
    for to_block in [4u32, 5] {
        let mut files = Files::crashed(|log| {
            commit(log, 1..3);
            log.hold("a mark", Lsn(1)).unwrap();
            commit(log, 3..5);
        });
        assert_eq!(files.frame(1, 4).unwrap().kind, MARK);
        // By the document: start 1, no hold, and one waiver, from block 5 to itself or to the mark;
        // no record is lost.
        let mut control = Vec::new();
        control.extend(1u64.to_le_bytes());
        control.extend([0, 0, 1, 0, 0, 0, 0, 0]);
        control.extend([1u64.to_le_bytes(), 1u64.to_le_bytes()].concat());
        control.extend([5u32.to_le_bytes(), to_block.to_le_bytes()].concat());
        control.extend([3u64.to_le_bytes(), 2u64.to_le_bytes()].concat());
        files.forge(1, 4, |frame| {
            frame[16..20].copy_from_slice(&(control.len() as u32).to_le_bytes());
            frame[80..504].fill(0);
            frame[80..80 + control.len()].copy_from_slice(&control);
        });
        let disk = MemDisk::new(&files);
        let report = within_time(PATIENCE, {
            let disk = disk.clone();
            move || disk.verify()
        });
        let Some(Verdict::Corruption(damage)) = report.verdict else { panic!("{:?}", report.verdict) };
        assert_eq!((damage.kind, damage.offset), (DamageKind::Structure, 4 * BLOCK as u64));
        assert_eq!(report.last_lsn, Lsn(2));
        for action in [OnDamage::Refuse, OnDamage::StopAtDamage, OnDamage::Salvage] {
            let disk = MemDisk::new(&files);
            let opened = within_time(PATIENCE, move || disk.open(action).map(|log| collect(log.iter(Lsn::ZERO)).0));
            match action {
                OnDamage::Refuse => assert!(matches!(opened, Err(Error::Corruption(_))), "{opened:?}"),
                OnDamage::StopAtDamage => assert_eq!(opened.unwrap().len(), 2),
                _ => assert_eq!(opened.unwrap().len(), 4),
            }
        }
    }
}

/// A log of ten records opens so, takes twenty more, and is whole after that.
fn goes_on_from_10(disk: &MemDisk, action: OnDamage) {
    let log = disk.open(action).unwrap();
    holds_records(&log, 1..11);
    commit(&log, 11..31);
    log.close().unwrap();
    assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
    holds_records(&disk.open(OnDamage::Refuse).unwrap(), 1..31);
}

/// Bug: a panic (overflow). Cause: a file whose name is the highest epoch there is, after which
/// another was wanted. Fix: no name beyond what a log reaches is that of a segment.
#[test]
fn a_file_with_the_name_of_the_last_epoch_is_no_segment() {
    let files = Files::closed(|log| commit(log, 1..11));
    for action in [OnDamage::Refuse, OnDamage::StopAtDamage, OnDamage::Salvage] {
        for contents in [b"zz".to_vec(), files.0[&segment_name(1)].clone()] {
            let mut strange = files.clone();
            strange.insert(u64::MAX, contents);
            let disk = MemDisk::new(&strange);
            assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
            goes_on_from_10(&disk, action);
        }
    }
}

/// Bug: what was appended after a repair was lost. Cause: the repair went on in a segment behind a
/// strange file with the last epoch that a segment may have, where none is looked for. Fix: a name
/// so high does not decide where the log continues.
#[test]
fn a_repair_goes_on_below_the_last_epoch() {
    let files = Files::closed(|log| commit(log, 1..11));
    for strange_epoch in [u64::MAX >> 8, (u64::MAX >> 8) - 1, 1 << 40] {
        for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
            for contents in [b"zz".to_vec(), files.0[&segment_name(1)].clone()] {
                let mut strange = files.clone();
                strange.insert(strange_epoch, contents);
                let disk = MemDisk::new(&strange);
                assert!(matches!(disk.open(OnDamage::Refuse), Err(Error::Corruption(_))));
                goes_on_from_10(&disk, action);
            }
        }
    }
}

/// Bug: a panic (overflow), or records under LSNs that begin anew. Cause: a frame whose checksums
/// hold names one of the last LSNs there are, and a salvage went on behind that. Fix: a frame with
/// an LSN that no log reaches is not valid, and a log stops far below that.
#[test]
fn no_log_goes_on_at_the_end_of_all_lsns() {
    let at = |first: u64| {
        let mut files = Files::crashed(|log| commit(log, 1..3));
        let put = |files: &mut Files, block, place, value: u64| {
            files.forge(1, block, |frame| frame[place..place + 8].copy_from_slice(&value.to_le_bytes()));
        };
        for (block, lsn) in [(1, first), (2, first), (3, first.wrapping_add(1))] {
            put(&mut files, block, 48, lsn);
        }
        put(&mut files, 1, 80 + 24, first); // The start.
        put(&mut files, 3, 40, first);
        MemDisk::new(&files)
    };
    let low = at((1 << 62) - 3);
    let next = low.open(OnDamage::Refuse).unwrap().commit(b"a record").unwrap();
    assert_eq!(next, Lsn((1 << 62) - 1));
    for first in [1 << 62, (1 << 63) - 3] {
        let high = at(first);
        assert_eq!((high.verify().verdict, high.view().last_lsn().unwrap()), (Some(Verdict::Unclosed), Lsn(first + 1)));
        for action in [OnDamage::Refuse, OnDamage::StopAtDamage, OnDamage::Salvage] {
            assert!(matches!(high.open(action), Err(Error::Invalid { .. })));
        }
    }
    for first in [(1 << 63) - 2, u64::MAX - 2] {
        assert!(matches!(at(first).verify().verdict, Some(Verdict::Corruption(_))));
    }
}

/// Bug: a log could not be read after a recovery. Cause: a LINK whose checksums hold
/// promised a place behind the end of its segment, and recovery named that as the segment's end.
/// Fix: such a frame is damage.
#[test]
fn a_promise_of_a_place_that_its_segment_does_not_have_is_damage() {
    let mut files = Files::crashed(|log| commit(log, 1..5));
    files.forge(1, 1, |link| {
        link[28..32].copy_from_slice(&518u32.to_le_bytes());
        link[32..40].copy_from_slice(&1u64.to_le_bytes());
    });
    let disk = MemDisk::new(&files);
    for verdict in [disk.verify().verdict, disk.view().verdict()] {
        let Some(Verdict::Corruption(damage)) = verdict else { panic!("{verdict:?}") };
        assert_eq!((damage.kind, damage.offset), (DamageKind::Structure, BLOCK as u64));
    }
    for action in [OnDamage::Refuse, OnDamage::StopAtDamage, OnDamage::Salvage] {
        let disk = MemDisk::new(&files);
        let log = match disk.open(action) {
            Err(Error::Corruption(_)) if action == OnDamage::Refuse => continue,
            opened => opened.unwrap(),
        };
        let (before, error) = collect(log.iter(Lsn::ZERO));
        assert!(error.is_none(), "{error:?}");
        let next = log.commit(b"a record").unwrap();
        log.close().unwrap();
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
        let (after, error) = collect(disk.open(OnDamage::Refuse).unwrap().iter(Lsn::ZERO));
        assert!(error.is_none(), "{error:?}");
        assert_eq!((&after[..before.len()], after.last().unwrap().0), (&before[..], next.0));
    }
}

/// Bug: a reader slept forever after its log had failed. Cause: a cut at the back that fails
/// poisons the log outside of a flush, and woke no reader. Fix: the cut wakes all.
#[test]
fn a_reader_that_waits_hears_that_the_log_is_poisoned() {
    for by_cut in [false, true] {
        let broken = Arc::new(AtomicBool::new(false));
        let breaks = broken.clone();
        // (A cut that cannot write to the segment that is to follow changes nothing; one that
        // cannot seal this one does.)
        let fails = move |op| op == Op::WriteDurable && breaks.load(Ordering::Relaxed);
        let disk = hooked_unreserving(MemDisk::default(), move |op, _| match fails(op) {
            true => Err(io::Error::other("broken")),
            false => Ok(()),
        });
        let hook = |_| {};
        // (With a segment ready: that one cannot be made is no failure of the log.)
        let log = small().spare_segments(1).disk(disk).on_error(hook).open(MEM).unwrap();
        commit(&log, 1..4);
        let mut reader = log.reader_at(Lsn(4));
        let (tell, hear) = mpsc::channel();
        thread::spawn(move || tell.send(reader.wait_next(None).map(|r| r.map(|r| r.lsn))));
        thread::sleep(Duration::from_millis(100)); // It sleeps by now; if not, the test is only easier.
        broken.store(true, Ordering::Relaxed);
        let failed = if by_cut { log.truncate_back(Lsn(2)).map(|()| Lsn::ZERO) } else { log.commit(b"a record") };
        assert!(failed.is_err(), "{failed:?}");
        let heard = hear.recv_timeout(PATIENCE).expect("the reader hears nothing");
        assert!(matches!(heard, Err(Error::Poisoned(_))), "{heard:?}");
        assert!(matches!(log.append(b"a record"), Err(Error::Poisoned(_))));
    }
}

/// Bug: ordinary records used up the reserve for checkpoints. Cause: they joined a checkpoint's
/// frame there while it waited for its flush. Fix: the frame is closed at once.
#[test]
fn an_ordinary_record_does_not_join_a_checkpoint_in_the_reserve() {
    within_time(PATIENCE * 3, || {
        let disk = MemDisk::default();
        let (gate, held) = gated(&disk);
        let log = Arc::new(small().disk(held).open(MEM).unwrap());
        commit(&log, 1..7);
        gate.hold(1);
        // The last block that is not of the reserve, on its way.
        let beside = commit_beside(&log, 7);
        gate.wait_held();
        let checkpointer = log.clone();
        let checkpoint = thread::spawn(move || checkpointer.commit_checkpoint(&record(8)).unwrap());
        until("the checkpoint's LSN", || log.last_lsn() == Lsn(8));
        assert_eq!(log.append(&record(9)).unwrap(), Lsn(9));
        gate.open();
        assert_eq!(checkpoint.join().unwrap(), Lsn(8));
        assert_eq!(beside.recv_timeout(PATIENCE).unwrap(), Lsn(7));
        log.sync().unwrap();
        let files = disk.files();
        let reserved = files.frame(1, 9).unwrap();
        assert_eq!((reserved.kind, reserved.first_lsn, reserved.records), (DATA, 8, 1));
        assert_eq!(files.frame(2, 2).map(|f| (f.kind, f.first_lsn)), Some((DATA, 9)));
        holds_records(&log, 1..10);
    });
}

/// Bug: a log that had failed hung when it was dropped. Cause: the background thread, which tells
/// of the failure without the lock, did not look whether it had been told to stop meanwhile before
/// it slept. Fix: it looks again.
#[test]
fn a_log_that_is_dropped_while_its_failure_is_reported_does_not_hang() {
    use std::sync::mpsc;
    use std::time::Duration;
    let dir = tempfile::tempdir().unwrap();
    let (reporting, reports) = mpsc::channel();
    let disk = foreword_sim::SimDisk::new(1);
    let options = foreword::Options::new().segment_bytes(64 << 10).disk(disk.handle()).on_error(move |_| {
        let _ = reporting.send(());
        std::thread::sleep(Duration::from_millis(200)); // Long enough for the drop to say stop.
    });
    let log = options.open(dir.path()).unwrap();
    disk.power_off_at(disk.changes() + 1);
    assert!(log.commit(b"x").is_err());
    reports.recv_timeout(Duration::from_secs(10)).unwrap();
    let (dropped, done) = mpsc::channel();
    std::thread::spawn(move || {
        drop(log);
        let _ = dropped.send(());
    });
    done.recv_timeout(Duration::from_secs(10)).expect("the drop ends");
}

/// Bulk appends were held to what one thread can encode and write.
#[test]
fn an_appender_that_outruns_the_background_thread_writes_beside_it() {
    let disk = MemDisk::default();
    let (gate, held) = gated(&disk);
    let options = Options::new().segment_bytes(32 * MIB).sync(SyncPolicy::manual()).disk(held);
    let log = Arc::new(options.open(MEM).unwrap());
    let append = |records: u64| {
        for _ in 0..records {
            log.append(&[7; 64 << 10]).unwrap();
        }
    };
    gate.hold(1);
    append(24); // So much that the background writes, and too little for the appender to.
    gate.wait_held();
    let before = log.stats().written_bytes;
    append(72); // There is space for it in the buffers, so that no call has to wait.
    let (beside, written) = (log.stats().written_bytes - before, log.written_lsn());
    gate.open();
    assert!(beside >= 2 * MIB, "{beside} bytes");
    assert_eq!(written, Lsn::ZERO, "what lies before it was not written");
    let syncing = log.clone();
    assert_eq!(within_time(PATIENCE, move || syncing.sync().unwrap()), Lsn(6 * 16));
    assert_eq!(collect(log.iter(Lsn::ZERO)).0.len(), 6 * 16);
}

/// Bug: a log that was killed soon after much had been appended without a sync, and closed, was
/// read from its beginning (16 GiB took 19 s). Cause: reading began at the promise of the newest
/// segment's LINK, which was made before anything was synced. Fix: a later frame of that segment
/// may promise more.
#[test]
fn recovery_reads_one_segment_of_what_was_closed_before_the_kill() {
    for records in [300, 340, 400] {
        let disk = MemDisk::default();
        let options =
            || Options::new().segment_bytes(256 << 10).sync(SyncPolicy::manual()).background(false).disk(Arc::new(disk.clone()));
        let log = options().open(MEM).unwrap();
        // Some end a segment, and some are in two.
        (1..=records).for_each(|lsn| assert_eq!(log.append(&[7; 9000]).unwrap(), Lsn(lsn)));
        log.close().unwrap();
        let log = options().open(MEM).unwrap();
        log.commit(b"more").unwrap();
        log.commit(b"and more").unwrap();
        let killed = MemDisk::new(&disk.files());
        let log = Options::new().disk(Arc::new(killed)).open(MEM).unwrap();
        let report = log.recovery();
        assert_eq!((report.verdict.name(), report.last_lsn), ("unclosed", Lsn(records + 2)));
        assert!(report.scanned_bytes <= 256 << 10, "{} bytes were read of {records} records", report.scanned_bytes);
        assert_eq!(collect(log.iter(Lsn::ZERO)).0.len() as u64, records + 2);
    }
}

/// A disk on which a writer comes just before a reader opens one file (or asks for its lock), and
/// drops segments, begins others and goes just before another.
fn visited(disk: &MemDisk, comes: u64, goes: u64, next: u64) -> Arc<Hooked<MemDisk>> {
    let options = Options::new().segment_bytes(64 << 10).background(false).disk(Arc::new(disk.clone()));
    let (looks, writer) = (AtomicU64::new(0), Mutex::new(None));
    hooked_unreserving(disk.clone(), move |op, _| {
        if matches!(op, Op::Open(Access::Read) | Op::IsLocked) {
            let at = looks.fetch_add(1, Ordering::Relaxed);
            if at == comes {
                *writer.lock().unwrap() = Some(options.clone().open(MEM).unwrap());
            }
            if at == goes
                && let Some(log) = writer.lock().unwrap().take()
            {
                (next..2 * next).for_each(|lsn| assert_eq!(log.commit(&[7; 9000]).unwrap(), Lsn(lsn)));
                log.truncate_front(Lsn(next)).unwrap();
                log.close().unwrap();
            }
        }
        Ok(())
    })
}

#[test]
fn a_writer_that_comes_and_goes_while_a_log_is_looked_at_makes_no_damage_of_it() {
    const NEXT: u64 = 13;
    let made = MemDisk::default();
    let log = Options::new().segment_bytes(64 << 10).disk(Arc::new(made.clone())).open(MEM).unwrap();
    (1..NEXT).for_each(|_| _ = log.commit(&[7; 9000]).unwrap());
    log.close().unwrap();
    for comes in 0.. {
        for goes in [0, 1, 2, 4, 8, 16].map(|more| comes + more) {
            let disks: [_; 3] = std::array::from_fn(|_| MemDisk::new(&made.files()));
            let [viewed, verified, listed] = disks.each_ref().map(|disk| visited(disk, comes, goes, NEXT));
            let view = View::open_on(viewed, MEM).unwrap();
            let report = foreword::Verify::new().disk(verified).run(MEM).unwrap();
            foreword::inspect::segments_on(listed, MEM).unwrap();
            // (It is still there if the reader opened fewer files.)
            assert!(matches!(report.verdict, None | Some(Verdict::Clean)), "from {comes} to {goes}: {report:?}");
            let seen = (view.last_lsn().unwrap(), view.verdict());
            let last = |disk: MemDisk| foreword::Verify::new().disk(Arc::new(disk)).run(MEM).unwrap().last_lsn;
            let lasts = disks.map(last);
            // (A writer may come when all was read, too.)
            if !view.has_writer() {
                assert!([Lsn(NEXT - 1), lasts[0]].contains(&seen.0), "from {comes} to {goes}: {seen:?}");
                assert_eq!(seen.1, Some(Verdict::Clean), "from {comes} to {goes}");
            }
            if goes == comes && lasts == [Lsn(NEXT - 1); 3] {
                assert!(comes > 10, "files are opened for reading");
                return;
            }
        }
    }
}

#[test]
fn a_segment_for_which_there_is_no_room_is_not_asked_for_with_every_append() {
    let (full, tries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (is_full, tried) = (full.clone(), tries.clone());
    let disk = hooked_unreserving(MemDisk::default(), move |op, _| match op {
        Op::Allocate(_) if is_full.load(Ordering::Relaxed) => {
            tried.fetch_add(1, Ordering::Relaxed);
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    });
    let log = Options::new().segment_bytes(MIB).sync(SyncPolicy::manual()).disk(disk).open(MEM).unwrap();
    full.store(true, Ordering::Relaxed);
    (0..40).for_each(|_| _ = log.append(&[7; 10_000]).unwrap());
    until("the first try", || tries.load(Ordering::Relaxed) > 0);
    for _ in 0..50 {
        log.append(b"more").unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    assert!(tries.load(Ordering::Relaxed) <= 2, "{tries:?} in a tenth of a second");
    // The log tries again later by itself.
    full.store(false, Ordering::Relaxed);
    until("the next segment", || log.stats().segments_prepared == 1);
}

/// Where `LOCK` was removed, the writer that was may still remove what it had dropped, until it
/// lets go of `LOG`.
#[test]
fn what_another_writer_removed_before_it_let_go_is_not_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let keeps = hooked(OsDisk::new(), |op, name| match op {
        Op::Remove if name.ends_with(".seg") => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    });
    let first = Options::new().segment_bytes(64 << 10).background(false).on_error(|_| {}).disk(keeps).open(dir.path()).unwrap();
    (1..60).for_each(|lsn| assert_eq!(first.commit(&[7; 9000]).unwrap(), Lsn(lsn)));
    first.truncate_front(Lsn(60)).unwrap();
    let segments = foreword::inspect::segments(dir.path()).unwrap();
    let current = segments.iter().position(|s| s.state == foreword::inspect::SegmentState::Current).unwrap();
    let dropped: Vec<_> = segments[..current].iter().map(|s| s.path.clone()).collect();
    assert!(!dropped.is_empty(), "{segments:?}");
    std::fs::remove_file(dir.path().join("LOCK")).unwrap();
    let first = Mutex::new(Some(first));
    let second = hooked(OsDisk::new(), move |op, name| {
        if op == Op::Lock
            && name == "LOG"
            && let Some(first) = first.lock().unwrap().take()
        {
            dropped.iter().for_each(|path| std::fs::remove_file(path).unwrap());
            drop(first);
        }
        Ok(())
    });
    let log = Options::new().segment_bytes(64 << 10).disk(second).open(dir.path()).unwrap();
    assert_eq!((log.start_lsn(), log.last_lsn()), (Lsn(60), Lsn(59)));
    log.close().unwrap();
}

/// Bug: a damaged `LOG` hid what else was damaged, and a repair gave that up without a word. Cause:
/// the plan ended with `LOG`. Fix: what is damaged besides is planned for.
#[test]
fn a_repair_of_a_damaged_identity_sees_what_else_is_damaged() {
    let mut files = Files::closed(|log| commit(log, 1..8));
    files.flip(1, 4 * BLOCK + 70, 1);
    let sound = MemDisk::new(&files);
    files.0.insert("LOG".into(), b"zzz".to_vec());
    let damaged = MemDisk::new(&files);
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let plan = |disk: &MemDisk| foreword::repair_plan_on(std::sync::Arc::new(disk.clone()), MEM, action).unwrap();
        let (expected, found) = (plan(&sound), plan(&damaged));
        assert_eq!((&found.given_up, found.last_lsn), (&expected.given_up, expected.last_lsn), "{action:?}");
        assert!(!found.given_up.is_empty() && found.put_aside.contains(&"LOG".to_owned()), "{found:?}");
        let disk = MemDisk::new(&files);
        let log = disk.open(action).unwrap();
        assert_eq!(log.recovery().given_up, expected.given_up, "{action:?}");
        log.close().unwrap();
        assert_eq!(disk.verify().verdict, Some(Verdict::Clean));
    }
}

/// Bug: where nothing of the newest records is left, a repair that stops at earlier damage said
/// that it knew all that it gave up; where no segment is left, that it gave up nothing. Cause: it
/// looked behind the first damage alone; the damage's file is `LOG`. Fix: what a salvage would find
/// decides.
#[test]
fn what_nothing_is_left_of_is_unknown_whatever_else_is_damaged() {
    let files = Files::closed(|log| commit(log, 1..24));
    let plan = |files: &Files, action| {
        foreword::repair_plan_on(std::sync::Arc::new(MemDisk::new(files)), MEM, action).unwrap().unknown_from
    };
    let mut two = files.clone();
    let newest = *two.epochs().last().unwrap();
    two.remove(newest);
    two.flip(2, 4 * BLOCK + 70, 1);
    let mut none = files.clone();
    none.epochs().into_iter().for_each(|epoch| drop(none.remove(epoch)));
    let mut known = files;
    known.flip(2, 4 * BLOCK + 70, 1);
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        assert_eq!(plan(&two, action), Some(Lsn(22)), "{action:?}");
        assert_eq!(plan(&none, action), Some(Lsn::FIRST), "{action:?}");
        assert_eq!(plan(&known, action), None, "{action:?}");
    }
}
