//! What is kept: holds, their limits, and retention.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use foreword::disk::OsDisk;
use foreword::{Error, Limit, Log, Lsn, Options, View};

use foreword_tests::hooked::{Op, hooked, until};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

/// How long each of the two places in `HOLDS` is.
const PLACE: usize = 16 << 10;

/// Six such records fill a segment.
fn commit(log: &Log, records: u64) {
    for _ in 0..records {
        log.commit([7; 10_000]).unwrap();
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
    assert!(log.holds().unwrap().is_empty());
    log.hold("from the start", Lsn::ZERO).unwrap();
    log.hold("next", Lsn(31)).unwrap();
    assert_eq!(log.holds().unwrap()["from the start"].lsn, Lsn(20));
    assert_eq!(log.truncate_front(Lsn(31)).unwrap(), Lsn(20));
}

#[test]
fn a_cut_moves_the_holds_behind_it_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 99);
    log.hold("before", Lsn(7)).unwrap();
    log.hold("behind", Lsn(80)).unwrap();
    // Those of other processes, of which the log has not taken notice yet: one has a hold of the
    // log's moved, and one is new.
    let view = View::open(dir.path()).unwrap();
    view.hold("a follower", Lsn(100)).unwrap();
    log.truncate_back(Lsn(51)).unwrap();
    let lsns = |holds: std::collections::BTreeMap<String, foreword::Hold>| {
        holds.into_iter().map(|(name, hold)| (name, hold.lsn.0)).collect::<Vec<_>>()
    };
    let expected = [("a follower".to_owned(), 51), ("before".to_owned(), 7), ("behind".to_owned(), 51)];
    assert_eq!(lsns(log.holds().unwrap()), expected);
    assert_eq!(lsns(view.holds().unwrap()), expected);
    assert_eq!(lsns(View::open(dir.path()).unwrap().holds().unwrap()), expected);
    commit(&log, 70);
    log.release("before").unwrap();
    assert_eq!(log.truncate_front(Lsn(100)).unwrap(), Lsn(51), "what the follower has to read again is kept");
    drop(log);
    let log = options().open(dir.path()).unwrap();
    assert_eq!(lsns(log.holds().unwrap()), [expected[0].clone(), expected[2].clone()]);
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
    let hold = view.holds().unwrap()["dead"];
    assert_eq!((hold.lsn, hold.limit), (Lsn(1), Limit::bytes(200_704)), "in whole blocks");
    assert!(hold.lost);
    let log = options().background(false).open(dir.path()).unwrap();
    for lsn in [Lsn(1), Lsn(61), Lsn::ZERO] {
        assert!(matches!(log.hold("dead", lsn), Err(Error::HoldLost { lsn: Lsn(1), .. })), "{lsn}");
    }
    assert!(log.release("dead").unwrap());
    log.hold_up_to("dead", start, Limit::bytes(200_000)).unwrap();
    // Moved, it keeps its limit; given another, it has that.
    log.hold("dead", start.next()).unwrap();
    assert_eq!(log.holds().unwrap()["dead"].limit, Limit::bytes(200_704));
    log.hold_up_to("dead", start.next(), Limit::NONE).unwrap();
    commit(&log, 60);
    assert_eq!(log.truncate_front(log.last_lsn()).unwrap(), start.next());
}

#[test]
fn a_hold_that_is_lost_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    log.hold_up_to("gone", Lsn(1), Limit::bytes(200_000)).unwrap();
    commit(&log, 60);
    log.hold_up_to("waits", Lsn(60), Limit::bytes(200_000)).unwrap();
    let lost = log.truncate_front(Lsn(61)).unwrap();
    assert!(log.holds().unwrap()["gone"].lost && kept(&log) >= 200_000, "{lost}");
    assert_eq!((log.stats().holds, log.stats().first_held_lsn), (2, Lsn(60)));
    assert_eq!(log.truncate_front(Lsn(61)).unwrap(), Lsn(60), "the other hold keeps what it is for");
    assert_eq!(log.holds().unwrap().len(), 2);
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
    log.hold("a reader", Lsn(1)).unwrap();
    commit(&log, 100);
    log.hold("a reader", Lsn(30)).unwrap();
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
    // The segment in use stays. (While others go, a reader may be told so.)
    let read = || log.iter(Lsn::ZERO).find_map(Result::err);
    until("all others are dropped", || log.start_lsn() > Lsn(34) && read().is_none());
}

#[test]
fn retention_by_age_leaves_the_segment_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().retain(Limit::age(Duration::from_millis(50))).open(dir.path()).unwrap();
    for _ in 0..3 {
        log.commit("a record").unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(log.start_lsn(), Lsn(1), "however old its records are");
    assert_eq!(log.truncate_front(log.last_lsn().next()).unwrap(), Lsn(4));
    assert!(log.iter(Lsn::ZERO).next().is_none());
}

