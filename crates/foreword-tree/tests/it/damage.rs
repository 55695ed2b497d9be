//! Pages that are not what a tree needs, and trees that are not of the store.

use foreword_sim::SimDisk;
use foreword_tree::foreword_pages::PageId;
use foreword_tree::{Db, Error, Result};

use crate::common::{DIR, options};

fn open(disk: &SimDisk) -> Db {
    Db::open_with(options(disk, 1), DIR).unwrap()
}

fn key(i: u32) -> Vec<u8> {
    format!("key:{i:06}").into_bytes()
}

/// A tree of one store, in a transaction of another in which a tree begins on the same page.
#[test]
fn a_tree_of_another_store_is_refused_and_changes_nothing() {
    let (mine, others) = (open(&SimDisk::new(1)), open(&SimDisk::new(2)));
    let (tree, other) = (mine.tree("t").unwrap(), others.tree("t").unwrap());
    assert_ne!(tree, other);
    let mut txn = mine.begin();
    txn.put(tree, "key", "mine").unwrap();
    let refused: [Result<()>; 6] = [
        txn.get(other, "key").map(drop),
        txn.get_for_update(other, "key").map(drop),
        txn.put(other, "key", "other").map(drop),
        txn.put(other, "long", [7; 100_000]).map(drop),
        txn.delete(other, "key").map(drop),
        txn.scan(other, ..).chain(txn.scan_back(other, ..)).try_for_each(|entry| entry.map(drop)),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(Error::OtherStore { .. })), "{refused:?}");
    }
    txn.commit().unwrap();
    assert_eq!(mine.begin().get(tree, "key").unwrap().as_deref(), Some(&b"mine"[..]));
    assert_eq!(mine.verify(true).unwrap().keys, 1);
}

#[test]
fn other_pages_are_no_trees() {
    let disk = SimDisk::new(7);
    let store = options(&disk, 1).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    drop(store);
    assert!(matches!(Db::open_with(options(&disk, 1), DIR), Err(Error::NotTrees { .. })));
    let store = options(&disk, 1).open(DIR).unwrap();
    let mut txn = store.begin();
    txn.set_root(page).unwrap();
    txn.commit().unwrap();
    drop(store);
    assert!(matches!(Db::open_with(options(&disk, 1), DIR), Err(Error::NotTrees { .. })));
    let store = options(&disk, 1).open(DIR).unwrap();
    let mut txn = store.begin();
    txn.update(page, 0, b"FWRDTREE\x02").unwrap();
    txn.commit().unwrap();
    drop(store);
    let error = Db::open_with(options(&disk, 1), DIR).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
}

/// A page that is overwritten by something else is an error that names it, wherever it is met.
#[test]
fn a_damaged_page_is_named() {
    let disk = SimDisk::new(8);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    db.run(|txn| (0..900).try_for_each(|i| txn.put(tree, key(i), [7; 40]))).unwrap();
    drop(db);
    let mut named = 0;
    for page in 2..db_pages(&disk) {
        for damage in [[0u8; 24], [0xff; 24], [1; 24]] {
            let disk = disk.kill();
            let db = open(&disk);
            let mut txn = db.store().begin();
            let page = PageId(page);
            txn.update(page, 0, &damage).unwrap();
            txn.commit().unwrap();
            drop(db);
            let done = Db::open_with(options(&disk, 1), DIR).and_then(|db| {
                db.verify(true)?;
                let mut txn = db.begin();
                txn.scan(tree, ..).try_for_each(|entry| entry.map(drop))?;
                txn.scan_back(tree, ..).try_for_each(|entry| entry.map(drop))?;
                (0..900).try_for_each(|i| txn.delete(tree, key(i)).map(drop))
            });
            match done {
                Err(Error::Damaged { page: found, .. }) => named += u32::from(found == page),
                Err(Error::NotTrees { .. }) => assert_eq!(page.0, 2),
                done => panic!("page {page}, {damage:?}: {done:?}"),
            }
        }
    }
    assert!(named > 20, "{named}");
}

/// A leaf that is empty, ends where it begins, and leads to itself.
#[test]
fn links_that_go_round_end() {
    let disk = SimDisk::new(12);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    db.run(|txn| (0..900).try_for_each(|i| txn.put(tree, key(i), [7; 40]))).unwrap();
    let id = (4..).map(PageId).find(|&id| u16_at(&db.store().read(id).unwrap(), 16) > 0).unwrap();
    let page = db.store().read(id).unwrap().to_vec();
    let low = &page[24..24 + u16_at(&page, 16)];
    let mut round = page[..24].to_vec();
    let len = (page.len() as u16).to_le_bytes();
    round[2..8].copy_from_slice(&[0, 0, len[0], len[1], 0, 0]);
    round[8..16].copy_from_slice(&id.0.to_le_bytes());
    round.copy_within(16..18, 18);
    round.extend([low, low].concat());
    let mut txn = db.store().begin();
    txn.update(id, 0, &round).unwrap();
    txn.commit().unwrap();
    let is_it = |error| matches!(error, Error::Damaged { page, .. } if page == id);
    assert!(is_it(db.begin().scan(tree, ..).find_map(Result::err).unwrap()));
    assert!(is_it(db.verify(true).unwrap_err()));
}

/// Recovery undoes an insertion beside a page that is damaged: no other page is needed for that.
#[test]
fn a_damaged_page_keeps_no_other_from_being_recovered() {
    for is_joined in [false, true] {
        let disk = SimDisk::new(13);
        let db = open(&disk);
        let tree = db.tree("t").unwrap();
        db.run(|txn| (0..900).try_for_each(|i| txn.put(tree, key(i), [7; 40]))).unwrap();
        let is_first = |page: &[u8]| page[..2] == [1, 0] && u16_at(page, 16) == 0 && u16_at(page, 18) < 0xffff;
        let first = (3..).map(PageId).find(|&id| is_first(&db.store().read(id).unwrap())).unwrap();
        let page = db.store().read(first).unwrap().to_vec();
        let high = &page[24..24 + u16_at(&page, 18)];
        let next = PageId(u64::from_le_bytes(page[8..16].try_into().unwrap()));
        let keys: Vec<_> = db.begin().scan(tree, ..high).map(|entry| entry.unwrap().0).collect();
        let (last, rest) = keys.split_last().unwrap();
        // It is the last of its leaf; or the only one, and a neighbour is looked for.
        let gone = if is_joined { &keys[..] } else { &rest[1..] };
        db.run(|txn| gone.iter().try_for_each(|key| txn.delete(tree, key).map(drop))).unwrap();
        let mut txn = db.begin();
        txn.put(tree, [last, &b"+"[..]].concat(), "1").unwrap();
        let mut damage = db.store().begin();
        damage.update(next, 0, &[0xff; 24]).unwrap();
        damage.commit().unwrap();
        let db = open(&disk.kill());
        assert_eq!(db.begin().get(tree, [last, &b"+"[..]].concat()).unwrap(), None);
        assert_eq!(db.begin().get(tree, last).unwrap().is_some(), !is_joined);
    }
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes([bytes[at], bytes[at + 1]]).into()
}

fn db_pages(disk: &SimDisk) -> u64 {
    let db = open(&disk.kill());
    db.store().stats().pages_used + 2
}
