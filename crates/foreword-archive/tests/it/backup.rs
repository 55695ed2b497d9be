//! Backups, as bytes beside a log: what they need is kept, and what is damaged is named.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use foreword::{Log, Lsn};
use foreword_archive::{Archive, Archiver, Backup, Copied, Error, Keep, RestoreOptions, Store, Target};

use crate::support::*;

/// Bytes that say which copy they are, and where in it.
/// (In runs that differ: a generator that is not optimized takes a second for a megabyte.)
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let dense: Vec<u8> = (0..512).flat_map(|at| dense_record(seed << 32 | at, 8)).collect();
    let mut bytes = Vec::with_capacity(len + dense.len());
    while bytes.len() < len {
        bytes.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&dense);
    }
    bytes.truncate(len);
    bytes
}

/// A copy that needs the log from one LSN on, and is consistent at another.
fn copy(
    log: &Log,
    bytes: Vec<u8>,
    log_start: u64,
    consistent: u64,
) -> impl FnOnce(&mut dyn Write) -> io::Result<Copied> + 'static {
    let log = log.id();
    move |to| {
        // (In pieces of any length.)
        for some in bytes.chunks(70_001) {
            to.write_all(some)?;
        }
        Ok(Copied { log, log_start: Lsn(log_start), consistent: Lsn(consistent) })
    }
}

async fn back_up(log: &Log, store: &Store, seed: u64, log_start: u64, consistent: u64) -> foreword_archive::Result<Backup> {
    open(store).await.back_up(copy(log, bytes(seed, 1_000_000), log_start, consistent)).await
}

/// Restores: the bytes of the copy, the first LSN of the log, and its last.
async fn restore(store: &Store, dir: &Path, to: u64) -> foreword_archive::Result<(Vec<u8>, u64, u64)> {
    let mut options = RestoreOptions::default();
    (options.to, options.segment_bytes) = (Target::Lsn(Lsn(to)), 64 << 10);
    let (plan, _) = open(store).await.restore_backup(dir, &options).await?;
    let copy = std::fs::read(dir.join("PAGES.backup")).unwrap();
    let there = records(&dir.join("log"));
    let (first, last) = (*there.keys().next().unwrap(), *there.keys().last().unwrap());
    assert_eq!((plan.first.0, plan.last.0), (first, last));
    std::fs::remove_dir_all(dir).unwrap();
    Ok((copy, first, last))
}

#[test]
fn the_newest_copy_from_before_is_restored_with_the_log_behind_it() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..200, 500);
        let mut archiver = push_log(&log, &store).await.unwrap();
        let none = restore(&store, &place.path("restored"), 100).await;
        assert!(matches!(none, Err(Error::NotThere { .. })), "{none:?}");
        back_up(&log, &store, 1, 20, 50).await.unwrap();
        // It becomes consistent with records that are not archived yet. The archiver goes on beside it.
        back_up(&log, &store, 2, 150, 250).await.unwrap();
        commit_each(&log, 200..300, 500);
        push_on(&mut archiver, &log).await.unwrap();
        for (to, seed, first) in [(50, 1, 20), (249, 1, 20), (250, 2, 150), (299, 2, 150)] {
            let restored = restore(&store, &place.path("restored"), to).await.unwrap();
            assert!(restored == (bytes(seed, 1_000_000), first, to), "{to}: {}, {}", restored.1, restored.2);
        }
        for to in [1, 49, 300] {
            let none = restore(&store, &place.path("restored"), to).await;
            assert!(matches!(none, Err(Error::NotThere { .. })), "{to}: {none:?}");
        }
        // One of no bytes is one, too.
        let mut archive = open(&store).await;
        archive.back_up(copy(&log, Vec::new(), 299, 299)).await.unwrap();
        assert!(restore(&store, &place.path("restored"), 299).await.unwrap() == (Vec::new(), 299, 299));
        let verified = open(&store).await.verify(1.0, &mut |_| {}).await.unwrap();
        assert!(verified.faults.is_empty(), "{:?}", verified.faults);
        log.close().unwrap();
    });
}

