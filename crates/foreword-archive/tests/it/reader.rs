//! The second reader, `tests/reader.py`, which was written from docs/ARCHIVE.md: it reads the same
//! records.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use foreword::Lsn;
use foreword_archive::{Archive, Archiver, Copied, Keys, Store};

use crate::support::*;

/// By LSN, what `reader.py` prints; `None` where there is no Python, or no library that it needs.
fn read(bucket: &Path, timeline: u32, key: &str, more: &[&str]) -> Option<BTreeMap<u64, (u64, String)>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py");
    let mut command = Command::new("python3");
    let command = command.arg(script).arg(bucket).args(["--timeline", &timeline.to_string(), "--key", key]).args(more);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("FOREWORD_REQUIRE_PYTHON").is_none(), "{error}");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("SKIPPED") {
        eprintln!("{said}");
        return None;
    }
    assert!(output.status.success(), "{said}");
    let line = |line: &str| {
        let mut words = line.split(' ');
        let mut number = || words.next().unwrap().parse().unwrap();
        let (lsn, micros) = (number(), number());
        (lsn, (micros, words.next().unwrap().to_owned()))
    };
    Some(String::from_utf8(output.stdout).unwrap().lines().map(line).collect())
}

#[test]
fn a_second_reader_reads_the_same_records() {
    run(async {
        for keys in [Keys::default(), keys()] {
            let place = Place::new();
            let bucket = place.path("bucket");
            let store = Store::create(bucket.to_str().unwrap()).unwrap();
            let log = small().open(place.log()).unwrap();
            log.commit(record(1, 400_000)).unwrap();
            let mut options = options();
            options.chunk_age = Duration::ZERO;
            let mut archiver = Archiver::begin(place.log(), store.clone(), keys.clone(), options).await.unwrap();
            // So many chunks that there are summaries and indexes.
            commit_each(&log, 2..700, 20);
            push_on(&mut archiver, &log).await.unwrap();
            for _ in 0..70 {
                log.commit(b"").unwrap();
                push_on(&mut archiver, &log).await.unwrap();
            }
            log.truncate_back(Lsn(650)).unwrap();
            commit_each(&log, 650..660, 3_000);
            push_on(&mut archiver, &log).await.unwrap();
            let archive = Archive::open(store, keys.clone()).await.unwrap();
            assert!(!archive.timeline(Some(1)).unwrap().indexes.is_empty() && archive.manifests() > 70);
            let key = keys.0.first().map_or_else(String::new, foreword_archive::Key::to_text);
            for timeline in [1, 2] {
                let Some(there) = read(&bucket, timeline, &key, &[]) else { return };
                let (first, last) = archive.range(Some(timeline)).unwrap();
                let mut records = archive.records(Some(timeline), first, last).unwrap();
                let mut count = 0;
                while let Some(record) = records.next().await.unwrap() {
                    let (micros, hash) = &there[&record.lsn.0];
                    assert_eq!(*micros, record.micros);
                    assert_eq!(*hash, sha256(&record.data));
                    count += 1;
                }
                assert_eq!(there.len(), count);
            }
        }
    });
}

/// Of the manifests, only those behind the closed ones are left.
#[test]
fn a_second_reader_reads_an_archive_whose_old_manifests_are_gone() {
    run(async {
        let place = Place::new();
        let bucket = place.path("bucket");
        let store = Store::create(bucket.to_str().unwrap()).unwrap();
        let log = small().open(place.log()).unwrap();
        log.commit(record(1, 0)).unwrap();
        let archiver = push_an_era(&log, &store, &Keys::default()).await;
        let mut archive = Archive::open(store, Keys::default()).await.unwrap();
        assert_eq!(archive.expire(foreword_archive::Keep::default()).await.unwrap().manifests, 1_023);
        let Some(there) = read(&bucket, 1, "", &[]) else { return };
        assert_eq!((there.len() as u64, there.keys().last()), (archiver.archived().0, Some(&archiver.archived().0)));
    });
}

/// The newest of two backups, byte for byte, and the records from where it needs them.
#[test]
fn a_second_reader_restores_a_backup_of_pages() {
    run(async {
        for keys in [Keys::default(), keys()] {
            let place = Place::new();
            let bucket = place.path("bucket");
            let store = Store::create(bucket.to_str().unwrap()).unwrap();
            let log = small().open(place.log()).unwrap();
            commit_each(&log, 1..100, 200);
            let mut archiver = Archiver::begin(place.log(), store.clone(), keys.clone(), options()).await.unwrap();
            push_on(&mut archiver, &log).await.unwrap();
            for (seed, start, consistent) in [(1, 10, 20), (2, 50, 60)] {
                let (id, pages) = (log.id(), dense_record(seed, 5_000_000));
                let mut archive = Archive::open(store.clone(), keys.clone()).await.unwrap();
                let backup = archive.back_up(move |to| {
                    to.write_all(&pages)?;
                    Ok(Copied { log: id, log_start: Lsn(start), consistent: Lsn(consistent) })
                });
                assert!(backup.await.unwrap().list.chunks > 1);
            }
            log.close().unwrap();
            let key = keys.0.first().map_or_else(String::new, foreword_archive::Key::to_text);
            let pages = place.path("pages");
            let Some(there) = read(&bucket, 1, &key, &["--pages", pages.to_str().unwrap()]) else { return };
            assert!(std::fs::read(&pages).unwrap() == dense_record(2, 5_000_000));
            assert_eq!((there.keys().next(), there.keys().last()), (Some(&50), Some(&99)));
        }
    });
}

fn sha256(data: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, data).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
