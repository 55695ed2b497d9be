//! What each call does and refuses; callbacks; threads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use common::{options, read};
use foreword_raft::{Error, GroupLogs, Options};
use foreword_sim::{Effect, Fault, OpKind, SimDisk};

fn small() -> Options {
    Options::new().log(foreword::Options::new().segment_bytes(64 << 10).on_error(|_| ()))
}

/// Each refused call, with its error; nothing of it is written.
#[test]
fn bad_input_is_an_error_and_nothing_is_written() {
    let disk = SimDisk::new(1);
    let logs = options(&disk).open("/log").unwrap();
    let group = logs.group(5);
    let append = |indices: &[u64]| group.append(indices.iter().map(|&i| (i, [1; 10])), |_| panic!("never called"));
    group.append([(1, "one"), (2, "two"), (3, "three")], |_| ()).unwrap();
    group.purge(1, "term").unwrap();
    let (model, last) = (read(&logs), logs.stats().log.appended_lsn);
    assert!(matches!(append(&[5]), Err(Error::NotNext { group: 5, index: 5, expected: 4, .. })));
    assert!(matches!(append(&[3]), Err(Error::NotNext { index: 3, expected: 4, .. })));
    assert!(matches!(append(&[4, 6]), Err(Error::NotNext { index: 6, expected: 5, .. })));
    assert!(matches!(append(&[u64::MAX]), Err(Error::Invalid { .. })));
    assert!(matches!(logs.group(6).append([(2, "")], |_| ()), Err(Error::NotNext { index: 2, expected: 1, .. })));
    assert!(matches!(group.purge(u64::MAX, ""), Err(Error::Invalid { .. })));
    assert!(matches!(group.save_committed(u64::MAX, ""), Err(Error::Invalid { .. })));
    assert!(matches!(group.truncate_after(0), Err(Error::Purged { index: 0, purged: 1, .. })));
    assert!(matches!(group.truncate_after(None), Err(Error::Purged { purged: 1, .. })));
    assert!(matches!(group.get(1), Err(Error::Purged { index: 1, purged: 1, .. })));
    let large = vec![0; (64 << 20) + 1];
    assert!(matches!(group.append([(4, &large)], |_| ()), Err(Error::Log(foreword::Error::TooLarge { .. }))));
    assert!(matches!(group.save_vote(&large), Err(Error::Log(foreword::Error::TooLarge { .. }))));
    // Calls that change nothing write nothing.
    group.purge(1, "again").unwrap();
    group.truncate_after(3).unwrap();
    group.truncate_after(u64::MAX).unwrap();
    logs.group(9).truncate_after(None).unwrap();
    assert!(!logs.remove(9).unwrap());
    assert_eq!((read(&logs), logs.stats().log.appended_lsn), (model, last));
    assert!(matches!(small().compact_factor(1).open("/nowhere"), Err(Error::Invalid { what: "compact_factor", .. })));

    assert!(logs.remove(5).unwrap());
    assert!(matches!(append(&[4]), Err(Error::Removed { group: 5, .. })));
    assert!(matches!(group.save_vote("x"), Err(Error::Removed { .. })));
    assert!(matches!(group.vote(), Err(Error::Removed { .. })));
    assert!(!logs.groups().contains(&5));
    logs.group(5).append([(0, "a new life")], |_| ()).unwrap();
    assert_eq!(logs.group(5).get(0).unwrap().unwrap(), b"a new life");
}

#[test]
fn ranges_are_read_as_far_as_they_are_there() {
    let disk = SimDisk::new(1);
    let logs = options(&disk).open("/log").unwrap();
    let group = logs.group(1);
    group.append((1..=20).map(|i| (i, vec![i as u8; 100])), |_| ()).unwrap();
    group.purge(4, "").unwrap();
    let read =
        |range: std::ops::Range<u64>, bytes| group.entries(range, bytes).unwrap().iter().map(|e| e.index).collect::<Vec<_>>();
    for _ in 0..2 {
        assert_eq!(read(5..8, u64::MAX), [5, 6, 7]);
        assert_eq!(read(19..30, u64::MAX), [19, 20]);
        assert_eq!(read(21..30, u64::MAX), [0; 0]);
        assert_eq!(read(8..8, u64::MAX), [0; 0]);
        assert_eq!(read(8..20, 0), [8]);
        assert_eq!(read(8..20, 250), [8, 9]);
        assert_eq!(group.entries(.., u64::MAX).unwrap().len(), 16);
        assert_eq!(group.get(21).unwrap(), None);
        logs.sync().unwrap(); // The reads below then come from the files: the cache is small.
    }
    assert!(logs.stats().cached_bytes <= 1000);
}

