//! The calls, one by one.

use std::future::Future;
use std::ops::Bound;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};

use foreword_tree::foreword_pages::foreword;
use foreword_tree::{Db, Error, Result, Tree, Txn};

use crate::common::{DIR, options};
use foreword_sim::{Choice, SimDisk};

fn open(disk: &SimDisk) -> Db {
    Db::open_with(options(disk, 1), DIR).unwrap()
}

fn key(i: u32) -> Vec<u8> {
    format!("key:{i:06}").into_bytes()
}

fn all(txn: &Txn, tree: Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
    txn.scan(tree, ..).collect::<Result<_>>().unwrap()
}

#[test]
fn keys_are_put_found_and_deleted_over_openings() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let mut txn = db.begin();
    for i in 0..2000 {
        txn.put(tree, key(i * 7 % 2000), i.to_le_bytes()).unwrap();
    }
    txn.commit().unwrap();
    assert_eq!(db.verify(true).unwrap().keys, 2000);
    drop(db);
    let db = open(&disk.kill());
    assert_eq!(db.tree("t").unwrap(), tree);
    assert_eq!(db.trees().unwrap(), ["t"]);
    let mut txn = db.begin();
    for i in 0..2000 {
        assert_eq!(txn.get(tree, key(i * 7 % 2000)).unwrap(), Some(i.to_le_bytes().to_vec()));
    }
    assert_eq!(txn.get(tree, "key").unwrap(), None);
    for i in 0..2000 {
        assert!(txn.delete(tree, key(i * 13 % 2000)).unwrap());
        assert!(!txn.delete(tree, key(i * 13 % 2000)).unwrap());
    }
    assert!(all(&txn, tree).is_empty());
    txn.commit().unwrap();
    assert_eq!(db.verify(true).unwrap().keys, 0);
    assert_eq!(db.store().stats().pages_used, 3, "the root, the names and an empty tree");
    db.close().unwrap();
}

#[test]
fn a_rolled_back_transaction_leaves_nothing_but_splits() {
    let disk = SimDisk::new(2);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let mut txn = db.begin();
    for i in (0..600).step_by(3) {
        txn.put(tree, key(i), "before").unwrap();
    }
    txn.put(tree, "long", vec![1; 50_000]).unwrap();
    txn.commit().unwrap();
    let before = all(&db.begin(), tree);
    for is_dropped in [false, true] {
        let mut txn = db.begin();
        for i in 0..600 {
            match i % 4 {
                0 => assert_eq!(txn.delete(tree, key(i)).unwrap(), i % 3 == 0),
                _ => txn.put(tree, key(i), vec![i as u8; i as usize]).unwrap(),
            }
        }
        txn.put(tree, "long", vec![2; 30_000]).unwrap();
        txn.put(tree, "long", vec![3; 20_000]).unwrap();
        txn.delete(tree, "long").unwrap();
        txn.put(tree, "longer", vec![4; 20_000]).unwrap();
        assert_ne!(all(&txn, tree), before);
        if is_dropped {
            drop(txn)
        } else {
            txn.abort().unwrap()
        }
        assert!(all(&db.begin(), tree) == before);
        assert_eq!(db.verify(true).unwrap().keys, 201);
    }
}

#[test]
fn long_values_come_and_go_with_their_pages() {
    let disk = SimDisk::new(3);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let empty = db.store().stats().pages_used;
    for len in [0, 1, 900, 983, 984, 985, 4048, 4049, 100_000] {
        let mut txn = db.begin();
        let value: Vec<u8> = (0..len).map(|i| i as u8).collect();
        txn.put(tree, "k", &value).unwrap();
        assert!(txn.get(tree, "k").unwrap() == Some(value.clone()));
        txn.commit().unwrap();
        assert!(db.begin().get(tree, "k").unwrap() == Some(value.clone()));
        assert!(db.begin().scan(tree, ..).next().unwrap().unwrap().1 == value);
        assert_eq!(db.verify(true).unwrap().keys, 1);
    }
    let mut txn = db.begin();
    txn.put(tree, "k", vec![9; 100_000]).unwrap();
    txn.put(tree, "k", "short").unwrap();
    assert!(txn.delete(tree, "k").unwrap());
    txn.commit().unwrap();
    assert_eq!(db.store().stats().pages_used, empty);
}