/// An index of which only a part is needed is read to say what a restore comes to, and to restore.
#[test]
fn a_restore_plans_its_log_once() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        let mut options = options();
        options.chunk_age = std::time::Duration::ZERO;
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
        while archiver.archive().timeline(None).unwrap().indexes.is_empty() {
            log.commit(b"").unwrap();
            push_on(&mut archiver, &log).await.unwrap();
        }
        let last = archiver.archived().0;
        back_up(&log, &store, 1, 5, 6).await.unwrap();
        let mut archive = open(&store).await;
        faulty.read.lock().unwrap().clear();
        let (plan, _) = archive.restore_backup(place.path("restored"), &RestoreOptions::default()).await.unwrap();
        assert_eq!((plan.first.0, plan.last.0), (5, last));
        let read = faulty.read.lock().unwrap().clone();
        assert_eq!(read.iter().filter(|name| name.starts_with("index/")).count(), 2, "{read:?}");
        log.close().unwrap();
    });
}

#[test]
fn a_copy_that_could_not_be_restored_is_not_taken() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().first_lsn(Lsn(100)).open(place.log()).unwrap();
        commit_each(&log, 100..200, 500);
        push_log(&log, &store).await.unwrap();
        for (start, consistent) in [(99, 150), (150, 149)] {
            let taken = back_up(&log, &store, 1, start, consistent).await;
            assert!(matches!(taken, Err(Error::NotThere { .. })), "{start}: {taken:?}");
        }
        let other = small().open(place.path("other")).unwrap();
        let taken = back_up(&other, &store, 1, 150, 150).await;
        assert!(matches!(taken, Err(Error::Foreign { .. })), "{taken:?}");
        // A copy that fails, and one during which another archiver begins.
        let mut archive = open(&store).await;
        let failed = archive.back_up(|to| {
            to.write_all(&[1; 9_000_000])?;
            Err(io::Error::other("as it was told"))
        });
        let failed = failed.await;
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        archive.refresh().await.unwrap();
        push_log(&log, &store).await.unwrap();
        let handle = tokio::runtime::Handle::current();
        let (dir, during) = (place.log(), store.clone());
        let taken = copy(&log, bytes(1, 10_000), 150, 150);
        let fenced = archive.back_up(move |to| {
            handle.block_on(Archiver::begin(dir, during, keys(), options())).map_err(io::Error::other)?;
            taken(to)
        });
        let fenced = fenced.await;
        assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
        assert!(open(&store).await.timeline(None).unwrap().backups.is_empty());
        log.close().unwrap();
        other.close().unwrap();
    });
}

#[test]
fn expiry_keeps_what_backups_need_and_removes_the_others() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        // Chunks of some 30 records.
        commit_each(&log, 1..400, 2_000);
        push_log(&log, &store).await.unwrap();
        for (seed, start, consistent) in [(1, 40, 50), (2, 100, 150), (3, 300, 310)] {
            back_up(&log, &store, seed, start, consistent).await.unwrap();
        }
        let expirable = async |keep: Keep| open(&store).await.expirable(keep).await.unwrap();
        let mut keep = Keep::default();
        assert!(expirable(keep).await.backups.is_empty());
        // So many backups, or more than there are.
        for (count, gone) in [(1, 2), (2, 1), (3, 0), (4, 0), (u64::MAX, 0)] {
            keep.backups = Some(count);
            assert_eq!(expirable(keep).await.backups.len(), gone, "{count}");
        }
        // Points from before the first backup on: nothing can go that it needs.
        keep = Keep::default();
        keep.from = Some(Lsn(45));
        let expired = expirable(keep).await;
        assert!(expired.backups.is_empty() && expired.before.iter().all(|(_, before)| before.0 <= 40), "{expired:?}");
        // From 200 on: the second is needed for that, from 100 on.
        keep.from = Some(Lsn(200));
        let mut archive = open(&store).await;
        let expired = archive.expire(keep).await.unwrap();
        assert_eq!(expired.backups.len(), 1);
        assert!(expired.before.iter().any(|(_, before)| (60..=100).contains(&before.0)), "{expired:?}");
        for (to, seed, first) in [(200, 2, 100), (309, 2, 100), (310, 3, 300), (399, 3, 300)] {
            let restored = restore(&store, &place.path("restored"), to).await.unwrap();
            assert!(restored == (bytes(seed, 1_000_000), first, to), "{to}");
        }
        let none = restore(&store, &place.path("restored"), 120).await;
        assert!(matches!(none, Err(Error::NotThere { .. })), "{none:?}");
        // No object is left of the one that went, and all of the others.
        let of = async |store: &Store| -> BTreeSet<String> {
            let mut named = BTreeSet::new();
            for backup in &open(store).await.timeline(None).unwrap().backups {
                named.insert(backup.list.name.clone());
            }
            named
        };
        let objects: BTreeSet<String> = faulty.objects().await.into_keys().filter(|name| name.starts_with("backup/")).collect();
        assert_eq!(objects, of(&store).await);
        let copies = faulty.objects().await.into_keys().filter(|name| name.starts_with("copy/")).count() as u64;
        assert_eq!(
            copies,
            open(&store).await.timeline(None).unwrap().backups.iter().map(|backup| backup.list.chunks).sum::<u64>()
        );
        log.close().unwrap();
    });
}

