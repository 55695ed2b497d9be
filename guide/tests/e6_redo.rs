//! Exercise 6: `guide/exercises/e6_redo.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use foreword::{Log, Options, SyncPolicy};
use foreword_guide::e6_redo::{Accounts, Page, PageFile};
use foreword_sim::{Choice, SimDisk};

/// Pages that survive the accounts. Knows the disk of the log, and looks at each write whether the
/// log is as far.
#[derive(Clone, Debug)]
struct Shelf {
    pages: Rc<RefCell<BTreeMap<u32, Page>>>,
    disk: SimDisk,
}

impl PageFile for Shelf {
    fn read(&self, account: u32) -> Option<Page> {
        self.pages.borrow().get(&account).copied()
    }

    fn write(&mut self, account: u32, page: Page) {
        let durable = open_log(&self.disk.crash(&Choice::None)).last_lsn();
        assert!(page.lsn <= durable, "page {account} has record {}, and the log is durable up to {durable}", page.lsn);
        self.pages.borrow_mut().insert(account, page);
    }
}

fn open_log(disk: &SimDisk) -> Log {
    let options = Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
    options.on_error(|_| ()).disk(disk.handle()).open("/log").unwrap()
}

fn open(disk: &SimDisk, pages: &BTreeMap<u32, Page>) -> (Accounts<Shelf>, Shelf) {
    let shelf = Shelf { pages: Rc::new(RefCell::new(pages.clone())), disk: disk.clone() };
    (Accounts::open(open_log(disk), shelf.clone()).unwrap(), shelf)
}

fn balances(accounts: &Accounts<Shelf>) -> [i64; 4] {
    [0, 1, 2, 3].map(|account| accounts.balance(account))
}

/// Works a little and commits: the disk after a crash, and what was in the page file.
fn crashed() -> (SimDisk, BTreeMap<u32, Page>) {
    let disk = SimDisk::new(1);
    let (mut accounts, shelf) = open(&disk, &BTreeMap::new());
    for (account, delta) in [(0, 5), (1, 7), (0, -2), (2, 100)] {
        accounts.add(account, delta).unwrap();
    }
    accounts.commit().unwrap();
    accounts.write_page(0).unwrap();
    for (account, delta) in [(0, 30), (1, 1), (2, -1)] {
        accounts.add(account, delta).unwrap();
    }
    accounts.commit().unwrap();
    assert_eq!(balances(&accounts), [33, 8, 99, 0]);
    let pages = shelf.pages.borrow().clone();
    (disk.crash(&Choice::None), pages)
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 6: redo with page LSNs")]
fn what_was_committed_is_there_after_a_crash() {
    let (disk, pages) = crashed();
    assert_eq!(pages.len(), 1, "commit writes no page");
    let (accounts, _) = open(&disk, &pages);
    assert_eq!(balances(&accounts), [33, 8, 99, 0]);
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 6: redo with page LSNs")]
fn the_log_goes_before_the_page() {
    let disk = SimDisk::new(1);
    let (mut accounts, shelf) = open(&disk, &BTreeMap::new());
    accounts.add(0, 5).unwrap();
    accounts.add(1, 5).unwrap();
    accounts.write_page(1).unwrap(); // The shelf looks.
    let (accounts, _) = open(&disk.crash(&Choice::None), &shelf.pages.borrow());
    assert_eq!(balances(&accounts), [5, 5, 0, 0], "record 1 is before record 2");
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 6: redo with page LSNs")]
fn what_was_not_committed_is_gone_as_a_tail() {
    let disk = SimDisk::new(1);
    let (mut accounts, _) = open(&disk, &BTreeMap::new());
    accounts.add(0, 5).unwrap();
    accounts.commit().unwrap();
    accounts.add(0, 100).unwrap();
    assert_eq!(accounts.balance(0), 105);
    let (accounts, _) = open(&disk.crash(&Choice::None), &BTreeMap::new());
    assert_eq!(accounts.balance(0), 5);
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 6: redo with page LSNs")]
fn whichever_pages_were_written_and_however_often_it_crashes_the_result_is_the_same() {
    let (crashed, pages) = crashed();
    for first in 0..16 {
        for second in 0..16 {
            let (disk, mut pages) = (crashed.copy(), pages.clone());
            for written in [first, second] {
                let (mut accounts, shelf) = open(&disk, &pages);
                assert_eq!(balances(&accounts), [33, 8, 99, 0], "{first:b}, {second:b}");
                (0..4).filter(|account| written >> account & 1 == 1).for_each(|account| accounts.write_page(account).unwrap());
                pages.clone_from(&shelf.pages.borrow());
            }
            // And it goes on from there.
            let (mut accounts, _) = open(&disk, &pages);
            accounts.add(3, 9).unwrap();
            accounts.commit().unwrap();
            drop(accounts);
            let (accounts, _) = open(&disk, &pages);
            assert_eq!(balances(&accounts), [33, 8, 99, 9]);
        }
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 6: redo with page LSNs")]
fn pages_that_were_written_need_no_log() {
    let (disk, pages) = crashed();
    let (mut accounts, shelf) = open(&disk, &pages);
    (0..4).for_each(|account| accounts.write_page(account).unwrap());
    drop(accounts);
    let log = open_log(&disk);
    log.truncate_front(log.last_lsn().next()).unwrap();
    drop(log);
    let (mut accounts, _) = open(&disk, &shelf.pages.borrow());
    assert_eq!(balances(&accounts), [33, 8, 99, 0]);
    accounts.add(0, 1).unwrap();
    assert_eq!(balances(&accounts), [34, 8, 99, 0], "what is added is added to the page as it was written");
}
