//! What an operator does: expire, check, and archiving beside a writer.

use std::time::Duration;

use foreword::Lsn;
use foreword_archive::{Archiver, Keep, Keys, PushOptions, RestoreOptions, Store, Target};

use crate::support::*;

#[test]
fn expiry_keeps_what_it_is_told_to() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..200, 2_000);
        push_log(&log, &store).await.unwrap();
        log.truncate_back(Lsn(150)).unwrap();
        commit(&log, 150..160);
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        let mut archive = open(&store).await;
        let before = faulty.objects().await;
        // Nothing without a condition, nothing by looking.
        assert_eq!(archive.expire(Keep::default()).await.unwrap().chunks, 0);
        let mut keep = Keep::default();
        keep.from = Some(Lsn(100));
        assert!(archive.expirable(keep).await.unwrap().chunks > 1);
        assert_eq!(faulty.objects().await, before);
        let expired = archive.expire(keep).await.unwrap();
        assert!(expired.bytes > 0 && expired.timelines.is_empty());
        let (first, last) = archive.range(None).unwrap();
        assert!(first <= Lsn(100) && first > Lsn(60) && last == Lsn(159), "{first} to {last}");
        let there = restored(&store, &place, Target::Latest, None).await.unwrap();
        assert!(there == records(&place.log()).into_iter().filter(|(lsn, _)| *lsn >= first.0).collect());
        // Chunks of both timelines that all are old go; the newest point stays.
        let mut keep = Keep::default();
        keep.from = Some(Lsn(1_000));
        archive.expire(keep).await.unwrap();
        assert!(archive.timelines().count() >= 1);
        let mut keep = Keep::default();
        keep.bytes = Some(1);
        archive.expire(keep).await.unwrap();
        assert!(open(&store).await.verify(1.0, &mut |_| {}).await.unwrap().faults.is_empty());
        // An archiver that ran all the time goes on.
        let log = small().open(place.log()).unwrap();
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options()).await.unwrap();
        commit(&log, 160..170);
        archive.expire(keep).await.unwrap();
        push_on(&mut archiver, &log).await.unwrap();
        assert_eq!(archiver.archived(), Lsn(169));
    });
}

#[test]
fn expiry_keeps_so_many_chunks() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..300, 2_000);
        push_log(&log, &store).await.unwrap();
        log.close().unwrap();
        let all = open(&store).await.timeline(None).unwrap().chunk_count();
        for chunks in [all + 1, 3, 1] {
            let mut keep = Keep::default();
            keep.chunks = Some(chunks);
            let expired = open(&store).await.expire(keep).await.unwrap();
            let archive = open(&store).await;
            let (first, _) = archive.range(None).unwrap();
            assert_eq!(archive.timeline(None).unwrap().chunk_count(), chunks.min(all), "{expired:?}");
            let there = restored(&store, &place, Target::Latest, None).await.unwrap();
            assert!(there == records(&place.log()).into_iter().filter(|(lsn, _)| *lsn >= first.0).collect());
        }
    });
}

/// By LSN, count, bytes and age, each alone and two at once: of two, the one that keeps more.
#[test]
fn of_several_conditions_what_any_keeps_is_kept() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..300, 2_000);
        push_log(&log, &store).await.unwrap();
        log.close().unwrap();
        let archive = open(&store).await;
        let since = archive.changed_micros() + 1;
        let conditions: [fn(&mut Keep, u64); 4] = [
            |keep, _| keep.from = Some(Lsn(150)),
            |keep, _| keep.chunks = Some(3),
            |keep, _| keep.bytes = Some(1 << 30),
            |keep, since| keep.since = Some(since),
        ];
        let before = async |sets: &[fn(&mut Keep, u64)]| {
            let mut keep = Keep::default();
            sets.iter().for_each(|set| set(&mut keep, since));
            let expired = archive.expirable(keep).await.unwrap();
            expired.before.first().map_or(0, |(_, before)| before.0)
        };
        let mut alone = Vec::new();
        for set in conditions {
            alone.push(before(&[set]).await);
        }
        assert!(alone[2] == 0 && alone[0] > 0 && alone[1] > alone[0] && alone[3] >= alone[1], "{alone:?}");
        for a in 0..4 {
            for b in 0..4 {
                assert_eq!(before(&[conditions[a], conditions[b]]).await, alone[a].min(alone[b]), "{a} and {b}");
            }
        }
    });
}

