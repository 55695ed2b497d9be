//! Logs that share the threads of a runtime.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Wake};
use std::time::{Duration, Instant};

use foreword::{Durability, Error, Limit, Log, Lsn, Options, Runtime, SyncPolicy};

use foreword_tests::hooked::{until, within};

/// Threads are counted: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(runtime: &Runtime) -> Options {
    Options::new().segment_bytes(64 << 10).runtime(runtime)
}

/// The log's threads in this process, and how often they have slept.
#[cfg(target_os = "linux")]
fn threads() -> (usize, u64) {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let (mut count, mut slept) = (0, 0);
    // (One that has just ended is not counted.)
    for task in tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("foreword-"))) {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count += 1;
        slept += switches.map_or(0, |n| n.trim().parse::<u64>().unwrap());
    }
    (count, slept)
}

fn open_all(dir: &Path, count: usize, options: &Options) -> Vec<Log> {
    (0..count).map(|n| options.open(dir.join(n.to_string())).unwrap()).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn many_logs_have_the_threads_of_one_and_an_idle_one_wakes_none() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(3).unwrap();
    let options = options(&runtime).publish(true).sync(SyncPolicy::interval(Duration::from_millis(10)));
    let logs = open_all(dir.path(), 40, &options);
    until("they begin", || threads().0 == 5);
    // By policy, for futures, and where segments are prepared and removed.
    for log in &logs {
        log.append("appended").unwrap();
    }
    until("each is synced in time", || logs.iter().all(|log| log.durable_lsn() == Lsn(1)));
    for log in &logs {
        for _ in 0..20 {
            log.append([7; 10_000]).unwrap();
        }
        log.truncate_front(Lsn(15)).unwrap();
    }
    until("each has a MARK, and nothing dropped", || logs.iter().all(|log| log.stats().segments_dropped == 0));
    // Until all of them have said how they are doing, and that they are idle.
    let mut before = threads();
    let start = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = threads();
        if now == before {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "they are still awake: {now:?} after {before:?}");
        before = now;
    }
    assert_eq!(before.0, 5);
    // And each wakes again.
    for log in &logs {
        log.append("more").unwrap();
    }
    until("each is synced again", || logs.iter().all(|log| log.durable_lsn() == Lsn(22)));
    drop(logs);
    drop(options);
    drop(runtime);
    // (The system may show a thread for an instant longer.)
    until("they have ended", || threads().0 == 0);
}

/// The directory, `LOCK`, `LOG`, and the segment: for writing past the page cache and through it.
#[test]
#[cfg(target_os = "linux")]
fn a_quiet_log_has_four_files_open() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1).unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let logs = open_all(dir.path(), 20, &options(&runtime).segment_bytes(1 << 20));
    for log in &logs {
        log.commit("durable").unwrap();
        log.append_with("written", Durability::Written).unwrap();
        log.commit("durable").unwrap();
    }
    until("each has four", || open() <= before + 20 * 4);
}

#[test]
#[cfg(target_os = "linux")]
fn retention_that_a_hold_keeps_from_going_on_looks_at_it_again_seldom() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(64 << 10).retain(Limit::age(Duration::from_millis(50))).open(dir.path()).unwrap();
    log.hold("a reader", Lsn(1)).unwrap();
    for _ in 0..30 {
        log.commit([7; 10_000]).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = threads().1;
    std::thread::sleep(Duration::from_secs(2));
    let woken = threads().1 - before;
    assert!(woken < 100, "woken {woken} times in two seconds");
    assert_eq!(log.start_lsn(), Lsn(1));
}

