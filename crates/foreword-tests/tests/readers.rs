//! What readers return, and what they cost.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use foreword::disk::{Disk, OsDisk};
use foreword::inspect::{self, Content};
use foreword::{Durability, Error, Log, Lsn, OnDamage, Options, Reader, View, verify};
use foreword_tests::hooked::{Op, hooked};
use foreword_tests::*;

/// Longer than anything here takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A log with a background thread, which says what is durable when it falls idle.
fn lively(dir: &Path) -> Log {
    Options::new().segment_bytes(64 << 10).open(dir).unwrap()
}

/// Reads to the end: the LSNs.
fn lsns(reader: &mut Reader) -> Vec<u64> {
    std::iter::from_fn(|| reader.next().unwrap().map(|record| record.lsn.0)).collect()
}

fn until<T>(mut there: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
}

struct Unpark(thread::Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current(), AtomicUsize::new(0))));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    }
}

/// The generation that the last LINK or MARK of the newest segment names.
fn generation(dir: &Path) -> u32 {
    let epoch = inspect::segments(dir).unwrap().iter().rfind(|s| s.lsns.is_some() || s.state.name() == "current").unwrap().epoch;
    let states = inspect::frames(dir, epoch).unwrap().filter_map(|frame| match frame.unwrap().content {
        Content::Link { state, .. } | Content::Mark { state, .. } => Some(state.generation),
        _ => None,
    });
    states.last().unwrap()
}

#[test]
fn each_cut_at_the_back_raises_the_generation_for_good_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let next = fill_segment(&log, 1);
    commit(&log, next..next + 3);
    assert_eq!(generation(dir.path()), 0);
    log.truncate_back(Lsn(5)).unwrap();
    assert_eq!(generation(dir.path()), 1);
    log.truncate_back(Lsn(9)).unwrap(); // There is nothing to cut.
    commit(&log, 5..8);
    log.truncate_back(Lsn(7)).unwrap();
    commit(&log, 7..20);
    log.truncate_front(Lsn(3)).unwrap();
    assert_eq!(generation(dir.path()), 2);
    // A crash, and recovery into a fork, which is no cut; then a clean close.
    let crashed = Files::read(dir.path()).dir();
    for _ in 0..2 {
        let log = small().open(crashed.path()).unwrap();
        log.commit(b"more").unwrap();
        assert_eq!(generation(crashed.path()), 2);
        log.close().unwrap();
    }
    // A cut's LINK is behind the damage: its generation is not used for other records.
    let mut damaged = Files::read(crashed.path());
    let first = damaged.epochs()[0];
    damaged.flip(first, 2 * BLOCK + 100, 0);
    let damaged = damaged.dir();
    let log = small().on_damage(OnDamage::StopAtDamage).open(damaged.path()).unwrap();
    log.commit(b"another first").unwrap();
    assert_eq!(generation(damaged.path()), 3);
}