/// Where retention's own marks, and those of an idle log, fill the segment, the log goes on in
/// another, which has no record.
#[test]
fn retention_by_age_leaves_the_last_records_however_full_their_segment_is() {
    let root = tempfile::tempdir().unwrap();
    // (Where no segment has to be prepared, nothing else has retention look.)
    let options = options().retain(Limit::age(Duration::from_millis(100))).spare_segments(2);
    let logs: Vec<Log> = (0..16)
        .map(|i| options.clone().open(root.path().join(i.to_string())).unwrap())
        .enumerate()
        .map(|(i, log)| {
            (0..20 + i).for_each(|_| _ = log.commit("an event").unwrap());
            log
        })
        .collect();
    for log in &logs {
        until("what lies before the newest segments is dropped", || log.start_lsn() > Lsn(1));
    }
    std::thread::sleep(Duration::from_millis(600));
    let rotations = || logs.iter().map(|log| (log.stats().rotations, log.start_lsn())).collect::<Vec<_>>();
    let before = rotations();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(rotations(), before, "a quiet log stays as it is");
    for log in &logs {
        let records = log.iter(Lsn::ZERO).map(|record| record.unwrap().lsn).collect::<Vec<_>>();
        assert_eq!(records.last(), Some(&log.last_lsn()), "however old: {records:?} of {}", log.last_lsn());
    }
    // The first record behind them lets them go, without another rotation.
    let without_rotation = logs.iter().filter_map(|log| {
        let (rotations, first) = (log.stats().rotations, log.commit("another").unwrap());
        (log.stats().rotations == rotations).then_some((log, first))
    });
    let without_rotation: Vec<_> = without_rotation.collect();
    until("what lies before a segment that had no record is dropped", || {
        without_rotation.iter().any(|(log, first)| log.start_lsn() == *first)
    });
}

#[test]
fn a_log_has_32_holds_wherever_they_were_placed() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    commit(&log, 1);
    let view = View::open(dir.path()).unwrap();
    for i in 0..16 {
        log.hold(&format!("mine {i}"), Lsn(1)).unwrap();
        view.hold(&format!("another's {i}"), Lsn(1)).unwrap();
    }
    assert!(matches!(log.hold("one more", Lsn(1)), Err(Error::Invalid { what: "holds", .. })));
    assert!(matches!(view.hold("one more", Lsn(1)), Err(Error::Invalid { what: "holds", .. })));
    log.hold("mine 3", Lsn(2)).unwrap();
    view.release("mine 3").unwrap();
    view.hold("one more", Lsn(1)).unwrap();
}

#[test]
fn a_limit_counts_the_bytes_of_records_and_not_those_of_their_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().idle_mark(None).retain(Limit::bytes(20_000)).open(dir.path()).unwrap();
    for _ in 0..400 {
        log.commit([7; 100]).unwrap();
    }
    let stats = log.stats();
    assert_eq!(stats.record_bytes, 40_000);
    assert!(stats.written_bytes / stats.record_bytes >= 40, "{stats:?}");
    until("it drops", || log.start_lsn() > Lsn(150));
    assert!(log.start_lsn() <= Lsn(201) && kept(&log) >= 20_000);
    assert!(log.stats().segments * 65_536 > 40 * 20_000);
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
    let log = options().retain(Limit::bytes(50_000)).on_error(move |told| _ = said.send(told.error));
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
    for (i, limit) in [Limit::bytes(1), Limit::bytes(u64::MAX), Limit::age(Duration::from_nanos(1)), Limit::age(Duration::MAX)]
        .into_iter()
        .enumerate()
    {
        let log = options().retain(limit).open(dir.path().join(i.to_string())).unwrap();
        log.hold_up_to("one", Lsn(1), limit).unwrap();
        commit(&log, 20);
        log.truncate_front(Lsn(21)).unwrap();
        assert_eq!(log.last_lsn(), Lsn(20));
    }
    // 0 is no limit to many, and would keep nothing here.
    for limit in [Limit::bytes(0), Limit::age(Duration::ZERO), Limit::bytes(1 << 20).or_age(Duration::ZERO)] {
        let none = dir.path().join("none");
        assert!(matches!(options().retain(limit).open(&none), Err(Error::Invalid { what: "retain", .. })));
        assert!(!none.exists());
        let log = options().open(dir.path().join("0")).unwrap();
        assert!(matches!(log.hold_up_to("two", Lsn(20), limit), Err(Error::Invalid { .. })));
        let view = View::open(log.dir()).unwrap();
        assert!(matches!(view.hold_up_to("two", Lsn(20), limit), Err(Error::Invalid { .. })));
        assert!(!view.holds().unwrap().contains_key("two"));
    }
}

