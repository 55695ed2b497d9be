//! The log's main job, as a user would have it do it.

use std::io::IoSlice;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreword::{Durability, Error, Log, Lsn, OnDamage, Options, SyncPolicy, Verdict, View};

fn small() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn record(i: u64) -> Vec<u8> {
    let len = (i * 7919 % 900) as usize;
    (0..len).map(|k| (i as usize + k * 31) as u8).collect()
}

fn check(log: &Log, from: u64, to: u64) {
    let mut lsn = from;
    for r in log.iter(Lsn(from)) {
        let r = r.unwrap();
        assert_eq!(r.lsn, Lsn(lsn));
        assert_eq!(r.data, record(lsn), "{lsn}");
        lsn += 1;
    }
    assert_eq!(lsn, to + 1);
    for r in log.iter_back(Lsn::MAX) {
        let r = r.unwrap();
        lsn -= 1;
        assert_eq!(r.lsn, Lsn(lsn));
        assert_eq!(r.data, record(lsn), "{lsn}");
    }
    assert_eq!(lsn, from);
}

#[test]
fn records_come_back_over_segments_and_reopenings() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 1;
    for round in 0..6 {
        let log = small().open(dir.path()).unwrap();
        let verdict = &log.recovery().verdict;
        assert_eq!(*verdict, if round == 0 { Verdict::Created } else { Verdict::Clean });
        assert_eq!(log.last_lsn(), Lsn(next - 1));
        for _ in 0..500 {
            assert_eq!(log.append(&record(next)).unwrap(), Lsn(next));
            next += 1;
            if next % 50 == 0 {
                log.sync().unwrap();
            }
        }
        log.sync().unwrap();
        check(&log, 1, next - 1);
        for lsn in (1..next).step_by(97) {
            assert_eq!(log.get(Lsn(lsn)).unwrap(), record(lsn));
        }
        log.close().unwrap();
    }
    let report = foreword::verify(dir.path()).unwrap();
    assert_eq!(report.verdict, Some(Verdict::Clean));
    assert_eq!(report.last_lsn, Lsn(next - 1));
    let view = View::open(dir.path()).unwrap().recoverable().unwrap();
    assert_eq!(view.iter(Lsn::ZERO).count() as u64, next - 1);
}

#[test]
fn commits_from_many_threads_share_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(Options::new().segment_bytes(1 << 20).open(dir.path()).unwrap());
    std::thread::scope(|s| {
        for t in 0..16 {
            let log = &log;
            s.spawn(move || {
                for i in 0..200 {
                    let lsn = log.commit(format!("{t} {i}").as_bytes()).unwrap();
                    assert!(log.durable_lsn() >= lsn);
                }
            });
        }
    });
    let stats = log.stats();
    assert_eq!(stats.records, 3200);
    assert!(stats.flushes < 3200, "{}", stats.flushes);
    assert_eq!(log.iter(Lsn::FIRST).count(), 3200);
}

#[test]
fn a_killed_log_recovers_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let log = small().sync(SyncPolicy::manual()).background(false).open(dir.path()).unwrap();
    for i in 1..=300 {
        log.append(&record(i)).unwrap();
    }
    log.sync().unwrap();
    for i in 301..=400 {
        log.append(&record(i)).unwrap();
    }
    log.write().unwrap();
    log.append(b"never written").unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let view = View::open(copy.path()).unwrap();
    assert_eq!(view.recoverable_lsn().unwrap(), Lsn(400));
    let recovered = small().open(copy.path()).unwrap();
    assert_eq!(recovered.recovery().verdict, Verdict::Unclosed);
    assert!(recovered.recovery().rewritten_records >= 100);
    check(&recovered, 1, 400);
    assert_eq!(recovered.commit(&record(401)).unwrap(), Lsn(401));
    check(&recovered, 1, 401);
    recovered.close().unwrap();
    let again = small().open(copy.path()).unwrap();
    check(&again, 1, 401);
}

