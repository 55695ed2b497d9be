//! Code that is not ours, which a log runs: wakers, the hook for errors, `AsRef`, the disk.
//! Whatever it does, no call hangs, and no record is lost.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem::discriminant;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use foreword::{Commit, Durable, Error, Log, Lsn, Options, SyncPolicy, View, inspect};
use foreword_tests::hooked::*;
use foreword_tests::*;

fn options() -> Options {
    Options::new().segment_bytes(1 << 20).sync(SyncPolicy::manual())
}

/// Does as it is told when it wakes, and when it is dropped.
struct Does(Mutex<Option<Box<dyn FnOnce() + Send>>>, Option<Box<dyn Fn() + Send + Sync>>);

impl Does {
    fn on_wake(work: impl FnOnce() + Send + 'static) -> Waker {
        Arc::new(Does(Mutex::new(Some(Box::new(work))), None)).into()
    }

    fn on_drop(work: impl Fn() + Send + Sync + 'static) -> Waker {
        Arc::new(Does(Mutex::new(None), Some(Box::new(work)))).into()
    }
}

impl Wake for Does {
    fn wake(self: Arc<Self>) {
        let work = self.0.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
    }
}

impl Drop for Does {
    fn drop(&mut self) {
        if let Some(work) = &self.1 {
            work();
        }
    }
}

fn poll(commit: &mut Commit, waker: &Waker) -> Poll<foreword::Result<Lsn>> {
    Pin::new(commit).poll(&mut Context::from_waker(waker))
}

/// Waits for a future as an executor does: it is woken, or it never ends.
#[track_caller]
fn completes(mut commit: Commit) -> foreword::Result<Lsn> {
    within(move || {
        struct Unpark(thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if let Poll::Ready(result) = poll(&mut commit, &waker) {
                return result;
            }
            thread::park();
        }
    })
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    let log = options().disk(Arc::new(MemDisk::default())).open(MEM).unwrap();
    for _ in 0..2 {
        let woken = Arc::new(AtomicBool::new(false));
        let wakes = woken.clone();
        let mut commits = [log.commit_async(b"one").unwrap(), log.commit_async(b"two").unwrap()];
        assert!(poll(&mut commits[0], &Does::on_wake(|| panic!("a waker panics"))).is_pending());
        let _ = poll(&mut commits[1], &Does::on_wake(move || wakes.store(true, SeqCst)));
        until("the other is woken", || woken.load(SeqCst) || log.durable_lsn() >= commits[1].lsn());
        // The threads of the log are alive.
        completes(log.commit_async(b"three").unwrap()).unwrap();
    }
    log.close().unwrap();
}

#[test]
fn a_waker_that_panics_on_the_thread_of_a_committer_harms_neither_it_nor_others() {
    let log = options().background(false).disk(Arc::new(MemDisk::default())).open(MEM).unwrap();
    let woken = Arc::new(AtomicBool::new(false));
    let wakes = woken.clone();
    let mut commits = [log.commit_async(b"one").unwrap(), log.commit_async(b"two").unwrap()];
    assert!(poll(&mut commits[0], &Does::on_wake(|| panic!("a waker panics"))).is_pending());
    assert!(poll(&mut commits[1], &Does::on_wake(move || wakes.store(true, SeqCst))).is_pending());
    assert_eq!(log.commit(b"three").unwrap(), Lsn(3));
    assert!(woken.load(SeqCst));
    log.close().unwrap();
}