/// Each object of a backup in turn flipped, cut short, replaced and gone: verify and restore name it.
#[test]
fn damage_to_a_backup_is_named() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..50, 100);
        push_log(&log, &store).await.unwrap();
        let mut archive = open(&store).await;
        archive.back_up(copy(&log, bytes(1, 9_000_000), 10, 20)).await.unwrap();
        let objects = faulty.objects().await;
        let of: Vec<_> = objects.keys().filter(|name| name.starts_with("copy/") || name.starts_with("backup/")).collect();
        assert_eq!(of.len(), 4);
        for (at, name) in of.iter().enumerate() {
            let other = &objects[of[(at + 1) % of.len()]];
            let there = &objects[*name];
            let mut flipped = there.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 1;
            for damaged in [Some(flipped), Some(there[..there.len() - 1].to_vec()), Some(other.clone()), None] {
                match damaged {
                    Some(damaged) => faulty.write(name, damaged).await,
                    None => faulty.remove(name).await,
                }
                let verified = open(&store).await.verify(1.0, &mut |_| {}).await.unwrap();
                assert!(verified.faults.iter().any(|fault| fault.object == **name), "{name}: {:?}", verified.faults);
                let dir = place.path("restored");
                let restored = restore(&store, &dir, 49).await;
                assert!(matches!(&restored, Err(Error::Damaged { object, .. }) if object == *name), "{name}: {restored:?}");
                assert!(!dir.join("log").exists() && !dir.join("PAGES.backup").exists());
                faulty.write(name, there.clone()).await;
                // Where it was cut short, it goes on.
                assert!(restore(&store, &dir, 49).await.unwrap() == (bytes(1, 9_000_000), 10, 49));
            }
        }
        log.close().unwrap();
    });
}

/// Killed at each call to the store: what is confirmed can be restored, and what is not goes.
#[test]
fn a_backup_that_is_killed_at_any_call_is_there_or_not() {
    run(async {
        for at in 0.. {
            let (place, (faulty, store)) = (Place::new(), Faulty::new());
            let log = small().open(place.log()).unwrap();
            commit_each(&log, 1..50, 100);
            push_log(&log, &store).await.unwrap();
            let archive = Archive::open(store.clone(), keys()).await;
            faulty.set(Fault::DeadBehind(at));
            let killed = archive.unwrap().back_up(copy(&log, bytes(1, 5_000_000), 10, 20)).await;
            faulty.set(Fault::None);
            let there = open(&store).await.timeline(None).unwrap().backups.len();
            match restore(&store, &place.path("restored"), 49).await {
                Ok(restored) => assert!(there == 1 && restored == (bytes(1, 5_000_000), 10, 49)),
                Err(Error::NotThere { .. }) => assert!(there == 0 && killed.is_err(), "call {at}"),
                Err(error) => panic!("call {at}: {error}"),
            }
            // Of a later archiver's epoch, what was left belongs to no one.
            push_log(&log, &store).await.unwrap();
            let mut keep = Keep::default();
            keep.from = Some(Lsn(1));
            open(&store).await.expire(keep).await.unwrap();
            let left = faulty.objects().await.into_keys().filter(|name| name.starts_with("copy/")).count();
            assert_eq!(left, 2 * there, "call {at}");
            log.close().unwrap();
            if killed.is_ok() {
                assert!(at > 4, "{at}");
                break;
            }
        }
    });
}