/// What a process that was killed has left in a directory.
#[test]
fn files_of_interrupted_writes_are_named_and_removed() {
    run(async {
        let place = Place::new();
        let store = Store::create(place.path("bucket").to_str().unwrap()).unwrap();
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        push_log(&log, &store).await.unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(2 * 3_600);
        let file = |name: &str, is_old: bool| {
            let path = place.path("bucket").join(name);
            let file = std::fs::File::create(&path).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
            path
        };
        let left = [file("chunk/0000000001/a#1", true), file("manifest/00000000000000000003#12", true)];
        let others = [file("manifest/00000000000000000003#1", false), file("chunk/a#b", true), file("chunk/a#", true)];
        let mut archive = open(&store).await;
        assert_eq!(archive.verify(1.0, &mut |_| {}).await.unwrap().leftovers, left);
        assert_eq!(archive.expirable(Keep::default()).await.unwrap().leftovers, 2);
        assert!(left.iter().all(|path| path.exists()));
        assert_eq!(archive.expire(Keep::default()).await.unwrap().leftovers, 2);
        assert!(!left.iter().any(|path| path.exists()) && others.iter().all(|path| path.exists()));
    });
}

/// A timeline that is old, and that one comes from which is kept.
#[test]
fn expiry_keeps_what_kept_timelines_come_from() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..100, 2_000);
        push_log(&log, &store).await.unwrap();
        log.truncate_back(Lsn(80)).unwrap();
        commit_each(&log, 80..120, 1_000);
        push_log(&log, &store).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        log.truncate_back(Lsn(110)).unwrap();
        commit_each(&log, 110..130, 100);
        push_log(&log, &store).await.unwrap();
        log.close().unwrap();
        // Another goes on from the first, and is the newest.
        let mut options = foreword_archive::RestoreOptions::default();
        (options.to, options.timeline, options.segment_bytes) = (Target::Lsn(Lsn(40)), Some(1), 64 << 10);
        open(&store).await.restore(place.path("other"), &options).await.unwrap();
        let other = small().open(place.path("other")).unwrap();
        commit_each(&other, 41..60, 10);
        other.close().unwrap();
        push(&place.path("other"), &store).await.unwrap();
        let expected = restored(&store, &place, Target::Latest, Some(3)).await.unwrap();
        assert_eq!(expected.len(), 129);
        let mut keep = Keep::default();
        keep.since = Some(open(&store).await.changed_micros() - 1_400_000);
        open(&store).await.expire(keep).await.unwrap();
        assert!(restored(&store, &place, Target::Latest, Some(3)).await.unwrap() == expected);
        assert_eq!(restored(&store, &place, Target::Latest, Some(4)).await.unwrap().len(), 59);
    });
}

#[test]
fn a_canary_goes_through_and_leaves_nothing() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        commit(&small().open(place.log()).unwrap(), 1..5);
        push(&place.log(), &store).await.unwrap();
        let before = faulty.objects().await;
        open(&store).await.check().await.unwrap();
        assert_eq!(faulty.objects().await, before);
        faulty.set(Fault::DeadBefore(1));
        assert!(Archiver::begin(place.log(), store, keys(), options()).await.is_err());
    });
}