/// In the place of another, and with what waited for it: a commit, and a reader here and in another
/// process.
#[test]
fn a_waker_that_panics_when_it_is_dropped_harms_nobody() {
    let disk = Arc::new(MemDisk::default());
    let log = options().background(false).disk(disk.clone()).open(MEM).unwrap();
    let view = View::open_on(disk, MEM).unwrap();
    let commit = log.commit_async(b"one").unwrap();
    let (mut here, mut beside) = (log.reader_at(Lsn(2)), view.reader_at(Lsn(2)));
    let waits: [Pin<Box<dyn Future<Output = ()>>>; 3] = [
        Box::pin(async { drop(commit.await) }),
        Box::pin(async { _ = here.next_async().await.map(drop) }),
        Box::pin(async { _ = beside.next_async().await.map(drop) }),
    ];
    for mut wait in waits {
        for _ in 0..2 {
            let waker = Does::on_drop(|| panic!("a waker panics"));
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
    }
    log.close().unwrap();
}

/// Everything that a log runs may ask the log, or it runs under a lock.
#[test]
fn wakers_may_use_the_log_when_they_wake_and_when_they_are_dropped() {
    within(|| {
        let log = Arc::new(options().background(false).disk(Arc::new(MemDisk::default())).open(MEM).unwrap());
        let uses = Arc::new(AtomicUsize::new(0));
        let user = || {
            let (log, uses) = (log.clone(), uses.clone());
            move || {
                let _ = log.stats();
                uses.fetch_add(1, SeqCst);
            }
        };
        let mut commit = log.commit_async(b"one").unwrap();
        for _ in 0..3 {
            assert!(poll(&mut commit, &Does::on_drop(user())).is_pending(), "each takes the place of the one before");
        }
        assert!(poll(&mut commit, &Does::on_wake(user())).is_pending());
        log.sync().unwrap();
        let mut commit = log.commit_async(b"two").unwrap();
        assert!(poll(&mut commit, &Does::on_drop(user())).is_pending());
        drop(commit);
        assert_eq!(uses.load(SeqCst), 5);
    });
}

#[test]
fn the_last_handle_may_be_dropped_by_a_waker() {
    let disk = MemDisk::default();
    let log = Arc::new(options().disk(Arc::new(disk.clone())).open(MEM).unwrap());
    let mut commit = log.commit_async(b"one").unwrap();
    let (dropped, drops) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Some(log))));
    let (done, last) = (dropped.clone(), drops.clone());
    let waker = Does::on_wake(move || {
        drop(last.lock().unwrap().take());
        done.store(true, SeqCst);
    });
    if poll(&mut commit, &waker).is_ready() {
        return; // The policy was faster; that it is so each time is excluded by the other tests.
    }
    until("the log is dropped", || dropped.load(SeqCst));
    // The log is closed, and another process may open it.
    let log = options().disk(Arc::new(disk)).open(MEM).unwrap();
    assert_eq!((log.recovery().verdict.name(), log.last_lsn()), ("clean", Lsn(1)));
}

#[test]
fn the_hook_for_errors_may_use_the_log_and_may_panic() {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let disk = hooked(MemDisk::default(), move |op, _| match op {
        Op::WriteDurable | Op::Sync if fails.load(SeqCst) => Err(io::Error::other("broken")),
        _ => Ok(()),
    });
    let asks = Arc::new(OnceLock::<Weak<Log>>::new());
    let (log, heard) = (asks.clone(), Arc::new(AtomicUsize::new(0)));
    let hears = heard.clone();
    let options = options().disk(disk).on_error(move |_| {
        hears.fetch_add(1, SeqCst);
        if let Some(log) = log.get().and_then(Weak::upgrade) {
            let _ = log.stats();
        }
        panic!("the hook panics");
    });
    let log = Arc::new(options.open(MEM).unwrap());
    asks.set(Arc::downgrade(&log)).unwrap();
    failing.store(true, SeqCst);
    assert!(matches!(completes(log.commit_async(b"one").unwrap()), Err(Error::Poisoned(_))));
    until("the hook is told", || heard.load(SeqCst) > 0);
    assert!(matches!(log.append(b"two"), Err(Error::Poisoned(_))));
    // Dropped without `close`, it tells again; a panic of the hook is not the owner's.
    within(move || drop(log));
    assert_eq!(heard.load(SeqCst), 2);
}

/// Answers differently the second time.
struct Fickle(Cell<usize>);

impl AsRef<[u8]> for Fickle {
    fn as_ref(&self) -> &[u8] {
        let times = self.0.get();
        self.0.set(times + 1);
        [&b"the first answer"[..], b"another", b"a third that is much longer than the others were"][times.min(2)]
    }
}