#[test]
fn retention_waits_for_no_change_on_the_thread_that_prepares_for_others() {
    struct Slow(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);
    impl Wake for Slow {
        fn wake(self: Arc<Self>) {
            self.0.send(()).unwrap();
            let _ = self.1.lock().unwrap().recv();
        }
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1).unwrap();
    // A hook keeps the thread that syncs, so that the change flushes itself, and runs the waker.
    let (begun, begins) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let (said, wait) = (begun.clone(), Mutex::new(wait));
    let hook = move |_| (said.send(()).unwrap(), _ = wait.lock().unwrap().recv()).1;
    let hooked = options(&runtime).on_durable(hook).open(dir.path().join("hooked")).unwrap();
    hooked.commit("one").unwrap();
    begins.recv().unwrap();
    let retaining = options(&runtime).sync(SyncPolicy::manual()).retain(Limit::bytes(50_000));
    let retaining = retaining.open(dir.path().join("retaining")).unwrap();
    let other = options(&runtime).open(dir.path().join("other")).unwrap();
    let go = go; // (If this fails, the hook ends before its log does.)
    let (go_on, wait) = mpsc::channel();
    std::thread::scope(|scope| {
        let change = scope.spawn(|| {
            let waker = Arc::new(Slow(begun, Mutex::new(wait))).into();
            let mut commit = pin!(retaining.commit_async("one").unwrap());
            assert!(commit.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            retaining.hold("a reader", Lsn(1)).unwrap();
        });
        begins.recv().unwrap();
        for log in [&retaining, &other] {
            (0..30).for_each(|_| _ = log.commit([7; 10_000]).unwrap());
        }
        other.truncate_front(Lsn(31)).unwrap();
        until("what another drops is removed", || other.stats().segments_dropped == 0);
        assert!(!change.is_finished());
        drop(go_on);
    });
    retaining.release("a reader").unwrap();
    until("retention goes on", || retaining.start_lsn() > Lsn(20));
    drop(go);
}

#[test]
fn a_log_whose_hook_takes_its_time_is_in_nobodys_way_while_there_is_another_thread() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(2).unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let slow = options(&runtime).on_durable(move |_| _ = wait.lock().unwrap().recv()).open(dir.path().join("slow")).unwrap();
    let others = open_all(dir.path(), 5, &options(&runtime).sync(SyncPolicy::interval(Duration::from_millis(1))));
    slow.commit("one").unwrap();
    for round in 1..=20 {
        for log in &others {
            log.append("one").unwrap();
        }
        until("the others are synced", || others.iter().all(|log| log.durable_lsn() == Lsn(round)));
    }
    drop(go);
    slow.close().unwrap();
}

/// Bug: where the threads that sync were all in hooks, its appends stopped when its buffers were
/// full.
#[test]
fn a_log_whose_hook_takes_its_time_holds_up_no_append_of_others() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1).unwrap();
    let other = options(&runtime).buffer_bytes(512 << 10).sync(SyncPolicy::manual()).open(dir.path().join("other")).unwrap();
    let other = Arc::new(other);
    let (told, tells) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let (waits, last) = (Mutex::new(wait), Mutex::new(Some(other.clone())));
    let hook = move |_| {
        let Some(other) = last.lock().unwrap().take() else { return };
        let lsn = other.append("from the hook").unwrap();
        told.send([other.wait_durable(lsn, None).map(drop), other.reader_at(lsn).wait_next(None).map(drop)]).unwrap();
        let _ = waits.lock().unwrap().recv();
    };
    let slow = options(&runtime).on_durable(hook).open(dir.path().join("slow")).unwrap();
    slow.commit("one").unwrap();
    // What waits for a log of the same threads might wait for ever.
    let got = tells.recv_timeout(Duration::from_secs(20)).expect("it never returns");
    assert!(got.iter().all(|got| matches!(got, Err(Error::Busy))), "{got:?}");
    let go = go; // (If this fails, the hook ends before its log does.)
    let acting = other.clone();
    let last = within(move || {
        (0..4000).for_each(|_| _ = acting.append([7; 1000]).unwrap());
        (0..4000).for_each(|_| drop(acting.commit_async([7; 1000]).unwrap()));
        acting.append(vec![7; 2 << 20]).unwrap();
        acting.commit("the last").unwrap()
    });
    assert_eq!(other.durable_lsn(), last);
    drop(go);
    slow.close().unwrap();
}

#[test]
fn closing_waits_for_no_other_logs_hook() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1).unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let running = Arc::new(Barrier::new(2));
    let runs = running.clone();
    let slow = options(&runtime)
        .on_durable(move |_| {
            runs.wait();
            _ = wait.lock().unwrap().recv();
        })
        .open(dir.path().join("slow"))
        .unwrap();
    let other = options(&runtime).open(dir.path().join("other")).unwrap();
    slow.commit("one").unwrap();
    running.wait();
    other.append("two").unwrap();
    other.close().unwrap();
    assert_eq!(other.durable_lsn(), Lsn(1));
    drop(other);
    go.send(()).unwrap();
    slow.close().unwrap();
}

