//! Whatever becomes of an object, `verify` and a restore name it; and nothing wrong is restored.

use foreword::Lsn;
use foreword_archive::{Archive, Error, Key, Keys, Target};

use crate::support::*;

/// The object that an error is about.
fn named(error: &Error) -> Option<&str> {
    match error {
        Error::Damaged { object, .. } => Some(object),
        _ => None,
    }
}

#[test]
fn each_object_that_is_flipped_cut_swapped_or_gone_is_named() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..150, 2_000);
        push_log(&log, &store).await.unwrap();
        log.truncate_back(Lsn(100)).unwrap();
        commit(&log, 100..120);
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        let (objects, expected) = (faulty.objects().await, records(&place.log()));
        assert!(objects.len() > 8, "{:?}", objects.keys());
        let names: Vec<_> = objects.keys().cloned().collect();
        type Damaged = fn(&[u8], usize) -> Option<Vec<u8>>;
        let changes: [Damaged; 5] = [
            |bytes, _| Some(bytes.iter().enumerate().map(|(n, b)| if n == bytes.len() / 2 { b ^ 4 } else { *b }).collect()),
            |bytes, _| Some(bytes.iter().enumerate().map(|(n, b)| if n == 30 { b ^ 1 } else { *b }).collect()),
            |bytes, _| Some(bytes[..bytes.len() - 1].to_vec()),
            |_, _| Some(Vec::new()),
            |_, _| None,
        ];
        for (n, name) in names.iter().enumerate() {
            // The next of its kind in its place.
            let next = names.iter().cycle().skip(n + 1).find(|other| other.split('/').next() == name.split('/').next()).unwrap();
            let changes =
                changes.iter().map(|change| change(&objects[name], n)).chain((next != name).then(|| Some(objects[next].clone())));
            for (change, bytes) in changes.enumerate() {
                match bytes {
                    Some(bytes) => faulty.write(name, bytes).await,
                    None => faulty.remove(name).await,
                }
                let what = format!("{name}, change {change}");
                match Archive::open(store.clone(), keys()).await {
                    // (The newest manifest that is gone was never there.)
                    Ok(_) if change == 4 && Some(name) == names.iter().rfind(|name| name.starts_with("manifest/")) => {}
                    Ok(archive) => {
                        let verified = archive.verify(1.0, &mut |_| {}).await.unwrap();
                        assert!(verified.faults.iter().any(|fault| &fault.object == name), "{what}: {:?}", verified.faults);
                    }
                    Err(error) => assert!(named(&error).is_some(), "{what}: {error}"),
                }
                match restored(&store, &place, Target::Latest, None).await {
                    Ok(there) if name.starts_with("manifest/") => {
                        assert!(there.iter().all(|(lsn, data)| *lsn >= 100 || expected[lsn] == *data), "{what}");
                    }
                    Ok(there) => {
                        assert!(there == expected && name.starts_with("chunk/0000000001"), "{what}: an older timeline's end")
                    }
                    Err(error) => {
                        let manifests = name.starts_with("manifest/");
                        assert!(manifests || named(&error) == Some(name), "{what}: {error}");
                    }
                }
                faulty.write(name, objects[name].clone()).await;
            }
        }
        assert!(open(&store).await.verify(1.0, &mut |_| {}).await.unwrap().faults.is_empty());
    });
}

#[test]
fn without_the_key_nothing_is_read_and_an_old_key_still_reads() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        log.commit(b"a secret that is not to be seen").unwrap();
        push_log(&log, &store).await.unwrap();
        for bytes in faulty.objects().await.values() {
            assert!(!bytes.windows(8).any(|bytes| bytes == b"a secret"));
        }
        for keys in [Keys::default(), Keys(vec![Key::new([8; 32])])] {
            let archive = Archive::open(store.clone(), keys).await.unwrap();
            let read = archive.record(None, Lsn(1)).await;
            assert!(matches!(read, Err(Error::Key { .. })), "{read:?}");
        }
        // Rotated: the new one encrypts, and both read.
        let both = Keys(vec![Key::new([8; 32]), Key::new([7; 32])]);
        log.commit(b"another").unwrap();
        let mut archiver = foreword_archive::Archiver::begin(place.log(), store.clone(), both.clone(), options()).await.unwrap();
        push_on(&mut archiver, &log).await.unwrap();
        let archive = Archive::open(store.clone(), both).await.unwrap();
        assert_eq!(archive.record(None, Lsn(1)).await.unwrap().data[..], b"a secret that is not to be seen"[..]);
        assert_eq!(archive.record(None, Lsn(2)).await.unwrap().data[..], b"another"[..]);
        let ids: std::collections::BTreeSet<_> =
            archive.timeline(None).unwrap().chunks.iter().map(|chunk| chunk.key.clone().unwrap()).collect();
        assert_eq!(ids.len(), 2);
    });
}

#[test]
fn a_newer_format_is_said() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        commit(&small().open(place.log()).unwrap(), 1..5);
        push(&place.log(), &store).await.unwrap();
        let newest = faulty.objects().await.keys().rfind(|name| name.starts_with("manifest/")).unwrap().clone();
        faulty.write(&newest, br#"{"format":2,"what":"nobody knows"}"#.to_vec()).await;
        let opened = Archive::open(store, keys()).await;
        assert!(matches!(opened, Err(Error::Unsupported { format: 2, .. })), "{opened:?}");
    });
}