/// What a consumer is told of a log whose end is damaged: no reader beyond the damage waits for what
/// will not come, and what holds there are is not known.
#[test]
fn a_consumer_behind_damage_is_told_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    commit(&log, 30);
    log.hold("consumer", Lsn(28)).unwrap();
    log.close().unwrap();
    let segments = foreword::inspect::segments(dir.path()).unwrap();
    let lost = segments.iter().find(|segment| segment.lsns.is_some_and(|(_, last)| last >= Lsn(20))).unwrap();
    std::fs::remove_file(dir.path().join(format!("{:020}.seg", lost.epoch))).unwrap();
    let view = View::open(dir.path()).unwrap();
    let last = view.last_lsn().unwrap();
    assert!(last < Lsn(28));
    let is_told = |result: Result<String, Error>| assert!(matches!(result, Err(Error::Corruption(_))), "{result:?}");
    for lsn in [last.next(), Lsn(28), Lsn(31), Lsn(9999)] {
        is_told(view.reader_at(lsn).next().map(|r| format!("{lsn}: {r:?}")));
        is_told(view.reader_at(lsn).wait_next(Some(Duration::from_secs(5))).map(|r| format!("{lsn}: {r:?}")));
        is_told(view.get(lsn).map(|r| format!("{lsn}: {r:?}")));
        is_told(view.hold("late", lsn).map(|()| lsn.to_string()));
    }
    is_told(view.iter_back(Lsn::MAX).next().unwrap().map(|r| format!("{r:?}")));
    assert_eq!(view.iter_back(last).next().unwrap().unwrap().lsn, last);
    is_told(view.holds().map(|holds| format!("{holds:?}")));
    is_told(view.release("consumer").map(|there| there.to_string()));
    let repaired = options().on_damage(foreword::OnDamage::Salvage).open(dir.path()).unwrap();
    assert!(repaired.holds().unwrap().contains_key("consumer"));
    repaired.close().unwrap();
    assert!(view.holds().unwrap().contains_key("consumer"));
}

/// A view whose directory is gone, or has another log or copy by now, makes nothing there, and says
/// so, whatever it is asked.
#[test]
fn a_view_of_a_directory_that_was_replaced_says_so_and_makes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (dir, copy) = (place.path().join("log"), place.path().join("copy"));
    let log = options().open(&dir).unwrap();
    commit(&log, 3);
    log.close().unwrap();
    std::fs::create_dir(&copy).unwrap();
    let files = |dir: &std::path::Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for name in files(&dir) {
        std::fs::copy(dir.join(&name), copy.join(&name)).unwrap();
    }
    let asks = |view: &View, is: &dyn Fn(&Error) -> bool| {
        for error in [
            view.refresh().unwrap_err(),
            view.holds().unwrap_err(),
            view.hold("a", Lsn(1)).unwrap_err(),
            view.release("a").unwrap_err(),
            view.last_lsn().unwrap_err(),
        ] {
            assert!(is(&error), "{error:?}");
        }
    };
    let view = View::open(&dir).unwrap();
    for name in files(&dir) {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    asks(&view, &|error| matches!(error, Error::NotFound { .. }));
    assert_eq!(files(&dir), Vec::<String>::new());
    std::fs::remove_dir(&dir).unwrap();
    asks(&view, &|error| matches!(error, Error::NotFound { .. }));
    // A copy of the same log.
    std::fs::rename(&copy, &dir).unwrap();
    let before = files(&dir);
    asks(&view, &|error| matches!(error, Error::Replaced { expected, found, .. } if expected == found));
    assert_eq!(View::open(&dir).unwrap().last_lsn().unwrap(), Lsn(3));
    // Another log.
    std::fs::remove_dir_all(&dir).unwrap();
    options().open(&dir).unwrap().close().unwrap();
    asks(&view, &|error| matches!(error, Error::Replaced { expected, found, .. } if expected != found));
    assert!(!files(&dir).iter().any(|name| name.starts_with("HOLDS")), "{before:?}");
}

#[test]
fn a_hold_can_be_placed_where_it_stands_though_the_record_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    commit(&log, 3);
    let view = View::open(dir.path()).unwrap();
    view.hold("far", Lsn(50)).unwrap();
    log.hold("far", Lsn(50)).unwrap();
    log.hold_up_to("far", Lsn(50), Limit::bytes(1 << 20)).unwrap();
    assert!(matches!(log.hold("far", Lsn(51)), Err(Error::NotAppended { .. })));
    log.close().unwrap();
    view.hold("far", Lsn(50)).unwrap();
    view.hold_up_to("far", Lsn(50), Limit::bytes(1 << 30)).unwrap();
    assert!(matches!(view.hold("far", Lsn(51)), Err(Error::NotAppended { .. })));
    assert_eq!(view.holds().unwrap()["far"].limit, Limit::bytes(1 << 30));
}

