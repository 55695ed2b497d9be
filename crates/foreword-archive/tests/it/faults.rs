//! Stores that fail, and archivers that are killed: nothing archived is lost, and another goes on.

use std::time::Duration;

use foreword::Lsn;
use foreword_archive::{Archive, Archiver, Error, Keep, RestoreOptions, Target};

use crate::support::*;

/// Killed at each call that it makes to the store, before the call and behind it.
#[test]
fn a_push_that_is_killed_at_any_call_is_continued_by_the_next() {
    run(async {
        for behind in [false, true] {
            for at in 0.. {
                let (place, (faulty, store)) = (Place::new(), Faulty::new());
                let log = small().open(place.log()).unwrap();
                commit(&log, 1..50);
                push_log(&log, &store).await.unwrap();
                log.truncate_back(Lsn(45)).unwrap();
                commit_each(&log, 45..130, 2_000);
                faulty.set(if behind { Fault::DeadBehind(at) } else { Fault::DeadBefore(at) });
                let killed = push_log(&log, &store).await;
                faulty.set(Fault::None);
                // What it said that is archived is.
                let archived = open(&store).await.timeline(None).unwrap().last;
                let there = restored(&store, &place, Target::Lsn(Lsn(archived)), None).await.unwrap();
                let all = push_log(&log, &store).await.unwrap();
                assert_eq!(all.archived(), log.durable_lsn());
                log.close().unwrap();
                let expected = records(&place.log());
                assert!(there.iter().all(|(lsn, data)| *lsn < 45 || archived < 50 || expected[lsn] == *data));
                assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == expected, "killed at call {at}");
                let verified = open(&store).await.verify(1.0, &mut |_| {}).await.unwrap();
                assert!(verified.faults.is_empty(), "{:?}", verified.faults);
                if killed.is_ok() {
                    assert!(at > 10);
                    break;
                }
            }
        }
    });
}

#[test]
fn an_expiry_that_is_killed_at_any_call_leaves_all_that_is_kept() {
    run(async {
        for at in 0.. {
            let (place, (faulty, store)) = (Place::new(), Faulty::new());
            let log = small().open(place.log()).unwrap();
            commit_each(&log, 1..130, 2_000);
            push_log(&log, &store).await.unwrap();
            let mut keep = Keep::default();
            keep.from = Some(Lsn(100));
            faulty.set(Fault::DeadBehind(at));
            let killed = match Archive::open(store.clone(), keys()).await {
                Ok(mut archive) => archive.expire(keep).await.map(drop),
                Err(error) => Err(error),
            };
            faulty.set(Fault::None);
            let there = restored(&store, &place, Target::Latest, None).await.unwrap();
            assert!(there.len() >= 30 && there.contains_key(&129), "killed at call {at}: {:?}", there.keys());
            let mut archive = open(&store).await;
            archive.expire(keep).await.unwrap();
            // (What the newest archiver made stays until the next one begins.)
            push_log(&log, &store).await.unwrap();
            archive.expire(keep).await.unwrap();
            let named: usize = open(&store).await.timelines().map(|timeline| timeline.chunks.len()).sum();
            let objects = faulty.objects().await;
            assert_eq!(objects.keys().filter(|name| name.starts_with("chunk/")).count(), named);
            assert!(named < 5);
            if killed.is_ok() {
                break;
            }
        }
    });
}

#[test]
fn a_removal_of_manifests_that_is_killed_at_any_call_leaves_an_archive() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        let archived = push_an_era(&log, &store, &keys()).await.archived();
        for at in 0.. {
            let (faulty, store) = faulty.fork();
            faulty.set(Fault::DeadBehind(at));
            let killed = match Archive::open(store.clone(), keys()).await {
                Ok(mut archive) => archive.expire(Keep::default()).await.map(drop),
                Err(error) => Err(error),
            };
            faulty.set(Fault::None);
            let mut archive = open(&store).await;
            assert_eq!(archive.timeline(None).unwrap().last, archived.0, "killed at call {at}");
            archive.expire(Keep::default()).await.unwrap();
            assert_eq!(archive.expirable(Keep::default()).await.unwrap().manifests, 0);
            if killed.is_ok() {
                assert!(at > 10);
                assert!(archive.verify(1.0, &mut |_| {}).await.unwrap().faults.is_empty());
                break;
            }
        }
    });
}

#[test]
fn a_restore_that_is_killed_at_any_call_goes_on() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..130, 2_000);
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        let dir = place.path("restored");
        let mut options = RestoreOptions::default();
        (options.segment_bytes, options.downloads) = (64 << 10, 1);
        for at in 0.. {
            faulty.set(Fault::DeadBefore(at));
            let killed = match Archive::open(store.clone(), keys()).await {
                Ok(mut archive) => archive.restore(&dir, &options).await.map(drop),
                Err(error) => Err(error),
            };
            match killed {
                Err(error) => assert!(error.is_retryable() && !dir.exists(), "{error}"),
                Ok(()) => break,
            }
        }
        assert!(records(&dir) == records(&place.log()));
        // One to a later point goes on with what an earlier one left; one to an earlier point does not.
        let other = place.path("other");
        options.to = Target::Lsn(Lsn(100));
        let mut archive = open_dying(&faulty, &store).await;
        assert!(archive.restore(&other, &options).await.is_err());
        faulty.set(Fault::None);
        options.to = Target::Lsn(Lsn(10));
        let refused = archive.restore(&other, &options).await;
        assert!(matches!(refused, Err(Error::Invalid { what: "directory", .. })), "{refused:?}");
        options.to = Target::Latest;
        archive.restore(&other, &options).await.unwrap();
        assert!(records(&other) == records(&place.log()));
    });
}

