//! Record types of the user: handlers that redo and undo, that fail, panic, or are not there.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use foreword_pages::{Change, Error, HandlerError, Options, PageId, Store, Txn};
use foreword_sim::SimDisk;

use crate::common::{DIR, options};

const ADD: u16 = 7;

/// Adds the payload's byte to a page's first byte.
fn add(page: &mut [u8], payload: &[u8]) -> Result<(), HandlerError> {
    match payload {
        [byte] => page[0] = page[0].wrapping_add(*byte),
        [] => {
            page.fill(0xee);
            panic!("deliberate, and half done");
        }
        _ => {
            page.fill(0xdd);
            return Err("it is too long".into());
        }
    }
    Ok(())
}

/// Subtracts from the page that the payload names, whatever was added by others meanwhile.
fn subtract(txn: &mut Txn, payload: &[u8]) -> Result<(), HandlerError> {
    let page = PageId(u64::from(payload[0]));
    let mut latched = txn.fetch_exclusive(page)?;
    let byte = latched[0].wrapping_sub(payload[1]);
    let mut change = Change::new();
    // It says how to undo it, as the code that adds does. Here it is undone by bytes all the same.
    change.write(page, 0, &[byte]).undo(ADD, payload);
    txn.apply(&change, &mut [&mut latched])?;
    Ok(())
}

fn with_add(disk: &SimDisk) -> Options {
    options(disk, 2).redo_type(ADD, "add", add).undo_type(ADD, "add", subtract)
}

fn add_to(txn: &mut Txn, page: PageId, byte: u8) -> foreword_pages::Result<()> {
    let mut change = Change::new();
    change.redo(page, ADD, &[byte]).undo(ADD, &[page.0 as u8, byte]);
    let mut latched = txn.fetch_exclusive(page)?;
    txn.apply(&change, &mut [&mut latched])
}

fn first(store: &Store, page: PageId) -> u8 {
    store.read(page).unwrap()[0]
}

/// Two transactions add to the same byte. One is rolled back: here, by a savepoint, by recovery.
#[test]
fn transactions_change_the_same_bytes_and_are_undone_by_meaning() {
    let disk = SimDisk::new(1);
    let store = with_add(&disk).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    let (mut one, mut two) = (store.begin(), store.begin());
    add_to(&mut one, page, 1).unwrap();
    let savepoint = one.savepoint();
    add_to(&mut two, page, 20).unwrap();
    add_to(&mut one, page, 2).unwrap();
    add_to(&mut two, page, 40).unwrap();
    one.rollback_to(&savepoint).unwrap();
    assert_eq!(first(&store, page), 61);
    two.commit().unwrap();
    for images in [true, false] {
        let recovered = with_add(&disk.kill()).full_page_images(images).open(DIR).unwrap();
        assert_eq!((first(&recovered, page), recovered.recovery().losers), (60, 1), "{}", recovered.recovery());
    }
    one.abort().unwrap();
    assert_eq!(first(&store, page), 60);
}

/// What redoes without a handler that undoes is undone by the bytes before.
#[test]
fn without_an_undo_type_bytes_undo() {
    let disk = SimDisk::new(1);
    let store = with_add(&disk).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.update(page, 0, &[5, 5]).unwrap();
    let savepoint = txn.savepoint();
    let mut change = Change::new();
    // Parts are made one after the other, also where they overlap.
    change.redo(page, ADD, &[1]).write(page, 0, &[9, 9]).redo(page, ADD, &[2]).write(page, 1, &[3]);
    let mut latched = txn.fetch_exclusive(page).unwrap();
    txn.apply(&change, &mut [&mut latched]).unwrap();
    assert_eq!(latched[..2], [11, 3]);
    // What changes nothing is not logged.
    let lsn = latched.lsn();
    change.clear();
    change.write(page, 0, &[11, 3]).redo(page, ADD, &[0]);
    txn.apply(&change, &mut [&mut latched]).unwrap();
    assert_eq!(latched.lsn(), lsn);
    drop(latched);
    txn.rollback_to(&savepoint).unwrap();
    assert_eq!(store.read(page).unwrap()[..2], [5, 5]);
}