#[test]
fn a_hold_is_lost_as_of_when_it_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 30);
    let view = View::open(dir.path()).unwrap();
    log.hold_up_to("mine", Lsn(5), Limit::bytes(1 << 30)).unwrap();
    // It moves, and what it kept goes: no start LSN of another moment makes it a lost one.
    let before = (log.holds().unwrap()["mine"], view.holds().unwrap()["mine"]);
    log.hold("mine", Lsn(20)).unwrap();
    log.truncate_front(Lsn(20)).unwrap();
    assert!(!before.0.lost && !before.1.lost);
    assert!(!log.holds().unwrap()["mine"].lost && !view.holds().unwrap()["mine"].lost);
    // A view says what it saw, until it looks.
    log.truncate_front(Lsn(20)).unwrap();
    let other = View::open(dir.path()).unwrap();
    log.hold("mine", Lsn(25)).unwrap();
    log.truncate_front(Lsn(25)).unwrap();
    log.truncate_back(Lsn(28)).unwrap();
    let generation = other.generation();
    assert_eq!((other.start_lsn(), other.cut_since(generation)), (Lsn(20), None));
    other.refresh().unwrap();
    assert_eq!((other.start_lsn(), other.cut_since(generation)), (Lsn(25), Some(Lsn(28))));
    log.close().unwrap();
    assert!(other.has_writer());
    other.refresh().unwrap();
    assert!(!other.has_writer() && other.verdict().is_some());
}

#[test]
fn a_hold_of_another_process_counts_at_once_and_the_writer_takes_it_in() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 30);
    let view = View::open(dir.path()).unwrap();
    view.hold("outside", Lsn(10)).unwrap();
    view.hold_up_to("limited", Lsn(12), Limit::bytes(1 << 30)).unwrap();
    for holds in [log.holds().unwrap(), view.holds().unwrap()] {
        assert_eq!((holds["outside"].lsn, holds["limited"].limit), (Lsn(10), Limit::bytes(1 << 30)));
    }
    assert_eq!(log.stats().holds, 0, "nothing is in the log yet");
    assert_eq!(log.truncate_front(Lsn(30)).unwrap(), Lsn(10));
    assert_eq!((log.stats().holds, log.stats().first_held_lsn), (2, Lsn(10)));
    // Moved and released there, and here.
    view.hold("outside", Lsn(20)).unwrap();
    assert_eq!(log.truncate_front(Lsn(30)).unwrap(), Lsn(12));
    assert!(log.release("limited").unwrap() && !view.release("limited").unwrap());
    assert!(matches!(view.hold("late", Lsn(11)), Err(Error::Dropped { lsn: Lsn(11), start: Lsn(12), .. })));
    assert_eq!(log.truncate_front(Lsn(30)).unwrap(), Lsn(20));
    assert!(view.release("outside").unwrap());
    assert!(!view.release("outside").unwrap() && !log.holds().unwrap().contains_key("outside"));
    view.hold("of the start", Lsn::ZERO).unwrap();
    assert_eq!(log.holds().unwrap()["of the start"].lsn, Lsn(20));
    log.hold("here", Lsn(25)).unwrap();
    assert_eq!(log.stats().holds, 2, "a hold takes them in, too");
    // Without a writer, and for the next one.
    view.release("of the start").unwrap();
    log.close().unwrap();
    view.hold("between", Lsn(27)).unwrap();
    assert_eq!(View::open(dir.path()).unwrap().holds().unwrap().into_keys().collect::<Vec<_>>(), ["between", "here"]);
    let log = options().background(false).open(dir.path()).unwrap();
    log.release("here").unwrap();
    assert_eq!(log.truncate_front(Lsn(31)).unwrap(), Lsn(27));
}

#[test]
fn a_hold_that_is_placed_keeps_what_it_says_whatever_is_dropped_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    commit(&log, 1);
    let until = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < until {
                commit(&log, 3);
                match log.truncate_front(log.last_lsn()) {
                    Err(Error::Busy) => {}
                    start => assert!(start.unwrap() > Lsn::ZERO),
                }
            }
        });
        let view = View::open(dir.path()).unwrap();
        let (mut placed, mut late) = (0, 0);
        for round in (0..).take_while(|_| Instant::now() < until) {
            let lsn = Lsn(log.start_lsn().0 + round % 3);
            match view.hold("racing", lsn) {
                Ok(()) => {
                    placed += 1;
                    std::thread::sleep(Duration::from_micros(500 * (round % 3)));
                    // (None, if it is still to be appended.)
                    let first = log.iter(lsn).next().transpose();
                    assert!(first.is_ok() && log.start_lsn() <= lsn, "{lsn} was to be kept: {first:?}");
                    assert!(view.release("racing").unwrap());
                }
                Err(Error::Dropped { .. }) => late += 1,
                Err(error) => assert!(matches!(error, Error::Busy), "{error:?}"),
            }
        }
        assert!(placed > 10, "{placed} were placed, {late} came too late");
    });
}

#[test]
fn no_hold_is_placed_while_what_it_keeps_is_being_dropped() {
    let dir = tempfile::tempdir().unwrap();
    drop(options().open(dir.path()).unwrap());
    let view = View::open(dir.path()).unwrap();
    let (armed, got) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let (shot, gets) = (armed.clone(), got.clone());
    let disk = hooked(OsDisk::new(), move |op, _| {
        // The truncation has looked for holds, and is not durable yet.
        if op == Op::WriteDurable && shot.swap(false, Ordering::SeqCst) {
            *gets.lock().unwrap() = Some(view.hold("late", Lsn(1)));
        }
        Ok(())
    });
    let log = options().background(false).disk(disk).open(dir.path()).unwrap();
    commit(&log, 30);
    armed.store(true, Ordering::SeqCst);
    assert_eq!(log.truncate_front(Lsn(20)).unwrap(), Lsn(20));
    let got = got.lock().unwrap().take();
    assert!(matches!(got, Some(Err(Error::Busy))), "{got:?}");
}