#[test]
fn large_records_and_batches_span_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect();
    log.commit(b"before").unwrap();
    log.commit(&big).unwrap();
    let batch: Vec<Vec<u8>> = (0..2000).map(record).collect();
    let first = log.commit_batch(&batch).unwrap();
    assert_eq!(first, Lsn(3));
    log.commit(b"after").unwrap();
    assert_eq!(log.get(Lsn(2)).unwrap(), big);
    assert_eq!(log.get(Lsn(1003)).unwrap(), record(1000));
    assert_eq!(log.get(Lsn(2003)).unwrap(), b"after");
    assert_eq!(log.iter_back(Lsn::MAX).count(), 2003);
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    assert_eq!(
        log.iter(Lsn::FIRST).map(|r| r.unwrap().data.len()).sum::<usize>(),
        6 + 5 + 3_000_000 + batch.iter().map(Vec::len).sum::<usize>()
    );
}

/// The bytes are where the caller has them: in a frame, in one that is nearly full, and over many
/// frames and segments.
#[test]
fn a_record_in_parts_is_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().sync(SyncPolicy::manual()).open(dir.path()).unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i * 31 / 8) as u8).collect();
    let cuts: [&[usize]; 8] =
        [&[], &[0], &[10], &[5, 5, 5], &[1, 4000, 100], &[0, 3, 0, 60_000, 0], &[150_000, 0, 1, 149_000], &[3000; 40]];
    let mut expected = Vec::new();
    for (i, cut) in cuts.iter().enumerate() {
        let (mut parts, mut at) = (Vec::new(), i);
        for len in *cut {
            parts.push(IoSlice::new(&bytes[at..at + len]));
            at += len;
        }
        let lsns = [
            log.append_parts(&parts).unwrap(),
            log.commit_parts(&parts).unwrap(),
            log.append_parts_with(&parts, Durability::Written).unwrap(),
            log.commit_parts_async(&parts).unwrap().lsn(),
        ];
        assert_eq!(lsns[3].0, lsns[0].0 + 3, "one record each");
        expected.extend([&bytes[i..at]; 4]);
        match log.try_append_parts(&parts) {
            Err(Error::Busy) => {}
            appended => {
                appended.unwrap();
                expected.push(&bytes[i..at]);
            }
        }
    }
    let huge = vec![0; 1 << 20];
    let too_large = log.append_parts(&vec![IoSlice::new(&huge); 65]);
    assert!(matches!(too_large, Err(Error::TooLarge { bytes, .. }) if bytes == 65 << 20), "{too_large:?}");
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    let records: Vec<_> = log.into_iter().map(|record| record.unwrap().data).collect();
    assert_eq!(records.len(), expected.len());
    assert!(records.iter().zip(&expected).all(|(record, expected)| record == expected));
    assert_eq!(log.bytes_between(Lsn(1), log.last_lsn().next()).unwrap(), expected.iter().map(|e| e.len() as u64).sum::<u64>());
}