#[test]
fn each_slice_of_a_batch_is_taken_once() {
    let disk = MemDisk::default();
    let log = small().disk(Arc::new(disk.clone())).open(MEM).unwrap();
    for size in [1, 3, 32, 33, 100] {
        let batch: Vec<_> = (0..size).map(|_| Fickle(Cell::new(0))).collect();
        log.commit_batch(&batch).unwrap();
        assert!(batch.iter().all(|fickle| fickle.0.get() == 1));
    }
    type Append = fn(&Log, &Fickle) -> foreword::Result<Lsn>;
    let singles: [Append; 5] = [
        |log, record| log.append(record),
        |log, record| log.commit(record),
        |log, record| log.try_append(record),
        |log, record| log.commit_checkpoint(record),
        |log, record| Ok(log.commit_async(record)?.lsn()),
    ];
    for single in singles {
        let fickle = Fickle(Cell::new(0));
        single(&log, &fickle).unwrap();
        assert_eq!(fickle.0.get(), 1);
    }
    log.commit(b"the end").unwrap();
    log.close().unwrap();
    let (records, error) = collect(disk.view().iter(Lsn::ZERO));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(records.len(), 175);
    assert!(records[..174].iter().all(|(_, data)| data == b"the first answer"));
}

/// What two hooks were told, in the order in which they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Durable(u64),
    Rotated(u64, u64),
}

fn telling(options: Options) -> (Options, Arc<Mutex<Vec<Told>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (durable, rotated) = (told.clone(), told.clone());
    let options = options.on_durable(move |told| durable.lock().unwrap().push(Told::Durable(told.lsn.0)));
    (options.on_rotate(move |told| rotated.lock().unwrap().push(Told::Rotated(told.epoch, told.first_lsn.0))), told)
}

fn durable(told: &[Told]) -> Vec<u64> {
    told.iter().filter_map(|told| if let Told::Durable(lsn) = told { Some(*lsn) } else { None }).collect()
}

#[test]
fn hooks_are_told_once_and_in_order_of_what_became_durable_and_of_each_segment() {
    for background in [true, false] {
        let (disk, options) = (MemDisk::default(), options().segment_bytes(64 << 10).background(background));
        let (options, told) = telling(options.disk(Arc::new(disk.clone())));
        let log = Arc::new(options.open(MEM).unwrap());
        within(move || {
            let committers: Vec<_> = (0..4)
                .map(|t| {
                    let log = log.clone();
                    thread::spawn(move || (0..100).for_each(|_| _ = log.commit([t; 3000]).unwrap()))
                })
                .collect();
            committers.into_iter().for_each(|committer| committer.join().unwrap());
            log.append("a last one").unwrap();
            log.close().unwrap();
        });
        let told = told.lock().unwrap();
        let lsns = durable(&told);
        assert!(lsns.is_sorted_by(|a, b| a < b), "{lsns:?}");
        assert_eq!(lsns.last(), Some(&401));
        let segments = inspect::segments_on(Arc::new(disk), MEM).unwrap();
        let begun: Vec<_> = segments.iter().skip(1).filter_map(|s| Some(Told::Rotated(s.epoch, s.lsns?.0.0))).collect();
        let rotated: Vec<_> = told.iter().copied().filter(|told| matches!(told, Told::Rotated(..))).collect();
        assert!(begun.len() > 10 && rotated.starts_with(&begun), "{rotated:?}, not {begun:?}");
        for (at, told_then) in told.iter().enumerate() {
            if let Told::Rotated(_, first) = told_then {
                assert!(durable(&told[..at]).last().is_none_or(|lsn| lsn < first), "a record before its segment");
                assert!(durable(&told[at..]).first().is_none_or(|lsn| *lsn + 1 >= *first), "the segments before are durable");
            }
        }
    }
}