/// An archive that was opened before its store fails.
async fn open_dying(faulty: &Faulty, store: &foreword_archive::Store) -> Archive {
    faulty.set(Fault::None);
    let archive = open(store).await;
    faulty.set(Fault::DeadBefore(1));
    archive
}

#[test]
fn answers_that_are_lost_and_calls_that_fail_are_made_good() {
    run(async {
        for fault in [Fault::AnswersLost, Fault::Flaky] {
            let (place, (faulty, store)) = (Place::new(), Faulty::new());
            let log = small().open(place.log()).unwrap();
            commit_each(&log, 1..130, 2_000);
            log.close().unwrap();
            let mut options = options();
            options.patience = Some(Duration::from_secs(20));
            let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
            faulty.set(fault);
            archiver.push_all().await.unwrap();
            faulty.set(Fault::None);
            assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()), "{fault:?}");
        }
    });
}

/// Each call in turn is done, and its answer lost, while several chunks are confirmed at once, and
/// some move to an index.
#[test]
fn an_answer_that_is_lost_changes_nothing() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        log.commit(record(1, 0)).unwrap();
        let mut options = options();
        (options.chunk_age, options.patience) = (Duration::ZERO, Some(Duration::from_secs(20)));
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
        let mut lost = 0;
        for at in 0..60 {
            let next = log.last_lsn().0 + 1;
            commit_each(&log, next..next + 8, 20);
            faulty.set(Fault::LostOnce(at % 20));
            push_on(&mut archiver, &log).await.unwrap();
            lost += u64::from(faulty.calls.load(std::sync::atomic::Ordering::SeqCst) > at % 20);
        }
        faulty.set(Fault::None);
        log.close().unwrap();
        let archive = open(&store).await;
        assert!(lost > 30 && !archive.timeline(None).unwrap().indexes.is_empty(), "{lost}");
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        assert!(archive.verify(1.0, &mut |_| {}).await.unwrap().faults.is_empty());
    });
}

/// An archiver that does not know yet of an expiry moves no chunk to an index that is gone.
#[test]
fn an_expiry_and_an_index_at_once_leave_what_can_be_restored() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        log.commit(record(1, 0)).unwrap();
        let mut options = options();
        options.chunk_age = Duration::ZERO;
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
        commit_each(&log, 2..258, 20);
        while archiver.archive().timeline(None).unwrap().chunks.len() < 257 && archiver.archived() < log.last_lsn() {
            archiver.push_all().await.unwrap();
        }
        let mut keep = Keep::default();
        keep.from = Some(Lsn(100));
        open(&store).await.expire(keep).await.unwrap();
        commit_each(&log, 258..300, 20);
        push_on(&mut archiver, &log).await.unwrap();
        log.close().unwrap();
        let there = restored(&store, &place, Target::Latest, None).await.unwrap();
        assert!(there.len() >= 200 && there.contains_key(&299), "{:?}", there.keys());
        assert!(open(&store).await.verify(1.0, &mut |_| {}).await.unwrap().faults.is_empty());
    });
}

#[test]
fn what_is_not_archived_is_kept_in_the_log_or_named() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..100, 2_000);
        let mut archiver = push_log(&log, &store).await.unwrap();
        commit_each(&log, 100..200, 2_000);
        // The hold keeps it while the store is away.
        faulty.set(Fault::DeadBefore(0));
        assert!(push_on(&mut archiver, &log).await.unwrap_err().is_retryable());
        assert_eq!(log.truncate_front(Lsn(200)).unwrap(), Lsn(100));
        faulty.set(Fault::None);
        // One that was told to let it go loses it, and says what.
        log.release("archive").unwrap();
        log.truncate_front(Lsn(150)).unwrap();
        let missed = push_log(&log, &store).await;
        let start = log.start_lsn();
        assert!(matches!(missed, Err(Error::Missed { first: Lsn(100), last, .. }) if last == start.prev()), "{missed:?}");
        let mut options = options();
        options.skip_missed = true;
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
        push_on(&mut archiver, &log).await.unwrap();
        let there = restored(&store, &place, Target::Latest, None).await.unwrap();
        assert_eq!((*there.keys().next().unwrap(), there.len() as u64), (start.0, 200 - start.0));
        assert_eq!(restored(&store, &place, Target::Lsn(Lsn(99)), None).await.unwrap().len(), 99);
        assert_eq!(log.truncate_front(Lsn(200)).unwrap(), Lsn(200));
    });
}