/// From many threads, so that the records of the groups alternate in the log.
#[test]
fn callbacks_come_once_in_order_and_when_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let logs = small().open(dir.path()).unwrap();
    let called: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (logs, called) = (&logs, &called);
            scope.spawn(move || {
                for index in 1..=100 {
                    for id in [thread * 2, thread * 2 + 1] {
                        let called = called.clone();
                        let done = move |result: foreword_raft::Result<()>| {
                            result.unwrap();
                            called.lock().unwrap().push((id, index));
                            assert!(index % 10 != 0, "a panic that harms nobody");
                        };
                        logs.group(id).append([(index, index.to_le_bytes())], done).unwrap();
                        assert_eq!(logs.group(id).get(index).unwrap().unwrap(), index.to_le_bytes());
                    }
                    if index % 30 == 0 {
                        logs.group(thread).save_vote([1]).unwrap();
                    }
                }
            });
        }
    });
    logs.close().unwrap();
    let called = called.lock().unwrap();
    for id in 0..8 {
        assert!(called.iter().filter(|c| c.0 == id).map(|c| c.1).eq(1..=100), "group {id}");
    }
}

#[test]
fn a_callback_may_use_the_logs_and_close_them() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Arc::new(small().open(dir.path()).unwrap());
    let (send, receive) = mpsc::channel();
    let inner = logs.clone();
    let done = move |_: foreword_raft::Result<()>| {
        let group = inner.group(1);
        group.save_vote("from a callback").unwrap();
        let again = send.clone();
        group.append([(2, "two")], move |result| again.send(result.is_ok()).unwrap()).unwrap();
        inner.close().unwrap();
        send.send(true).unwrap();
    };
    logs.group(1).append([(1, "one")], done).unwrap();
    assert!(receive.recv().unwrap() && receive.recv().unwrap());
    assert!(matches!(logs.group(1).save_vote("x"), Err(Error::Log(foreword::Error::Closed))));
    logs.close().unwrap();
    drop(logs);
    let logs = GroupLogs::open(dir.path()).unwrap();
    assert_eq!(logs.group(1).vote().unwrap().unwrap(), b"from a callback");
    assert_eq!(logs.group(1).last().unwrap(), Some(2));
}

/// Without entries, the callback waits for the records that the group has written.
#[test]
fn an_append_without_entries_waits_for_those_before() {
    let disk = SimDisk::new(1);
    let logs = options(&disk).open("/log").unwrap();
    let called = Arc::new(AtomicU64::new(0));
    let count = |called: &Arc<AtomicU64>| {
        let called = called.clone();
        move |result: foreword_raft::Result<()>| _ = called.fetch_add(u64::from(result.is_ok()), Ordering::SeqCst)
    };
    logs.group(1).append([(1, "one")], count(&called)).unwrap();
    logs.group(1).append([(0, ""); 0], count(&called)).unwrap();
    assert_eq!((called.load(Ordering::SeqCst), logs.stats().waiting), (0, 2));
    logs.sync().unwrap();
    assert_eq!((called.load(Ordering::SeqCst), logs.stats().waiting), (2, 0));
}

/// A log that fails calls all waiting callbacks with its error; so does one that is closed.
#[test]
fn a_failed_log_fails_all_that_wait() {
    for background in [false, true] {
        let disk = SimDisk::new(1);
        let logs = options(&disk).background(background).open("/log").unwrap();
        logs.group(1).save_vote("before").unwrap();
        disk.fault(Fault::new(OpKind::Sync, Effect::Eio).forever());
        let (send, receive) = mpsc::channel();
        let mut calls = 0;
        for id in 0..10 {
            let send = send.clone();
            // In the background the log may have failed by now.
            calls += usize::from(logs.group(id).append([(1, "x")], move |result| send.send(result).unwrap()).is_ok());
        }
        assert!(logs.sync().is_err());
        assert!(logs.close().is_err());
        drop(send);
        let results: Vec<_> = receive.iter().collect();
        assert_eq!(results.len(), calls);
        assert!(calls > 0 && results.iter().all(|result| matches!(result, Err(Error::Log(foreword::Error::Poisoned(_))))));
        assert!(logs.failure().is_some());
    }
}