/// Logs that are opened with the same options have the same hooks.
#[test]
fn a_hook_is_told_which_log_it_is() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let [durable, rotated] = [told.clone(), told.clone()];
    let options = options().segment_bytes(64 << 10).background(false);
    let options = options.on_durable(move |now| durable.lock().unwrap().push(now.log));
    let options = options.on_rotate(move |now| rotated.lock().unwrap().push(now.log));
    let logs = [1, 2].map(|_| options.clone().disk(Arc::new(MemDisk::default())).open(MEM).unwrap());
    assert_ne!(logs[0].id(), logs[1].id());
    for log in &logs {
        told.lock().unwrap().clear();
        (0..10).for_each(|_| _ = log.commit([7; 10_000]).unwrap());
        assert!(log.stats().rotations > 0);
        let told = told.lock().unwrap();
        assert!(told.len() > 10 && told.iter().all(|id| *id == log.id()), "{told:?}");
    }
}

#[test]
fn a_hook_is_told_of_a_segment_when_all_before_it_is_durable_and_no_sooner() {
    let (options, told) = telling(options().segment_bytes(64 << 10).disk(Arc::new(MemDisk::default())));
    let log = options.open(MEM).unwrap();
    (0..15).for_each(|_| _ = log.append([7; 10_000]).unwrap());
    assert!(log.stats().rotations > 1);
    thread::sleep(Duration::from_millis(50));
    assert_eq!((log.durable_lsn(), told.lock().unwrap().len()), (Lsn::ZERO, 0));
    log.sync().unwrap();
    until("all is told", || told.lock().unwrap().contains(&Told::Durable(15)));
    assert_eq!(told.lock().unwrap().len() as u64, log.stats().rotations + 1);
    log.close().unwrap();
}

#[test]
fn hooks_go_on_from_a_cut_and_say_nothing_of_what_was_there() {
    for background in [true, false] {
        let disk = MemDisk::default();
        let options = options().background(background).disk(Arc::new(disk));
        let log = options.open(MEM).unwrap();
        commit(&log, 1..4);
        log.close().unwrap();
        let (options, told) = telling(options);
        let log = options.open(MEM).unwrap();
        log.commit_batch(&["four", "five"]).unwrap();
        until("it is told", || told.lock().unwrap().contains(&Told::Durable(5)));
        log.truncate_back(Lsn(3)).unwrap();
        commit(&log, 3..4);
        log.close().unwrap();
        let told = told.lock().unwrap();
        assert_eq!(durable(&told), [5, 3]);
        assert!(matches!(told[..], [Told::Durable(5), Told::Rotated(..), Told::Durable(3)]), "{told:?}");
    }
}

#[test]
fn a_hook_may_use_the_log_and_may_panic() {
    for background in [true, false] {
        let (told, asks) = (Arc::new(Mutex::new(Vec::new())), Arc::new(OnceLock::<Weak<Log>>::new()));
        let (tells, log) = (told.clone(), asks.clone());
        let options = options().segment_bytes(64 << 10).background(background).disk(Arc::new(MemDisk::default()));
        let hook = move |Durable { lsn, .. }: Durable| {
            if let Some(log) = log.get().and_then(Weak::upgrade) {
                assert!(log.durable_lsn() >= lsn);
                log.get(lsn).unwrap();
                log.hold("told", lsn).unwrap();
            }
            tells.lock().unwrap().push(lsn);
            panic!("the hook panics");
        };
        let log = Arc::new(options.on_durable(hook).on_rotate(|_| panic!("the hook panics")).open(MEM).unwrap());
        asks.set(Arc::downgrade(&log)).unwrap();
        let acting = log.clone();
        within(move || (0..50).for_each(|_| _ = acting.commit([1; 5000]).unwrap()));
        until("all is told", || told.lock().unwrap().last() == Some(&Lsn(50)));
        assert_eq!(log.holds().unwrap()["told"].lsn, Lsn(50));
        within(move || log.close()).unwrap();
    }
}

