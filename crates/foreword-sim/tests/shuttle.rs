//! The commit path under shuttle: thousands of thread schedules of small scenarios. Run by
//! `scripts/shuttle.sh`.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "shuttle/explore.rs"]
mod explore;
#[path = "shuttle/memory.rs"]
mod memory;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use foreword::{Durability, Error, Log, Lsn, Options, Result, SyncPolicy};
use shuttle::thread;

use explore::explore;
use memory::Memory;

fn open(memory: &Memory) -> Log {
    open_with(memory, |options| options)
}

fn open_with(memory: &Memory, with: impl FnOnce(Options) -> Options) -> Log {
    let options = Options::new().background(false).sync(SyncPolicy::manual()).segment_bytes(64 << 10);
    with(options).disk(Arc::new(memory.clone())).open("/log").unwrap()
}

fn spawn(log: &Arc<Log>, work: impl FnOnce(&Log) + Send + 'static) -> thread::JoinHandle<()> {
    let log = log.clone();
    thread::spawn(move || work(&log))
}

#[test]
fn committers_all_return_and_what_they_committed_is_durable() {
    explore(|| {
        let log = Arc::new(open(&Memory::new(i64::MAX)));
        let committers: Vec<_> = (0..4u8)
            .map(|t| {
                spawn(&log, move |log| {
                    for i in 0..3u8 {
                        let lsn = log.commit(&[t, i]).unwrap();
                        assert!(log.durable_lsn() >= lsn);
                        assert_eq!(log.get(lsn).unwrap(), [t, i]);
                    }
                })
            })
            .collect();
        committers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(log.iter(Lsn::FIRST).count(), 12);
    });
}

/// The thread that leads a flush fails. Every thread that waits for that flush gets the error, and
/// no later commit succeeds.
#[test]
fn when_a_leader_fails_all_followers_get_the_error_and_nothing_is_acknowledged_after() {
    explore(|| {
        let memory = Memory::new(i64::MAX);
        let log = Arc::new(open(&memory));
        memory.healthy.store(2, SeqCst);
        let acknowledged = Arc::new(Mutex::new(Lsn::ZERO));
        let committers: Vec<_> = (0..4u8)
            .map(|t| {
                let acknowledged = acknowledged.clone();
                spawn(&log, move |log| {
                    let mut failed = false;
                    for i in 0..4u8 {
                        match log.commit(&[t, i]) {
                            Ok(lsn) => {
                                assert!(!failed, "acknowledged after an error");
                                let mut highest = acknowledged.lock().unwrap();
                                *highest = lsn.max(*highest);
                            }
                            Err(Error::Poisoned(_)) => failed = true,
                            Err(other) => panic!("{other}"),
                        }
                    }
                    assert!(failed);
                })
            })
            .collect();
        committers.into_iter().for_each(|t| t.join().unwrap());
        assert!(log.durable_lsn() >= *acknowledged.lock().unwrap());
        assert!(matches!(log.append(b"x"), Err(Error::Poisoned(_))));
        let log = Arc::into_inner(log).unwrap();
        assert!(matches!(log.close(), Err(Error::Poisoned(_))));
        memory.healthy.store(i64::MAX, SeqCst);
        assert!(open(&memory).last_lsn() >= *acknowledged.lock().unwrap());
    });
}

#[test]
fn writes_syncs_and_commits_mix() {
    explore(|| {
        let log = Arc::new(open(&Memory::new(i64::MAX)));
        let workers = [
            spawn(&log, |log| {
                log.append(b"a").unwrap();
                log.sync().unwrap();
            }),
            spawn(&log, |log| {
                log.append_with(b"b", Durability::Written).unwrap();
                log.write().unwrap();
            }),
            spawn(&log, |log| {
                log.commit_batch(&["c", "d"]).unwrap();
            }),
            spawn(&log, |log| {
                log.append(&[7; 30_000]).unwrap();
                log.append_with(&[8; 60_000], Durability::Synced).unwrap();
            }),
        ];
        workers.into_iter().for_each(|t| t.join().unwrap());
        log.sync().unwrap();
        assert_eq!(log.iter(Lsn::FIRST).count(), 6);
    });
}