/// All places of a change are checked and made, or none is.
#[test]
fn a_change_that_is_refused_changes_nothing() {
    let disk = SimDisk::new(1);
    let store = with_add(&disk).open(DIR).unwrap();
    let mut txn = store.begin();
    let (one, two, free) = (txn.allocate().unwrap(), txn.allocate().unwrap(), txn.allocate().unwrap());
    txn.update(one, 0, b"whole").unwrap();
    txn.commit().unwrap();
    let mut other = store.begin();
    let mut txn = store.begin();
    let (mut a, mut b) = (txn.fetch_exclusive(one).unwrap(), txn.fetch_exclusive(two).unwrap());
    let mut others = other.fetch_exclusive(free).unwrap();
    let end = store.page_len();
    let mut refused = |more: &dyn Fn(&mut Change), is: &dyn Fn(&Error) -> bool| {
        let mut change = Change::new();
        change.write(two, 0, b"x").write(one, 1, b"xxxx").redo(one, ADD, &[1]);
        more(&mut change);
        let before = store.stats().log.appended_lsn;
        let error = txn.apply(&change, &mut [&mut a, &mut b]).unwrap_err();
        assert!(is(&error), "{error}");
        assert!(a[..5] == *b"whole" && a[5..].iter().chain(&b[..]).all(|&byte| byte == 0), "{error}");
        assert_eq!(store.stats().log.appended_lsn, before);
    };
    refused(&|c| _ = c.write(one, end, b"x"), &|e| matches!(e, Error::OutOfBounds { .. }));
    refused(&|c| _ = c.write(one, usize::MAX, b"x"), &|e| matches!(e, Error::OutOfBounds { .. }));
    refused(&|c| _ = c.write(free, 0, b"x"), &|e| matches!(e, Error::Invalid { .. }));
    refused(&|c| _ = c.write(PageId(99), 0, b"x"), &|e| matches!(e, Error::NotAllocated { .. }));
    refused(&|c| _ = c.redo(two, 8, b"x"), &|e| matches!(e, Error::UnknownType { record_type: 8, .. }));
    refused(&|c| _ = c.undo(9, b"x"), &|e| matches!(e, Error::UnknownType { record_type: 9, .. }));
    let is_handler = |words: &'static str| {
        move |e: &Error| {
            matches!(e, Error::Handler { record_type: ADD, page: Some(of), .. } if *of == two) && e.to_string().contains(words)
        }
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    refused(&|c| _ = c.redo(two, ADD, b""), &is_handler("half done"));
    std::panic::set_hook(hook);
    refused(&|c| _ = c.redo(two, ADD, b"long"), &is_handler("(add) failed on page"));
    // A guard of another transaction.
    let mut change = Change::new();
    change.write(one, 0, b"x");
    assert!(matches!(txn.apply(&change, &mut [&mut a, &mut others]), Err(Error::Invalid { .. })));
    txn.apply(&change, &mut [&mut b, &mut a]).unwrap();
    assert_eq!(a[..5], *b"xhole");
    drop((a, b, others));
    txn.commit().unwrap();
    drop(other.free(free));
}

#[test]
fn a_log_with_a_type_that_is_not_registered_is_refused() {
    let disk = SimDisk::new(1);
    let store = with_add(&disk).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    add_to(&mut txn, page, 1).unwrap();
    txn.commit().unwrap();
    let mut lost = store.begin();
    add_to(&mut lost, page, 2).unwrap();
    store.sync_to(store.stats().log.appended_lsn).unwrap();
    let killed = disk.kill();
    // Only to be undone: redo does not meet it.
    store.checkpoint_all().unwrap();
    let undone = disk.kill();
    // Only to be redone.
    lost.abort().unwrap();
    let mut txn = store.begin();
    add_to(&mut txn, page, 0).unwrap();
    txn.commit().unwrap();
    let redone = disk.kill();
    for (disk, options) in [
        (&redone, options(&redone, 1).redo_type(ADD, "add", add)),
        (&killed, options(&killed, 1)),
        (&killed, options(&killed, 1).redo_type(ADD, "add", add)),
        (&killed, options(&killed, 1).undo_type(ADD, "add", subtract)),
        (&undone, options(&undone, 1)),
    ] {
        let copy = disk.copy().kill();
        match options.disk(copy.handle()).open(DIR) {
            Err(error @ Error::UnknownType { record_type: ADD, .. }) => assert!(error.to_string().contains("type 7")),
            opened => panic!("{opened:?}"),
        }
        // With its handlers it opens, also after it was refused.
        let recovered = with_add(&copy.kill()).open(DIR).unwrap();
        assert_eq!(first(&recovered, page), 1);
    }
}