/// The hook runs on the log's own thread, which no commit needs, nor an append.
#[test]
fn a_hook_that_takes_its_time_holds_up_no_call() {
    let gate = Arc::new(Gate::default());
    let (passes, told) = (gate.clone(), Arc::new(Mutex::new(Vec::new())));
    let tells = told.clone();
    let hook = move |Durable { lsn, .. }: Durable| {
        tells.lock().unwrap().push(lsn.0);
        passes.pass();
    };
    gate.shut();
    let options = options().buffer_bytes(BUFFER).disk(Arc::new(MemDisk::default()));
    let log = Arc::new(options.on_durable(hook).open(MEM).unwrap());
    log.commit(b"one").unwrap();
    gate.wait_held();
    let acting = log.clone();
    let last = within(move || {
        append_much(&acting);
        commit(&acting, acting.last_lsn().0 + 1..acting.last_lsn().0 + 100);
        acting.hold("held", Lsn(2)).unwrap();
        acting.truncate_front(Lsn(2)).unwrap();
        acting.sync().unwrap().0
    });
    gate.open();
    within(move || log.close()).unwrap();
    assert_eq!(*told.lock().unwrap(), [1, last], "what came meanwhile is one call");
}

/// The smallest buffers that there may be.
const BUFFER: usize = 512 << 10;

/// Several times what the buffers hold, in small records and large ones.
fn append_much(log: &Log) {
    for _ in 0..4 {
        (0..1500).for_each(|_| _ = log.append([7; 1000]).unwrap());
        (0..1500).for_each(|_| drop(log.commit_async([7; 1000]).unwrap()));
        log.append(vec![7; 3 << 20]).unwrap();
        drop(log.commit_async(vec![7; 3 << 20]).unwrap());
    }
}

/// Does something in a hook, and in a waker, on the thread that syncs. What comes of it.
fn where_the_log_syncs<T: Send + 'static>(act: fn(&Log) -> T) -> [T; 2] {
    [false, true].map(|wakes| {
        let (hooked, acts) = (Arc::new(OnceLock::<Weak<Log>>::new()), Arc::new(AtomicBool::new(!wakes)));
        let (done, came) = std::sync::mpsc::channel();
        let (log, tells) = (hooked.clone(), Mutex::new(done.clone()));
        let acting = move |log: &Log| {
            assert_eq!(thread::current().name(), Some("foreword-sync"));
            act(log)
        };
        let hook = move |_| {
            if let Some(log) = log.get().and_then(Weak::upgrade).filter(|_| acts.swap(false, SeqCst)) {
                let _ = tells.lock().unwrap().send(acting(&log));
            }
        };
        let disk = Arc::new(MemDisk::default());
        let log = Arc::new(options().segment_bytes(64 << 20).buffer_bytes(BUFFER).disk(disk).on_durable(hook).open(MEM).unwrap());
        hooked.set(Arc::downgrade(&log)).unwrap();
        let wakes_with = log.clone();
        let mut commit = log.commit_async("one").unwrap();
        let waker = Does::on_wake(move || _ = done.send(acting(&wakes_with)));
        let _ = if wakes { poll(&mut commit, &waker) } else { poll(&mut commit, Waker::noop()) };
        let came = came.recv_timeout(Duration::from_secs(20)).expect("it hangs");
        drop(commit);
        within(move || log.close()).unwrap();
        came
    })
}

/// Bug: it waited for the thread that it ran on.
#[test]
fn a_hook_and_a_waker_append_more_than_the_buffers_hold() {
    for lsn in where_the_log_syncs(|log| {
        append_much(log);
        log.commit("the last").unwrap()
    }) {
        assert_eq!(lsn, Lsn(1 + 4 * 3002 + 1));
    }
}

/// Bug: it waited for ever.
#[test]
fn what_waits_without_end_on_the_thread_that_it_waits_for_is_busy() {
    let waits = |log: &Log| {
        let durable = log.last_lsn();
        assert!(log.wait_durable(durable, None).unwrap());
        assert_eq!(log.reader_at(durable).wait_next(None).unwrap().map(|record| record.lsn), Some(durable));
        let lsn = log.append("is not durable").unwrap();
        // (A call that ends by itself is no harm.)
        assert!(!log.wait_durable(lsn, Some(Duration::from_millis(5))).unwrap());
        assert!(log.reader_at(lsn).wait_next(Some(Duration::from_millis(5))).unwrap().is_none());
        [log.wait_durable(lsn, None).map(drop), log.reader_at(lsn).wait_next(None).map(drop)]
    };
    for waited in where_the_log_syncs(waits).as_flattened() {
        assert!(matches!(waited, Err(Error::Busy)), "{waited:?}");
    }
}

