//! Only one archives, and only the log that the archive is of.

use foreword::Lsn;
use foreword_archive::{Archiver, Atomicity, Error, Keep, PushOptions, RestoreOptions, Store, Target, probe};

use crate::support::*;

#[test]
fn an_archiver_that_was_stopped_before_its_manifest_is_fenced() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        let mut zombie = push_log(&log, &store).await.unwrap();
        commit(&log, 50..60);
        shown(&log).await;
        // It has begun to write, and is stopped.
        let gate = faulty.gate.lock().await;
        let pushing = tokio::spawn(async move { zombie.push_all().await });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(!pushing.is_finished());
        // Another begins on the same store, and archives more.
        let around = Store::new(faulty.inner.clone(), "memory", Atomicity::Known("in memory"));
        commit(&log, 60..70);
        let other = push_log(&log, &around).await.unwrap();
        assert_eq!(other.archived(), Lsn(69));
        drop(gate);
        let fenced = pushing.await.unwrap();
        assert!(matches!(fenced, Err(Error::Fenced { epoch: 1, by: 2, .. })), "{fenced:?}");
        log.close().unwrap();
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        assert!(open(&store).await.verify(1.0, &mut |_| {}).await.unwrap().faults.is_empty());
    });
}

/// The name of a manifest that was removed is free again. One that has slept since before is fenced
/// for all that, and what has an archive open sees what became of it.
#[test]
fn an_archiver_that_slept_until_its_manifests_were_removed_is_fenced() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        let mut zombie = push_log(&log, &store).await.unwrap();
        let (mut open_before, next) = (open(&store).await, zombie.archive().manifests() + 1);
        let mut other = push_an_era(&log, &store, &keys()).await;
        let expired = open(&store).await.expire(Keep::default()).await.unwrap();
        assert_eq!((expired.manifests, expired.chunks), (1_023, 0));
        let manifests = async || {
            let objects = faulty.objects().await;
            objects.into_keys().filter(|name| name.starts_with("manifest/")).collect::<Vec<_>>()
        };
        let left = manifests().await;
        assert!(left.len() < 300 && !left.contains(&format!("manifest/{next:020}")), "{}", left.len());
        let fenced = push_on(&mut zombie, &log).await;
        assert!(matches!(fenced, Err(Error::Fenced { epoch: 1, by: 2, .. })), "{fenced:?}");
        assert_eq!(manifests().await, left, "what it made is gone");
        assert!(open_before.refresh().await.unwrap());
        assert_eq!(open_before.manifests(), other.archive().manifests());
        commit(&log, log.last_lsn().0 + 1..log.last_lsn().0 + 10);
        push_on(&mut other, &log).await.unwrap();
        log.close().unwrap();
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        assert!(open(&store).await.verify(1.0, &mut |_| {}).await.unwrap().faults.is_empty());
    });
}

#[test]
fn many_that_begin_at_once_take_turns_and_one_goes_on() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        let begin = async || Archiver::begin(place.log(), store.clone(), keys(), options()).await;
        let all = futures_util::future::join_all((0..8).map(|_| begin())).await;
        commit(&log, 50..60);
        let mut went_on = 0;
        for archiver in all {
            let pushed = match archiver {
                Ok(mut archiver) => push_on(&mut archiver, &log).await,
                Err(error) => Err(error),
            };
            match pushed {
                Ok(()) => went_on += 1,
                Err(Error::Fenced { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(went_on, 1);
        assert_eq!(restored(&store, &place, Target::Latest, None).await.unwrap().len(), 59);
    });
}

#[test]
fn an_older_copy_another_log_and_one_that_went_on_differently_are_refused() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        log.close().unwrap();
        copy(&place.log(), &place.path("copy"));
        copy(&place.log(), &place.path("cut"));
        let log = small().open(place.log()).unwrap();
        commit(&log, 50..60);
        let mut archiver = push_log(&log, &store).await.unwrap();
        let refused = async |name: &str, why: &str| match push(&place.path(name), &store).await {
            Err(Error::Diverged { .. }) => assert_eq!(why, "diverged", "{name}"),
            Err(Error::Foreign { .. }) => assert_eq!(why, "foreign", "{name}"),
            other => panic!("{name}: {other:?}"),
        };
        refused("copy", "diverged").await;
        let other = small().open(place.path("copy")).unwrap();
        commit_each(&other, 150..180, 5);
        other.close().unwrap();
        refused("copy", "diverged").await;
        small().open(place.path("other")).unwrap().commit(b"of another log").unwrap();
        refused("other", "foreign").await;
        // None of them has fenced the log's own archiver.
        commit(&log, 60..65);
        push_on(&mut archiver, &log).await.unwrap();
        // The log itself is cut; a copy from before knows nothing of it.
        log.truncate_back(Lsn(40)).unwrap();
        commit(&log, 40..45);
        push_on(&mut archiver, &log).await.unwrap();
        refused("cut", "diverged").await;
        log.close().unwrap();
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
    });
}