#[test]
fn an_lsn_that_was_dropped_is_an_error_wherever_a_reader_comes_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..40);
    let late = View::open(dir.path()).unwrap();
    let (mut from_start, mut back) = (log.reader(), log.reader_at(Lsn(25)));
    log.truncate_front(Lsn(20)).unwrap();
    let dropped = |read: Option<Result<foreword::Record, Error>>| {
        assert!(matches!(read, Some(Err(Error::Dropped { lsn: Lsn(5), start: Lsn(20), .. }))), "{read:?}");
    };
    dropped(log.iter(Lsn(5)).next());
    dropped(log.iter_back(Lsn(5)).next());
    assert!(matches!(log.reader_at(Lsn(1)).next(), Err(Error::Dropped { lsn: Lsn(1), .. })));
    assert_eq!(log.iter(Lsn::ZERO).next().unwrap().unwrap().lsn, Lsn(20));
    assert!(log.iter_back(Lsn::ZERO).next().is_none());
    assert_eq!(from_start.next().unwrap().unwrap().lsn, Lsn(20), "from the start is where that is now");
    from_start.seek(Lsn::ZERO);
    assert_eq!(from_start.prev().unwrap(), None, "nothing is before the first");
    for lsn in (20..25).rev() {
        assert_eq!(back.prev().unwrap().unwrap().lsn, Lsn(lsn));
    }
    assert_eq!(back.prev().unwrap(), None);
    // One that is overtaken where it stands.
    let mut overtaken = log.reader_at(Lsn(25));
    log.truncate_front(Lsn(30)).unwrap();
    assert!(matches!(overtaken.prev(), Err(Error::Dropped { lsn: Lsn(24), start: Lsn(30), .. })));
    log.close().unwrap();
    let view = View::open(dir.path()).unwrap();
    for read in [view.iter(Lsn(5)).next(), view.iter_back(Lsn(5)).next(), late.iter(Lsn(5)).next()] {
        assert!(matches!(read, Some(Err(Error::Dropped { lsn: Lsn(5), .. }))), "{read:?}");
    }
    assert_eq!(late.iter(Lsn::ZERO).next().unwrap().unwrap().lsn, Lsn(30));
}

/// Bug: a view showed what only the page cache held, and other records had those LSNs after a power
/// failure.
#[test]
fn a_view_without_a_writer_shows_what_is_proven_and_by_another_name_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..4);
    log.append_with(&record(4), Durability::Written).unwrap();
    log.append_with(&record(5), Durability::Written).unwrap();
    let killed = Files::read(dir.path()).dir();
    drop(log);
    let view = View::open(killed.path()).unwrap();
    // The third was acknowledged, but that nothing says, for the log had no time to.
    assert_eq!(lsns(&mut view.reader_at(Lsn::ZERO)), [1, 2, 3]);
    assert_eq!((view.last_lsn().unwrap(), view.recoverable_lsn().unwrap()), (Lsn(3), Lsn(5)));
    assert!(matches!(view.get(Lsn(4)), Err(Error::NotAppended { last: Lsn(3), .. })));
    assert_eq!(view.reader().next().unwrap().unwrap().lsn, Lsn(1));
    assert_eq!(lsns(&mut view.recoverable().unwrap().reader_at(Lsn::ZERO)), [1, 2, 3, 4, 5]);
    let report = verify(killed.path()).unwrap();
    assert_eq!((report.proven_lsn, report.last_lsn, report.records), (Lsn(3), Lsn(5), 5));
    // Recovery writes it again: from then on it is proven, and no cut. The log says so when it has
    // fallen idle.
    let (mut proven, mut unproven) = (view.reader_at(Lsn(4)), view.recoverable().unwrap().reader_at(Lsn(6)));
    let log = lively(killed.path());
    until(|| (view.last_lsn().unwrap() == Lsn(5)).then_some(()));
    assert_eq!(lsns(&mut proven), [4, 5]);
    log.commit(&record(6)).unwrap();
    log.close().unwrap();
    until(|| (view.last_lsn().unwrap() == Lsn(6)).then_some(()));
    assert_eq!((lsns(&mut proven), lsns(&mut unproven)), (vec![6], vec![6]));
}

/// What a reader returns that has read up to `reached` when the log is cut at `at`; then it reads
/// the new records from there on.
fn told(read: Result<Option<foreword::RecordRef<'_>>, Error>, at: u64, reached: u64) {
    let cut = match read {
        Err(Error::Cut { at, reached, .. }) => Some((at.0, reached.0)),
        _ => None,
    };
    assert_eq!(cut, Some((at, reached)), "{read:?}");
}