#[test]
fn threads_append_to_a_group_in_turn_and_wait_together() {
    let dir = tempfile::tempdir().unwrap();
    // (Nothing else makes flushes.)
    let log = foreword::Options::new().segment_bytes(64 << 10).sync(foreword::SyncPolicy::manual());
    let logs = Options::new().log(log).open(dir.path()).unwrap();
    let next = Mutex::new(1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut next = next.lock().unwrap();
                    let commit = logs.group(1).begin_commit([(*next, next.to_string())]).unwrap();
                    *next += 1;
                    drop(next);
                    commit.wait().unwrap();
                }
            });
        }
    });
    // What comes before a wait shares its flush.
    let flushes = logs.stats().log.flushes;
    let commits = [401, 402].map(|index| logs.group(1).begin_commit([(index, index.to_string())]).unwrap());
    assert!(logs.stats().log.flushes <= flushes + 1);
    commits.into_iter().for_each(|commit| commit.wait().unwrap());
    assert!(logs.stats().log.flushes <= flushes + 1);
    // Without a wait, too, it is there once it is durable; and what is refused has written nothing.
    drop(logs.group(1).begin_commit([(403, "403")]).unwrap());
    assert!(matches!(logs.group(1).begin_commit([(500, "500")]), Err(Error::NotNext { .. })));
    logs.close().unwrap();
    let logs = small().open(dir.path()).unwrap();
    let entries = logs.group(1).entries(1.., u64::MAX).unwrap();
    assert!(entries.iter().map(|entry| entry.data.clone()).eq((1..=403).map(|index: u64| index.to_string().into_bytes())));
}

#[test]
fn what_a_thread_commits_itself_is_cached_within_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let logs = small().cache_bytes(10_000).open(dir.path()).unwrap();
    logs.group(1).commit((1..=100).map(|i| (i, vec![i as u8; 500]))).unwrap();
    assert!(logs.stats().cached_bytes <= 10_000, "{:?}", logs.stats());
    let entries = logs.group(1).entries(.., u64::MAX).unwrap();
    assert!(entries.len() == 100 && entries.iter().all(|e| e.data == [e.index as u8; 500]));
}

/// The background thread compacts by itself, while other threads write and read.
#[test]
fn compaction_in_the_background_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let logs =
        small().cache_bytes(10_000).compact_factor(2).compact_slack(100_000).compact_step(10_000).open(dir.path()).unwrap();
    logs.group(100).append((1..=50).map(|i| (i, vec![i as u8; 500])), |_| ()).unwrap();
    std::thread::scope(|scope| {
        for id in 0..2 {
            let logs = &logs;
            scope.spawn(move || {
                let group = logs.group(id);
                for index in 1..=2000 {
                    group.append([(index, vec![index as u8; 300])], |_| ()).unwrap();
                    if index % 50 == 0 {
                        group.purge(index - 20, "").unwrap();
                        let idle = logs.group(100).entries(.., u64::MAX).unwrap();
                        assert!(idle.len() == 50 && idle.iter().all(|e| e.data == [e.index as u8; 500]));
                    }
                }
            });
        }
    });
    let model = read(&logs);
    for _ in 0..500 {
        if logs.stats().moved_bytes > 25_000 && logs.stats().log.start_lsn.0 > 1000 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let stats = logs.stats();
    assert!(stats.moved_bytes > 25_000, "{stats:?}");
    assert!(stats.log.start_lsn.0 > 1000, "an idle group keeps no space");
    logs.close().unwrap();
    assert_eq!(read(&small().open(dir.path()).unwrap()), model);
}

/// Records that another program wrote are not taken for those of a group.
#[test]
fn a_log_of_something_else_is_refused() {
    for (record, unknown) in [(&[1, 99, 1, 0][..], true), (&[2, 1, 1, 0], true), (b"", false), (&[1, 1, 1, 9], false)] {
        let disk = SimDisk::new(1);
        let log = foreword::Options::new().segment_bytes(64 << 10).background(false).disk(disk.handle()).open("/log").unwrap();
        log.commit("\x01\x01\x01\x00a vote").unwrap();
        log.commit(record).unwrap();
        log.close().unwrap();
        let error = options(&disk).open("/log").unwrap_err();
        // (The last one names a later record as its previous one.)
        assert_eq!(matches!(error, Error::UnknownRecord { lsn: foreword::Lsn(2), .. }), unknown, "{error}");
        assert_eq!(matches!(error, Error::BadRecord { lsn: foreword::Lsn(2), .. }), !unknown, "{error}");
    }
}