/// In a directory, beside a writer that rotates and truncates, all the time.
#[test]
fn a_log_is_followed_while_it_is_written_and_truncated() {
    run(async {
        let place = Place::new();
        let store = Store::create(place.path("bucket").to_str().unwrap()).unwrap();
        let log = small().open(place.log()).unwrap();
        log.commit(record(1, 0)).unwrap();
        let mut options = PushOptions::default();
        (options.create, options.chunk_bytes, options.chunk_age) = (true, 64 << 10, Duration::from_millis(50));
        let mut archiver = Archiver::begin(place.log(), store.clone(), Keys::default(), options).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let archiving = tokio::spawn(async move {
            archiver.run(async { drop(stopped.await) }).await.unwrap();
            archiver.archived()
        });
        let log = tokio::task::spawn_blocking(move || {
            for lsn in 2..2_000 {
                log.append(record(lsn, 500)).unwrap();
                if lsn % 50 == 0 {
                    log.sync().unwrap();
                    log.truncate_front(Lsn(lsn)).unwrap();
                }
            }
            log.sync().unwrap();
            log
        });
        let log = log.await.unwrap();
        shown(&log).await;
        stop.send(()).unwrap();
        assert_eq!(archiving.await.unwrap(), Lsn(1_999));
        assert!(log.truncate_front(Lsn(2_000)).unwrap() > Lsn(1_900), "the hold has moved with the archive");
        let there = restored(&store, &place, Target::Latest, None).await.unwrap();
        assert_eq!(there.len(), 1_999);
        assert!(there.iter().all(|(lsn, data)| *data == record(*lsn, if *lsn == 1 { 0 } else { 500 })));
    });
}

/// A push dies behind a chunk that ends in the middle of a batch. Where a restore goes by default
/// stays, and what there is behind it is said.
#[test]
fn expiry_keeps_the_newest_point_between_batches() {
    run(async {
        let mut divided = [0, 0];
        for (at, with_a_point) in (2..24).flat_map(|at| [(at, false), (at, true)]) {
            let (place, (faulty, store)) = (Place::new(), Faulty::new());
            let log = small().open(place.log()).unwrap();
            if with_a_point {
                commit(&log, 1..11);
                push_log(&log, &store).await.unwrap();
            }
            let first = log.last_lsn().next().0;
            let batch: Vec<Vec<u8>> = (first..first + 400).map(|lsn| dense_record(lsn, 1_000)).collect();
            log.commit_batch(&batch).unwrap();
            log.close().unwrap();
            let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options()).await.unwrap();
            faulty.set(Fault::DeadBehind(at));
            let died = archiver.push_all().await;
            faulty.set(Fault::None);
            let archive = open(&store).await;
            let (last, whole) = archive.timeline(None).map_or((0, 0), |timeline| (timeline.last, timeline.whole));
            if last == whole {
                continue; // It died before, or not at all.
            }
            assert!(died.is_err());
            divided[usize::from(with_a_point)] += 1;
            let mut keep = Keep::default();
            keep.chunks = Some(1);
            open(&store).await.expire(keep).await.unwrap();
            let to_the_last = restored(&store, &place, Target::Lsn(Lsn(last)), None).await.unwrap();
            assert_eq!(to_the_last.keys().last(), Some(&last));
            match restored(&store, &place, Target::Latest, None).await {
                Ok(there) => assert!(with_a_point && there.keys().last() == Some(&10)),
                Err(error) => {
                    assert!(!with_a_point && error.to_string().contains(&format!("--to-lsn {last} restores")), "{error}");
                }
            }
        }
        assert!(divided[0] > 0 && divided[1] > 0, "{divided:?}");
    });
}

/// A restored log begins a timeline; an expiry before its first record leaves the timeline.
#[test]
fn expiry_leaves_a_timeline_that_has_no_records_yet() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..100, 2_000);
        push_log(&log, &store).await.unwrap();
        log.close().unwrap();
        open(&store).await.restore(place.path("on"), &RestoreOptions::default()).await.unwrap();
        let log = small().open(place.path("on")).unwrap();
        let mut archiver = push_log(&log, &store).await.unwrap();
        assert_eq!(archiver.timeline(), 2);
        let mut keep = Keep::default();
        keep.chunks = Some(1);
        assert!(open(&store).await.expire(keep).await.unwrap().timelines.is_empty());
        commit(&log, 100..110);
        push_on(&mut archiver, &log).await.unwrap();
        assert_eq!((archiver.timeline(), archiver.archived()), (2, Lsn(109)));
    });
}