/// Bug: a reader that stood behind a cut went on from where it stood, and so from old records to
/// new ones.
#[test]
fn a_reader_is_told_of_a_cut_that_took_what_it_has_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..31);
    let read = |n: u64| {
        let mut reader = log.reader();
        for _ in 0..n {
            reader.next().unwrap();
        }
        reader
    };
    let [mut before, mut at, mut behind, mut gets] = [read(10), read(19), read(25), read(0)];
    let (mut back, mut beyond, mut sought, mut iter) = (read(25), log.reader_at(Lsn(500)), read(25), log.iter_back(Lsn::MAX));
    gets.get(Lsn(22)).unwrap();
    for _ in 0..10 {
        back.prev().unwrap();
    }
    sought.seek(Lsn(3));
    iter.next().unwrap().unwrap();
    log.truncate_back(Lsn(20)).unwrap();
    told(beyond.next(), 20, 499);
    for lsn in 20..41 {
        log.commit(format!("new {lsn}").as_bytes()).unwrap();
    }
    assert_eq!(lsns(&mut before), (11..41).collect::<Vec<_>>());
    assert_eq!(lsns(&mut at), (20..41).collect::<Vec<_>>());
    told(behind.next(), 20, 25);
    let mut seen = Vec::new();
    while let Some(record) = behind.next().unwrap() {
        assert_eq!(record.data, format!("new {}", record.lsn).as_bytes());
        seen.push(record.lsn.0);
    }
    assert_eq!(seen, (20..41).collect::<Vec<_>>(), "once told, it reads on from the cut");
    told(gets.get(Lsn(4)).map(Some), 20, 22);
    assert_eq!(gets.get(Lsn(4)).unwrap().data, record(4));
    told(back.prev(), 20, 25);
    told(sought.next(), 20, 25);
    assert!(matches!(iter.next(), Some(Err(Error::Cut { at: Lsn(20), .. }))));
    assert!(iter.next().is_none());
    assert_eq!(lsns(&mut beyond), (20..41).collect::<Vec<_>>());
    // Of several cuts, the one furthest ahead counts.
    let (mut stood_at_26, mut stood_at_36) = (log.reader_at(Lsn(26)), log.reader_at(Lsn(36)));
    log.truncate_back(Lsn(30)).unwrap();
    log.truncate_back(Lsn(25)).unwrap();
    commit(&log, 25..40);
    log.truncate_back(Lsn(35)).unwrap();
    told(stood_at_36.next(), 25, 35);
    told(stood_at_26.prev(), 25, 25);
}

#[test]
fn a_reader_that_waits_behind_a_cut_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = lively(dir.path());
    commit(&log, 1..11);
    let view = View::open(dir.path()).unwrap();
    until(|| (view.last_lsn().unwrap() == Lsn(10)).then_some(()));
    let (tell, hear) = mpsc::channel();
    for (who, mut reader) in [("here", log.reader_at(Lsn(11))), ("elsewhere", view.reader_at(Lsn(11)))] {
        let (tell, mut other) = (tell.clone(), if who == "here" { log.reader_at(Lsn(11)) } else { view.reader_at(Lsn(11)) });
        let again = tell.clone();
        thread::spawn(move || tell.send((who, reader.wait_next(Some(PATIENCE)).map(drop))));
        thread::spawn(move || again.send((who, block_on(other.next_async()).map(drop))));
    }
    // A reader that stands before the cut continues to wait.
    let (mut before, tell) = (log.reader_at(Lsn(5)), tell);
    for _ in 5..11 {
        before.next().unwrap();
    }
    before.seek(Lsn(5));
    thread::sleep(Duration::from_millis(50));
    log.truncate_back(Lsn(5)).unwrap();
    drop(tell);
    for _ in 0..4 {
        let (who, heard) = hear.recv_timeout(PATIENCE).expect("a reader hears nothing");
        assert!(matches!(heard, Err(Error::Cut { at, reached: Lsn(10), .. }) if at <= Lsn(5)), "{who}: {heard:?}");
    }
    let mut calm = log.reader_at(Lsn(5));
    let waits = thread::spawn(move || calm.wait_next(Some(PATIENCE)).map(|r| r.map(|r| r.lsn)));
    log.truncate_back(Lsn(5)).unwrap();
    log.commit(b"another fifth").unwrap();
    assert_eq!(waits.join().unwrap().unwrap(), Some(Lsn(5)));
}