/// Truncations at both ends race commits. The durable LSN never lies beyond the cut.
#[test]
fn truncation_at_both_ends_races_commits() {
    explore(|| {
        let memory = Memory::new(i64::MAX);
        let log = Arc::new(open(&memory));
        for _ in 0..6 {
            log.append(&[1; 9000]).unwrap();
        }
        let workers = [
            spawn(&log, |log| {
                for _ in 0..3 {
                    log.commit(&[2; 9000]).unwrap();
                }
            }),
            spawn(&log, |log| log.truncate_back(Lsn(5)).unwrap()),
            spawn(&log, |log| assert!(log.truncate_front(Lsn(3)).unwrap() <= Lsn(3))),
            spawn(&log, |log| {
                let mut reader = log.reader();
                while let Ok(Some(record)) = reader.next() {
                    assert!(record.data.iter().all(|b| *b == record.data[0]) && record.data.len() == 9000);
                }
            }),
        ];
        workers.into_iter().for_each(|t| t.join().unwrap());
        log.sync().unwrap();
        let (last, durable) = (log.last_lsn(), log.durable_lsn());
        assert_eq!(last, durable, "the durable mark is never past the cut");
        let seen: Vec<_> = log.iter(Lsn::ZERO).map(|r| r.unwrap().lsn).collect();
        assert_eq!(seen, (3..=last.0).map(Lsn).collect::<Vec<_>>());
        Arc::into_inner(log).unwrap().close().unwrap();
        assert_eq!(open(&memory).last_lsn(), last);
    });
}

#[test]
fn a_close_leaves_no_future_hanging() {
    explore(|| {
        let log = open(&Memory::new(i64::MAX));
        let commits: Vec<_> = (0..3).map(|_| log.commit_async(b"x").unwrap()).collect();
        let waiters: Vec<_> =
            commits.into_iter().map(|commit| thread::spawn(move || shuttle::future::block_on(commit))).collect();
        log.close().unwrap();
        for (i, waiter) in waiters.into_iter().enumerate() {
            assert_eq!(waiter.join().unwrap().unwrap(), Lsn(i as u64 + 1));
        }
    });
}

/// Two futures wait for each record. One of them is dropped, polled or not, at any time. Threads
/// that commit lead the flush, which fails if `healthy` is 0. `right` checks what the other future
/// returns.
fn half_of_the_futures_are_dropped(healthy: i64, right: fn(&Log, Result<Lsn>) -> bool) {
    explore(move || {
        let memory = Memory::new(i64::MAX);
        let log = Arc::new(open(&memory));
        let commits: Vec<_> = (0..3).map(|_| log.commit_async(b"x").unwrap()).collect();
        memory.healthy.store(healthy, SeqCst);
        let waiters = commits.into_iter().enumerate().map(|(i, kept)| {
            let mut dropped = log.durable(kept.lsn()).unwrap();
            spawn(&log, move |log| {
                let waiter = thread::spawn(move || shuttle::future::block_on(kept));
                if i > 0 {
                    let _ = Pin::new(&mut dropped).poll(&mut Context::from_waker(Waker::noop()));
                }
                thread::yield_now();
                drop(dropped);
                assert!(right(log, waiter.join().unwrap()));
            })
        });
        let waiters: Vec<_> = waiters.collect();
        let committers: Vec<_> = (0..2).map(|_| spawn(&log, move |log| assert!(right(log, log.commit(b"y"))))).collect();
        waiters.into_iter().chain(committers).for_each(|t| t.join().unwrap());
    });
}

#[test]
fn dropped_futures_take_no_others_with_them() {
    half_of_the_futures_are_dropped(i64::MAX, |log, committed| log.durable_lsn() >= committed.unwrap());
}

/// The thread that leads a flush fails. Every future that waits for that flush gets the error.
#[test]
fn futures_get_the_error_of_a_leader_that_fails() {
    half_of_the_futures_are_dropped(0, |_, committed| matches!(committed, Err(Error::Poisoned(_))));
}