/// As closing waits for the hook, it cannot wait for that; in the last one, the thread that closes
/// runs it.
#[test]
fn a_hook_that_waits_for_its_log_is_told_so_on_any_thread() {
    for (background, closes) in [(false, false), (true, true), (false, true)] {
        let (hooked, (told, tells)) = (Arc::new(OnceLock::<Weak<Log>>::new()), std::sync::mpsc::channel());
        let (log, told) = (hooked.clone(), Mutex::new(told));
        let hook = move |Durable { lsn, .. }: Durable| {
            if let Some(log) = log.get().and_then(Weak::upgrade) {
                let waited = log.reader_at(lsn.next()).wait_next(None).map(drop);
                told.lock().unwrap().send((thread::current().id(), waited)).unwrap();
            }
        };
        let options = options().background(background).disk(Arc::new(MemDisk::default())).on_durable(hook);
        let log = Arc::new(options.open(MEM).unwrap());
        hooked.set(Arc::downgrade(&log)).unwrap();
        let acting = log.clone();
        let on = within(move || {
            let act = if closes { acting.append("one").and_then(|_| acting.close()) } else { acting.commit("one").map(drop) };
            act.unwrap();
            thread::current().id()
        });
        let (told_on, waited) = tells.recv_timeout(PATIENCE).expect("it hangs");
        assert!(matches!(waited, Err(Error::Busy)), "{waited:?}");
        assert_eq!(told_on, on);
        within(move || log.close()).unwrap();
    }
}

/// Bug: with the flush in which a closed log goes on, it began another, which waited for that.
#[test]
fn a_disk_appends_more_than_the_buffers_hold() {
    for background in [true, false] {
        let (disk, asks, appends) =
            (MemDisk::default(), Arc::new(OnceLock::<Weak<Log>>::new()), Arc::new(AtomicBool::new(false)));
        let (log, armed) = (asks.clone(), appends.clone());
        let hooked = hooked(disk, move |op, _| {
            if op == Op::WriteDurable && armed.swap(false, SeqCst) {
                append_much(&log.get().and_then(Weak::upgrade).unwrap());
            }
            Ok(())
        });
        let options = options().segment_bytes(64 << 20).buffer_bytes(BUFFER).background(background).disk(hooked);
        let log = options.open(MEM).unwrap();
        log.commit("one").unwrap();
        log.close().unwrap();
        let log = Arc::new(options.open(MEM).unwrap());
        asks.set(Arc::downgrade(&log)).unwrap();
        appends.store(true, SeqCst);
        let acting = log.clone();
        assert_eq!(within(move || acting.commit("two")).unwrap(), Lsn(2));
        assert!(!appends.load(SeqCst));
        within(move || log.close()).unwrap();
        assert_eq!(options.open(MEM).unwrap().last_lsn(), Lsn(2 + 4 * 3002));
    }
}

/// Bug: without background work, closing waited for no hook that another thread ran.
#[test]
fn when_a_log_is_closed_all_was_told_on_whichever_thread() {
    for background in [true, false] {
        let gate = Arc::new(Gate::default());
        let (passes, told) = (gate.clone(), Arc::new(Mutex::new(Vec::new())));
        let tells = told.clone();
        let hook = move |Durable { lsn, .. }: Durable| {
            passes.pass();
            tells.lock().unwrap().push(lsn.0);
        };
        gate.shut();
        let options = options().background(background).disk(Arc::new(MemDisk::default())).on_durable(hook);
        let log = Arc::new(options.open(MEM).unwrap());
        let committing = log.clone();
        let committer = thread::spawn(move || committing.commit("one"));
        gate.wait_held();
        log.append("two").unwrap();
        let closing = log.clone();
        let closer = thread::spawn(move || (closing.close(), told.lock().unwrap().clone()));
        until("all is durable", || background || log.durable_lsn() == Lsn(2));
        thread::sleep(Duration::from_millis(50));
        assert!(!closer.is_finished(), "closed before all was told");
        gate.open();
        let (closed, told) = within(move || closer.join().unwrap());
        closed.unwrap();
        assert_eq!(told, [1, 2]);
        committer.join().unwrap().unwrap();
    }
}