#[test]
fn a_views_reader_is_told_of_a_cut_although_it_knows_of_more_records() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().background(false).open(dir.path()).unwrap();
    for _ in 0..50_000 {
        log.append([7; 8]).unwrap();
    }
    log.commit("last").unwrap();
    log.commit("which says that all before it is durable").unwrap();
    let view = View::open(dir.path()).unwrap();
    let mut reader = view.reader_at(Lsn::ZERO);
    for _ in 0..10 {
        reader.next().unwrap().unwrap();
    }
    log.truncate_back(Lsn(5)).unwrap();
    log.commit("new").unwrap();
    std::thread::sleep(Duration::from_millis(10));
    let told = reader.next().map(|record| record.map(|record| record.lsn));
    assert!(matches!(told, Err(Error::Cut { at: Lsn(5), reached: Lsn(10), .. })), "{told:?}");
}

#[test]
fn a_view_is_told_of_cuts_by_whoever_made_them_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let log = lively(dir.path());
    commit(&log, 1..31);
    let view = View::open(dir.path()).unwrap();
    let shows = |lsn| until(|| (view.last_lsn().unwrap() == Lsn(lsn)).then_some(()));
    shows(30);
    let stands = |lsn| view.reader_at(Lsn(lsn));
    let (mut before, mut behind) = (stands(15), stands(26));
    log.truncate_back(Lsn(20)).unwrap();
    for lsn in 20..41 {
        log.commit(format!("new {lsn}").as_bytes()).unwrap();
    }
    shows(40);
    assert_eq!(lsns(&mut before), (15..41).collect::<Vec<_>>());
    // The reader knows of the cut from the frame through which it went.
    let Err(Error::Cut { at, reached: Lsn(25), .. }) = behind.next() else { panic!("not told") };
    assert!((Lsn(1)..=Lsn(20)).contains(&at), "{at}");
    assert_eq!(lsns(&mut behind), (at.0..41).collect::<Vec<_>>());
    // A crash, and a recovery that writes records again, are none.
    log.append_with(&record(41), Durability::Written).unwrap();
    let killed = Files::read(dir.path()).dir();
    log.close().unwrap();
    let view = View::open(killed.path()).unwrap().recoverable().unwrap();
    let mut reader = view.reader_at(Lsn::ZERO);
    assert_eq!(lsns(&mut reader).last(), Some(&41));
    let log = lively(killed.path());
    log.commit(&record(42)).unwrap();
    until(|| (view.last_lsn().unwrap() == Lsn(42)).then_some(()));
    assert_eq!(lsns(&mut reader), [42]);
    // A cut while no reader looked, and so many records behind it that the LINK with the cut is
    // gone.
    log.truncate_back(Lsn(10)).unwrap();
    commit(&log, 10..60);
    log.truncate_front(Lsn(50)).unwrap();
    until(|| (view.last_lsn().unwrap() == Lsn(59)).then_some(()));
    assert!(matches!(reader.next(), Err(Error::Cut { .. })));
    assert!(matches!(reader.next(), Err(Error::Dropped { start: Lsn(50), .. })));
    // Going on with less than may have been acknowledged is one.
    log.close().unwrap();
    let mut files = Files::read(killed.path());
    let newest = *files.epochs().iter().rfind(|&&epoch| files.frame(epoch, 1).is_some()).unwrap();
    let last = files.frames(newest).iter().rfind(|f| f.kind == DATA).copied().unwrap();
    until(|| (view.last_lsn().unwrap() == Lsn(59)).then_some(()));
    reader.seek(Lsn(60));
    assert_eq!(reader.next().unwrap(), None);
    files.flip(newest, last.block * BLOCK + 100, 0);
    files.write(killed.path());
    let log = Options::new().segment_bytes(64 << 10).on_damage(OnDamage::StopAtDamage).open(killed.path()).unwrap();
    let next = log.commit(b"in the place of another").unwrap();
    until(|| (view.last_lsn().unwrap() >= next).then_some(()));
    assert!(matches!(reader.next(), Err(Error::Cut { at, .. }) if at <= next), "{next}");
}