#[test]
fn a_batch_of_records_in_parts_is_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().sync(SyncPolicy::manual()).open(dir.path()).unwrap();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| (i * 31 / 8) as u8).collect();
    let batches: [&[[usize; 3]]; 6] = [
        &[[7, 0, 3]],
        &[[0; 3], [5, 5, 5], [0, 0, 1]],
        &[[4, 0, 100]; 300],
        &[[1, 4000, 100], [0; 3], [0, 60_000, 3], [2, 0, 0]],
        &[[150_000, 1, 49_999], [0; 3], [30_000; 3], [1, 1, 0]],
        &[[0; 3]; 40],
    ];
    let mut expected: Vec<&[u8]> = Vec::new();
    for batch in batches {
        let parts = |[one, two, three]: &[usize; 3]| {
            let ends = [*one, one + two, one + two + three];
            [&bytes[..ends[0]], &bytes[ends[0]..ends[1]], &bytes[ends[1]..ends[2]]].map(IoSlice::new)
        };
        let records = || batch.iter().map(parts);
        let joined = || batch.iter().map(|record| &bytes[..record.iter().sum()]);
        let firsts = [
            log.append_batch_parts(records()).unwrap(),
            log.commit_batch_parts(records().collect::<Vec<_>>()).unwrap(),
            log.append_batch_parts_with(records(), Durability::Written).unwrap(),
            log.commit_batch_parts_async(records()).unwrap().lsn(),
        ];
        assert_eq!(firsts.map(|lsn| lsn.0 - firsts[0].0), [0, 1, 2, 3].map(|before| before * batch.len() as u64));
        (0..4).for_each(|_| expected.extend(joined()));
        match log.try_append_batch_parts(records()) {
            Err(Error::Busy) => {}
            appended => {
                appended.unwrap();
                expected.extend(joined());
            }
        }
    }
    assert!(matches!(log.append_batch_parts(None::<[IoSlice<'_>; 2]>), Err(Error::Invalid { what: "batch", .. })));
    let huge = vec![0; 8 << 20];
    let too_large = log.append_batch_parts([[IoSlice::new(&huge); 4]; 2]);
    assert!(matches!(too_large, Err(Error::TooLarge { bytes, .. }) if bytes == (64 << 20) + 8), "{too_large:?}");
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    let records: Vec<_> = log.into_iter().map(|record| record.unwrap().data).collect();
    assert_eq!(records.len(), expected.len());
    assert!(records.iter().zip(&expected).all(|(record, expected)| record == expected));
    assert_eq!(log.bytes_between(Lsn(1), log.last_lsn().next()).unwrap(), expected.iter().map(|e| e.len() as u64).sum::<u64>());
}

#[test]
fn records_come_as_what_they_are_and_batches_from_iterators() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let owned = [String::from("d"), String::from("e")];
    log.append("a").unwrap();
    log.append(String::from("b")).unwrap();
    log.append(vec![b'c']).unwrap();
    log.commit_batch(owned.iter().rev().rev()).unwrap();
    log.append_batch(&std::collections::BTreeSet::from(["f", "g"])).unwrap();
    log.append_batch((0..100).map(|_| "h")).unwrap();
    log.commit_checkpoint("i").unwrap();
    assert!(matches!(log.append_batch::<str>([]), Err(Error::Invalid { what: "batch", .. })));
    let all: Vec<u8> = log.into_iter().flat_map(|record| record.unwrap().data).collect();
    assert_eq!(String::from_utf8(all).unwrap(), format!("abcdefg{}i", "h".repeat(100)));
}

#[test]
fn a_range_has_the_records_between_its_bounds_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    (1..=20).for_each(|i| _ = log.append(record(i)).unwrap());
    log.sync().unwrap();
    log.truncate_front(Lsn(4)).unwrap();
    let lsns = |iter: foreword::Iter| iter.map(|r| r.map(|r| r.lsn.0)).collect::<Result<Vec<_>, _>>();
    let view = View::open(dir.path()).unwrap();
    for range in [6..9, 6..6, 4..21, 19..40, 30..40] {
        let expected: Vec<u64> = (range.start..range.end.min(21)).collect();
        let range = Lsn(range.start)..Lsn(range.end);
        assert_eq!(lsns(log.range(range.clone())).unwrap(), expected);
        assert!(expected.starts_with(&lsns(view.range(range)).unwrap()));
    }
    assert_eq!(lsns(log.range(..)).unwrap(), (4..=20).collect::<Vec<_>>());
    assert_eq!(lsns(log.range(..=Lsn(5))).unwrap(), [4, 5]);
    assert_eq!(lsns(log.range(Lsn::ZERO..Lsn(6))).unwrap(), [4, 5]);
    assert_eq!(lsns(log.range((Bound::Excluded(Lsn(18)), Bound::Unbounded))).unwrap(), [19, 20]);
    assert!(lsns(log.range(Lsn(9)..Lsn(6))).unwrap().is_empty());
    assert!(matches!(lsns(log.range(Lsn(2)..Lsn(6))), Err(Error::Dropped { lsn: Lsn(2), .. })));
    let mut short = log.range(..Lsn(5));
    assert_eq!((short.next().unwrap().unwrap().lsn, short.next().is_none(), short.next().is_none()), (Lsn(4), true, true));
}

#[test]
fn truncation_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    for i in 1..=2000 {
        log.append(&record(i)).unwrap();
    }
    log.sync().unwrap();
    let many = log.stats().segments;
    log.hold("replica", Lsn(900)).unwrap();
    assert_eq!(log.truncate_front(Lsn(1500)).unwrap(), Lsn(900));
    assert!(log.stats().segments < many);
    assert!(matches!(log.get(Lsn(899)), Err(Error::Dropped { .. })));
    check(&log, 900, 2000);
    log.truncate_back(Lsn(1800)).unwrap();
    assert_eq!(log.last_lsn(), Lsn(1799));
    check(&log, 900, 1799);
    for i in 1800..=1900 {
        assert_eq!(log.commit(&record(i)).unwrap(), Lsn(i));
    }
    check(&log, 900, 1900);
    assert!(log.release("replica").unwrap());
    assert_eq!(log.truncate_front(Lsn(1500)).unwrap(), Lsn(1500));
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    check(&log, 1500, 1900);
    log.truncate_back(Lsn(1500)).unwrap();
    assert_eq!(log.iter(Lsn::ZERO).count(), 0);
    assert_eq!(log.commit(&record(1500)).unwrap(), Lsn(1500));
    drop(log);
    check(&small().open(dir.path()).unwrap(), 1500, 1500);
}

