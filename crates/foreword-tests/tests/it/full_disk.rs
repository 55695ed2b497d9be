//! A full disk, and a program that crashes again and again, end in a running log: nothing gets
//! stuck, and nothing grows without records.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use foreword::disk::Access;
use foreword::{Error, Log, Lsn, Options, Verdict, View};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};
use foreword_tests::hooked::*;
use foreword_tests::*;

const MIB: u64 = 1 << 20;

fn on(disk: &SimDisk) -> Options {
    small().on_error(|_| ()).disk(disk.handle())
}

fn open(disk: &SimDisk) -> Log {
    on(disk).open("/log").unwrap()
}

fn lsns(log: &Log) -> Vec<u64> {
    let (records, error) = collect(log.iter(Lsn::ZERO));
    assert!(error.is_none(), "{error:?}");
    assert!(records.iter().all(|(lsn, data)| *data == record(*lsn)), "wrong bytes");
    records.into_iter().map(|r| r.0).collect()
}

/// What a cut takes of the reserve comes back before records get space, also the space of dropped
/// segments: else cuts in two segments would use it up, and a killed log would not open.
#[test]
fn space_is_first_of_all_the_reserves() {
    let mut disk = SimDisk::new(1);
    let mib = |disk: &SimDisk| on(disk).segment_bytes(MIB);
    let mut log = mib(&disk).open("/log").unwrap();
    // As many records as take a part of a segment, or as there is room for.
    let append = |log: &Log, bytes: u64| {
        let end = log.stats().record_bytes + bytes;
        while log.stats().record_bytes < end {
            match log.commit(&[7; 3_900]) {
                Ok(_) => {}
                Err(Error::NoSpace { .. }) => return,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    append(&log, 4 * MIB + MIB / 2);
    disk.set_free(0);
    let mut alone = 0;
    for _ in 0..6 {
        for _ in 0..2 {
            // It takes a part of the reserve, unless one of its segments is written again.
            log.truncate_back(log.last_lsn()).unwrap();
            alone += u32::from(reserve(&disk).len() == 1);
            // The front segment is dropped, and something else takes what is left of its space.
            let first = disk.files()[0].0.clone();
            while disk.files()[0].0 == first {
                log.truncate_front(Lsn(log.start_lsn().0 + 20)).unwrap();
            }
            disk.set_free(0);
            append(&log, MIB);
        }
        let killed = disk.kill();
        drop(log);
        log = mib(&killed).open("/log").unwrap();
        disk = killed;
        append(&log, MIB / 2);
    }
    assert!(alone > 0);
}

/// Bytes of disk blocks that the log's directory takes, and its number of files.
fn taken(disk: &SimDisk) -> (u64, usize) {
    (disk.used(), disk.files().len())
}

/// A log with records from 1 on, whose disk is full behind it and stays so; closed or not. Its
/// newest segment has `left` blocks for records.
fn full(left: u64) -> (SimDisk, Log, u64) {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    let next = fill_segment(&log, 1);
    let next = fill_segment(&log, next);
    commit(&log, next..next + 7 - left);
    disk.set_free(0);
    (disk, log, next + 7 - left)
}

#[test]
fn a_log_that_is_killed_on_a_full_disk_opens_and_makes_room() {
    for left in 0..7 {
        let (disk, log, next) = full(left);
        let killed = disk.kill();
        drop(log);
        let log = open(&killed);
        assert_eq!(lsns(&log), (1..next).collect::<Vec<_>>(), "{left}");
        log.commit_checkpoint(&record(next)).unwrap();
        // What the first segments hold is not needed any more, and their room is there again.
        log.truncate_front(Lsn(next)).unwrap();
        commit(&log, next + 1..next + 12);
        log.close().unwrap();
        assert_eq!(lsns(&open(&killed)), (next..next + 12).collect::<Vec<_>>());
    }
}

#[test]
fn a_log_opens_on_a_full_disk_however_often_it_is_killed_and_whatever_is_torn() {
    // Those that are packed when they are written again, and those that are not.
    for bytes in [0, 100, 900, 3_900] {
        for segment_bytes in [64 << 10, 128 << 10, 384 << 10, MIB] {
            killed_on_a_full_disk(bytes, segment_bytes);
        }
    }
}

fn killed_on_a_full_disk(bytes: usize, segment_bytes: u64) {
    let mut disk = SimDisk::new(1);
    let open = |disk: &SimDisk| on(disk).segment_bytes(segment_bytes).open("/log").unwrap();
    let log = open(&disk);
    let record = |lsn: u64| vec![lsn as u8; bytes];
    let mut next = 1;
    while log.stats().segments < 3 {
        log.commit(&record(next)).unwrap();
        next += 1;
    }
    disk.set_free(0);
    let mut dead = log;
    let mut refused = 0;
    for round in 0..100 {
        let killed = if round % 2 == 0 { disk.kill() } else { disk.crash(&Choice::All) };
        drop(std::mem::replace(&mut dead, open(&killed)));
        disk = killed;
        let (records, error) = collect(dead.iter(Lsn::ZERO));
        assert!(error.is_none(), "{error:?}");
        let found: Vec<_> = records.into_iter().map(|r| r.0).collect();
        assert_eq!(found, (1..next).collect::<Vec<_>>(), "{round}");
        // Records as long as there is room for any, then one that is torn.
        match dead.append_with(&record(next), foreword::Durability::Written) {
            Ok(_) => next += 1,
            Err(Error::NoSpace { .. }) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    // It is not at its end: the front can be dropped, and then there is room.
    dead.truncate_front(Lsn(next)).unwrap();
    for _ in 0..5 {
        dead.commit(&record(next)).unwrap(); // (The reserve is made again first.)
        next += 1;
    }
    println!("{bytes} bytes, segments of {segment_bytes}: {refused} refused");
}

/// Checkpoints leave a part of the reserve to the next opening, however many there are.
#[test]
fn a_log_that_is_killed_behind_many_checkpoints_on_a_full_disk_opens() {
    for segment_bytes in [MIB, 4 * MIB] {
        let mut disk = SimDisk::new(1);
        let open = |disk: &SimDisk| on(disk).segment_bytes(segment_bytes).open("/log").unwrap();
        let mut log = open(&disk);
        let mut last = 0;
        while log.stats().segments < 3 {
            last = log.commit(&[7; 3_900]).unwrap().0;
        }
        disk.set_free(0);
        let mut placed = 0;
        for round in 0..10 {
            let refused = loop {
                match log.commit_checkpoint(&[7; 3_900]) {
                    Ok(lsn) => (last, placed) = (lsn.0, placed + 1),
                    Err(error) => break error,
                }
            };
            assert!(matches!(refused, Error::NoSpace { .. }), "{refused:?}");
            assert_eq!(reserve(&disk).len(), 1, "{round}");
            let killed = disk.kill();
            drop(log);
            log = open(&killed);
            disk = killed;
            assert_eq!(log.last_lsn().0, last, "{round}");
        }
        assert!(placed > 1);
        // What it says can be done: the front is dropped, and there is room.
        log.truncate_front(Lsn(last)).unwrap();
        log.commit_checkpoint(b"the next").unwrap();
        log.commit(b"a record").unwrap();
    }
}

/// Appends all that there is space for, kills the log, and opens it with each of some sizes in turn.
fn filled_and_killed(mut disk: SimDisk, mut log: Log, sizes: &[u64], mut before_kill: impl FnMut(&Log, u64)) {
    for (&segment_bytes, round) in sizes.iter().zip(0..) {
        while log.commit(&[7; 3_900]).is_ok() {}
        before_kill(&log, round);
        let (killed, last) = (disk.kill(), log.last_lsn());
        let opened = on(&killed).segment_bytes(segment_bytes).open("/log");
        let opened = opened.unwrap_or_else(|error| panic!("round {round} of {sizes:?}: {error}, {:#?}", killed.files()));
        assert_eq!(opened.last_lsn(), last, "round {round} of {sizes:?}");
        disk = killed;
        drop(std::mem::replace(&mut log, opened));
    }
}

/// Bug: the opening went on in the reserve, made a whole segment for records of the one that held
/// them, and, when that was full, had nothing left of the reserve.
#[test]
fn a_log_with_few_records_is_filled_and_killed_on_a_full_disk() {
    for (records, free) in [(1, 0), (20, 0), (20, 500_000), (90, 0), (90, 200_000)] {
        let disk = SimDisk::new(1);
        let log = mib(&disk).open("/log").unwrap();
        (0..records).for_each(|_| assert!(log.commit(&[7; 3_900]).is_ok()));
        disk.set_free(free);
        let killed = disk.kill();
        drop(log);
        let log = mib(&killed).open("/log").unwrap();
        filled_and_killed(killed, log, &[MIB; 6], |_, _| ());
    }
}

/// Bug: what was of the reserve was not, for a log with other segments.
#[test]
fn segments_of_other_sizes_are_asked_for_on_a_full_disk() {
    const KIB: u64 = 1 << 10;
    for [first, then, last] in [
        [MIB, 64 * KIB, 64 * KIB],
        [4 * MIB, 192 * KIB, 4 * MIB],
        [192 * KIB, MIB, 64 * KIB],
        [384 * KIB, 64 * KIB, MIB],
        [64 * KIB, MIB, MIB],
    ] {
        // Room for one larger part of the reserve, and not for two.
        for free in [0, 450 * KIB] {
            let disk = SimDisk::new(1);
            let log = on(&disk).segment_bytes(first).open("/log").unwrap();
            (0..100).for_each(|_| assert!(log.commit(&[7; 3_900]).is_ok()));
            disk.set_free(0);
            log.close().unwrap();
            disk.set_free(free);
            let log = on(&disk).segment_bytes(first).open("/log").unwrap();
            filled_and_killed(disk, log, &[first, then, then, last, last, last, last, first], |_, _| ());
        }
    }
}

/// Bug: the mark stood where records do not go, so that what had been the reserve was not written
/// again as a whole.
#[test]
fn a_mark_or_a_checkpoint_before_each_kill_on_a_full_disk() {
    let front = |log: &Log, _| drop(log.truncate_front(log.start_lsn().next()));
    let hold = |log: &Log, round| drop(log.hold(&format!("hold {}", round % 2), Lsn(log.start_lsn().0 + round)));
    let checkpoint = |log: &Log, _| drop(log.commit_checkpoint(b"checkpoint"));
    type Work<'a> = &'a dyn Fn(&Log, u64);
    let works: [Work<'_>; 3] = [&front, &hold, &checkpoint];
    for segment_bytes in [64 << 10, 192 << 10, 384 << 10, MIB] {
        for (records, work) in [20, 27, 46].into_iter().flat_map(|records| works.map(|work| (records, work))) {
            let disk = SimDisk::new(1);
            let log = on(&disk).segment_bytes(segment_bytes).open("/log").unwrap();
            (0..records).for_each(|_| assert!(log.commit(&[7; 3_900]).is_ok()));
            disk.set_free(0);
            filled_and_killed(disk, log, &[segment_bytes; 12], work);
        }
    }
}

/// A part of the reserve that is larger than it is made is one: only others can have made it so.
#[test]
fn a_larger_reserve_is_taken() {
    let disk = SimDisk::new(1);
    let log = mib(&disk).open("/log").unwrap();
    (0..100).for_each(|_| assert!(log.commit(&[7; 3_900]).is_ok()));
    for name in ["/log/RESERVE-1", "/log/RESERVE-2"] {
        assert!(disk.cut(name, MIB));
    }
    disk.set_free(0);
    filled_and_killed(disk, log, &[MIB; 4], |_, _| ());
}

/// Numbers from a seed.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)) % below
    }
}

/// On a full disk each opening and each cut finds room, whatever was appended, cut and killed
/// before, and also while another program takes all that is freed.
#[test]
fn kills_cuts_and_checkpoints_on_a_full_disk() {
    for seed in 0..60 {
        used_on_a_full_disk(seed);
    }
}

fn used_on_a_full_disk(seed: u64) {
    const SIZES: [u64; 6] = [64 << 10, 192 << 10, 384 << 10, MIB, 4 * MIB, MIB];
    let mut below = random(seed);
    let segment_bytes = Cell::new(SIZES[below(6) as usize]);
    let sizes = below(3) == 0;
    let eats = Arc::new(AtomicBool::new(false));
    let options = |disk: &SimDisk| {
        let (other, eats) = (disk.clone(), eats.clone());
        let eaten = hooked(disk.clone(), move |_, _| {
            if eats.load(SeqCst) {
                other.set_free(0);
            }
            Ok(())
        });
        on(disk).segment_bytes(segment_bytes.get()).disk(eaten)
    };
    let mut disk = SimDisk::new(seed);
    let mut log = options(&disk).open("/log").unwrap();
    let mut all: Vec<Vec<u8>> = Vec::new();
    // Which makes a block each, or more.
    let append = |log: &Log, all: &mut Vec<Vec<u8>>, len: u64, checkpoint: bool| {
        let record = vec![all.len() as u8; len as usize];
        match if checkpoint { log.commit_checkpoint(&record) } else { log.commit(&record) } {
            Ok(_) => all.push(record),
            Err(Error::NoSpace { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    };
    let most = [20, 260][below(2) as usize];
    for _ in 0..below(most) {
        append(&log, &mut all, 1000, false);
    }
    disk.set_free(0);
    eats.store(below(2) == 0, SeqCst);
    for round in 0..60 {
        let at = |disk: &SimDisk| format!("seed {seed}, round {round}: {:#?}", disk.files());
        match below(10) {
            0 => {
                // All that there is space for.
                let mut before = None;
                while before.replace(all.len()) != Some(all.len()) {
                    append(&log, &mut all, 3_900, false);
                }
            }
            1 | 2 => (0..below(40)).for_each(|_| append(&log, &mut all, 1000, false)),
            3 => append(&log, &mut all, [30_000, 90_000][below(2) as usize], false),
            4 => (0..below(8)).for_each(|_| append(&log, &mut all, 3_900, true)),
            5 | 6 => {
                let left = all.len() - (below(4) as usize).min(all.len());
                all.truncate(left);
                log.truncate_back(Lsn(left as u64 + 1)).unwrap_or_else(|error| panic!("{error}, {}", at(&disk)));
            }
            _ => {
                let mut killed = disk.kill();
                if sizes {
                    segment_bytes.set(SIZES[below(6) as usize]);
                }
                for _ in 0..below(4) {
                    killed.power_off_at(1 + below(70));
                    let _ = options(&killed).open("/log");
                    killed = if below(2) == 0 { killed.kill() } else { killed.crash(&Choice::Seed(below(1000))) };
                }
                disk = killed;
                drop(std::mem::replace(
                    &mut log,
                    options(&disk).open("/log").unwrap_or_else(|error| panic!("{error}, {}", at(&disk))),
                ));
                let (found, error) = collect(log.iter(Lsn::ZERO));
                assert!(error.is_none() && found.into_iter().map(|(_, data)| data).eq(all.iter().cloned()), "{}", at(&disk));
            }
        }
    }
}

#[test]
fn a_prepared_segment_serves_a_log_that_is_killed_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let log = on(&disk).spare_segments(1).open("/log").unwrap();
    commit(&log, 1..4);
    disk.set_free(0);
    let reserve = disk.files().iter().filter(|(path, _)| path.to_str().unwrap().contains("RESERVE")).count();
    let killed = disk.kill();
    drop(log);
    let log = on(&killed).spare_segments(1).open("/log").unwrap();
    commit(&log, 4..6);
    let after = killed.files().iter().filter(|(path, _)| path.to_str().unwrap().contains("RESERVE")).count();
    assert_eq!((reserve, after), (2, 2), "the reserve is not touched");
}

/// Opens and kills a log again and again; each time `work` does something with it.
fn restarts(options: impl Fn(&SimDisk) -> Options, times: u64, mut work: impl FnMut(&Log, u64)) -> SimDisk {
    let mut disk = SimDisk::new(1);
    for round in 0..times {
        let log = options(&disk).open("/log").unwrap();
        work(&log, round);
        let killed = disk.kill();
        drop(log);
        disk = killed;
    }
    disk
}

fn mib(disk: &SimDisk) -> Options {
    on(disk).segment_bytes(MIB)
}

#[test]
fn a_thousand_crashed_starts_without_records_take_no_room() {
    let disk = restarts(mib, 1000, |_, _| ());
    let (bytes, files) = taken(&disk);
    assert!(bytes <= 4 * MIB && files <= 8, "{bytes} bytes in {files} files: {:?}", disk.files());
}

#[test]
fn a_thousand_crashed_starts_with_a_few_records_each_take_the_records_room() {
    let disk = restarts(mib, 1000, |log, round| commit(log, 3 * round + 1..3 * round + 4));
    let log = mib(&disk).open("/log").unwrap();
    assert_eq!(lsns(&log), (1..3001).collect::<Vec<_>>());
    let records: u64 = (1..3001).map(|lsn| record(lsn).len() as u64 + 4).sum();
    let (bytes, files) = taken(&disk);
    assert!(bytes <= records * 17 / 16 + 4 * MIB && files <= 14, "{bytes} bytes of {records} in {files} files");
}

#[test]
fn crashed_starts_with_more_records_than_are_written_again_leave_no_holes_of_room() {
    // Each segment is left when it holds 300 KiB of 1 MiB, and is too large to be written again.
    let mut disk = restarts(mib, 12, |log, _| {
        (0..5).for_each(|_| assert!(log.commit(&vec![7; 60 << 10]).is_ok()));
    });
    let log = mib(&disk).open("/log").unwrap();
    assert_eq!(log.last_lsn(), Lsn(60));
    disk = disk.kill();
    let (bytes, _) = taken(&disk);
    // (What the last flush of each wrote is there twice.)
    assert!(bytes <= 12 * 6 * (64 << 10) + 4 * MIB, "{bytes} bytes");
}

#[test]
fn a_thousand_small_cuts_take_no_room() {
    let disk = SimDisk::new(1);
    let log = mib(&disk).open("/log").unwrap();
    commit(&log, 1..21);
    disk.set_free(2 * MIB);
    for _ in 0..1000 {
        log.truncate_back(Lsn(20)).unwrap();
        commit(&log, 20..21);
    }
    let (bytes, files) = taken(&disk);
    assert!(bytes <= 4 * MIB && files <= 8, "{bytes} bytes in {files} files");
    assert_eq!(lsns(&log), (1..21).collect::<Vec<_>>());
    drop(log);
    assert_eq!(lsns(&mib(&disk.kill()).open("/log").unwrap()), (1..21).collect::<Vec<_>>());
}

#[test]
fn spares_survive_a_crash_as_they_are() {
    let disk = SimDisk::new(1);
    let log = on(&disk).spare_segments(8).open("/log").unwrap();
    commit(&log, 1..2);
    let killed = disk.kill();
    drop(log);
    let log = on(&killed).spare_segments(8).open("/log").unwrap();
    let made: Vec<_> = killed.ops().into_iter().filter(|op| op.kind == OpKind::Create).map(|op| op.path).collect();
    // One is the log's now; the segment before it was written again, and is the eighth.
    assert!(made.is_empty(), "{made:?}");
    assert_eq!(log.stats().segments_prepared, 8);
}

#[test]
fn a_spare_of_which_a_crash_kept_anything_is_not_used_as_it_is() {
    let options = |disk: &SimDisk| on(disk).spare_segments(2);
    for block in [1, 2, 9, 15] {
        for spare in [2, 3] {
            // As left by a flush that did not become durable: a valid sector of the segment's own
            // epoch, and nothing before it.
            let disk = SimDisk::new(1);
            let log = options(&disk).open("/log").unwrap();
            commit(&log, 1..3);
            drop(log);
            let disk = disk.crash(&Choice::All);
            let path = format!("/log/{}", segment_name(spare));
            let stale = stale_block(&disk, spare, block);
            assert!(disk.overwrite(&path, (block * BLOCK) as u64, &stale));
            unclose(&disk);
            let log = options(&disk).open("/log").unwrap();
            commit(&log, 3..40);
            drop(log);
            assert_eq!(lsns(&options(&disk.kill()).open("/log").unwrap()), (1..40).collect::<Vec<_>>(), "{block} {spare}");
        }
    }
}

/// Undoes the CLOSED mark of a log in segment 1.
fn unclose(disk: &SimDisk) {
    let path = format!("/log/{}", segment_name(1));
    let mut files = Files::default();
    files.insert(1, disk.peek(&path, 0, 16 * BLOCK).unwrap());
    let closed = files.frames(1).into_iter().rev().find(|f| f.kind == MARK).unwrap().block;
    disk.overwrite(&path, (closed * BLOCK) as u64, &[0; BLOCK]);
}

/// A block as segment `epoch` would have it: the record of another log's frame with this log's
/// tags.
fn stale_block(disk: &SimDisk, epoch: u64, block: usize) -> Vec<u8> {
    let mut files = Files::default();
    files.insert(1, disk.peek(format!("/log/{}", segment_name(1)), 0, 16 * BLOCK).unwrap());
    let uuid = files.uuid();
    let mut bytes = vec![0x55; BLOCK];
    for sector in 0..BLOCK / SECTOR {
        let place = ((block * BLOCK / SECTOR + sector) * 2 + usize::from(sector == 0)) as u64;
        let crc = [&uuid[..], &epoch.to_le_bytes(), &place.to_le_bytes()].concat();
        let at = sector * SECTOR + 504;
        bytes[at..at + 4].copy_from_slice(&(epoch as u32).to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&crc32c::crc32c(&crc).to_le_bytes());
    }
    bytes
}

#[test]
fn an_opening_that_appends_nothing_writes_nothing() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    commit(&log, 1..6); // So far that the next segment would be prepared.
    log.truncate_back(Lsn(4)).unwrap();
    commit(&log, 4..6);
    log.truncate_back(Lsn(4)).unwrap();
    log.close().unwrap();
    for background in [false, true, true] {
        let before = disk.ops().len();
        let log = on(&disk).background(background).open("/log").unwrap();
        assert_eq!(log.recovery().verdict, Verdict::Clean);
        assert_eq!(lsns(&log), [1, 2, 3]);
        log.sync().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        log.close().unwrap();
        let ops = disk.ops().split_off(before);
        let written: Vec<_> =
            ops.iter().filter(|op| op.kind.changes() && op.kind != OpKind::SyncDir && !op.path.ends_with("LOCK")).collect();
        assert!(written.is_empty(), "{written:?}");
    }
    // And the log continues, whatever the power failure leaves of the first flush.
    let log = open(&disk);
    commit(&log, 4..6);
    log.close().unwrap();
    assert_eq!(lsns(&open(&disk)), [1, 2, 3, 4, 5]);
}

#[test]
fn a_closed_log_on_a_full_disk_opens_as_often_as_one_likes_and_is_truncated() {
    let (disk, log, next) = full(0);
    assert!(matches!(log.commit(b"no room"), Err(Error::NoSpace { .. })));
    log.close().unwrap();
    for _ in 0..20 {
        let log = open(&disk);
        assert!(matches!(log.commit(b"no room"), Err(Error::NoSpace { .. })));
        log.close().unwrap();
    }
    let log = open(&disk);
    assert_eq!(log.truncate_front(Lsn(next - 1)).unwrap(), Lsn(next - 1));
    commit(&log, next..next + 5);
    log.close().unwrap();
    assert_eq!(lsns(&open(&disk)), (next - 1..next + 5).collect::<Vec<_>>());
}

#[test]
fn a_full_segment_of_which_nothing_is_needed_makes_room() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    let next = fill_segment(&log, 1);
    disk.set_free(0);
    assert!(matches!(log.commit(b"no room"), Err(Error::NoSpace { .. })));
    // It goes on in what was the reserve, and the segment that was dropped is the reserve again.
    log.truncate_front(Lsn(next)).unwrap();
    assert_eq!(reserve(&disk), [65536, 65536]);
    commit(&log, next..next + 7);
    log.close().unwrap();
    assert_eq!(lsns(&open(&disk)), (next..next + 7).collect::<Vec<_>>());
}

#[test]
fn the_back_is_cut_on_a_full_disk() {
    for left in 0..7 {
        let (disk, log, next) = full(left);
        for from in [next - 1, next - 3, 9, 2] {
            log.truncate_back(Lsn(from)).unwrap();
            assert_eq!(lsns(&log), (1..from).collect::<Vec<_>>());
        }
        log.close().unwrap();
        let log = open(&disk);
        assert_eq!(lsns(&log), [1]);
        commit(&log, 2..6);
    }
}

#[test]
fn the_reserve_is_made_again_when_there_is_room() {
    let (disk, log, next) = full(0);
    let killed = disk.kill();
    drop(log);
    let log = open(&killed);
    log.truncate_front(Lsn(next)).unwrap();
    log.close().unwrap();
    killed.set_capacity(None);
    open(&killed).close().unwrap();
    let reserve = killed.files().into_iter().filter(|(path, _)| path.to_str().unwrap().contains("/RESERVE-")).count();
    assert_eq!(reserve, 2);
}

fn reserve(disk: &SimDisk) -> Vec<u64> {
    disk.files().into_iter().filter(|(path, _)| path.to_str().unwrap().contains("/RESERVE-")).map(|(_, len)| len).collect()
}

#[test]
fn the_reserve_grows_with_the_segments_when_there_is_room() {
    const SMALL: u64 = 64 << 10;
    const LARGE: u64 = 384 << 10;
    let disk = SimDisk::new(1);
    let log = open(&disk);
    commit(&log, 1..3);
    log.close().unwrap();
    assert_eq!(reserve(&disk), [SMALL, SMALL]);
    disk.set_free(0);
    mib(&disk).open("/log").unwrap().close().unwrap();
    assert_eq!(reserve(&disk), [SMALL, SMALL], "what there is stays as long as there is no room for more");
    for clean in [true, false] {
        let disk = disk.copy();
        disk.set_capacity(None);
        let log = mib(&disk).open("/log").unwrap();
        if !clean {
            commit(&log, 3..4);
            let killed = disk.kill();
            drop(log);
            mib(&killed).open("/log").unwrap().close().unwrap();
            assert_eq!(reserve(&killed), [LARGE, LARGE]);
        }
        assert_eq!(reserve(&disk), [LARGE, LARGE]);
    }
    // One that is small still serves, and is put right by the first removal behind which there is
    // room.
    let log = mib(&disk).open("/log").unwrap();
    log.truncate_back(Lsn(2)).unwrap();
    assert_eq!(lsns(&log), [1]);
    disk.set_capacity(None);
    log.truncate_back(Lsn(1)).unwrap();
    assert_eq!(reserve(&disk), [LARGE, LARGE]);
}

/// Of each call of a cut on a full disk that takes the reserve.
#[test]
fn a_cut_that_fails_gives_the_reserve_back() {
    for n in 0.. {
        let (disk, log, next) = full(1);
        disk.fault(Fault::new(OpKind::Any, Effect::Eio).skip(n));
        let before = disk.ops().len();
        let cut = log.truncate_back(Lsn(next - 1));
        let struck = disk.ops()[before..].iter().any(|op| op.struck);
        disk.heal();
        if !struck {
            cut.unwrap();
            break;
        }
        if matches!(log.commit(&record(next)), Err(Error::Poisoned(_))) {
            continue; // What has become of the cut is not known: the next opening sees to it.
        }
        if cut.is_err() {
            assert_eq!(reserve(&disk).len(), 2, "a failure in call {n}: {cut:?}");
            assert_eq!(lsns(&log), (1..next + 1).collect::<Vec<_>>());
        }
    }
}

/// A removal that finds no room for the reserve looks for it once.
#[test]
fn each_removal_makes_the_reserve_once() {
    let (disk, tries) = (SimDisk::new(1), Arc::new(AtomicUsize::new(0)));
    let counts = tries.clone();
    let disk_of_log = hooked(disk.clone(), move |op, name| match op {
        Op::Allocate(_) if name.starts_with("RESERVE") && counts.fetch_add(1, SeqCst) > 1 => {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    });
    let log = small().segment_bytes(MIB).disk(disk_of_log).open("/log").unwrap();
    assert_eq!((tries.load(SeqCst), reserve(&disk).len()), (2, 2));
    while log.stats().segments < 6 {
        log.commit(&[7; 100_000]).unwrap();
    }
    ["RESERVE-1", "RESERVE-2"].iter().for_each(|name| assert!(disk.lose(format!("/log/{name}"))));
    log.truncate_front(log.last_lsn()).unwrap();
    assert!(log.stats().segments_removed > 1);
    assert_eq!(tries.load(SeqCst), 3);
}

/// Two threads find it missing: one makes it, and the other does not wait for that.
#[test]
fn the_reserve_is_made_by_one_thread_and_waited_for_by_none() {
    let (gate, disk, makers) = (Arc::new(Gate::default()), SimDisk::new(1), Arc::new(AtomicUsize::new(0)));
    let (keeper, counts, reading) = (gate.clone(), makers.clone(), Arc::new(AtomicBool::new(false)));
    let fails = reading.clone();
    let disk_of_log = hooked(disk.clone(), move |op, name| match op {
        Op::Allocate(_) if name.starts_with("RESERVE") => {
            counts.fetch_add(1, SeqCst);
            keeper.pass();
            Ok(())
        }
        Op::Read(_) if fails.load(SeqCst) => Err(std::io::Error::other("broken")),
        _ => Ok(()),
    });
    let log = Arc::new(small().background(true).segment_bytes(MIB).disk(disk_of_log).open("/log").unwrap());
    while log.stats().segments < 6 {
        log.commit(&[7; 100_000]).unwrap();
    }
    let before = makers.load(SeqCst);
    ["RESERVE-1", "RESERVE-2"].iter().for_each(|name| assert!(disk.lose(format!("/log/{name}"))));
    gate.shut();
    log.truncate_front(log.last_lsn()).unwrap();
    gate.wait_held(); // The background thread makes it.
    reading.store(true, SeqCst);
    let cutting = log.clone();
    // A cut that fails would make it, too.
    let cut = within(move || cutting.truncate_back(cutting.last_lsn()));
    assert!(matches!(cut, Err(Error::Io { .. })), "{cut:?}");
    assert_eq!(makers.load(SeqCst), before + 1);
    reading.store(false, SeqCst);
    gate.open();
    until("it is there", || reserve(&disk).len() == 2);
    within(move || Arc::into_inner(log).unwrap().close().unwrap());
    assert_eq!(makers.load(SeqCst), before + 2);
}

/// A segment that can be the reserve keeps its space when the log leaves it: it is the reserve once
/// it is superseded, though another program has taken all that is free.
#[test]
fn what_can_be_the_reserve_keeps_its_space() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    // A segment that begins within a record is not written again.
    log.commit(&[7; 50_000]).unwrap();
    log.commit(&record(2)).unwrap();
    log.truncate_front(Lsn(2)).unwrap();
    let killed = disk.kill();
    drop(log);
    killed.lose("/log/00000000000000000003.seg"); // It was prepared.
    killed.set_free(0);
    let log = open(&killed);
    assert_eq!((reserve(&killed).len(), log.stats().segments), (1, 2));
    killed.set_free(0);
    log.truncate_front(Lsn(3)).unwrap();
    assert_eq!(reserve(&killed).len(), 2, "{:?}", killed.files());
}

/// Segments that the reserve can use are not removed while another thread looks for room for it.
#[test]
fn what_the_reserve_can_use_waits_for_the_thread_that_makes_it() {
    let (gate, disk) = (Arc::new(Gate::default()), SimDisk::new(1));
    let keeper = gate.clone();
    let disk_of_log = hooked(disk.clone(), move |op, name| {
        if matches!(op, Op::Allocate(_)) && name.starts_with("RESERVE") {
            keeper.pass();
        }
        Ok(())
    });
    let log = Arc::new(small().on_error(|_| ()).disk(disk_of_log).open("/log").unwrap());
    (0..3).for_each(|n| _ = fill_segment(&log, 1 + 7 * n));
    disk.set_free(0);
    while reserve(&disk).len() == 2 {
        log.commit_checkpoint("it takes a part of the reserve").unwrap();
    }
    gate.hold(1);
    let (appending, truncating) = (log.clone(), log.clone());
    let appended = std::thread::spawn(move || while appending.commit(&[7; 3_900]).is_ok() {});
    gate.wait_held();
    let truncated = std::thread::spawn(move || truncating.truncate_front(Lsn(15)).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(100));
    // Another program takes what was freed meanwhile.
    disk.set_free(0);
    gate.open();
    until("both end", || appended.is_finished() && truncated.is_finished());
    appended.join().unwrap();
    truncated.join().unwrap();
    assert_eq!(reserve(&disk).len(), 2, "{:?}", disk.files());
}

/// What was superseded is the reserve again in a moment: a cut waits for that.
#[test]
fn a_cut_without_space_waits_for_removals_that_are_under_way() {
    let (gate, disk) = (Arc::new(Gate::default()), SimDisk::new(1));
    let keeper = gate.clone();
    let disk_of_log = hooked(disk.clone(), move |op, name| {
        if op == Op::Rename && name.ends_with(".seg") {
            keeper.pass();
        }
        Ok(())
    });
    let log = Arc::new(small().background(true).segment_bytes(MIB).disk(disk_of_log).open("/log").unwrap());
    commit(&log, 1..3);
    disk.set_free(0);
    log.truncate_back(Lsn(2)).unwrap();
    until("the reserve is whole", || reserve(&disk).len() == 2 && disk.files().len() < 7);
    disk.set_free(0);
    gate.shut();
    commit(&log, 2..3);
    log.truncate_back(Lsn(2)).unwrap();
    gate.wait_held();
    let cutting = log.clone();
    let cut = std::thread::spawn(move || {
        for _ in 0..3 {
            commit(&cutting, 2..3);
            cutting.truncate_back(Lsn(2)).unwrap();
        }
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
    gate.open();
    until("they are made", || cut.is_finished());
    cut.join().expect("there was room behind the removals");
    assert_eq!(lsns(&log), [1]);
}

/// What was taken is put back as soon as a segment is prepared anew.
#[test]
fn the_background_makes_the_reserve_when_there_is_room_again() {
    let disk = SimDisk::new(1);
    let log = small().background(true).segment_bytes(MIB).disk(disk.handle()).open("/log").unwrap();
    ["RESERVE-1", "RESERVE-2"].iter().for_each(|name| assert!(disk.lose(format!("/log/{name}"))));
    while log.stats().segments < 3 {
        log.commit(&[7; 100_000]).unwrap();
    }
    until("it is there", || reserve(&disk).len() == 2);
}

/// Nothing tells the log that another program has freed space: it looks again by itself.
#[test]
fn the_background_makes_the_reserve_when_another_program_frees_space() {
    let disk = SimDisk::new(1);
    let log = small().background(true).segment_bytes(MIB).disk(disk.handle()).open("/log").unwrap();
    commit(&log, 1..3);
    ["RESERVE-1", "RESERVE-2"].iter().for_each(|name| assert!(disk.lose(format!("/log/{name}"))));
    disk.set_free(0);
    let cut = log.truncate_back(Lsn(2));
    assert!(matches!(cut, Err(Error::NoSpace { .. })), "{cut:?}");
    disk.set_free(u64::from(u32::MAX));
    until("it is there", || reserve(&disk).len() == 2);
}

#[test]
fn what_cannot_be_removed_is_no_reason_to_refuse() {
    let disk = SimDisk::new(1);
    let log = on(&disk).spare_segments(6).open("/log").unwrap();
    commit(&log, 1..2);
    let mut disk = disk.kill();
    drop(log);
    let files = disk.files().len();
    for lsn in 2..20 {
        disk.fault(Fault::new(OpKind::Remove, Effect::Eio).times(u64::MAX).on(".seg"));
        let log = open(&disk);
        assert_eq!(lsns(&log), (1..lsn).collect::<Vec<_>>());
        commit(&log, lsn..lsn + 1);
        let killed = disk.kill();
        drop(log);
        disk = killed;
        assert!(disk.files().len() <= files + lsn as usize / 4 + 1, "{} after {files}", disk.files().len());
    }
    open(&disk);
    assert!(disk.files().len() < files, "they are removed when they can be: {:?}", disk.files());
}

#[test]
fn a_file_of_the_users_is_not_removed() {
    for name in ["notes.tmp", "x.tmp", "STATS.tmp", "STATS"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), "mine").unwrap();
        assert!(matches!(small().open(dir.path()), Err(Error::NotALog { .. })), "{name}: a log needs a directory of its own");
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"mine");
    }
    // A file that is put into a log's directory later does no harm.
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..2);
    std::fs::create_dir(dir.path().join("x.tmp")).unwrap();
    std::fs::write(dir.path().join("y.tmp"), "mine").unwrap();
    drop(log);
    for _ in 0..3 {
        small().open(dir.path()).unwrap();
    }
    assert_eq!(std::fs::read(dir.path().join("y.tmp")).unwrap(), b"mine");
}

/// Full disk, at every point: the power fails, or the process is killed, in each operation of a
/// workload on a full disk, then in each operation of the opening from it; in the end the log has
/// all that was acknowledged, makes room, and commits again.
#[test]
fn a_full_disk_and_a_crash_at_every_point_end_in_a_log_that_commits() {
    let work = |disk: &SimDisk, acknowledged: &mut u64| -> Result<(), Error> {
        let log = on(disk).open("/log")?;
        *acknowledged = (*acknowledged).max(log.last_lsn().0);
        for _ in 0..3 {
            let lsn = log.last_lsn().0 + 1;
            match log.commit(&record(lsn)) {
                Ok(_) => *acknowledged = lsn,
                Err(Error::NoSpace { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        log.close()
    };
    let ends_well = |disk: &SimDisk, acknowledged: u64, what: &str| {
        let log = on(disk).open("/log").unwrap_or_else(|error| panic!("{what}: {error} {:#?}", disk.files()));
        let last = log.last_lsn().0;
        assert!(last >= acknowledged, "{what}: {last} of {acknowledged}");
        assert_eq!(lsns(&log), (log.start_lsn().0..=last).collect::<Vec<_>>(), "{what}");
        let last = log.commit_checkpoint(&record(last + 1)).map_or(last, |lsn| lsn.0);
        log.truncate_front(Lsn(last)).unwrap_or_else(|error| panic!("{what}: {error}"));
        // As many as a segment has room for.
        for lsn in last + 1..last + 8 {
            assert_eq!(
                log.commit(&record(lsn)).unwrap_or_else(|error| panic!("{what}: {error} {:#?} {:?}", disk.files(), log.stats())),
                Lsn(lsn)
            );
        }
    };
    for left in [0, 1, 3] {
        let (disk, log, next) = full(left);
        let start = disk.kill();
        drop(log);
        for first in 1.. {
            let disk = start.copy();
            let mut acknowledged = next - 1;
            disk.power_off_at(first);
            let done = work(&disk, &mut acknowledged).is_ok() && !disk.is_off();
            for (how, after) in
                [("kill", disk.kill()), ("none", disk.crash(&Choice::None)), ("some", disk.crash(&Choice::Seed(first)))]
            {
                ends_well(&after.copy(), acknowledged, &format!("{left} left, {how} at {first}"));
                // And again, in the recovery from it.
                for second in (1..).step_by(3) {
                    let again = after.copy();
                    again.power_off_at(second);
                    let mut acknowledged = acknowledged;
                    let recovered = work(&again, &mut acknowledged).is_ok() && !again.is_off();
                    let what = format!("{left} left, {how} at {first}, then at {second}");
                    ends_well(&again.crash(&Choice::Seed(second)), acknowledged, &what);
                    ends_well(&again.kill(), acknowledged, &what);
                    if recovered {
                        break;
                    }
                }
            }
            if done {
                break;
            }
        }
    }
}

#[test]
fn what_other_processes_hold_is_taken_in_on_a_full_disk() {
    let (disk, log, next) = full(2);
    disk.set_free(1 << 20);
    let view = View::open_on(disk.handle(), "/log").unwrap();
    view.hold("another process", Lsn(9)).unwrap();
    disk.set_free(0);
    // There is nothing to be written for it but what has its room.
    assert_eq!(log.truncate_front(Lsn(next)).unwrap(), Lsn(9));
    view.hold("another process", Lsn(10)).unwrap();
    log.hold("here", Lsn(next)).unwrap();
    assert_eq!(log.truncate_front(Lsn(next)).unwrap(), Lsn(10));
}

/// A copy of the disk as some programs make it: what is zeros in a file takes no space.
fn sparse_copy(disk: &SimDisk) -> SimDisk {
    let copy = disk.kill();
    let dir = copy.handle().open_dir("/log".as_ref()).unwrap();
    for (path, bytes) in copy.files() {
        let file = dir.open(path.file_name().unwrap().to_str().unwrap(), Access::Write).unwrap();
        for at in (0..bytes).step_by(BLOCK) {
            let mut block = [0; BLOCK];
            let read = file.read_full_at(&mut block, at).unwrap();
            if block[..read].iter().all(|&byte| byte == 0) {
                file.punch(at, BLOCK as u64).unwrap();
            }
        }
    }
    drop(dir);
    copy.set_free(0);
    copy
}

/// A closed log whose copy lacks space opens, and is read. It goes on when there is space for the
/// rest of its segment, and fails nothing until then: no write is tried that may find none.
#[test]
fn a_closed_log_that_was_copied_without_its_space_opens_on_a_full_disk() {
    for (spares, left) in [(0, 5), (0, 0), (2, 5)] {
        let disk = SimDisk::new(1);
        let log = on(&disk).spare_segments(spares).open("/log").unwrap();
        let next = fill_segment(&log, 1);
        commit(&log, next..next + 7 - left);
        let next = next + 7 - left;
        log.close().unwrap();
        drop(log);
        let copy = sparse_copy(&disk);
        let changes = |log: &Log| {
            let results = [
                ("commit", log.commit("x").map(drop)),
                ("a batch", log.append_batch(&["x"; 100]).map(drop)),
                ("a checkpoint", log.commit_checkpoint("x").map(drop)),
                ("truncate_front", log.truncate_front(log.last_lsn()).map(drop)),
                ("truncate_back", log.truncate_back(Lsn(3))),
                ("hold", log.hold("a consumer", Lsn(2))),
            ];
            for (what, result) in results {
                let error = result.expect_err(what);
                assert!(
                    matches!(error, Error::NoSpace { bytes: Some(0x10000), .. }) && error.is_retryable(),
                    "{what}: {error:?}"
                );
                assert!(log.failure().is_none(), "{what}: {:?}", log.failure());
            }
        };
        for _ in 0..3 {
            let log = on(&copy).spare_segments(spares).open("/log").unwrap();
            assert_eq!(*log.recovery().verdict.name(), *"clean");
            assert_eq!(lsns(&log), (1..next).collect::<Vec<_>>());
            changes(&log);
            log.sync().unwrap();
            log.close().unwrap();
        }
        let log = on(&copy).open("/log").unwrap();
        changes(&log);
        copy.set_capacity(None);
        log.hold("a consumer", Lsn(2)).unwrap();
        commit(&log, next..next + 20);
        assert_eq!(lsns(&log), (1..next + 20).collect::<Vec<_>>());
        // What is kept for a full disk is there again.
        drop(log);
        let log = on(&copy).open("/log").unwrap();
        copy.set_free(0);
        log.release("a consumer").unwrap();
        log.truncate_front(Lsn(next + 10)).unwrap();
        let killed = copy.kill();
        drop(log);
        assert_eq!(lsns(&open(&killed)), (next + 10..next + 20).collect::<Vec<_>>());
    }
}

/// The cuts of such a log, once there is space, and appends that wait for nothing.
#[test]
fn a_log_that_was_copied_without_its_space_goes_on_when_there_is_some() {
    type Call = fn(&Log);
    let calls: [Call; 4] = [
        |log| log.truncate_back(Lsn(3)).unwrap(),
        |log| _ = log.truncate_front(Lsn(3)).unwrap(),
        |log| _ = log.commit_checkpoint("x").unwrap(),
        |log| {
            let began = std::time::Instant::now();
            while let Err(error) = log.try_append("x") {
                assert!(matches!(error, Error::Busy | Error::NoSpace { .. }) && began.elapsed() < PATIENCE, "{error:?}");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        },
    ];
    for call in calls {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        commit(&log, 1..6);
        log.close().unwrap();
        drop(log);
        let copy = sparse_copy(&disk);
        let log = on(&copy).background(true).open("/log").unwrap();
        assert!(matches!(log.try_append("x"), Err(Error::Busy | Error::NoSpace { .. })));
        copy.set_capacity(None);
        call(&log);
        log.commit("y").unwrap();
        let last = log.last_lsn();
        log.close().unwrap();
        drop(log);
        assert_eq!(open(&copy).last_lsn(), last);
    }
}

/// An append that waits for nothing gets its segment in time, also the first to a log whose last
/// segment was full when it was closed.
#[test]
fn an_append_that_does_not_wait_goes_on_behind_a_full_segment_of_a_closed_log() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    let next = fill_segment(&log, 1);
    log.close().unwrap();
    drop(log);
    let log = on(&disk).background(true).open("/log").unwrap();
    let began = std::time::Instant::now();
    while let Err(error) = log.try_append(record(next)) {
        assert!(matches!(error, Error::Busy) && began.elapsed() < PATIENCE, "{error:?}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    log.sync().unwrap();
    assert_eq!(lsns(&log), (1..=next).collect::<Vec<_>>());
}

/// One that was not closed opens as soon as there is space for a small segment, and a few blocks;
/// until then it is as it was, and can be read.
#[test]
fn a_killed_log_that_was_copied_without_its_space_opens_when_there_is_some() {
    for segment_bytes in [64 << 10, MIB] {
        let disk = SimDisk::new(1);
        let on = |disk: &SimDisk| on(disk).segment_bytes(segment_bytes);
        let log = on(&disk).open("/log").unwrap();
        commit(&log, 1..20);
        let copy = sparse_copy(&disk);
        drop(log);
        for _ in 0..3 {
            let error = on(&copy).open("/log").unwrap_err();
            assert!(matches!(error, Error::NoSpace { .. }) && error.to_string().contains("free space"), "{error:?}");
            let view = View::open_on(copy.handle(), "/log").unwrap().recoverable().unwrap();
            assert_eq!(view.last_lsn().unwrap(), Lsn(19));
        }
        copy.set_free(segment_bytes.min(384 << 10) + 4 * BLOCK as u64);
        let log = on(&copy).open("/log").unwrap();
        assert_eq!(lsns(&log), (1..20).collect::<Vec<_>>());
    }
}

/// However much space there is, before it is opened or since: each call succeeds, or says that
/// there is none, and the log goes on.
#[test]
fn a_log_that_was_copied_without_its_space_is_not_poisoned_by_the_want_of_it() {
    type Call = fn(&Log) -> foreword::Result<()>;
    let calls: [(&str, Call); 5] = [
        ("commit", |log| log.commit("x").map(drop)),
        ("commit_checkpoint", |log| log.commit_checkpoint("x").map(drop)),
        ("truncate_front", |log| log.truncate_front(log.last_lsn()).map(drop)),
        ("truncate_back", |log| log.truncate_back(Lsn(3))),
        ("hold", |log| log.hold("a consumer", Lsn(2))),
    ];
    let disk = SimDisk::new(1);
    let log = on(&disk).segment_bytes(MIB).open("/log").unwrap();
    commit(&log, 1..6);
    log.close().unwrap();
    drop(log);
    let hollow = sparse_copy(&disk);
    let (mut succeeded, mut refused) = (0, 0);
    for free in (0..24).chain(92..104).chain([200, 300, 600]) {
        for (call, f) in calls {
            for (segment_bytes, since, keeps) in
                [(MIB, true, true), (MIB, true, false), (64 << 10, false, false), (MIB, false, true)]
            {
                let what = format!("{call}, {free} blocks are free, since: {since}, {segment_bytes}, reserve: {keeps}");
                let disk = hollow.copy();
                let options =
                    on(&disk).segment_bytes(segment_bytes).reserve(keeps).spare_segments(usize::from(segment_bytes < MIB));
                let space = || disk.set_free(free * BLOCK as u64);
                if !since {
                    space();
                }
                let log = Arc::new(options.open("/log").unwrap_or_else(|error| panic!("{what}: {error}")));
                if since {
                    space();
                }
                let calling = log.clone();
                match within(move || f(&calling)) {
                    Ok(()) => succeeded += 1,
                    Err(Error::NoSpace { .. }) => refused += 1,
                    Err(error) => panic!("{what}: {error}"),
                }
                assert!(log.failure().is_none(), "{what}");
                assert!(log.close().is_ok(), "{what}");
            }
        }
    }
    assert!(succeeded > 20 && refused > 20, "{succeeded} succeeded, {refused} were refused");
}

/// Where there is space when it is opened, what the log keeps for a full disk gets its own again.
#[test]
fn the_reserve_of_a_log_that_was_copied_without_its_space_gets_it() {
    for closed in [true, false] {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        commit(&log, 1..20);
        if closed {
            log.close().unwrap();
        }
        let copy = sparse_copy(&disk);
        drop(log);
        copy.set_capacity(None);
        let log = open(&copy);
        commit(&log, 20..22);
        copy.set_free(0);
        let mut killed = copy.kill();
        drop(log);
        for _ in 0..4 {
            let log = open(&killed);
            assert_eq!(lsns(&log), (1..22).collect::<Vec<_>>());
            let again = killed.kill();
            drop(log);
            killed = again;
        }
    }
}
