//! Any thread that shares a log may close it: the log is closed once and completely.

use std::future::Future;
use std::io::{self, IoSlice};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use foreword::disk::Access;
use foreword::{Commit, Durability, Error, Iter, Log, Lsn, Options, Reader, SyncPolicy, View};
use foreword_tests::hooked::*;
use foreword_tests::*;

fn options() -> Options {
    Options::new().segment_bytes(64 << 10).sync(SyncPolicy::manual()).on_error(|_| {})
}

fn is_closed<T>(result: foreword::Result<T>) -> bool {
    matches!(result, Err(Error::Closed))
}

#[test]
fn every_call_that_would_change_a_closed_log_says_so_and_reading_goes_on() {
    let log = options().disk(Arc::new(MemDisk::default())).open(MEM).unwrap();
    commit(&log, 1..4);
    assert!(log.failure().is_none());
    log.close().unwrap();
    log.close().unwrap();
    assert!(matches!(log.failure(), Some(Error::Closed)));
    assert!(is_closed(log.append(b"x")) && is_closed(log.try_append(b"x")) && is_closed(log.commit(b"x")));
    assert!(is_closed(log.append_parts(&[IoSlice::new(b"x")])) && is_closed(log.commit_async(b"x")));
    assert!(is_closed(log.append_with(b"x", Durability::Written)) && is_closed(log.commit_checkpoint(b"x")));
    assert!(is_closed(log.write()) && is_closed(log.sync()) && is_closed(log.durable(Lsn(1))));
    assert!(is_closed(log.hold("hold", Lsn(1))) && is_closed(log.release("hold")));
    assert!(is_closed(log.truncate_front(Lsn(2))) && is_closed(log.truncate_back(Lsn(2))));
    assert_eq!((log.durable_lsn(), log.get(Lsn(3)).unwrap()), (Lsn(3), record(3)));
    assert_eq!(log.into_iter().count(), 3);
    assert!(log.reader_at(Lsn(4)).wait_next(None).unwrap().is_none());
}