struct Asks(Arc<Log>);

impl AsRef<[u8]> for Asks {
    fn as_ref(&self) -> &[u8] {
        let _ = self.0.stats();
        b"a record"
    }
}

#[test]
fn a_record_may_ask_the_log_for_its_bytes() {
    within(|| {
        let log = Arc::new(small().disk(Arc::new(MemDisk::default())).open(MEM).unwrap());
        log.commit_batch(&[Asks(log.clone()), Asks(log.clone())]).unwrap();
        log.append_batch((0..40).map(|_| log.stats()).map(|_| "an iterator may, too")).unwrap();
        log.append(Asks(log.clone())).unwrap();
        log.commit(&Asks(log.clone())).unwrap();
    });
}

#[test]
fn a_disk_that_panics_once_while_a_segment_is_prepared_stops_nothing() {
    for background in [true, false] {
        for panicking in [Op::Allocate(0), Op::Zero, Op::Rename, Op::SyncDir] {
            let armed = Arc::new(AtomicBool::new(false));
            let arms = armed.clone();
            let disk = hooked(MemDisk::default(), move |op, _| {
                let is_it = discriminant(&op) == discriminant(&panicking);
                assert!(!is_it || !arms.swap(false, SeqCst), "the disk panics");
                Ok(())
            });
            let log = options().background(background).disk(disk).open(MEM).unwrap();
            armed.store(true, SeqCst);
            let (log, errors) = within(move || {
                // (An append that prepares the segment that it needs hears of the panic.)
                let errors = (0..300).filter(|_| log.append(&[7; 10_000]).is_err()).count();
                log.sync().unwrap();
                (log, errors)
            });
            assert!(errors <= 1, "{panicking:?}: {errors} errors");
            assert!(background || panicking == Op::Zero || !armed.load(SeqCst), "{panicking:?}");
            log.close().unwrap();
        }
    }
}

#[test]
fn a_disk_that_panics_while_it_writes_poisons_the_log() {
    for background in [true, false] {
        let armed = Arc::new(AtomicBool::new(false));
        let arms = armed.clone();
        let disk = hooked(MemDisk::default(), move |op, _| {
            assert!(op != Op::WriteDurable || !arms.swap(false, SeqCst), "the disk panics");
            Ok(())
        });
        let log = options().background(background).disk(disk).on_error(|_| {}).open(MEM).unwrap();
        log.commit(b"one").unwrap();
        armed.store(true, SeqCst);
        let commit = log.commit_async(b"two").unwrap();
        if background {
            assert!(matches!(completes(commit), Err(Error::Poisoned(_))));
        } else {
            assert!(matches!(log.sync(), Err(Error::Poisoned(_))));
        }
        assert!(matches!(log.commit(b"three"), Err(Error::Poisoned(_))));
        assert!(matches!(within(move || log.close()), Err(Error::Poisoned(_))));
    }
}