/// The same, where the file of holds is not there yet, and cannot be made.
#[test]
fn no_hold_is_placed_meanwhile_where_the_file_of_holds_cannot_be_finished() {
    for (failing, error) in [(Op::Allocate(2 * PLACE as u64), 28), (Op::Write, 5), (Op::Sync, 5), (Op::Rename, 5)] {
        let dir = tempfile::tempdir().unwrap();
        drop(options().open(dir.path()).unwrap());
        let view = View::open(dir.path()).unwrap();
        let (step, got) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(None)));
        let (steps, gets) = (step.clone(), got.clone());
        let disk = hooked(OsDisk::new(), move |op, name| {
            let reach = |from, to| steps.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if op == failing && name.starts_with("HOLDS") && reach(1, 2) {
                return Err(std::io::Error::from_raw_os_error(error));
            }
            if op == Op::WriteDurable && reach(2, 3) {
                *gets.lock().unwrap() = Some(view.hold("late", Lsn(1)));
            }
            Ok(())
        });
        let log = options().background(false).disk(disk).open(dir.path()).unwrap();
        commit(&log, 30);
        step.store(1, Ordering::SeqCst);
        assert_eq!(log.truncate_front(Lsn(20)).unwrap(), Lsn(20), "{failing:?}");
        let got = got.lock().unwrap().take();
        assert!(matches!(got, Some(Err(Error::Busy))), "{failing:?}: {got:?}");
        let view = View::open(dir.path()).unwrap();
        assert!(matches!(view.hold("late", Lsn(1)), Err(Error::Dropped { .. })));
        view.hold("in time", Lsn(25)).unwrap();
        assert_eq!(log.truncate_front(Lsn(31)).unwrap(), Lsn(25));
    }
}