/// A handler that fails or panics in recovery ends it with an error that names the record, as often
/// as it does. Nothing is lost.
#[test]
fn a_handler_that_fails_in_recovery_harms_nothing() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    for images in [true, false] {
        let disk = SimDisk::new(1);
        let store = with_add(&disk).full_page_images(images).open(DIR).unwrap();
        let mut txn = store.begin();
        let pages: Vec<_> = (0..30).map(|_| txn.allocate().unwrap()).collect();
        txn.commit().unwrap();
        store.checkpoint_all().unwrap();
        let mut lost = store.begin();
        for round in 0..10 {
            let mut txn = store.begin();
            for &page in &pages {
                add_to(&mut txn, page, 1).unwrap();
                add_to(&mut lost, page, 100 + round).unwrap();
            }
            txn.commit().unwrap();
        }
        let disk = disk.kill();
        for (fails_at, panics) in (1..300).step_by(37).flat_map(|at| [(at, false), (at, true)]) {
            let calls = Arc::new(AtomicU32::new(0));
            let fail = move || match calls.fetch_add(1, Ordering::Relaxed) {
                call if call + 1 != fails_at => Ok(()),
                _ if panics => panic!("deliberate"),
                _ => Err("deliberate"),
            };
            let (redo_fails, undo_fails) = (fail.clone(), fail);
            let redo = move |page: &mut [u8], payload: &[u8]| -> Result<(), HandlerError> {
                add(page, payload)?;
                Ok(redo_fails()?)
            };
            let undo = move |txn: &mut Txn, payload: &[u8]| -> Result<(), HandlerError> {
                subtract(txn, payload)?;
                Ok(undo_fails()?)
            };
            let options = options(&disk, 3).full_page_images(images);
            match options.redo_type(ADD, "add", redo).undo_type(ADD, "add", undo).open(DIR) {
                Err(error @ Error::Handler { .. }) => {
                    let text = error.to_string();
                    assert!(text.contains("deliberate") && text.contains("(add)") && text.contains("record"), "{text}");
                }
                Ok(store) => assert!(pages.iter().all(|&page| first(&store, page) == 10)),
                Err(error) => panic!("{error}"),
            }
        }
        let recovered = with_add(&disk).full_page_images(images).open(DIR).unwrap();
        assert!(pages.iter().all(|&page| first(&recovered, page) == 10), "images: {images}");
    }
    std::panic::set_hook(hook);
}

/// A handler that fails in a rollback is called again by the next checkpoint.
#[test]
fn a_rollback_that_fails_is_tried_again() {
    let disk = SimDisk::new(1);
    let is_broken = Arc::new(AtomicU32::new(0));
    let broken = is_broken.clone();
    let undo = move |txn: &mut Txn, payload: &[u8]| {
        // It fails after it has changed something.
        subtract(txn, payload)?;
        match broken.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err("deliberate".into()),
            // An error of this crate stays what it is.
            2 => Err(txn.update(PageId(0), 0, b"x").unwrap_err().into()),
            _ => panic!("deliberate"),
        }
    };
    let store = options(&disk, 1).redo_type(ADD, "add", add).undo_type(ADD, "add", undo).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    add_to(&mut txn, page, 1).unwrap();
    txn.commit().unwrap();
    for way in 1..4 {
        let mut txn = store.begin();
        add_to(&mut txn, page, 10).unwrap();
        is_broken.store(way, Ordering::Relaxed);
        let told = txn.abort().unwrap_err();
        match way {
            2 => assert!(matches!(told, Error::NotAllocated { page: PageId(0), .. }), "{told}"),
            _ => assert!(matches!(&told, Error::Handler { page: None, .. }), "{told}"),
        }
        // What the handler had done is undone. Others go on.
        assert_eq!((first(&store, page), store.stats().orphans), (11, 1));
        let mut other = store.begin();
        add_to(&mut other, page, 5).unwrap();
        is_broken.store(0, Ordering::Relaxed);
        other.abort().unwrap();
        store.checkpoint().unwrap();
        assert_eq!((first(&store, page), store.stats().orphans), (1, 0));
    }
}

/// A handler that fails leaves a guard behind, so that what it did cannot be undone. The
/// transaction can only be rolled back; once it is, it goes on as any other.
#[test]
fn a_rollback_that_is_cut_short_twice_is_completed() {
    let disk = SimDisk::new(1);
    let left: Arc<Mutex<Option<foreword_pages::PageMut>>> = Arc::default();
    let is_broken = Arc::new(AtomicU32::new(1));
    let (behind, broken) = (left.clone(), is_broken.clone());
    let undo = move |txn: &mut Txn, payload: &[u8]| {
        subtract(txn, payload)?;
        if broken.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        *behind.lock().unwrap() = Some(txn.fetch_exclusive(PageId(u64::from(payload[0])))?);
        Err("deliberate".into())
    };
    let store = options(&disk, 1).redo_type(ADD, "add", add).undo_type(ADD, "add", undo).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    let mut txn = store.begin();
    let savepoint = txn.savepoint();
    add_to(&mut txn, page, 10).unwrap();
    for _ in 0..2 {
        assert!(matches!(txn.rollback_to(&savepoint), Err(Error::Deadlock { .. })));
        assert!(matches!(add_to(&mut txn, page, 1), Err(Error::Deadlock { .. } | Error::Invalid { .. })));
        assert!(matches!(txn.nested(|_| Ok::<_, Error>(())), Err(Error::Invalid { .. })));
        drop(left.lock().unwrap().take());
        assert!(store.session().try_fetch_shared(page).unwrap().is_none(), "it is half undone");
    }
    is_broken.store(0, Ordering::Relaxed);
    txn.rollback_to(&savepoint).unwrap();
    add_to(&mut txn, page, 3).unwrap();
    assert_eq!(store.session().try_fetch_shared(page).unwrap().unwrap()[0], 3);
    txn.commit().unwrap();
    assert_eq!(first(&store, page), 3);
}