#[test]
fn an_insertion_leaves_a_value_that_is_there() {
    let disk = SimDisk::new(3);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let (short, long) = (b"short".to_vec(), vec![7; 50_000]);
    let mut pages = 0;
    for (first, second) in [(&short, &long), (&long, &short), (&long, &vec![8; 40_000]), (&short, &b"other".to_vec())] {
        let mut txn = db.begin();
        assert!(txn.insert(tree, "k", first).unwrap());
        txn.commit().unwrap();
        pages = pages.max(db.verify(true).unwrap().pages);
        let mut txn = db.begin();
        assert!(!txn.insert(tree, "k", second).unwrap());
        assert_eq!(txn.get(tree, "k").unwrap().as_ref(), Some(first));
        // It is locked as if it had changed.
        let mut other = db.begin();
        assert!(matches!(other.waits(false).get(tree, "k"), Err(Error::Locked)));
        txn.commit().unwrap();
        drop(other);
        assert!(db.verify(true).unwrap().pages <= pages, "no page is left over");
        let mut txn = db.begin();
        assert!(txn.delete(tree, "k").unwrap());
        assert!(txn.insert(tree, "k", second).unwrap());
        txn.abort().unwrap();
        assert_eq!(db.begin().get(tree, "k").unwrap().as_ref(), Some(first));
        let mut txn = db.begin();
        assert!(txn.delete(tree, "k").unwrap());
        txn.commit().unwrap();
    }
}

/// It would have been run a hundred times before the other had ended.
#[test]
fn a_transaction_that_is_run_again_leaves_others_time_to_end() {
    let disk = SimDisk::new(3);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let mut other = db.begin();
    other.put(tree, "k", "1").unwrap();
    std::thread::scope(|scope| {
        let found = scope.spawn(|| db.run(|txn| txn.waits(false).get(tree, "k")));
        std::thread::sleep(std::time::Duration::from_millis(50));
        other.commit().unwrap();
        assert_eq!(found.join().unwrap().unwrap(), Some(b"1".to_vec()));
    });
}

#[test]
fn keys_and_values_of_any_length_up_to_the_limits() {
    for page_bytes in [4096, 8192, 65536] {
        let disk = SimDisk::new(4);
        let db = Db::open_with(options(&disk, 1).page_bytes(page_bytes).pool_bytes(64 * page_bytes), DIR).unwrap();
        let tree = db.tree("t").unwrap();
        let max = db.key_max();
        assert!(max >= page_bytes / 8 - 40);
        let mut txn = db.begin();
        let long_key = |i: usize, len: usize| [&[b'a' + (i * 7 % 26) as u8; 1][..], &vec![b'x'; len - 2], &[i as u8]].concat();
        for i in 0..200 {
            txn.put(tree, long_key(i, max - i % 3), vec![i as u8; i * 5]).unwrap();
        }
        txn.put(tree, "", "the empty key").unwrap();
        assert_eq!(db.verify(false).unwrap().keys, 201);
        for i in 0..200 {
            assert_eq!(txn.get(tree, long_key(i, max - i % 3)).unwrap(), Some(vec![i as u8; i * 5]));
        }
        assert_eq!(txn.scan(tree, ..).next().unwrap().unwrap(), (vec![], b"the empty key".to_vec()));
        let too_long = vec![0; max + 1];
        assert!(matches!(txn.put(tree, &too_long, ""), Err(Error::KeyTooLong { len, max: m, .. }) if len == max + 1 && m == max));
        assert!(matches!(txn.get(tree, &too_long), Err(Error::KeyTooLong { .. })));
        assert!(matches!(txn.delete(tree, &too_long), Err(Error::KeyTooLong { .. })));
        for i in 0..200 {
            assert!(txn.delete(tree, long_key(i, max - i % 3)).unwrap());
        }
        assert!(txn.delete(tree, "").unwrap());
        txn.commit().unwrap();
        assert_eq!(db.verify(true).unwrap().keys, 0);
        assert_eq!(db.store().stats().pages_used, 3);
    }
}

#[test]
fn a_value_that_is_too_long_is_refused_before_anything_is_done() {
    let disk = SimDisk::new(4);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let mut txn = db.begin();
    let value = vec![0; (1 << 30) + 1]; // (Zeros that are not touched take no memory.)
    assert!(matches!(txn.put(tree, "k", &value), Err(Error::ValueTooLong { max: 1_073_741_824, .. })));
    assert_eq!(txn.get(tree, "k").unwrap(), None);
}