/// Bug: "corruption, proven" of a sound log, by a reader that had outlived its own.
#[test]
fn a_reader_that_outlives_its_log_says_closed_and_not_corruption() {
    for background in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let options = || small().background(background);
        let log = options().open(dir.path()).unwrap();
        commit(&log, 1..100);
        let mut readers: Vec<_> = [1, 50, 99].map(|lsn| log.reader_at(Lsn(lsn))).into();
        for reader in &mut readers {
            reader.next().unwrap();
        }
        let (mut waits, mut fresh) = (log.reader_at(Lsn(100)), log.reader());
        log.close().unwrap();
        assert_eq!(waits.wait_next(None).unwrap(), None);
        assert_eq!(fresh.next().unwrap().unwrap().lsn, Lsn(1), "what is there is read");
        let log = options().open(dir.path()).unwrap();
        log.truncate_front(Lsn(95)).unwrap();
        for lsn in 100..200 {
            log.commit(format!("{lsn}").as_bytes()).unwrap();
        }
        log.truncate_back(Lsn(97)).unwrap();
        log.truncate_front(Lsn(97)).unwrap();
        for lsn in 97..200 {
            log.commit(format!("{lsn} again").as_bytes()).unwrap();
        }
        log.truncate_front(Lsn(190)).unwrap();
        for (i, reader) in readers.iter_mut().enumerate() {
            let error = loop {
                match reader.next() {
                    Ok(Some(read)) => assert_eq!(read.data, record(read.lsn.0), "as it was"),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            assert!(matches!(error, Some(Error::Closed) | None), "{i}: {error:?}");
            if i == 0 {
                assert!(error.is_some(), "its records are gone");
            }
        }
        // What is damaged is said to be, still.
        let mut reader = log.reader_at(Lsn(190));
        log.close().unwrap();
        let mut files = Files::read(dir.path());
        for epoch in files.epochs() {
            for frame in files.frames(epoch).iter().filter(|f| f.kind == DATA) {
                files.flip(epoch, frame.block * BLOCK + 80, 0);
            }
        }
        files.write(dir.path());
        assert!(matches!(reader.next(), Err(Error::Corruption(_))));
    }
}

#[test]
fn a_views_reader_says_when_the_log_was_closed_and_goes_on_with_another_writer() {
    let dir = tempfile::tempdir().unwrap();
    let log = lively(dir.path());
    commit(&log, 1..4);
    let view = View::open(dir.path()).unwrap();
    let mut reader = view.reader_at(Lsn::ZERO);
    let (tell, hear) = mpsc::channel();
    let follows = thread::spawn(move || {
        while let Some(record) = reader.wait_next(Some(Duration::MAX)).unwrap() {
            tell.send(record.lsn).unwrap();
        }
        reader
    });
    (1..4).for_each(|lsn| assert_eq!(hear.recv_timeout(PATIENCE).unwrap(), Lsn(lsn)));
    log.commit(&record(4)).unwrap();
    log.close().unwrap();
    let started = Instant::now();
    let mut reader = follows.join().unwrap();
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(reader.position(), Lsn(5), "all of it was read first");
    assert_eq!(block_on(reader.next_async()).unwrap(), None);
    // Another writer: the reader continues.
    let log = lively(dir.path());
    log.commit(&record(5)).unwrap();
    assert_eq!(until(|| reader.wait_next(Some(Duration::MAX)).unwrap().map(|r| r.lsn)), Lsn(5));
    // One that is killed has closed nothing.
    let killed = Files::read(dir.path()).dir();
    let mut reader = View::open(killed.path()).unwrap().reader_at(Lsn(6));
    let started = Instant::now();
    assert_eq!(reader.wait_next(Some(Duration::from_millis(100))).unwrap(), None);
    assert!(started.elapsed() >= Duration::from_millis(100));
}

/// Bug: a follower said "corruption, restore a copy" when another sound log was put in the place of
/// the one that it read.
#[test]
fn a_view_says_that_another_log_is_there_now() {
    let [dir, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [old, new] = [dir.path(), other.path()].map(|dir| {
        let log = small().open(dir).unwrap();
        commit(&log, 1..30);
        let id = log.id();
        log.close().unwrap();
        id
    });
    let view = View::open(dir.path()).unwrap();
    let mut reader = view.reader_at(Lsn(30));
    assert_eq!(reader.next().unwrap(), None);
    std::fs::remove_dir_all(dir.path()).unwrap();
    std::fs::rename(other.path(), dir.path()).unwrap();
    for error in [view.last_lsn().unwrap_err(), reader.wait_next(None).unwrap_err(), reader.get(Lsn(3)).unwrap_err()] {
        let ids = match &error {
            Error::Replaced { expected, found, .. } => Some((*expected, *found)),
            _ => None,
        };
        assert_eq!(ids, Some((old, new)), "{error}");
    }
}

/// Bug: `View::next_async` started a thread for each poll, and the waker of a cancelled
/// `Log::next_async` stayed for good.
#[test]
fn of_futures_that_are_given_up_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let log = lively(dir.path());
    commit(&log, 1..4);
    let wake = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    let waker = Waker::from(wake.clone());
    let mut reader = log.reader_at(Lsn(4));
    let give_up = |reader: &mut Reader| {
        let polled = pin!(reader.next_async()).as_mut().poll(&mut Context::from_waker(&waker)).map(|r| r.map(drop));
        assert!(polled.is_pending());
    };
    (0..100_000).for_each(|_| give_up(&mut reader));
    assert_eq!(Arc::strong_count(&wake), 2, "the test's own");
    let view = View::open(dir.path()).unwrap();
    until(|| (view.last_lsn().unwrap() == Lsn(3)).then_some(()));
    let mut readers: Vec<_> = (0..100).map(|_| view.reader_at(Lsn(4))).collect();
    {
        let mut futures: Vec<_> = readers.iter_mut().map(|reader| Box::pin(reader.next_async())).collect();
        for _ in 0..50 {
            for future in &mut futures {
                assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).map(|r| r.map(drop)).is_pending());
            }
            #[cfg(target_os = "linux")]
            assert!(waiting_threads() <= 4, "{}", waiting_threads());
        }
        assert_eq!(Arc::strong_count(&wake), 102);
    }
    assert_eq!(Arc::strong_count(&wake), 2);
    #[cfg(target_os = "linux")]
    until(|| (waiting_threads() == 0).then_some(()));
    // One that stays is woken.
    let mut last = view.reader_at(Lsn(4));
    let waits = thread::spawn(move || block_on(last.next_async()).map(|r| r.map(|r| r.lsn)));
    thread::sleep(Duration::from_millis(20));
    log.commit(&record(4)).unwrap();
    assert_eq!(waits.join().unwrap().unwrap(), Some(Lsn(4)));
}