#[test]
fn a_hook_closes_its_log_and_others_and_drops_the_runtime() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1).unwrap();
    let other = options(&runtime).open(dir.path().join("other")).unwrap();
    let mine = Arc::new(Mutex::new(None::<Arc<Log>>));
    let (told, tells) = mpsc::channel();
    let last = Mutex::new(Some((other, runtime.clone(), mine.clone())));
    let log = options(&runtime)
        .on_durable(move |_| {
            let Some((other, runtime, mine)) = last.lock().unwrap().take() else { return };
            other.append("a record").unwrap();
            other.close().unwrap();
            drop(other);
            let mine = mine.lock().unwrap().take().unwrap();
            mine.close().unwrap();
            drop(runtime);
            told.send(mine.durable_lsn()).unwrap();
        })
        .open(dir.path().join("mine"))
        .unwrap();
    let log = Arc::new(log);
    *mine.lock().unwrap() = Some(log.clone());
    drop(runtime);
    let lsn = log.append("a record").unwrap();
    drop(log);
    assert_eq!(tells.recv_timeout(Duration::from_secs(20)).unwrap(), lsn);
}

/// Logs each of which has a hook that closes the next, when all of them are called; what each got.
fn close_in_a_circle(dir: &Path, options: &[Options]) -> Vec<foreword::Result<()>> {
    let all = Arc::new(Barrier::new(options.len()));
    let (told, tells) = mpsc::channel();
    let last = Arc::new(Mutex::new(vec![Lsn::ZERO; options.len()]));
    let next: Vec<_> = options.iter().map(|_| Arc::new(Mutex::new(None::<Arc<Log>>))).collect();
    let logs: Vec<Arc<Log>> = (options.iter().zip(&next).enumerate())
        .map(|(n, (options, next))| {
            let (next, all, told, last) = (next.clone(), all.clone(), told.clone(), last.clone());
            let hook = move |now: foreword::Durable| {
                last.lock().unwrap()[n] = now.lsn;
                let Some(next) = next.lock().unwrap().take() else { return };
                all.wait();
                next.append("before it was closed").unwrap();
                told.send(next.close()).unwrap();
            };
            Arc::new(options.clone().on_durable(hook).open(dir.join(n.to_string())).unwrap())
        })
        .collect();
    for (next, log) in next.iter().zip(logs.iter().cycle().skip(1)) {
        *next.lock().unwrap() = Some(log.clone());
    }
    // (Without background work, these are the threads that the hooks run on.)
    for log in &logs {
        let log = log.clone();
        std::thread::spawn(move || log.commit("one").unwrap());
    }
    let closed = logs.iter().map(|_| tells.recv_timeout(Duration::from_secs(20)).expect("a hook never returns")).collect();
    assert!(logs.iter().all(|log| log.durable_lsn() == Lsn(2)));
    until("each hook is told of all", || last.lock().unwrap().iter().all(|&lsn| lsn == Lsn(2)));
    closed
}

#[test]
fn hooks_that_close_each_others_logs_return() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    for count in [2, 3] {
        let runtime = Runtime::new(count).unwrap();
        let own = Options::new().segment_bytes(64 << 10);
        let alone = own.clone().background(false);
        for (n, options) in [vec![own; count], vec![options(&runtime); count], vec![alone; count]].iter().enumerate() {
            let closed = close_in_a_circle(&dir.path().join(format!("{count} {n}")), options);
            assert!(closed.iter().all(Result::is_ok), "{closed:?}");
        }
    }
}