/// Of which the last records look the same.
#[test]
fn a_copy_that_went_on_differently_is_refused_by_its_times_or_the_records_before() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        log.close().unwrap();
        copy(&place.log(), &place.path("copy"));
        for name in ["log", "copy"] {
            let log = small().open(place.path(name)).unwrap();
            for n in 0..20 {
                log.commit(format!("{name} {n}")).unwrap();
                log.commit(b"tick").unwrap();
            }
            log.close().unwrap();
        }
        push(&place.log(), &store).await.unwrap();
        let refused = push(&place.path("copy"), &store).await;
        assert!(matches!(refused, Err(Error::Diverged { .. })), "{refused:?}");
    });
}

#[test]
fn an_archive_is_not_begun_by_mistake() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        commit(&small().open(place.log()).unwrap(), 1..5);
        let mut options = options();
        options.create = false;
        let missing = Archiver::begin(place.log(), store.clone(), keys(), options).await;
        assert!(matches!(missing, Err(Error::NoArchive { .. })), "{missing:?}");
        assert!(faulty.objects().await.is_empty());
        let unknown = Store::new(faulty.clone(), "memory", Atomicity::Unknown("nobody has said"));
        let refused = push(&place.log(), &unknown).await;
        assert!(matches!(refused, Err(Error::NotAtomic { .. })), "{refused:?}");
        let mut trusting: PushOptions = crate::support::options();
        trusting.trust_store = true;
        Archiver::begin(place.log(), unknown, keys(), trusting).await.unwrap();
    });
}

#[test]
fn races_are_counted_and_a_store_that_overwrites_is_refuted() {
    run(async {
        let (faulty, store) = Faulty::new();
        let seen = probe(&store, 20, 8).await.unwrap();
        assert_eq!((seen.races, seen.most, seen.is_refuted()), (20, 1, false));
        assert!(faulty.objects().await.is_empty());
        faulty.set(Fault::Overwrites);
        let overwriting = Store::new(faulty, "overwriting", Atomicity::Known("it says so"));
        assert!(probe(&overwriting, 5, 4).await.unwrap().is_refuted());
        let place = Place::new();
        commit(&small().open(place.log()).unwrap(), 1..5);
        let refused = push(&place.log(), &overwriting).await;
        assert!(matches!(refused, Err(Error::NotAtomic { .. })), "{refused:?}");
    });
}

#[test]
fn a_restore_takes_no_directory_that_has_something() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        commit(&small().open(place.log()).unwrap(), 1..5);
        push(&place.log(), &store).await.unwrap();
        let mut archive = open(&store).await;
        let refused = archive.restore(place.log(), &RestoreOptions::default()).await;
        assert!(matches!(refused, Err(Error::Invalid { what: "directory", .. })), "{refused:?}");
        std::fs::create_dir(place.path("empty")).unwrap();
        archive.restore(place.path("empty"), &RestoreOptions::default()).await.unwrap();
        assert_eq!(records(&place.path("empty")).len(), 4);
        // Nor one beside it that is not a restore's.
        std::fs::create_dir(place.path("new.restoring")).unwrap();
        std::fs::write(place.path("new.restoring/a file"), "of the user").unwrap();
        archive.restore(place.path("new"), &RestoreOptions::default()).await.unwrap_err();
        assert!(place.path("new.restoring/a file").exists());
    });
}