#[test]
fn levels_of_durability_mean_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().background(false).open(dir.path()).unwrap();
    log.append(b"a").unwrap();
    assert_eq!((log.last_lsn(), log.written_lsn(), log.durable_lsn()), (Lsn(1), Lsn(0), Lsn(0)));
    log.append_with(b"b", Durability::Written).unwrap();
    assert_eq!((log.last_lsn(), log.written_lsn(), log.durable_lsn()), (Lsn(2), Lsn(2), Lsn(0)));
    assert_eq!(log.iter(Lsn::ZERO).count(), 0, "no reader sees what is not durable");
    log.append_with(b"c", Durability::Synced).unwrap();
    assert_eq!((log.last_lsn(), log.written_lsn(), log.durable_lsn()), (Lsn(3), Lsn(3), Lsn(3)));
    assert!(matches!(log.sync_to(Lsn(4)), Err(Error::NotAppended { .. })));
}

#[test]
fn the_policy_syncs_in_the_background() {
    for policy in [SyncPolicy::interval(Duration::from_millis(5)), SyncPolicy::every_records(3), SyncPolicy::every_bytes(3)] {
        let dir = tempfile::tempdir().unwrap();
        let log = small().sync(policy).open(dir.path()).unwrap();
        let mut reader = log.reader();
        for _ in 0..3 {
            log.append(b"x").unwrap();
        }
        let record = reader.wait_next(Some(Duration::from_secs(10))).unwrap().expect("durable by policy");
        assert_eq!(record.lsn, Lsn(1));
        log.close().unwrap();
    }
}

#[test]
fn a_second_writer_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    match small().open(dir.path()) {
        Err(Error::Locked { holder, .. }) => assert!(holder.contains(&std::process::id().to_string())),
        other => panic!("{other:?}"),
    }
    drop(log);
    small().on_damage(OnDamage::Refuse).open(dir.path()).unwrap();
}

#[test]
fn a_view_follows_a_live_writer() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let view = View::open(dir.path()).unwrap();
    assert!(view.has_writer());
    let mut reader = view.reader_at(Lsn::ZERO);
    for i in 1..=500 {
        log.commit(&record(i)).unwrap();
    }
    for i in 1..=500 {
        let r = reader.wait_next(Some(Duration::from_secs(5))).unwrap().unwrap_or_else(|| panic!("{i}"));
        assert_eq!((r.lsn, r.data), (Lsn(i), &record(i)[..]));
    }
    log.close().unwrap();
}