#[test]
fn a_hook_that_closes_a_log_that_waits_for_it_through_another_returns() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_bytes(64 << 10);
    let begin = Arc::new(Barrier::new(3));
    let (told, tells) = mpsc::channel();
    let log = |name: &str, other: &Arc<Mutex<Option<Arc<Log>>>>, waits: bool| {
        let (begin, told, other) = (begin.clone(), told.clone(), other.clone());
        let hook = move |_| {
            let Some(other) = other.lock().unwrap().take() else { return };
            begin.wait();
            if waits {
                until("the other is being closed", || other.failure().is_some());
            }
            told.send(other.close()).unwrap();
        };
        Arc::new(options.clone().on_durable(hook).open(dir.path().join(name)).unwrap())
    };
    let (first, second) = (Arc::default(), Arc::default());
    let (a, b) = (log("a", &first, true), log("b", &second, false));
    (*first.lock().unwrap(), *second.lock().unwrap()) = (Some(b.clone()), Some(a.clone()));
    [&a, &b].iter().for_each(|log| _ = log.append("one").unwrap());
    begin.wait();
    // The hook of `b` closes `a`, whose hook closes `b`, which this closes, and waits for its hook.
    let closing = std::thread::spawn(move || b.close());
    for _ in 0..2 {
        let got = tells.recv_timeout(Duration::from_secs(20)).expect("a hook never returns");
        assert!(matches!(got, Ok(()) | Err(Error::Busy)), "{got:?}");
    }
    closing.join().unwrap().unwrap();
    a.close().unwrap();
}

/// A waker that closes a log, once, on a thread that `closes`; when all have come so far.
struct Closing {
    begin: Arc<Barrier>,
    closes: fn() -> bool,
    log: Mutex<Option<Arc<Log>>>,
    told: mpsc::Sender<foreword::Result<()>>,
}

impl Wake for Closing {
    fn wake(self: Arc<Self>) {
        if (self.closes)()
            && let Some(log) = self.log.lock().unwrap().take()
        {
            self.begin.wait();
            self.told.send(log.close()).unwrap();
        }
    }
}