#[cfg(target_os = "linux")]
fn waiting_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "foreword-wait").count()
}

/// A disk that counts: bytes of segments that were read, and handles of segments that are open.
fn counting() -> (Arc<dyn Disk>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (read, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, handles) = (read.clone(), open.clone());
    let disk = hooked(OsDisk::new(), move |op, name| {
        match op {
            _ if !name.trim_end_matches(".tmp").ends_with(".seg") => {}
            Op::Read(bytes) => _ = counted.fetch_add(bytes, Ordering::Relaxed),
            Op::Open(_) => _ = handles.fetch_add(1, Ordering::Relaxed),
            Op::Close => _ = handles.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
        Ok(())
    });
    (disk, read, open)
}

/// Direct writes leave the page cache empty: what was written last was fetched from the device.
#[test]
fn what_was_written_last_is_read_without_the_device_whoever_asks() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, read, open) = counting();
    let log = small().background(false).disk(disk).open(dir.path()).unwrap();
    for lsn in 1..200 {
        log.commit(&record(lsn)).unwrap();
        // Each is a frame, and with some of them the log goes on in another segment, which has two
        // frames more.
        let before = read.load(Ordering::Relaxed);
        for back in 0..lsn.min(20) {
            assert_eq!(log.get(Lsn(lsn - back)).unwrap(), record(lsn - back));
        }
        let mut back = log.reader_at(Lsn(lsn + 1));
        assert_eq!(back.prev().unwrap().unwrap().data, record(lsn));
        assert_eq!(read.load(Ordering::Relaxed), before, "at {lsn}");
    }
    assert!(log.stats().rotations > 3);
    // A record that spans frames, too; and many in one flush.
    let large = log.commit(&vec![7; 300_000]).unwrap();
    (0..1000).for_each(|_| _ = log.append(&[8; 1000]).unwrap());
    let before = read.load(Ordering::Relaxed);
    let last = log.sync().unwrap();
    (0..300).for_each(|back| assert_eq!(log.get(Lsn(last.0 - back)).unwrap(), [8; 1000]));
    assert_eq!(read.load(Ordering::Relaxed), before);
    assert_eq!(log.get(large).unwrap(), [7; 300_000]);
    // What is dropped keeps no file open: that would keep its space.
    log.truncate_front(last).unwrap();
    assert!(open.load(Ordering::Relaxed) <= 4, "{open:?} handles");
    assert_eq!(log.get(last).unwrap(), [8; 1000]);
}