#[test]
fn one_of_many_who_append_closes_the_log_and_what_was_acknowledged_is_there() {
    for background in [true, false] {
        let disk = MemDisk::default();
        let log = Arc::new(options().background(background).disk(Arc::new(disk.clone())).open(MEM).unwrap());
        let last = within(move || {
            let workers: Vec<_> = (0..6)
                .map(|t| {
                    let log = log.clone();
                    thread::spawn(move || {
                        let mut last = Lsn::ZERO;
                        loop {
                            let done = match t % 3 {
                                0 => log.commit([t; 3000]),
                                1 => log.append(vec![t; 40_000]).and_then(|lsn| log.sync_to(lsn).map(|()| lsn)),
                                _ => log.hold("hold", log.start_lsn()).and_then(|()| log.truncate_front(log.last_lsn().prev())),
                            };
                            match done {
                                Ok(lsn) => last = last.max(lsn),
                                Err(Error::Closed) => return if t % 3 == 2 { Lsn::ZERO } else { last },
                                Err(Error::Dropped { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(30));
            let closers = [log.clone(), log.clone()].map(|log| thread::spawn(move || log.close()));
            closers.into_iter().for_each(|closer| closer.join().unwrap().unwrap());
            workers.into_iter().map(|worker| worker.join().unwrap()).max().unwrap()
        });
        let log = options().disk(Arc::new(disk)).open(MEM).unwrap();
        assert_eq!(log.recovery().verdict.name(), "clean");
        assert!(log.last_lsn() >= last, "{} of {last}", log.last_lsn());
    }
}

/// Whoever opens the log next may rely on it.
#[test]
fn when_it_is_closed_no_call_that_was_at_it_changes_the_directory() {
    for background in [true, false] {
        let (changes, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counts, after) = (changes.clone(), closed.clone());
        let disk = hooked(MemDisk::default(), move |op, _| {
            if op.writes()
                || matches!(op, Op::Rename | Op::Remove | Op::Allocate(_) | Op::SetLen | Op::Open(Access::Create | Access::New))
            {
                thread::sleep(Duration::from_micros(200));
                counts.fetch_add(usize::from(after.load(SeqCst)), SeqCst);
            }
            Ok(())
        });
        for _ in 0..20 {
            closed.store(false, SeqCst);
            let log = Arc::new(options().background(background).disk(disk.clone()).open(MEM).unwrap());
            let worker = |work: fn(&Log) -> foreword::Result<()>| {
                let log = log.clone();
                thread::spawn(move || while work(&log).is_ok() {})
            };
            let workers = [
                worker(|log| log.append([1; 20_000]).map(drop)),
                worker(|log| log.append([1; 200_000]).map(drop)),
                worker(|log| log.truncate_front(log.last_lsn()).map(drop)),
                worker(|log| match log.truncate_back(log.last_lsn()) {
                    Err(Error::Dropped { .. }) => Ok(()),
                    cut => cut,
                }),
            ];
            thread::sleep(Duration::from_millis(5));
            log.close().unwrap();
            closed.store(true, SeqCst);
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            assert_eq!(changes.load(SeqCst), 0);
        }
    }
}

#[test]
fn a_close_that_failed_says_so_again_and_the_hook_is_not_told_of_it() {
    let failing = Arc::new(AtomicBool::new(false));
    let (fails, told) = (failing.clone(), Arc::new(AtomicUsize::new(0)));
    let (disk, tells) = (MemDisk::default(), told.clone());
    let hooked = hooked(disk, move |op, _| match op {
        Op::WriteDurable | Op::Sync if fails.load(SeqCst) => Err(io::Error::other("broken")),
        _ => Ok(()),
    });
    let options = options().background(false).on_error(move |_| _ = tells.fetch_add(1, SeqCst));
    let log = options.disk(hooked).open(MEM).unwrap();
    log.append(b"one").unwrap();
    failing.store(true, SeqCst);
    for _ in 0..2 {
        assert!(matches!(log.close(), Err(Error::Poisoned(_))));
        assert!(matches!(log.failure(), Some(Error::Poisoned(_))));
    }
    drop(log);
    assert_eq!(told.load(SeqCst), 0, "who closed it was told");
}

/// Closes a log when it wakes, and says what came of it.
struct Closes(Arc<Log>, Mutex<Vec<foreword::Result<()>>>);

impl Wake for Closes {
    fn wake(self: Arc<Self>) {
        let closed = self.0.close();
        self.1.lock().unwrap().push(closed);
    }
}

impl Closes {
    fn new(log: &Arc<Log>) -> Arc<Closes> {
        Arc::new(Closes(log.clone(), Mutex::default()))
    }

    fn wait_for(self: &Arc<Self>, commit: &mut Commit) -> bool {
        let waker = Waker::from(self.clone());
        Pin::new(commit).poll(&mut Context::from_waker(&waker)).is_pending()
    }
}

/// On whatever thread it wakes: of a committer, of the log, or of a call that changes the log, and
/// in the midst of that.
#[test]
fn a_waker_may_close_the_log() {
    type Call = fn(&Log) -> foreword::Result<()>;
    let calls: [Call; 6] = [
        |log| log.commit(b"x").map(drop),
        |log| log.sync().map(drop),
        |log| log.hold("hold", Lsn(1)),
        |log| log.truncate_front(Lsn(2)).map(drop),
        |log| log.truncate_back(Lsn(2)),
        |log| log.wait_durable(Lsn(3), None).map(drop),
    ];
    for (i, call) in calls.into_iter().enumerate() {
        for background in [true, false] {
            if !background && i == 5 {
                continue; // No thread would flush.
            }
            let disk = MemDisk::default();
            let shared = disk.clone();
            within(move || {
                let log = Arc::new(options().background(background).disk(Arc::new(shared)).open(MEM).unwrap());
                commit(&log, 1..3);
                let closes = Closes::new(&log);
                let mut waits = log.commit_async(b"three").unwrap();
                if closes.wait_for(&mut waits) {
                    // It may find the log closed half way.
                    let called = call(&log);
                    assert!(matches!(called, Ok(()) | Err(Error::Closed)), "{i}: {called:?}");
                    until("the waker has closed the log", || !closes.1.lock().unwrap().is_empty());
                    closes.1.lock().unwrap().iter().for_each(|closed| assert!(closed.is_ok(), "{i}: {closed:?}"));
                }
                log.close().unwrap();
            });
            let log = options().disk(Arc::new(disk)).open(MEM).unwrap();
            assert_eq!(log.recovery().verdict.name(), "clean", "{i}");
        }
    }
}

#[test]
fn hooks_may_close_the_log() {
    for (hook, background) in
        [("durable", true), ("rotate", true), ("error", true), ("durable", false), ("rotate", false), ("error", false)]
    {
        let disk = MemDisk::default();
        let stays = hooked(disk.clone(), |op, name| match op {
            Op::Remove if name.ends_with(".seg") => Err(io::Error::other("it stays")),
            _ => Ok(()),
        });
        let (shared, (said, says)) = (Arc::new(Mutex::new(None::<Arc<Log>>)), channel());
        let closing = shared.clone();
        let closes = move || {
            let log = closing.lock().unwrap().clone();
            if let Some(log) = log {
                _ = said.send(log.close());
            }
        };
        let options = options().background(background).disk(stays);
        let options = match hook {
            "durable" => options.on_durable(move |_| closes()),
            "rotate" => options.on_rotate(move |_| closes()),
            _ => options.on_error(move |_| closes()),
        };
        let log = Arc::new(options.open(MEM).unwrap());
        // Much is dropped, so that some of it is removed.
        for _ in 0..40 {
            log.append([7; 10_000]).unwrap();
        }
        log.sync().unwrap();
        *shared.lock().unwrap() = Some(log.clone());
        let acting = log.clone();
        within(move || {
            let acted =
                [acting.append([7; 50_000]), acting.append([7; 50_000]), acting.sync(), acting.truncate_front(acting.last_lsn())];
            acted.into_iter().for_each(|acted| assert!(matches!(acted, Ok(_) | Err(Error::Closed)), "{acted:?}"));
        });
        // (While the hook closes the log, it may be told of another error, and closes again.)
        let said = std::iter::from_fn(|| says.recv_timeout(PATIENCE).ok()).find(|said| !matches!(said, Err(Error::Busy)));
        assert!(matches!(said, Some(Ok(()))), "{hook} {background}: {said:?}");
        within(move || log.close()).unwrap();
        let log = self::options().disk(Arc::new(disk)).open(MEM).unwrap();
        assert_eq!(log.recovery().verdict.name(), "clean", "{hook} {background}");
        shared.lock().unwrap().take();
    }
}

/// One that runs on a thread which the closing thread waits for must not wait for that.
#[test]
fn a_waker_on_a_thread_that_is_waited_for_is_told_that_the_log_is_busy() {
    let (entered, enters) = channel();
    let (gate, passes) = channel::<()>();
    let passes = Mutex::new(passes);
    let shared = Arc::new(Mutex::new(None::<Arc<Log>>));
    let (log, (said, says)) = (shared.clone(), channel());
    let hook = move |_| {
        _ = entered.send(());
        _ = passes.lock().unwrap().recv();
        let log = log.lock().unwrap().clone();
        _ = said.send(log.unwrap().close());
    };
    let log = Arc::new(options().on_durable(hook).disk(Arc::new(MemDisk::default())).open(MEM).unwrap());
    *shared.lock().unwrap() = Some(log.clone());
    log.commit(b"one").unwrap();
    enters.recv_timeout(PATIENCE).unwrap();
    let closing = log.clone();
    let closer = thread::spawn(move || closing.close());
    until("the log is being closed", || log.failure().is_some());
    drop(gate);
    assert!(matches!(says.recv_timeout(PATIENCE).unwrap(), Err(Error::Busy)));
    within(move || closer.join().unwrap()).unwrap();
}

/// A change runs the wakers of its own flush.
#[test]
fn a_change_from_a_waker_that_a_change_runs_is_busy() {
    struct Holds(Arc<Log>, Mutex<Option<foreword::Result<()>>>);
    impl Wake for Holds {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(self.0.hold("inner", Lsn(1)));
        }
    }
    within(|| {
        let log = Arc::new(options().background(false).disk(Arc::new(MemDisk::default())).open(MEM).unwrap());
        let holds = Arc::new(Holds(log.clone(), Mutex::default()));
        let mut commit = log.commit_async(b"one").unwrap();
        let waker = Waker::from(holds.clone());
        assert!(Pin::new(&mut commit).poll(&mut Context::from_waker(&waker)).is_pending());
        log.hold("outer", Lsn(1)).unwrap();
        assert!(matches!(holds.1.lock().unwrap().take(), Some(Err(Error::Busy))));
        assert_eq!(log.holds().unwrap().into_keys().collect::<Vec<_>>(), ["outer"]);
        log.hold("later", Lsn(1)).unwrap();
    });
}

#[test]
fn handles_go_where_they_are_needed() {
    fn shared<T: Send + Sync + UnwindSafe + RefUnwindSafe + 'static>() {}
    fn sent<T: Send + 'static>() {}
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    shared::<Log>();
    shared::<Arc<Log>>();
    sent::<View>();
    sent::<Reader>();
    sent::<Iter>();
    sent::<Commit>();
    error::<Error>();
    sent::<foreword::RecordStream>();
}