/// Who is about to begin the file, and cannot finish it, may find that another did both meanwhile.
#[test]
fn a_hold_counts_that_is_placed_while_the_writer_begins_the_file_of_holds() {
    let dir = tempfile::tempdir().unwrap();
    drop(options().open(dir.path()).unwrap());
    let view = View::open(dir.path()).unwrap();
    let (armed, full) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let shot = armed.clone();
    let disk = hooked(OsDisk::new(), move |op, name| {
        if op == Op::Lock && name == "HOLDS.tmp" && shot.swap(false, Ordering::SeqCst) {
            view.hold("faster", Lsn(3)).unwrap();
            full.store(true, Ordering::SeqCst);
        }
        let fails = op == Op::Allocate(2 * PLACE as u64) && full.load(Ordering::SeqCst);
        if fails { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let log = options().background(false).disk(disk).open(dir.path()).unwrap();
    commit(&log, 30);
    armed.store(true, Ordering::SeqCst);
    assert_eq!(log.truncate_front(Lsn(20)).unwrap(), Lsn(3));
    assert!(!armed.load(Ordering::SeqCst) && !dir.path().join("HOLDS.tmp").exists());
}

/// Nobody could place a hold in it either, where there is no room; else that is not known.
#[test]
fn a_file_of_holds_that_cannot_be_begun_is_told_of_unless_it_is_for_want_of_room() {
    let dir = tempfile::tempdir().unwrap();
    let error = Arc::new(AtomicI32::new(0));
    let says = error.clone();
    let disk = hooked(OsDisk::new(), move |op, name| match says.load(Ordering::SeqCst) {
        error if error != 0 && op == Op::Lock && name == "HOLDS.tmp" => Err(std::io::Error::from_raw_os_error(error)),
        _ => Ok(()),
    });
    let log = options().background(false).disk(disk).open(dir.path()).unwrap();
    commit(&log, 30);
    for refused in [13, 5, 24] {
        error.store(refused, Ordering::SeqCst);
        let refused = log.truncate_front(Lsn(20)).unwrap_err();
        assert!(matches!(&refused, Error::Io { path, .. } if path.ends_with("HOLDS.tmp")), "{refused:?}");
        assert_eq!(log.start_lsn(), Lsn(1));
    }
    for (room, at) in [(28, 10), (30, 20)] {
        error.store(room, Ordering::SeqCst);
        assert_eq!(log.truncate_front(Lsn(at)).unwrap(), Lsn(at));
    }
}

#[test]
fn what_is_in_the_file_of_holds_is_whole_or_not_there_and_damage_is_no_silence() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 30);
    let (view, file) = (View::open(dir.path()).unwrap(), dir.path().join("HOLDS"));
    view.hold("one", Lsn(10)).unwrap();
    let first = std::fs::read(&file).unwrap();
    view.hold("one", Lsn(15)).unwrap();
    let second = std::fs::read(&file).unwrap();
    let places = |one: &[u8], other: &[u8]| [&one[..PLACE], &other[PLACE..]].concat();
    let torn = |bytes: &[u8], place: usize| {
        let mut torn = bytes.to_vec();
        torn[place * PLACE + 60] ^= 1;
        torn
    };
    // As a crash leaves it in the middle of the second text, whichever place it began with: torn,
    // the first counts; whole in one place, the second does.
    let states = [
        (places(&torn(&second, 0), &first), 10),
        (places(&first, &torn(&second, 1)), 10),
        (places(&second, &first), 15),
        (places(&first, &second), 15),
        (places(&second, &torn(&first, 1)), 15),
        (places(&torn(&first, 0), &second), 15),
        // No crash, but damage: each place has what counts.
        (torn(&second, 0), 15),
        (torn(&second, 1), 15),
        (torn(&first, 0), 10),
        (torn(&first, 1), 10),
    ];
    for (i, (state, expected)) in states.iter().enumerate() {
        std::fs::write(&file, state).unwrap();
        assert_eq!(view.holds().unwrap()["one"].lsn, Lsn(*expected), "{i}");
        // Asked for again, it is in both.
        view.hold("one", Lsn(*expected)).unwrap();
        let settled = std::fs::read(&file).unwrap();
        for place in [0, 1] {
            std::fs::write(&file, torn(&settled, place)).unwrap();
            assert_eq!(view.holds().unwrap()["one"].lsn, Lsn(*expected), "{i}, {place}");
        }
    }
    // Neither is whole: nothing is dropped, and the error says what to do.
    let torn = torn(&torn(&second, 0), 1);
    std::fs::write(&file, &torn).unwrap();
    let refused = log.truncate_front(Lsn(20)).unwrap_err();
    assert!(refused.to_string().contains("HOLDS") && refused.to_string().contains("remove it"), "{refused}");
    assert!(view.hold("two", Lsn(10)).is_err());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(log.truncate_front(Lsn(20)).unwrap(), Lsn(20));
    // Of another log.
    std::fs::write(&file, &second).unwrap();
    let other = tempfile::tempdir().unwrap();
    let log = options().background(false).open(other.path()).unwrap();
    commit(&log, 30);
    std::fs::write(other.path().join("HOLDS"), &second).unwrap();
    assert_eq!(log.truncate_front(Lsn(20)).unwrap(), Lsn(20));
    assert!(log.holds().unwrap().is_empty());
}

#[test]
fn another_process_places_no_more_holds_than_there_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 3);
    let view = View::open(dir.path()).unwrap();
    for i in 0..16 {
        view.hold(&format!("outside {i:056}"), Lsn(1)).unwrap();
        log.hold(&format!("inside  {i:056}"), Lsn(1)).unwrap();
    }
    for refused in
        [view.hold("one more", Lsn(1)), log.hold("one more", Lsn(1)), view.hold("", Lsn(1)), view.hold(&"x".repeat(65), Lsn(1))]
    {
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
    assert_eq!(log.truncate_front(Lsn(4)).unwrap(), Lsn(1));
    assert_eq!(log.stats().holds, 32);
}

#[test]
fn what_the_writers_process_says_last_of_a_hold_counts_whatever_another_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 30);
    let view = View::open(dir.path()).unwrap();
    log.hold("moved", Lsn(3)).unwrap();
    view.hold("moved", Lsn(20)).unwrap();
    view.hold("released", Lsn(2)).unwrap();
    // Both leave the log's own holds as they were.
    log.hold("moved", Lsn(3)).unwrap();
    assert!(log.release("released").unwrap());
    assert_eq!(
        log.holds().unwrap().into_iter().map(|(name, hold)| (name, hold.lsn)).collect::<Vec<_>>(),
        [("moved".into(), Lsn(3))]
    );
    assert_eq!(log.truncate_front(Lsn(30)).unwrap(), Lsn(3));
}

#[test]
fn holds_of_other_processes_may_come_and_go_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 10);
    let view = View::open(dir.path()).unwrap();
    view.hold("stays", Lsn(2)).unwrap();
    for i in 0..400 {
        let name = format!("{i:064}");
        view.hold(&name, Lsn(5)).unwrap();
        assert!(view.release(&name).unwrap());
    }
    assert_eq!(view.holds().unwrap().into_keys().collect::<Vec<_>>(), ["stays"]);
    assert_eq!(log.truncate_front(Lsn(10)).unwrap(), Lsn(2));
}

#[test]
fn retention_goes_on_when_a_hold_in_its_way_is_moved_elsewhere_or_reaches_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().retain(Limit::bytes(100_000)).open(dir.path()).unwrap();
    commit(&log, 5);
    let view = View::open(dir.path()).unwrap();
    view.hold("outside", Lsn(1)).unwrap();
    commit(&log, 30);
    until("the hold is in the log", || log.stats().holds == 1);
    assert_eq!(log.start_lsn(), Lsn(1));
    view.hold("outside", Lsn(10)).unwrap();
    until("the hold was moved", || log.start_lsn() == Lsn(10));
    log.hold_up_to("limited", Lsn(10), Limit::age(Duration::from_secs(1))).unwrap();
    view.release("outside").unwrap();
    until("the other hold is lost", || log.start_lsn() > Lsn(10));
}