#[test]
fn scans_have_their_bounds_in_both_directions() {
    let disk = SimDisk::new(5);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let mut txn = db.begin();
    let keys: Vec<Vec<u8>> = (0..700).map(|i| key(i * 2)).collect();
    for key in &keys {
        txn.put(tree, key, key).unwrap();
    }
    txn.commit().unwrap();
    let txn = db.begin();
    let bounds = |key: &'static [u8]| [Bound::Included(key), Bound::Excluded(key), Bound::Unbounded];
    let places: [&'static [u8]; 7] = [b"", b"key:000000", b"key:000377", b"key:000378", b"key:001200", b"key:001398", b"z"];
    for from in places.iter().flat_map(|key| bounds(key)) {
        for to in places.iter().flat_map(|key| bounds(key)) {
            let is_in = |key: &&Vec<u8>| {
                let is_above = match from {
                    Bound::Included(from) => &key[..] >= from,
                    Bound::Excluded(from) => &key[..] > from,
                    Bound::Unbounded => true,
                };
                is_above
                    && match to {
                        Bound::Included(to) => &key[..] <= to,
                        Bound::Excluded(to) => &key[..] < to,
                        Bound::Unbounded => true,
                    }
            };
            let expected: Vec<Vec<u8>> = keys.iter().filter(is_in).cloned().collect();
            let found: Vec<Vec<u8>> = txn.scan(tree, (from, to)).map(|entry| entry.unwrap().0).collect();
            assert_eq!(found, expected, "{from:?} {to:?}");
            let mut back: Vec<Vec<u8>> = txn.scan_back(tree, (from, to)).map(|entry| entry.unwrap().0).collect();
            back.reverse();
            assert_eq!(back, expected, "{from:?} {to:?}");
        }
    }
}

#[test]
fn a_transaction_that_does_not_wait_is_told_what_is_locked() {
    let disk = SimDisk::new(6);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    db.run(|txn| ["b", "d", "f"].iter().try_for_each(|key| txn.put(tree, key, "1"))).unwrap();
    let begin = || {
        let mut txn = db.begin();
        txn.waits(false);
        txn
    };
    let is_locked = |done: Result<()>| match done {
        Ok(()) => false,
        Err(Error::Locked) => true,
        Err(e) => panic!("{e}"),
    };
    // What was read may be read, and not changed.
    let reader = begin();
    assert_eq!(reader.get(tree, "b").unwrap(), Some(b"1".to_vec()));
    assert_eq!(reader.get(tree, "c").unwrap(), None);
    let mut other = begin();
    assert!(!is_locked(other.get(tree, "b").map(drop)));
    assert!(is_locked(other.put(tree, "b", "2")));
    assert!(is_locked(other.put(tree, "c", "2")));
    assert!(is_locked(other.delete(tree, "b").map(drop)));
    assert!(is_locked(other.put(tree, "a", "2")), "a lock on b is one on what lies before it, too");
    assert!(!is_locked(other.put(tree, "cc", "2")), "c is not there, and locked alone");
    assert!(!is_locked(other.put(tree, "g", "2")) && !is_locked(other.put(tree, "d", "2")));
    drop((reader, other));
    let reader = begin();
    reader.get_for_update(tree, "b").unwrap();
    assert!(is_locked(begin().get(tree, "b").map(drop)));
    drop(reader);
    // A scan has locked as much as it was asked for.
    let reader = begin();
    assert_eq!(reader.scan(tree, ..).next().unwrap().unwrap().0, b"b");
    let mut other = begin();
    assert!(is_locked(other.put(tree, "b", "2")) && !is_locked(other.put(tree, "d", "2")));
    drop((reader, other));
    // A scan: what it has returned, what it has not, and what is behind.
    for is_back in [false, true] {
        let reader = begin();
        let range = &b"c"[..]..&b"e"[..];
        let found = if is_back { reader.scan_back(tree, range).count() } else { reader.scan(tree, range).count() };
        assert_eq!(found, 1);
        let mut other = begin();
        for key in ["c", "cc", "d", "dd", "e", "ee"] {
            assert!(is_locked(other.put(tree, key, "2")), "{key}");
        }
        assert!(is_locked(other.delete(tree, "f").map(drop)));
        assert!(!is_locked(other.put(tree, "g", "2")) && !is_locked(other.put(tree, "a", "2")));
    }
    // What was refused has left nothing behind when the transaction commits.
    let reader = begin();
    assert!(reader.scan(tree, ..).next().is_some());
    let mut other = begin();
    assert!(is_locked(other.put(tree, "a", [7; 20_000])));
    other.put(tree, "g", "2").unwrap();
    other.commit().unwrap();
    drop(reader);
    assert_eq!(db.verify(true).unwrap().keys, 4);
    db.run(|txn| txn.delete(tree, "g")).unwrap();
    // A key that was removed is locked, and what is around it.
    let mut writer = begin();
    assert!(writer.delete(tree, "d").unwrap());
    let mut other = begin();
    assert!(is_locked(other.get(tree, "d").map(drop)) && is_locked(other.put(tree, "c", "2")));
    assert!(is_locked(other.scan(tree, &b"c"[..]..).try_for_each(|entry| entry.map(drop))));
    assert!(is_locked(other.scan_back(tree, ..&b"e"[..]).try_for_each(|entry| entry.map(drop))));
    drop((writer, other));
    // A key that is new locks itself alone.
    let mut writer = begin();
    writer.put(tree, "e", "2").unwrap();
    let mut other = begin();
    assert!(!is_locked(other.put(tree, "f", "2")) && !is_locked(other.put(tree, "ee", "2")));
    assert!(is_locked(other.get(tree, "e").map(drop)));
    assert!(is_locked(other.put(tree, "da", "2")), "before e, which is locked");
    drop((writer, other));
    assert_eq!(db.verify(true).unwrap().keys, 3);
}

/// Pages are full after keys that come in their order, and have their keys' common part once. A
/// transaction that is rolled back leaves no empty ones.
#[test]
fn pages_are_used_well() {
    let disk = SimDisk::new(10);
    let db = open(&disk);
    let pages = |db: &Db| db.store().stats().pages_used - 3;
    let tree = db.tree("t").unwrap();
    let put = |begin: &str, step: u32| {
        let mut txn = db.begin();
        (0..4000).for_each(|i| txn.put(tree, [begin.as_bytes(), &key(i * step % 4000)].concat(), [1; 20]).unwrap());
        let used = pages(&db);
        txn.abort().unwrap();
        db.verify(true).unwrap();
        assert_eq!(pages(&db), 0);
        used
    };
    let (in_order, least) = (put("", 1), 4000 * (2 + 4 + 10 + 20) / 4064);
    assert!(in_order < least * 11 / 10, "{in_order} pages");
    let (short, long) = (put("", 1009), put(&"common".repeat(20), 1009));
    // (Each page has its fences whole. With all keys whole there would be four times as many.)
    assert!(long < short * 16 / 10, "{long} pages, {short} where the keys are short");
}

/// Waits for a future on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// On a disk whose power fails as soon as a commit has completed.
#[test]
fn what_was_committed_without_a_thread_is_durable_and_what_it_read() {
    fn can<T: Send + 'static>() {}
    can::<Txn>();
    can::<Db>();
    for reads_only in [false, true] {
        let disk = SimDisk::new(9);
        let log = foreword::Options::new().segment_bytes(64 << 10);
        let db = Db::open_with(options(&disk, 1).log(log), DIR).unwrap();
        let tree = db.tree("t").unwrap();
        let mut one = db.begin();
        one.put(tree, "a", "1").unwrap();
        one.commit_with(foreword::Durability::Buffered).unwrap();
        // Its locks are gone. It is read before it is durable.
        let mut two = db.begin();
        assert!(two.get(tree, "a").unwrap().is_some());
        if !reads_only {
            two.put(tree, "b", "2").unwrap();
        }
        wait(two.commit_async().unwrap()).unwrap();
        let db = open(&disk.crash(&Choice::None));
        let txn = db.begin();
        assert!(txn.get(tree, "a").unwrap().is_some());
        assert_eq!(txn.get(tree, "b").unwrap().is_some(), !reads_only);
    }
}

#[test]
fn who_reads_waits_for_what_was_read_and_for_nothing_else() {
    let disk = SimDisk::new(11);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    db.run(|txn| ["a", "b", "z"].iter().try_for_each(|key| txn.put(tree, key, "1"))).unwrap();
    let mut txn = db.begin();
    txn.put(tree, "a", "2").unwrap();
    txn.delete(tree, "b").unwrap();
    let lsn = txn.commit_with(foreword::Durability::Buffered).unwrap();
    let durable = || db.store().stats().log.durable_lsn;
    let txn = db.begin();
    assert_eq!(txn.get(tree, "y").unwrap(), None);
    txn.commit().unwrap();
    assert!(durable() < lsn);
    // What is gone is seen at the key behind it, too.
    let txn = db.begin();
    assert_eq!(txn.scan(tree, &b"az"[..]..).next().unwrap().unwrap().0, b"z");
    txn.commit().unwrap();
    assert!(durable() >= lsn);
}
