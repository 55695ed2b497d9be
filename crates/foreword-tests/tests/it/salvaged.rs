//! What a log that was salvaged says of itself, and what it keeps: across what was given up, too.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use foreword::{Limit, Log, Lsn, OnDamage, Options, Reader};
use foreword_tests::*;

/// What is done to a log's files.
type Damage = fn(&mut Files);

/// A log of 99 records in 15 segments that has lost the LINK of the twelfth, and was closed.
fn without_a_link() -> Files {
    let mut files = Files::crashed(|log| commit(log, 1..100));
    files.flip(12, BLOCK + 100, 1);
    let disk = MemDisk::new(&files);
    let log = disk.open(OnDamage::Salvage).unwrap();
    assert!(log.recovery().given_up.is_empty(), "no record lay in the LINK: {:?}", log.recovery());
    commit(&log, 100..102);
    log.close().unwrap();
    disk.files()
}

/// The same, with the first frame of the twelfth segment damaged since: nothing says when it was
/// begun, and how much came before.
fn without_what_stands_for_it() -> Files {
    let mut files = without_a_link();
    files.flip(12, 2 * BLOCK + 20, 1);
    files
}

/// A hold is kept up to its limit. What is not known of a segment counts as nothing, neither as
/// much nor as old.
#[test]
fn what_a_hold_keeps_stays_where_a_link_was_lost() {
    for files in [without_a_link(), without_what_stands_for_it()] {
        for limit in [Limit::bytes(1 << 30), Limit::age(Duration::from_secs(3600))] {
            let log = MemDisk::new(&files).open(OnDamage::Refuse).unwrap();
            log.hold_up_to("a consumer", Lsn(5), limit).unwrap();
            assert_eq!(log.truncate_front(log.last_lsn()).unwrap(), Lsn(5), "{limit:?}");
            assert!(!log.holds().unwrap()["a consumer"].lost);
        }
    }
}

#[test]
fn retention_keeps_as_much_as_it_says_where_a_link_was_lost() {
    let kept = |log: &Log| log.bytes_between(Lsn::ZERO, log.last_lsn().next()).unwrap();
    for files in [without_a_link(), without_what_stands_for_it()] {
        let options = Options::new().segment_bytes(64 << 10).disk(Arc::new(MemDisk::new(&files)));
        let log = options.retain(Limit::bytes(30_000).or_age(Duration::from_secs(3600))).open(MEM).unwrap();
        let began = Instant::now();
        while log.start_lsn() == Lsn::FIRST {
            assert!(began.elapsed() < hooked::PATIENCE);
            thread::sleep(Duration::from_millis(1));
        }
        assert!((30_000..40_000).contains(&kept(&log)), "{} from {}", kept(&log), log.start_lsn());
    }
}

/// All records of a reader that can be read, with the times that they were written.
fn times(mut reader: Reader) -> Vec<(Lsn, SystemTime)> {
    let mut times = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        times.push((record.lsn, record.time()));
    }
    times
}

/// The log, salvaged, finds each record by its time: here, and in a view.
fn finds_by_time(what: &str, files: &Files, segment_bytes: u64) {
    let disk = MemDisk::new(files);
    let options = small().segment_bytes(segment_bytes).disk(Arc::new(disk.clone()));
    let log = options.on_damage(OnDamage::Salvage).open(MEM).unwrap();
    let lost = log.recovery().given_up.clone();
    let (records, view) = (times(log.reader()), disk.view());
    assert!(records.len() > 30 && records.is_sorted_by_key(|r| r.1), "{what}: {records:?}");
    for (_, time) in &records {
        for at in [*time, *time - Duration::from_micros(1)] {
            // (Those that opening wrote again have one time.)
            let lsn = records.iter().find(|r| r.1 >= at).unwrap().0;
            assert_eq!((log.lsn_at(at).unwrap(), view.lsn_at(at).unwrap()), (lsn, lsn), "{what}, {lost:?} are lost");
        }
    }
    let next = log.last_lsn().next();
    assert_eq!(log.lsn_at(SystemTime::now() + Duration::from_secs(1)).unwrap(), next, "{what}");
}