#[test]
fn holds_come_and_go_while_the_front_is_truncated_and_others_commit() {
    explore(|| {
        let memory = Memory::new(i64::MAX);
        let log = Arc::new(open(&memory));
        for _ in 0..14 {
            log.append(&[1; 9000]).unwrap();
        }
        log.hold("released", Lsn(2)).unwrap();
        let in_time = Arc::new(AtomicBool::new(false));
        let held = in_time.clone();
        let workers = [
            spawn(&log, |log| (0..3).for_each(|_| _ = log.commit(&[2; 9000]).unwrap())),
            spawn(&log, |log| assert!(log.release("released").unwrap())),
            spawn(&log, move |log| match log.hold("taken", Lsn(4)) {
                Ok(()) => held.store(true, SeqCst),
                refused => assert!(matches!(refused, Err(Error::Dropped { start: Lsn(10), .. })), "{refused:?}"),
            }),
            spawn(&log, |log| {
                let start = log.truncate_front(Lsn(10)).unwrap();
                assert!([2, 4, 10].map(Lsn).contains(&start), "{start}");
            }),
        ];
        workers.into_iter().for_each(|t| t.join().unwrap());
        let start = log.start_lsn();
        let in_time = in_time.load(SeqCst);
        assert_eq!(start <= Lsn(4), in_time, "what is held from 4 on was dropped up to {start}, or kept without a hold");
        let check = |log: &Log| {
            assert_eq!(log.start_lsn(), start);
            let holds: Vec<_> = log.holds().unwrap().into_iter().map(|(name, hold)| (name, hold.lsn)).collect();
            assert_eq!(holds, in_time.then(|| ("taken".to_owned(), Lsn(4))).into_iter().collect::<Vec<_>>());
            let seen: Vec<_> = log.iter(Lsn::ZERO).map(|r| r.unwrap().lsn).collect();
            assert_eq!(seen, (start.0..=17).map(Lsn).collect::<Vec<_>>());
        };
        check(&log);
        Arc::into_inner(log).unwrap().close().unwrap();
        check(&open(&memory));
    });
}

/// While a committer waits for others to join its flush, a hold or a truncation may flush its
/// record. Committers that came meanwhile wait for it to lead a flush, so it must.
#[test]
fn a_gathering_committer_leads_even_if_its_own_record_is_durable_by_then() {
    explore(|| {
        let log = Arc::new(open(&Memory::new(i64::MAX)));
        let mut workers: Vec<_> =
            (0..3u8).map(|t| spawn(&log, move |log| (0..4u8).for_each(|i| _ = log.commit(&[t, i]).unwrap()))).collect();
        workers.push(spawn(&log, |log| (1..4).for_each(|lsn| log.hold("hold", Lsn(lsn)).unwrap())));
        workers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(log.durable_lsn(), Lsn(12));
    });
}

/// What a truncation drops is removed after it, by the same call or by an append that needs the
/// room. No removed segment is needed any more, and none is lost.
#[test]
fn removals_race_truncations_and_appends_that_need_their_room() {
    explore(|| {
        let memory = Memory::new(i64::MAX);
        let log = Arc::new(open(&memory));
        for _ in 0..14 {
            log.append(&[1; 9000]).unwrap();
        }
        memory.room.store(memory.segments() as i64, SeqCst);
        let workers = [
            spawn(&log, |log| assert!(log.truncate_front(Lsn(6)).unwrap() <= Lsn(13))),
            spawn(&log, |log| assert!(log.truncate_front(Lsn(13)).unwrap() == Lsn(13))),
            spawn(&log, |log| {
                for _ in 0..12 {
                    match log.append(&[2; 9000]) {
                        // The append came before the truncations.
                        Err(Error::NoSpace { .. }) => thread::yield_now(),
                        appended => _ = appended.unwrap(),
                    }
                }
            }),
        ];
        workers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(log.stats().segments_dropped, 0);
        log.sync().unwrap();
        let last = log.last_lsn();
        let check = |log: &Log| {
            let seen: Vec<_> = log.iter(Lsn::ZERO).map(|r| r.unwrap().lsn).collect();
            assert_eq!(seen, (13..=last.0).map(Lsn).collect::<Vec<_>>());
        };
        check(&log);
        Arc::into_inner(log).unwrap().close().unwrap();
        memory.room.store(i64::MAX, SeqCst);
        check(&open(&memory));
    });
}