/// A disk that asks the log each time it is asked something: if that is under a lock, nothing goes
/// on.
#[test]
fn the_disk_is_asked_under_no_lock() {
    for background in [true, false] {
        let asks = Arc::new(OnceLock::<Weak<Log>>::new());
        let (log, asked) = (asks.clone(), Arc::new(AtomicUsize::new(0)));
        let counts = asked.clone();
        let disk = hooked(MemDisk::default(), move |_, _| {
            if let Some(log) = log.get().and_then(Weak::upgrade) {
                let _ = (log.stats(), log.start_lsn(), log.holds());
                counts.fetch_add(1, SeqCst);
                // It must not be this thread that drops it last.
                assert!(Arc::strong_count(&log) > 1);
            }
            Ok(())
        });
        let log = Arc::new(options().segment_bytes(64 << 10).background(background).disk(disk).open(MEM).unwrap());
        asks.set(Arc::downgrade(&log)).unwrap();
        let acting = log.clone();
        within(move || {
            for i in 1..=300 {
                let lsn = acting.append(&[7; 3000]).unwrap();
                if i % 10 == 0 {
                    acting.sync().unwrap();
                    acting.get(lsn).unwrap();
                }
                if i % 50 == 0 {
                    acting.append(&[8; 500_000]).unwrap();
                    acting.write().unwrap();
                    acting.hold("held", Lsn(lsn.0 - 20)).unwrap();
                    acting.truncate_front(lsn).unwrap();
                }
            }
            acting.release("held").unwrap();
            acting.truncate_front(acting.last_lsn()).unwrap();
        });
        assert!(asked.load(SeqCst) > 500, "{asked:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The default hook writes to standard error, which need not take it.
#[cfg(target_os = "linux")]
#[test]
fn standard_error_may_be_full() {
    const CHILD: &str = "FOREWORD_TEST_FULL_STDERR";
    if std::env::var_os(CHILD).is_some() {
        let failing = Arc::new(AtomicBool::new(false));
        let fails = failing.clone();
        let disk = hooked(MemDisk::default(), move |op, _| match op {
            Op::WriteDurable | Op::Sync if fails.load(SeqCst) => Err(io::Error::other("broken")),
            _ => Ok(()),
        });
        let log = options().disk(disk).open(MEM).unwrap();
        failing.store(true, SeqCst);
        log.append(b"one").unwrap();
        drop(log); // Tells of the error.
        std::process::exit(42);
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "strangers::standard_error_may_be_full", "--nocapture"]).env(CHILD, "1");
    let status = child.stdout(Stdio::null()).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(42), "the drop panicked");
}

/// What waits for the log, from where the log waits for what calls it: each says that it is busy,
/// and the last may append.
fn calls_that_wait(log: &Log) -> Vec<foreword::Result<()>> {
    let last = log.last_lsn();
    vec![
        log.close(),
        log.commit(b"busy").map(drop),
        log.commit_batch([b"busy"]).map(drop),
        log.commit_checkpoint(b"busy").map(drop),
        log.sync().map(drop),
        log.write().map(drop),
        log.hold("busy", last).map(drop),
        log.truncate_front(Lsn(1)).map(drop),
        log.truncate_back(last),
        log.append(vec![7; 1 << 20]).map(drop),
    ]
}

/// Bug: a disk that closed its log from within a flush, or held or committed, waited for itself.
#[test]
fn a_disk_that_calls_what_waits_for_it_is_told_so() {
    for background in [true, false] {
        for at in [Op::WriteDurable, Op::Allocate(0), Op::Remove] {
            let (asks, told) = (Arc::new(OnceLock::<Weak<Log>>::new()), Arc::new(Mutex::new(Vec::new())));
            let (log, tells) = (asks.clone(), told.clone());
            let disk = hooked(MemDisk::default(), move |op, _| {
                if discriminant(&op) == discriminant(&at)
                    && let Some(log) = log.get().and_then(Weak::upgrade)
                {
                    tells.lock().unwrap().extend(calls_that_wait(&log));
                }
                Ok(())
            });
            let log = Arc::new(options().segment_bytes(64 << 10).background(background).disk(disk).open(MEM).unwrap());
            asks.set(Arc::downgrade(&log)).unwrap();
            let acting = log.clone();
            within(move || {
                (0..40).for_each(|_| _ = acting.commit([1; 5000]).unwrap());
                acting.truncate_front(Lsn(30)).unwrap();
                acting.hold("a hold", Lsn(35)).unwrap();
                acting.truncate_back(Lsn(38)).unwrap();
            });
            within(move || log.close()).unwrap();
            let told = std::mem::take(&mut *told.lock().unwrap());
            assert!(!told.is_empty(), "{at:?}");
            assert!(told.iter().all(|result| matches!(result, Err(Error::Busy | Error::Closed))), "{at:?}: {told:?}");
        }
    }
}
