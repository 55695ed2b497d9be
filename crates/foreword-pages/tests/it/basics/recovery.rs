//! Recovery: with little memory, of torn and rotten pages, with full page images and without.

use std::path::Path;

use foreword_pages::{Error, PageId};

use super::{overwrite, read, small};

/// Records of very different sizes: in every thread, windows end earlier than expected.
#[test]
fn recovery_with_little_memory_reads_each_record_once_and_makes_each_change() {
    let dir = tempfile::tempdir().unwrap();
    for images in [true, false] {
        let kept = dir.path().join(format!("kept {images}"));
        let options = small().full_page_images(images).background(false);
        let store = options.open(&kept).unwrap();
        let mut txn = store.begin();
        let pages: Vec<PageId> = (0..40).map(|_| txn.allocate().unwrap()).collect();
        txn.commit().unwrap();
        let begin = store.checkpoint_all().unwrap().begin;
        let mut changes = 0;
        for round in 0..60usize {
            let mut txn = store.begin();
            for (i, &page) in pages.iter().enumerate() {
                // Twenty bytes, and now and then three thousand.
                let len = if (round / 7 + i / 9) % 5 == 0 { 3000 } else { 20 };
                let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + round * 31 + i) as u8 | 1).collect();
                txn.update(page, round, &bytes).unwrap();
                changes += 1;
            }
            txn.commit().unwrap();
        }
        let expected: Vec<Vec<u8>> = pages.iter().map(|&page| store.read(page).unwrap().to_vec()).collect();
        let records = store.stats().log.durable_lsn.0 - begin.0 + 1;
        drop(store);
        for (bytes, threads) in
            [1, 3_000, 30_000, 300_000].into_iter().flat_map(|bytes| [1, 2, 3].map(|threads| (bytes, threads)))
        {
            let what = format!("{bytes} bytes, {threads} threads, images: {images}");
            let copy = dir.path().join(&what);
            copy_all(&kept, &copy);
            let store = options.clone().recovery_bytes(bytes).recovery_threads(threads).open(&copy).unwrap();
            let recovery = store.recovery();
            assert_eq!(recovery.redo.records, records, "{what}: {recovery}");
            assert_eq!(recovery.applied + recovery.skipped, changes, "{what}: {recovery}");
            for (&page, expected) in pages.iter().zip(&expected) {
                assert!(*store.read(page).unwrap() == expected[..], "{what}: page {page}");
            }
            drop(store);
            std::fs::remove_dir_all(copy).unwrap();
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() { copy_all(&source, &target) } else { _ = std::fs::copy(source, target).unwrap() }
    }
}

#[test]
fn a_torn_page_is_rebuilt_from_its_image_and_a_rotten_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let flip = |page: PageId, at: u64| overwrite(dir.path(), page.0 * 4096 + at, |byte| *byte ^= 1);
    let options = small().background(false);
    let store = options.open(dir.path()).unwrap();
    let mut txn = store.begin();
    let (cold, warm) = (txn.allocate().unwrap(), txn.allocate().unwrap());
    txn.update(cold, 0, b"cold").unwrap();
    txn.update(warm, 0, b"warm").unwrap();
    txn.commit().unwrap();
    store.close().unwrap();

    let store = options.open(dir.path()).unwrap();
    let mut txn = store.begin();
    txn.update(warm, 0, b"hot!").unwrap();
    txn.commit().unwrap();
    drop(store);
    flip(warm, 2000);
    flip(cold, 2000);
    let store = options.open(dir.path()).unwrap();
    assert_eq!(store.recovery().images, 1);
    assert_eq!(read(&store, warm, 4), b"hot!");
    match store.read(cold) {
        Err(Error::Rotten { page, .. }) => assert_eq!(page, cold),
        other => panic!("{other:?}"),
    }
    drop(store);
    flip(cold, 2000);
    assert_eq!(read(&options.open(dir.path()).unwrap(), cold, 4), b"cold");

    // A page that was in use cannot be blank.
    options.open(dir.path()).unwrap().close().unwrap();
    let len = std::fs::metadata(dir.path().join("PAGES")).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("PAGES")).unwrap();
    file.set_len(cold.0 * 4096).unwrap();
    file.set_len(len).unwrap();
    let store = options.open(dir.path()).unwrap();
    assert!(matches!(store.read(cold), Err(Error::Rotten { .. })));
    assert!(matches!(store.begin().update(cold, 0, b"x"), Err(Error::Rotten { .. })));
}

#[test]
fn without_full_page_images_recovery_reads_the_pages_and_skips_what_they_have() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().full_page_images(false).background(false).recovery_threads(3);
    let store = options.open(dir.path()).unwrap();
    let mut txn = store.begin();
    let pages: Vec<PageId> = (0..200).map(|_| txn.allocate().unwrap()).collect();
    txn.commit().unwrap();
    store.checkpoint_all().unwrap();
    for round in 1u64..20 {
        let mut txn = store.begin();
        pages.iter().for_each(|&page| txn.update(page, 8 * round as usize, &round.to_le_bytes()).unwrap());
        txn.commit().unwrap();
    }
    drop(store);
    let store = options.open(dir.path()).unwrap();
    let recovery = store.recovery();
    assert_eq!(recovery.images, 0, "{recovery}");
    assert!(recovery.applied > 0 && recovery.skipped > 0, "the pool is smaller than the pages: {recovery}");
    assert_eq!(recovery.applied + recovery.skipped, 19 * 200, "{recovery}");
    for &page in &pages {
        let page = store.read(page).unwrap();
        assert!((1u64..20).all(|round| page[8 * round as usize..][..8] == round.to_le_bytes()));
    }
}

#[test]
fn without_full_page_images_a_torn_page_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().full_page_images(false).background(false);
    let store = options.open(dir.path()).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    store.checkpoint_all().unwrap();
    let mut txn = store.begin();
    txn.update(page, 0, b"x").unwrap();
    txn.commit().unwrap();
    drop(store);
    overwrite(dir.path(), page.0 * 4096 + 2048, |byte| *byte ^= 1);
    match options.open(dir.path()) {
        Err(Error::Rotten { page: named, .. }) => assert_eq!(named, page),
        other => panic!("{other:?}"),
    }
}