#[test]
fn a_tail_that_keeps_up_reads_nothing_from_the_device_and_one_record_little() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, read, _) = counting();
    let log = small().segment_bytes(256 << 10).disk(disk).open(dir.path()).unwrap();
    commit(&log, 1..10);
    let mut tail = log.reader_at(Lsn(10));
    assert_eq!(tail.wait_next(Some(Duration::ZERO)).unwrap(), None);
    log.commit(&record(10)).unwrap();
    assert_eq!(tail.wait_next(None).unwrap().unwrap().data, record(10));
    let before = read.load(Ordering::Relaxed);
    // Over rotations, batches, and records that span frames.
    let mut lsn = 10;
    let mut expected = Vec::new();
    for round in 0..200 {
        let records = match round % 50 {
            49 => vec![vec![round as u8; 300_000]],
            40 => (0..20).map(record).collect(),
            _ => vec![record(round)],
        };
        log.commit_batch(&records).unwrap();
        expected.extend(records);
        while let Some(record) = tail.wait_next(Some(Duration::ZERO)).unwrap() {
            lsn += 1;
            assert_eq!((record.lsn, record.data), (Lsn(lsn), &expected[lsn as usize - 11][..]));
        }
    }
    assert!(log.stats().rotations > 3);
    assert_eq!(lsn as usize - 10, expected.len());
    let segments = log.stats().rotations as usize;
    let headers = read.load(Ordering::Relaxed) - before;
    assert_eq!(headers, 0, "{segments} rotations");
    // What is far behind is read from the device, and right.
    let mut all = log.reader();
    assert_eq!(lsns(&mut all).len() as u64, lsn);
    // One record takes a read of its frame, and what finds it. (One of these has 300,000 bytes.)
    let most = (16 << 10) + 2 * 300_000 / 99;
    for round in 0..2 {
        let before = read.load(Ordering::Relaxed);
        for lsn in (1..100).rev() {
            log.get(Lsn(lsn)).unwrap();
        }
        let each = (read.load(Ordering::Relaxed) - before) / 99;
        assert!(each <= most, "{each} bytes each, in round {round}");
    }
    let before = read.load(Ordering::Relaxed);
    let mut back = log.reader_at(Lsn(100));
    for lsn in (1..100).rev() {
        assert_eq!(back.prev().unwrap().unwrap().lsn, Lsn(lsn));
    }
    assert!((read.load(Ordering::Relaxed) - before) / 99 <= most);
}
