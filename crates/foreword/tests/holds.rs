//! What is kept: holds, their limits, and retention.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use foreword::{Error, Limit, Log, Lsn, Options, View};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

/// Six such records fill a segment.
fn commit(log: &Log, records: u64) {
    for _ in 0..records {
        log.commit([7; 10_000]).unwrap();
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many bytes are kept; the start may move meanwhile.
fn kept(log: &Log) -> u64 {
    loop {
        match log.bytes_between(log.start_lsn(), log.last_lsn().next()) {
            Err(Error::Dropped { .. }) => {}
            bytes => return bytes.unwrap(),
        }
    }
}

#[test]
fn a_hold_on_what_is_gone_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 30);
    log.truncate_front(Lsn(20)).unwrap();
    for lsn in [1, 19] {
        let refused = log.hold("late", Lsn(lsn));
        assert!(
            matches!(refused, Err(Error::Dropped { lsn: gone, start, .. }) if gone == Lsn(lsn) && start == Lsn(20)),
            "{refused:?}"
        );
    }
    assert!(log.holds().is_empty());
    log.hold("from the start", Lsn::ZERO).unwrap();
    log.hold("next", Lsn(31)).unwrap();
    assert_eq!(log.holds()["from the start"].lsn, Lsn(20));
    assert_eq!(log.truncate_front(Lsn(31)).unwrap(), Lsn(20));
}

#[test]
fn a_hold_keeps_up_to_its_limit_and_its_owner_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    log.hold_up_to("dead", Lsn(1), Limit::bytes(200_000)).unwrap();
    log.hold_up_to("patient", Lsn(1), Limit::age(Duration::from_secs(3600))).unwrap();
    commit(&log, 15);
    assert_eq!(log.truncate_front(Lsn(16)).unwrap(), Lsn(1), "it is within its limit");
    commit(&log, 45);
    assert_eq!(log.truncate_front(Lsn(61)).unwrap(), Lsn(1), "another hold keeps all");
    assert!(log.release("patient").unwrap());
    let start = log.truncate_front(Lsn(61)).unwrap();
    assert!((200_000..270_000).contains(&kept(&log)), "{} bytes from {start} on", kept(&log));
    // It lasts, with its limit, and says that it is lost.
    log.close().unwrap();
    let view = View::open(dir.path()).unwrap();
    let hold = view.holds()["dead"];
    assert_eq!((hold.lsn, hold.limit), (Lsn(1), Limit::bytes(200_704)), "in whole blocks");
    assert!(hold.is_lost(view.start_lsn()));
    let log = options().background(false).open(dir.path()).unwrap();
    for lsn in [Lsn(1), Lsn(61), Lsn::ZERO] {
        assert!(matches!(log.hold("dead", lsn), Err(Error::Dropped { lsn: Lsn(1), .. })), "{lsn}");
    }
    assert!(log.release("dead").unwrap());
    log.hold_up_to("dead", start, Limit::bytes(200_000)).unwrap();
    // Moved, it keeps its limit; given another, it has that.
    log.hold("dead", start.next()).unwrap();
    assert_eq!(log.holds()["dead"].limit, Limit::bytes(200_704));
    log.hold_up_to("dead", start.next(), Limit::NONE).unwrap();
    commit(&log, 60);
    assert_eq!(log.truncate_front(log.last_lsn()).unwrap(), start.next());
}

#[test]
fn limits_in_time_let_go_of_what_is_older() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    log.hold_up_to("slow", Lsn(1), Limit::age(Duration::from_millis(1))).unwrap(); // A second, as it is stored.
    commit(&log, 20);
    assert_eq!(log.truncate_front(Lsn(21)).unwrap(), Lsn(1));
    std::thread::sleep(Duration::from_millis(1100));
    commit(&log, 1);
    let start = log.truncate_front(Lsn(22)).unwrap();
    assert!(start > Lsn(6), "{start}");
}

#[test]
fn retention_keeps_the_last_bytes_and_stops_at_holds() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().retain(Limit::bytes(150_000)).open(dir.path()).unwrap();
    log.hold("a reader", Lsn(30)).unwrap();
    commit(&log, 100);
    until("what no hold keeps is dropped", || log.start_lsn() == Lsn(30));
    log.release("a reader").unwrap();
    commit(&log, 10);
    until("the rest is dropped", || kept(&log) < 150_000 + 2 * 65_536);
    assert!(kept(&log) >= 150_000);
    until("and removed", || log.stats().segments_dropped == 0);
    // An opening does it, too.
    log.close().unwrap();
    let log = options().retain(Limit::bytes(10_000)).open(dir.path()).unwrap();
    commit(&log, 1);
    until("it opened with a smaller limit", || kept(&log) < 10_000 + 2 * 65_536);
    assert_eq!(log.last_lsn(), Lsn(111));
}

#[test]
fn retention_by_age_needs_no_append() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().retain(Limit::age(Duration::from_millis(300))).open(dir.path()).unwrap();
    let start = Instant::now();
    commit(&log, 40);
    if start.elapsed() < Duration::from_millis(200) {
        assert_eq!(log.start_lsn(), Lsn(1));
    }
    // The segment in use stays.
    until("all others are dropped", || log.start_lsn() > Lsn(34));
    assert!(log.iter(Lsn::ZERO).all(|record| record.is_ok()));
}

#[test]
fn a_log_without_background_work_drops_nothing_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().retain(Limit::bytes(1)).background(false).open(dir.path()).unwrap();
    commit(&log, 40);
    assert_eq!(log.start_lsn(), Lsn(1));
}

#[test]
fn what_retention_cannot_do_is_reported_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (said, says) = std::sync::mpsc::channel();
    let log = options().retain(Limit::bytes(50_000)).on_error(move |error| _ = said.send(error.clone()));
    let log = log.open(dir.path()).unwrap();
    let stuck = dir.path().join(format!("{:020}.seg", 1));
    let aside = dir.path().join("aside");
    std::fs::rename(&stuck, &aside).unwrap();
    std::fs::create_dir(&stuck).unwrap();
    std::fs::write(stuck.join("x"), "").unwrap();
    commit(&log, 60);
    says.recv_timeout(Duration::from_secs(20)).unwrap();
    std::fs::remove_dir_all(&stuck).unwrap();
    std::fs::rename(&aside, &stuck).unwrap();
    commit(&log, 30);
    until("it goes on", || kept(&log) < 50_000 + 2 * 65_536);
}

#[test]
fn limits_say_what_they_are() {
    let limit = Limit::bytes(7).or_age(Duration::from_secs(5)).or_bytes(9);
    assert_eq!((limit.bytes, limit.age), (Some(9), Some(Duration::from_secs(5))));
    assert_eq!(Limit::default(), Limit::NONE);
    let dir = tempfile::tempdir().unwrap();
    for (i, limit) in
        [Limit::bytes(0), Limit::bytes(u64::MAX), Limit::age(Duration::ZERO), Limit::age(Duration::MAX)].into_iter().enumerate()
    {
        let log = options().retain(limit).open(dir.path().join(i.to_string())).unwrap();
        log.hold_up_to("one", Lsn(1), limit).unwrap();
        commit(&log, 20);
        log.truncate_front(Lsn(21)).unwrap();
        assert_eq!(log.last_lsn(), Lsn(20));
    }
}