/// Records that span frames are copied without the lock, while other threads append, try to, flush
/// and cut.
#[test]
fn large_records_are_copied_beside_everything_else() {
    let large = |byte: u8| -> Vec<u8> { (0..60_000u32).map(|i| byte ^ (i >> 8) as u8).collect() };
    explore(move || {
        let memory = Memory::new(i64::MAX);
        let log = Arc::new(open(&memory));
        log.commit(b"first").unwrap();
        let workers = [
            spawn(&log, move |log| _ = log.commit(&large(1)).unwrap()),
            spawn(&log, move |log| _ = log.append(&large(2)).unwrap()),
            spawn(&log, |log| {
                log.append(b"small").unwrap();
                (0..6).for_each(|_| _ = log.write().unwrap());
                log.sync().unwrap();
            }),
            spawn(&log, |log| match log.try_append(b"tried") {
                Err(Error::Busy) => {}
                tried => _ = tried.unwrap(),
            }),
        ];
        workers.into_iter().for_each(|t| t.join().unwrap());
        log.sync().unwrap();
        let whole = |data: &[u8]| data.len() < 10 || data == large(1) || data == large(2);
        let check = |log: &Log| log.iter(Lsn::ZERO).map(|r| r.unwrap()).inspect(|r| assert!(whole(&r.data))).count();
        let records = check(&log);
        assert!((4..=5).contains(&records));
        Arc::into_inner(log).unwrap().close().unwrap();
        assert_eq!(check(&open(&memory)), records);
    });
}

/// The thread that completes a flush calls the hook, unless another thread is calling it. No LSN is
/// passed on twice, out of order, or never.
#[test]
fn a_hook_is_told_in_order_of_all_that_became_durable() {
    explore(|| {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tells = told.clone();
        let log = Arc::new(open_with(&Memory::new(i64::MAX), |options| {
            options.on_durable(move |told| {
                let lsn = told.lsn;
                // Long enough for other threads to flush meanwhile.
                (0..50).for_each(|_| thread::yield_now());
                tells.lock().unwrap().push(lsn);
            })
        }));
        let workers: Vec<_> = (0..3u8)
            .map(|t| {
                spawn(&log, move |log| {
                    log.commit(&[t]).unwrap();
                    log.append(&[t; 9000]).unwrap();
                    log.hold("hold", Lsn(1)).unwrap();
                })
            })
            .collect();
        workers.into_iter().for_each(|t| t.join().unwrap());
        let told = told.lock().unwrap();
        assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
        assert_eq!(told.last(), Some(&log.durable_lsn()));
    });
}

/// Committers, a thread that sets a hold, and two threads that close: all return, every acknowledged
/// record is there, and the hook was told of it.
#[test]
fn a_log_is_closed_while_others_use_it() {
    explore(|| {
        let memory = Memory::new(i64::MAX);
        let told = Arc::new(std::sync::Mutex::new(Lsn::ZERO));
        let tells = told.clone();
        let log = Arc::new(open_with(&memory, |options| {
            options.on_durable(move |told| {
                // Long enough for a close to end meanwhile, if it did not wait.
                (0..20).for_each(|_| thread::yield_now());
                *tells.lock().unwrap() = told.lsn;
            })
        }));
        let acknowledged = Arc::new(Mutex::new(Lsn::ZERO));
        let mut workers: Vec<_> = (0..2u8)
            .map(|t| {
                let acknowledged = acknowledged.clone();
                spawn(&log, move |log| {
                    for _ in 0..3 {
                        match log.commit(&[t; 9000]) {
                            Ok(lsn) => {
                                let mut highest = acknowledged.lock().unwrap();
                                *highest = lsn.max(*highest);
                            }
                            Err(error) => return assert!(matches!(error, Error::Closed), "{error}"),
                        }
                    }
                })
            })
            .collect();
        workers.push(spawn(&log, |log| {
            let held = log.hold("hold", Lsn(1)).and_then(|()| log.truncate_front(Lsn(1)));
            assert!(matches!(held, Ok(_) | Err(Error::Closed)), "{held:?}");
        }));
        workers.extend([(); 2].map(|()| {
            let told = told.clone();
            spawn(&log, move |log| {
                log.close().unwrap();
                let told = *told.lock().unwrap();
                assert_eq!(told, log.durable_lsn());
            })
        }));
        workers.into_iter().for_each(|t| t.join().unwrap());
        assert!(matches!(log.append("x"), Err(Error::Closed)));
        let again = open(&memory);
        assert!(again.last_lsn() >= *acknowledged.lock().unwrap());
        assert_eq!(again.recovery().verdict.name(), "clean");
    });
}