/// A log is changed, and runs a waker, which closes another log, whose hook uses the first. What
/// came of the closing and of that, in the order in which they returned.
fn use_what_waits_for_the_hook(
    change: fn(&Log) -> foreword::Result<()>,
    used: fn(&Log) -> foreword::Result<()>,
    first: bool,
) -> [foreword::Result<()>; 2] {
    let dir = tempfile::tempdir().unwrap();
    let (told, tells) = mpsc::channel();
    let begin = Arc::new(Barrier::new(2));
    let options = Options::new().segment_bytes(64 << 10);
    // Without background work, the change flushes itself, and runs the waker.
    let log = Arc::new(options.clone().background(false).open(dir.path().join("log")).unwrap());
    let (held, begins, tell, closes) = (log.clone(), begin.clone(), told.clone(), Arc::new(Mutex::new(None::<Arc<Log>>)));
    let other = closes.clone();
    let hook = move |_| {
        let Some(other) = other.lock().unwrap().take() else { return };
        begins.wait();
        if first {
            until("the other is being closed", || other.failure().is_some());
            std::thread::sleep(Duration::from_millis(50)); // And waits for this.
        }
        tell.send(used(&held)).unwrap();
    };
    let other = Arc::new(options.on_durable(hook).open(dir.path().join("other")).unwrap());
    *closes.lock().unwrap() = Some(other.clone());
    other.append("one").unwrap();
    let waker = Arc::new(Closing { begin, closes: || true, log: Mutex::new(Some(other)), told }).into();
    let mut commit = pin!(log.commit_async("one").unwrap());
    assert!(commit.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let changing = {
        let log = log.clone();
        std::thread::spawn(move || change(&log))
    };
    let got = [(); 2].map(|()| tells.recv_timeout(Duration::from_secs(20)).expect("it never returns"));
    let changed = changing.join().unwrap();
    assert!(matches!(changed, Ok(()) | Err(Error::Closed)), "{changed:?}");
    got
}

#[test]
fn a_hook_that_changes_a_log_whose_change_waits_for_it_returns() {
    let _alone = alone();
    for first in [false, true] {
        let got = use_what_waits_for_the_hook(|log| log.hold("one", Lsn(1)), |log| log.hold("another", Lsn(1)), first);
        assert!(got.iter().all(|got| matches!(got, Ok(()) | Err(Error::Busy))), "{got:?}");
    }
}

#[test]
fn a_hook_that_appends_to_a_log_whose_cut_waits_for_it_returns() {
    let _alone = alone();
    for first in [false, true] {
        let append = |log: &Log| log.append("from the hook").map(drop);
        let got = use_what_waits_for_the_hook(|log| log.truncate_back(Lsn(1)), append, first);
        assert!(got.iter().all(|got| matches!(got, Ok(()) | Err(Error::Busy))), "{got:?}");
        assert!(!first || got.iter().any(Result::is_err), "it does not wait");
    }
}

#[test]
fn a_hook_closes_a_log_whose_change_waits_for_it() {
    let _alone = alone();
    for first in [false, true] {
        for change in [|log: &Log| log.hold("one", Lsn(1)), |log: &Log| log.truncate_back(Lsn(1))] {
            let got = use_what_waits_for_the_hook(change, Log::close, first);
            assert!(got.iter().all(Result::is_ok), "{got:?}");
        }
    }
}

#[test]
fn a_log_is_closed_that_is_dropped_in_a_hook_for_which_its_retention_waits() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (told, tells) = mpsc::channel();
    let runtime = Runtime::new(1).unwrap();
    // A hook keeps the thread that syncs, so that retention flushes, and runs the waker.
    let (go, wait) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let wait = Mutex::new(wait);
    let slow = move |_| (begun.send(()).unwrap(), _ = wait.lock().unwrap().recv()).1;
    let slow = options(&runtime).on_durable(slow).open(dir.path().join("slow")).unwrap();
    slow.commit("one").unwrap();
    begins.recv().unwrap();
    let go = go; // (If this fails, the hook ends before its log does.)
    let begin = Arc::new(Barrier::new(3));
    let last = Arc::new(Mutex::new(None::<(Log, Arc<Log>)>));
    let (its, begins, tell) = (last.clone(), begin.clone(), told.clone());
    let hook = move |_| {
        begins.wait();
        let (log, other) = its.lock().unwrap().take().unwrap();
        until("the other is being closed", || other.failure().is_some());
        std::thread::sleep(Duration::from_millis(50)); // And waits for this.
        drop(log);
        tell.send(Ok(())).unwrap();
    };
    let other = Arc::new(Options::new().segment_bytes(64 << 10).on_durable(hook).open(dir.path().join("other")).unwrap());
    other.append("one").unwrap();
    let (said, reports) = mpsc::channel();
    let retaining = options(&runtime).sync(SyncPolicy::manual()).retain(Limit::bytes(50_000));
    let retaining = retaining.on_error(move |told| said.send(told.error).unwrap());
    let log = retaining.open(dir.path().join("log")).unwrap();
    let closes = || std::thread::current().name() == Some("foreword-prepare");
    let waker = Arc::new(Closing { begin: begin.clone(), closes, log: Mutex::new(Some(other.clone())), told }).into();
    let mut commit = pin!(log.commit_async("one").unwrap());
    assert!(commit.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    (0..30).for_each(|_| _ = log.append([7; 10_000]).unwrap());
    *last.lock().unwrap() = Some((log, other));
    begin.wait();
    for _ in 0..2 {
        tells.recv_timeout(Duration::from_secs(20)).expect("it never returns").unwrap();
    }
    let again = Options::new().segment_bytes(64 << 10).open(dir.path().join("log")).unwrap();
    assert_eq!(again.last_lsn(), Lsn(31));
    assert!(reports.try_recv().is_err());
    drop(go);
}

#[test]
fn a_panic_in_one_logs_hook_harms_no_other() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1).unwrap();
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = panics.clone();
    let odd = options(&runtime)
        .on_durable(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("a stranger's");
        })
        .open(dir.path().join("odd"))
        .unwrap();
    let other = options(&runtime).open(dir.path().join("other")).unwrap();
    for n in 1..=3 {
        odd.commit("one").unwrap();
        until("the hook is called", || panics.load(Ordering::SeqCst) >= n);
        other.append("one").unwrap();
        until("the other is synced", || other.durable_lsn() == Lsn(n as u64));
    }
}

#[test]
fn a_runtime_has_1_to_64_threads_that_sync() {
    let _alone = alone();
    for threads in [0, 65, usize::MAX] {
        assert!(matches!(Runtime::new(threads).unwrap_err(), foreword::Error::Invalid { what: "a runtime", .. }));
    }
    let runtime = Runtime::new(64).unwrap();
    #[cfg(target_os = "linux")]
    until("they begin", || threads().0 == 66);
    drop(runtime);
}