#[test]
fn the_next_segment_is_not_prepared_while_commits_flush_the_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(1 << 20).open(dir.path()).unwrap();
    let segments = || {
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".seg")).count()
    };
    // (What is prepared for the first segment comes later still.)
    while log.stats().rotations < 2 {
        log.commit(b"a block each").unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(segments(), 3, "two are full, one has just been begun");
    (0..20).for_each(|_| _ = log.commit(b"a block each").unwrap());
    let since = Instant::now();
    while log.stats().segments_prepared == 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "the next is prepared in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_next_segment_is_prepared_for_appends_that_nobody_waits_for() {
    // A frame is full, which is enough for the next segment to begin; but nothing is written yet,
    // so that no flush that ends sees to it.
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(1 << 20).sync(SyncPolicy::manual()).open(dir.path()).unwrap();
    let append = || _ = log.append(&[7; 10_000]).unwrap();
    for rotations in 0..10 {
        while log.stats().rotations == rotations {
            append();
        }
        // The thread that prepares has looked once, and sleeps.
        std::thread::sleep(Duration::from_millis(5));
        (0..40).for_each(|_| append());
        let since = Instant::now();
        while log.stats().segments_prepared == 0 {
            assert!(since.elapsed() < Duration::from_secs(10), "the next is prepared before it is needed");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn spare_segments_are_there_when_the_log_is_opened_and_are_recycled() {
    let dir = tempfile::tempdir().unwrap();
    let segments = || {
        std::fs::read_dir(dir.path()).unwrap().filter(|e| e.as_ref().unwrap().path().extension() == Some("seg".as_ref())).count()
    };
    let options = || small().spare_segments(5).background(false);
    let log = options().open(dir.path()).unwrap();
    assert_eq!((log.stats().segments_prepared, segments()), (5, 6));
    let commit_some = |log: &Log| (0..35).for_each(|_| assert!(log.commit(&[7; 3000]).is_ok()));
    commit_some(&log); // Seven of them fill a segment.
    let stats = log.stats();
    assert_eq!(
        (stats.rotations, stats.segments_created, stats.rotation_wait_nanos.count()),
        (4, 0, 0),
        "what was prepared is used"
    );
    // What is dropped comes back, as many as are asked for.
    commit_some(&log);
    log.truncate_front(log.last_lsn()).unwrap();
    assert_eq!((log.stats().segments_recycled, log.stats().segments_prepared), (5, 5));
    log.close().unwrap();
    // They are used again as they are; and where there are none, after a crash, they are made.
    let before: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().modified().unwrap()).collect();
    let log = options().open(dir.path()).unwrap();
    let after: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().modified().unwrap()).collect();
    assert_eq!(log.stats().segments_prepared, 5);
    assert!(after.iter().filter(|time| !before.contains(time)).count() <= 1, "the lock");
    log.commit(b"so that it is not closed any more").unwrap();
    std::mem::forget(log);
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let log = options().open(copy.path()).unwrap();
    assert_eq!((log.recovery().verdict.name(), log.stats().segments_prepared), ("unclosed", 5));
    commit_some(&log);
}

#[test]
fn a_hold_moves_once_for_many_records_and_keeps_nothing_that_is_not_appended() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(1 << 20).open(dir.path()).unwrap();
    for n in 0..10u8 {
        log.commit([n]).unwrap();
    }
    log.hold("a hold", Lsn(5)).unwrap();
    assert_eq!(log.truncate_front(Lsn(8)).unwrap(), Lsn(5));
    let flushes = log.stats().flushes;
    log.hold("a hold", Lsn(5)).unwrap();
    assert_eq!(log.stats().flushes, flushes, "it stands there already");
    log.hold("a hold", Lsn(11)).unwrap();
    assert!(log.stats().flushes > flushes);
    assert_eq!(log.truncate_front(Lsn(11)).unwrap(), Lsn(11), "what is to come is kept");
    for beyond in [Lsn(12), Lsn::MAX] {
        let error = log.hold("a hold", beyond).unwrap_err();
        assert!(matches!(error, Error::NotAppended { lsn, last: Lsn(10), .. } if lsn == beyond), "{error:?}");
    }
    log.close().unwrap();
    let log = Options::new().open(dir.path()).unwrap();
    assert_eq!(log.holds().unwrap()["a hold"].lsn, Lsn(11));
    log.close().unwrap();
}