#[test]
fn closing_a_log_that_drops_what_is_old_is_no_error() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    for i in 0..100 {
        let (dir, hears) = (tempfile::tempdir().unwrap(), reported.clone());
        let options = options().zero_fill(false).retain(Limit::bytes(10_000));
        let log = options.on_error(move |told| hears.lock().unwrap().push(told.error)).open(dir.path()).unwrap();
        for _ in 0..12 + i % 7 {
            log.append([7; 10_000]).unwrap();
        }
        log.close().unwrap();
    }
    assert!(reported.lock().unwrap().is_empty(), "{reported:?}");
}

#[test]
fn a_file_of_holds_that_cannot_be_read_is_told_of_and_stops_neither_an_opening_nor_a_commit() {
    type Harm = fn(&std::path::Path);
    fn cut_to(file: &std::path::Path, len: u64) {
        std::fs::File::options().write(true).open(file).unwrap().set_len(len).unwrap();
    }
    let harms: &[(&str, bool, Harm)] = &[
        ("cut to nothing", true, |file| cut_to(file, 0)),
        ("cut within its first text", true, |file| cut_to(file, 100)),
        ("cut between its texts", true, |file| cut_to(file, 16 << 10)),
        ("cut by a byte", true, |file| cut_to(file, (32 << 10) - 1)),
        ("zeros", true, |file| std::fs::write(file, [0; 32 << 10]).unwrap()),
        ("garbage", true, |file| std::fs::write(file, [0xa5; 40_000]).unwrap()),
        ("a directory", false, |file| {
            std::fs::remove_file(file).unwrap();
            std::fs::create_dir(file).unwrap();
        }),
        #[cfg(unix)]
        ("a link that leads nowhere", false, |file| {
            std::fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("nowhere", file).unwrap();
        }),
    ];
    for (what, is_damage, harm) in harms {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("HOLDS");
        let log = options().background(false).open(dir.path()).unwrap();
        commit(&log, 30);
        let view = View::open(dir.path()).unwrap();
        view.hold("outside", Lsn(10)).unwrap();
        harm(&file);
        let refused = [
            view.holds().map(drop).unwrap_err(),
            view.hold("another", Lsn(12)).unwrap_err(),
            view.release("outside").map(drop).unwrap_err(),
            log.truncate_front(Lsn(20)).map(drop).unwrap_err(),
            log.truncate_back(Lsn(20)).unwrap_err(),
            log.hold("here", Lsn(12)).unwrap_err(),
        ];
        for error in &refused {
            let typed = match error {
                Error::HoldsDamaged { path, .. } => *is_damage && *path == file,
                Error::Io { path, .. } => !is_damage && *path == file,
                _ => false,
            };
            let advises = error.to_string().contains(if *is_damage { "remove it" } else { "HOLDS" });
            assert!(typed && advises, "{what}: {error:?}");
        }
        assert!(matches!(log.holds(), Err(Error::HoldsDamaged { .. } | Error::Io { .. })), "{what}");
        commit(&log, 1);
        assert_eq!((log.start_lsn(), log.last_lsn()), (Lsn(1), Lsn(31)), "{what}");
        log.close().unwrap();
        let report = foreword::verify(dir.path()).unwrap();
        assert_eq!(report.verdict, Some(foreword::Verdict::Clean), "{what}");
        assert_eq!(matches!(report.holds_unknown, Some(Error::HoldsDamaged { .. })), *is_damage, "{what}");
        assert!(report.holds_unknown.is_some(), "{what}");
        let log = options().background(false).open(dir.path()).unwrap();
        let _ = std::fs::remove_file(&file).or_else(|_| std::fs::remove_dir(&file));
        assert_eq!(log.truncate_front(Lsn(20)).unwrap(), Lsn(20), "{what}");
        assert!(foreword::verify(dir.path()).unwrap().holds_unknown.is_none());
    }
}

fn on(disk: &foreword_sim::SimDisk) -> foreword::Options {
    options().background(false).on_error(|_| ()).disk(disk.handle())
}

fn view(disk: &foreword_sim::SimDisk) -> View {
    View::open_on(disk.handle(), "/log").unwrap()
}

/// A closed log of five records, of which no other process has asked to keep any.
fn closed_with_five() -> foreword_sim::SimDisk {
    let disk = foreword_sim::SimDisk::new(1);
    let log = on(&disk).open("/log").unwrap();
    commit(&log, 5);
    log.close().unwrap();
    disk
}

