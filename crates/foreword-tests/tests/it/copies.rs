//! Copies of another log's records, as an archive or a standby keeps them; and how a program that
//! copies finds out what was cut meanwhile.

use std::time::{Duration, SystemTime};

use foreword::{Error, Iter, Log, Lsn, OnDamage, Record, View};
use foreword_tests::*;

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn records(iter: Iter) -> Vec<(u64, SystemTime, Vec<u8>)> {
    iter.map(Result::unwrap).map(|Record { lsn, time, data, .. }| (lsn.0, time, data)).collect()
}

fn copy_to(log: &Log, first: u64, copies: &[(SystemTime, Vec<u8>)]) -> Result<(), Error> {
    log.append_copies(Lsn(first), copies.iter().map(|(time, data)| (*time, data)))
}

#[test]
fn copies_keep_their_lsns_and_times_through_kills_and_cuts() {
    // Several in a second, none for a while, a clock that was set back, a record of many frames, one
    // of several segments, and an empty one.
    let mut copies: Vec<_> = (0..300).map(|i| (time(i / 7), record(i))).collect();
    copies.push((time(9_000), vec![7; 150_000]));
    copies.push((time(3), vec![8; 1_500_000]));
    copies.push((time(4), Vec::new()));
    let expected: Vec<_> = (1_000..).zip(&copies).map(|(lsn, (time, data))| (lsn, *time, data.clone())).collect();

    let dir = tempfile::tempdir().unwrap();
    let log = small().first_lsn(Lsn(1_000)).create_new().open(dir.path()).unwrap();
    assert_eq!((log.start_lsn(), log.last_lsn()), (Lsn(1_000), Lsn(999)));
    copy_to(&log, 1_000, &copies[..100]).unwrap();
    copy_to(&log, 1_100, &copies[100..]).unwrap();
    log.sync().unwrap();
    assert!(records(log.iter(Lsn::ZERO)) == expected);

    // As it is after a kill, and written again by the opening; and after a close.
    let killed = Files::read(dir.path()).dir();
    let reopened = small().open(killed.path()).unwrap();
    assert_eq!(reopened.start_lsn(), Lsn(1_000));
    reopened.commit(b"its own").unwrap();
    reopened.truncate_back(Lsn(1_303)).unwrap();
    reopened.close().unwrap();
    log.close().unwrap();
    for dir in [&killed, &dir] {
        assert!(records(View::open(dir.path()).unwrap().iter(Lsn::ZERO)) == expected);
    }
    assert_eq!(check_dir(dir.path()).start_lsn, Lsn(1_000));
    assert_eq!(small().open(dir.path()).unwrap().commit(b"the next").unwrap(), Lsn(1_303));
}

#[test]
fn copies_share_blocks_and_a_records_own_time_is_not_a_copys() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let before = SystemTime::now() - Duration::from_millis(1);
    let written = log.stats().written_bytes;
    copy_to(&log, 1, &(0..1_000).map(|i| (time(i / 500), vec![1; 32])).collect::<Vec<_>>()).unwrap();
    log.append(b"of now").unwrap();
    copy_to(&log, 1_002, &[(time(5), b"a copy".to_vec())]).unwrap();
    log.append(b"of now").unwrap();
    log.sync().unwrap();
    let of: Vec<_> = records(log.iter(Lsn::ZERO)).into_iter().map(|(_, time, _)| time).collect();
    assert_eq!((of[0], of[999], of[1_001]), (time(0), time(1), time(5)));
    assert!(of[1_000] >= before && of[1_002] >= before, "{of:?}");
    assert!(log.stats().written_bytes - written < 96 << 10, "1,000 copies of 32 bytes of two seconds take some blocks each");
}

#[test]
fn a_copy_that_is_not_the_next_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    for first in [0, 2, u64::MAX] {
        let refused = copy_to(&log, first, &[(time(0), b"?".to_vec())]);
        assert!(matches!(refused, Err(Error::Invalid { what: "copies", .. })), "{refused:?}");
    }
    copy_to(&log, 7, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let large = small().record_bytes_max(100).open(dir.path()).unwrap();
    let refused = copy_to(&large, 1, &[(time(0), vec![0; 10]), (time(0), vec![0; 101])]);
    assert!(matches!(refused, Err(Error::TooLarge { bytes: 101, .. })), "{refused:?}");
    assert_eq!((log.last_lsn(), large.last_lsn()), (Lsn::ZERO, Lsn::ZERO));
}

#[test]
fn a_log_begins_with_any_lsn_that_it_is_given() {
    for (lsn, good) in [(0, false), (1, true), (u64::MAX >> 2, true), ((u64::MAX >> 2) + 1, false), (u64::MAX, false)] {
        let dir = tempfile::tempdir().unwrap();
        let opened = small().first_lsn(Lsn(lsn)).open(dir.path());
        assert_eq!(opened.is_ok(), good, "{lsn}: {opened:?}");
        let Ok(log) = opened else { continue };
        // An option of a new log: one that is there begins where it begins.
        assert_eq!(log.commit(b"the first").unwrap(), Lsn(lsn));
        log.close().unwrap();
        let again = small().first_lsn(Lsn(5)).open(dir.path()).unwrap();
        assert_eq!((again.start_lsn(), again.last_lsn()), (Lsn(lsn), Lsn(lsn)));
        again.close().unwrap();
        assert_eq!(check_dir(dir.path()).records, 1);
    }
}

/// As far as its bytes are concerned, a log that begins later has lost nothing.
#[test]
fn killed_before_its_first_record_it_begins_there_all_the_same() {
    let files = {
        let dir = tempfile::tempdir().unwrap();
        let _log = small().first_lsn(Lsn(50)).open(dir.path()).unwrap();
        Files::read(dir.path())
    };
    let dir = files.dir();
    assert_eq!(View::open(dir.path()).unwrap().start_lsn(), Lsn(50));
    let log = small().open(dir.path()).unwrap();
    assert_eq!(log.commit(b"the first").unwrap(), Lsn(50));
    assert_eq!(log.bytes_between(Lsn(50), Lsn(51)).unwrap(), 9);
}

#[test]
fn a_view_tells_what_was_cut_since_a_generation() {
    let dir = tempfile::tempdir().unwrap();
    let look = || View::open(dir.path()).unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..50);
    let first = look().generation();
    assert_eq!(look().cut_since(first), None);
    log.truncate_back(Lsn(40)).unwrap();
    commit(&log, 40..60);
    let second = look().generation();
    log.truncate_back(Lsn(55)).unwrap();
    log.close().unwrap();
    assert!(second > first && look().generation() > second);
    assert_eq!((look().cut_since(first), look().cut_since(second)), (Some(Lsn(40)), Some(Lsn(55))));
    // A crash is no cut; a salvage is.
    let mut files = Files::crashed(|log| (1..50).for_each(|lsn| commit(log, lsn..lsn + 1)));
    let before = View::open(files.dir().path()).unwrap().generation();
    small().open(files.dir().path()).unwrap();
    let damaged = files.frames(1).iter().filter(|frame| frame.records > 0).nth(3).unwrap().block;
    files.flip(1, damaged * BLOCK + 100, 1);
    let dir = files.dir();
    small().on_damage(OnDamage::StopAtDamage).open(dir.path()).unwrap().close().unwrap();
    let view = View::open(dir.path()).unwrap();
    assert!(view.generation() > before);
    assert_eq!(view.cut_since(before), Some(view.last_lsn().unwrap().next()));
}