#[test]
fn a_record_is_found_by_its_time_across_what_was_given_up() {
    let slow = |log: &Log, lsns: std::ops::RangeInclusive<u64>| {
        for lsn in lsns {
            log.commit(&record(lsn)).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    };
    let files = Files::crashed(|log| slow(log, 1..=60));
    finds_by_time("nothing is lost", &files, 64 << 10);
    let cases: [(&str, Damage); 7] = [
        ("a stretch of the first segment", |files| files.unwrite(1, 4..7)),
        ("two stretches of a segment", |files| {
            files.unwrite(3, 3..4);
            files.unwrite(3, 6..8);
        }),
        ("a LINK", |files| files.flip(4, BLOCK + 100, 1)),
        ("a LINK and what follows it", |files| files.unwrite(4, 1..4)),
        ("a segment", |files| drop(files.remove(3))),
        ("the first segment", |files| drop(files.remove(1))),
        ("the end of a segment, and the beginning of the next", |files| {
            files.unwrite(5, 7..9);
            files.unwrite(6, 1..5);
        }),
    ];
    for (what, damage) in cases {
        let mut damaged = files.clone();
        damage(&mut damaged);
        finds_by_time(what, &damaged, 64 << 10);
    }

    let dir = tempfile::tempdir().unwrap();
    let log = small().segment_bytes(1 << 20).open(dir.path()).unwrap();
    slow(&log, 1..=150);
    let mut files = Files::read(dir.path());
    files.unwrite(1, 100..140);
    files.unwrite(1, 50..53);
    finds_by_time("two stretches of a large segment", &files, 1 << 20);
}

/// The bytes of the records from one LSN up to another are those that can be read, and those that
/// what lies behind the damage counts.
#[test]
fn the_bytes_between_two_records_count_what_was_given_up_or_not() {
    let cases: [(&str, Damage); 6] = [
        ("the first record", |files| files.flip(1, 2 * BLOCK + 100, 3)),
        ("all but the last of the first segment", |files| (2..8).for_each(|block| files.flip(1, block * BLOCK + 100, 3))),
        ("all of the first segment", |files| (2..9).for_each(|block| files.flip(1, block * BLOCK + 100, 3))),
        ("the first LINK", |files| files.flip(1, BLOCK + 100, 3)),
        ("another LINK", |files| files.flip(3, BLOCK + 100, 3)),
        ("a segment", |files| drop(files.remove(3))),
    ];
    for (what, damage) in cases {
        let mut files = Files::crashed(|log| commit(log, 1..40));
        damage(&mut files);
        let disk = MemDisk::new(&files);
        let log = disk.open(OnDamage::Salvage).unwrap();
        let lost = log.recovery().given_up.clone();
        // Nothing is known within a stretch: it counts as a whole, or not at all.
        let within =
            |lsn: u64| lost.iter().find(|(first, last)| (first..=last).contains(&&Lsn(lsn))).map_or(lsn, |lost| lost.0.0);
        let has = |lsns: std::ops::Range<u64>| lsns.map(|lsn| record(lsn).len() as u64).sum::<u64>();
        commit(&log, 40..47); // (A view sees what the last commit said.)
        for mut reader in [log.reader(), disk.view().reader_at(Lsn::ZERO)] {
            for (from, to) in (1..=45).flat_map(|from| (from..=45).step_by(4).map(move |to| (from, to))) {
                let bytes = reader.bytes_between(Lsn(from), Lsn(to)).unwrap();
                assert_eq!(bytes, has(within(from)..within(to)), "{what}: {from} to {to}, {lost:?} are lost");
            }
            assert_eq!(reader.bytes_between(Lsn::ZERO, Lsn(45)).unwrap(), has(1..45), "{what}");
        }
    }
}

/// `Lsn::ZERO` is the beginning of a log, also where it was truncated.
#[test]
fn the_bytes_from_the_start_are_those_that_are_there() {
    let disk = MemDisk::default();
    let log = disk.open(OnDamage::Refuse).unwrap();
    commit(&log, 1..40);
    log.truncate_front(Lsn(30)).unwrap();
    let bytes = (30..40).map(|lsn| record(lsn).len() as u64).sum::<u64>();
    let view = disk.view();
    assert_eq!(log.bytes_between(Lsn::ZERO, Lsn(40)).unwrap(), bytes);
    assert_eq!(view.bytes_between(Lsn::ZERO, Lsn(40)).unwrap(), bytes);
    assert_eq!((log.bytes_between(Lsn::ZERO, Lsn::ZERO).unwrap(), view.records_between(Lsn::ZERO, Lsn(40))), (0, 10));
    for from in [Lsn(1), Lsn(29)] {
        assert!(matches!(log.bytes_between(from, Lsn(40)), Err(foreword::Error::Dropped { lsn, .. }) if lsn == from));
    }
}