/// It has its name when it is whole, whatever the disk does meanwhile: none that is new is taken
/// for a damaged one.
#[test]
fn a_file_of_holds_is_made_whole_or_not_at_all() {
    use foreword_sim::{Choice, Effect, Fault, OpKind};
    let made = closed_with_five();
    let whole = made.copy();
    let opened = view(&whole);
    let before = whole.ops().len();
    opened.hold("outside", Lsn(2)).unwrap();
    let ops = whole.ops().len() - before;
    let mut refused = 0;
    for n in 0..ops as u64 {
        let disk = made.copy();
        let opened = view(&disk);
        disk.fault(Fault::new(OpKind::Any, Effect::Eio).skip(n));
        let held = opened.hold("outside", Lsn(2));
        disk.heal();
        refused += u64::from(held.is_err());
        for after in [disk.kill(), disk.crash(&Choice::None), disk.crash(&Choice::Seed(n)), disk.crash(&Choice::Seed(n + 99))] {
            let view = view(&after);
            let holds = view.holds().unwrap_or_else(|error| panic!("call {n}: {error}"));
            assert!(holds.contains_key("outside") || held.is_err(), "call {n}");
            // What was left of it is finished.
            view.hold("outside", Lsn(3)).unwrap();
            assert_eq!(on(&after).open("/log").unwrap().truncate_front(Lsn(5)).unwrap(), Lsn(3), "call {n}");
        }
    }
    assert!(refused > 5, "{refused} of {ops}");
}

/// The first hold from outside takes space; that one is not there is said without.
#[test]
fn a_first_hold_without_room_is_told() {
    use foreword_sim::{Effect, Fault, OpKind};
    let disk = closed_with_five();
    let opened = view(&disk);
    disk.fault(Fault::new(OpKind::SetLen, Effect::NoSpace).forever());
    assert!(!opened.release("outside").unwrap());
    let refused = opened.hold("outside", Lsn(2));
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    disk.heal();
    opened.hold("outside", Lsn(2)).unwrap();
    assert!(opened.release("outside").unwrap());
}

/// Whatever was left in the page cache alone by the attempt that failed.
#[test]
fn a_hold_that_is_asked_for_again_after_an_error_is_durable() {
    use foreword_sim::{Choice, Effect, Fault, OpKind};
    let made = closed_with_five();
    let later = made.copy();
    view(&later).hold("outside", Lsn(1)).unwrap();
    for made in [made, later] {
        let (whole, mut refused) = (made.copy(), 0);
        let opened = view(&whole);
        let before = whole.ops().len();
        opened.hold("outside", Lsn(2)).unwrap();
        for n in 0..(whole.ops().len() - before) as u64 {
            let disk = made.copy();
            let opened = view(&disk);
            disk.fault(Fault::new(OpKind::Any, Effect::Eio).skip(n));
            refused += u64::from(opened.hold("outside", Lsn(2)).is_err());
            disk.heal();
            opened.hold("outside", Lsn(2)).unwrap();
            for choice in [Choice::None, Choice::All].into_iter().chain((0..20).map(Choice::Seed)) {
                let holds = view(&disk.crash(&choice)).holds().unwrap();
                let held = holds.get("outside").map(|hold| hold.lsn);
                assert_eq!(held, Some(Lsn(2)), "call {n}, {choice:?}");
            }
        }
        assert!(refused > 3, "{refused}");
    }
}

#[test]
fn what_was_left_under_the_name_of_a_file_of_holds_that_is_begun_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 30);
    let (view, file) = (View::open(dir.path()).unwrap(), dir.path().join("HOLDS"));
    log.hold("one", Lsn(5)).unwrap();
    view.release("one").unwrap();
    let old = [std::fs::read(&file).unwrap(), vec![7; 100_000]].concat();
    std::fs::write(dir.path().join("HOLDS.tmp"), old).unwrap();
    assert_eq!(log.truncate_front(Lsn(2)).unwrap(), Lsn(2));
    log.hold("one", Lsn(7)).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(log.truncate_front(Lsn(20)).unwrap(), Lsn(7));
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 2 * PLACE as u64);
}

/// Another user's, who was killed when it was just made.
#[test]
#[cfg(unix)]
fn a_file_of_holds_that_another_began_is_for_the_users_that_the_log_is_for() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit(&log, 3);
    let set = |name: &str, mode| std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    set("LOG", 0o660);
    std::fs::write(dir.path().join("HOLDS.tmp"), "").unwrap();
    set("HOLDS.tmp", 0o600);
    log.truncate_front(Lsn(2)).unwrap();
    let mode = std::fs::metadata(dir.path().join("HOLDS")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn many_who_place_the_first_hold_at_once_all_have_theirs() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let log = options().background(false).open(dir.path()).unwrap();
        commit(&log, 5);
        std::thread::scope(|scope| {
            for i in 0..6 {
                let dir = dir.path();
                scope.spawn(move || {
                    let view = View::open(dir).unwrap();
                    until("the hold is placed", || !matches!(view.hold(&format!("{i}"), Lsn(2)), Err(Error::Busy)));
                });
            }
        });
        assert_eq!(log.holds().unwrap().len(), 6);
        assert_eq!(log.truncate_front(Lsn(5)).unwrap(), Lsn(2));
        assert!(!dir.path().join("HOLDS.tmp").exists());
    }
}
