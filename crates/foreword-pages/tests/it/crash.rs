//! The crash suite: whatever a power failure or a kill at any I/O leaves, in work and in recovery,
//! the store comes back with what was committed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use crate::common::{Bank, DIR, Hooked, Rng, World, crashes_wanted, options};
use foreword::{Durability, SyncPolicy};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

/// Runs random work in one world after the other, until there were enough crashes.
fn random_work(wanted: u64, world: impl Fn(u64) -> World) {
    let mut crashes = 0;
    for seed in 0.. {
        let mut world = world(seed);
        world.run(6).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        crashes += world.crashes;
        if crashes >= wanted {
            println!("{crashes} crashes, {} seeds", seed + 1);
            break;
        }
    }
}

#[test]
fn random_work_and_crashes_at_random_writes() {
    random_work(crashes_wanted(600), World::new);
}

#[test]
fn random_work_while_full_page_images_are_switched_on_and_off() {
    random_work(crashes_wanted(400), |seed| World { switches_images: true, ..World::new(seed) });
}

#[test]
fn random_work_on_pages_of_each_size() {
    for page_bytes in [4, 8, 16, 32, 64].map(|kib| kib << 10) {
        random_work(crashes_wanted(100), |seed| World { page_bytes, ..World::new(seed + page_bytes as u64) });
    }
}

/// While a checkpoint is about to write or sync anything, a transaction changes all pages and
/// commits. So no change waits for a checkpoint. The pages come back, though they are torn when
/// they are written next: the checkpoint lists the changes, or their images are behind its begin.
#[test]
fn what_changes_during_any_write_of_a_checkpoint_does_not_wait_for_it_and_comes_back() {
    let changes = &[OpKind::Write, OpKind::DurableWrite, OpKind::Sync];
    for during in 0.. {
        let mut was_called = false;
        for (cut, all) in (1..=14).flat_map(|cut| [(cut, false), (cut, true)]) {
            let disk = SimDisk::new(during);
            let hooked = Hooked::new(&disk);
            let log =
                foreword::Options::new().segment_bytes(1 << 20).background(false).sync(SyncPolicy::manual()).on_error(|_| ());
            let store = options(&disk, 1).disk(hooked.handle()).log(log).open(DIR).unwrap();
            let mut txn = store.begin();
            let pages: Vec<_> = (0..8).map(|_| txn.allocate().unwrap()).collect();
            txn.commit().unwrap();
            store.checkpoint_all().unwrap();
            // These pages are dirty since before the last checkpoint, so the next one writes them.
            let mut txn = store.begin();
            pages[..3].iter().for_each(|&page| txn.update(page, 100, b"before").unwrap());
            txn.commit().unwrap();
            store.checkpoint().unwrap();

            let (ask, asked) = mpsc::channel();
            let (answer, answered) = mpsc::channel();
            std::thread::scope(|scope| {
                let (store, pages) = (&store, &pages);
                scope.spawn(move || {
                    let Ok(durability) = asked.recv() else { return };
                    let mut txn = store.begin();
                    pages.iter().for_each(|&page| txn.update(page, 0, b"meanwhile").unwrap());
                    txn.commit_with(durability).unwrap();
                    answer.send(()).unwrap();
                });
                hooked.before(changes, during, move |path| {
                    // Records become durable in the order of the log. So a synced commit behind a
                    // record that the checkpoint is writing has to wait.
                    let durability = if path.ends_with("PAGES") { Durability::Synced } else { Durability::Buffered };
                    ask.send(durability).unwrap();
                    answered.recv_timeout(Duration::from_secs(60)).expect("a change waits for a checkpoint");
                });
                if all { store.checkpoint_all() } else { store.checkpoint() }.unwrap();
                was_called |= !hooked.clear();
            });
            let mut txn = store.begin();
            txn.update(pages[7], 200, b"behind").unwrap();
            txn.commit().unwrap();
            let expected: Vec<Vec<u8>> = pages.iter().map(|&page| store.read(page).unwrap().to_vec()).collect();
            disk.power_off_at(disk.changes() + cut);
            let _ = store.checkpoint_all();
            disk.power_off();
            for seed in 0..4 {
                let store =
                    options(&disk.crash(&Choice::Seed(seed)), 2).open(DIR).unwrap_or_else(|e| panic!("{during}, {cut}: {e}"));
                for (&page, expected) in pages.iter().zip(&expected) {
                    assert!(*store.read(page).unwrap() == expected[..], "page {page}, changed in operation {during}, cut {cut}");
                }
            }
        }
        if !was_called {
            assert!(during > 6, "a checkpoint does more than {during} operations");
            break;
        }
    }
}

/// A thread of recovery panics. The other threads do not wait for it for ever.
#[test]
fn a_panic_in_recovery_ends_it() {
    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk, hooked: &Hooked| options(disk, 3).full_page_images(false).disk(hooked.handle()).open(DIR);
    let store = open(&disk, &Hooked::new(&disk)).unwrap();
    let mut txn = store.begin();
    let pages: Vec<_> = (0..50).map(|_| txn.allocate().unwrap()).collect();
    txn.commit().unwrap();
    store.checkpoint_all().unwrap();
    for round in 1..20u8 {
        let mut txn = store.begin();
        pages.iter().for_each(|&page| txn.update(page, 0, &[round; 100]).unwrap());
        txn.commit().unwrap();
    }
    drop(store);
    std::panic::set_hook(Box::new(|_| ()));
    let mut panics = 0;
    for skip in (0..400).step_by(7) {
        let disk = disk.kill();
        let hooked = Hooked::new(&disk);
        // The read is of a page, or of the log.
        hooked.before(&[OpKind::Read], skip, |_| panic!("deliberate"));
        panics += u32::from(catch_unwind(AssertUnwindSafe(|| drop(open(&disk, &hooked)))).is_err());
    }
    drop(std::panic::take_hook());
    assert!(panics > 10, "{panics}");
    let store = open(&disk.kill(), &Hooked::new(&disk)).unwrap();
    assert!(pages.iter().all(|&page| store.read(page).unwrap()[..100] == [19; 100]));
}

/// A small fixed piece of work is cut at every write, and each recovery from that is cut at every
/// write, too.
#[test]
fn a_crash_at_every_write_and_another_at_every_write_of_the_recovery() {
    let run = |change: u64| {
        let mut world = World::new(77);
        let store = world.reopen(0).unwrap();
        world.disk.power_off_at(world.disk.changes() + change);
        world.live(store, 200).unwrap();
        let is_cut = world.disk.is_off();
        (world, is_cut)
    };
    // In a campaign, each recovery from each fourth write; otherwise from each twelfth.
    let (all, some) = if crashes_wanted(0) > 1000 { (4, 7) } else { (12, 13) };
    let mut recoveries = 0;
    for change in 1.. {
        let (world, is_cut) = run(change);
        for choice in [Choice::None, Choice::Seed(change), Choice::Seed(change + 1_000_000)] {
            let crashed = world.disk.crash(&choice);
            for second in (1..).step_by(if change % all == 0 { 1 } else { some }) {
                let disk = crashed.copy();
                disk.power_off_at(disk.changes() + second);
                drop(options(&disk, 2).open(DIR));
                let is_cut_again = disk.is_off();
                let after = disk.crash(&Choice::Seed(second));
                let mut again = World { disk: after, rng: Rng::new(second), ..world.clone() };
                drop(again.reopen(0).unwrap_or_else(|v| panic!("cut at {change} ({choice:?}) and {second}: {v}")));
                recoveries += 1;
                if !is_cut_again {
                    break;
                }
            }
        }
        if !is_cut {
            break;
        }
    }
    println!("{recoveries} recoveries");
    assert!(recoveries > 1000);
}

#[test]
fn money_is_neither_made_nor_lost_by_many_threads_and_crashes() {
    let (mut crashes, wanted) = (0, crashes_wanted(500));
    for seed in 0.. {
        let mut rng = Rng::new(seed);
        let mut bank = Bank::new(seed, 4, 24).unwrap();
        for _ in 0..20 {
            crashes += bank.round(&mut rng).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        }
        if crashes >= wanted {
            println!("{crashes} crashes, {} seeds", seed + 1);
            break;
        }
    }
}

/// After a failed sync the page cache may show as clean what the disk never got. Recovery must
/// write it again.
#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_not_trusted() {
    for images in [true, false] {
        let disk = SimDisk::new(5);
        let open = |disk: &SimDisk| options(disk, 2).full_page_images(images).open(DIR).unwrap();
        let store = open(&disk);
        let mut txn = store.begin();
        let pages: Vec<_> = (0..10).map(|_| txn.allocate().unwrap()).collect();
        txn.commit().unwrap();
        store.checkpoint_all().unwrap();
        let mut txn = store.begin();
        pages.iter().for_each(|&page| txn.update(page, 5, b"precious").unwrap());
        txn.commit().unwrap();
        disk.fault(Fault::new(OpKind::Sync, Effect::Eio).on("PAGES"));
        assert!(store.checkpoint_all().is_err());
        disk.heal();
        assert!(matches!(store.checkpoint_all(), Err(foreword_pages::Error::Poisoned(_))));
        assert!(matches!(store.begin().update(pages[0], 0, b"x"), Err(foreword_pages::Error::Poisoned(_))));
        drop(store);

        let disk = disk.kill();
        let store = open(&disk);
        store.checkpoint_all().unwrap();
        let disk = disk.crash(&Choice::None);
        let store = open(&disk);
        for &page in &pages {
            assert_eq!(&store.read(page).unwrap()[5..13], b"precious", "images: {images}");
        }
    }
}

#[test]
fn any_failing_write_is_told_and_what_was_committed_survives_it() {
    for (part, op) in [("PAGES", OpKind::Write), ("PAGES", OpKind::Sync), ("log", OpKind::Write), ("log", OpKind::Sync)] {
        for skip in 0..12 {
            let mut world = World::new(skip);
            let store = world.reopen(0).unwrap();
            world.disk.fault(Fault::new(op, Effect::Eio).on(part).skip(skip).forever());
            // Errors are expected. The model has what was acknowledged.
            let _ = world.live(store, 150);
            world.disk.heal();
            world.disk.power_off();
            world.crash();
            drop(world.reopen(1).unwrap_or_else(|violation| panic!("{part} {op:?} {skip}: {violation}")));
        }
    }
}

#[test]
fn a_full_disk_refuses_changes_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(3);
    let store = options(&disk, 1).open(DIR).unwrap();
    let mut txn = store.begin();
    let pages: Vec<_> = (0..12).map(|_| txn.allocate().unwrap()).collect();
    txn.commit().unwrap();
    store.checkpoint_all().unwrap();
    disk.set_free(0);
    // At some point a change is refused, and nothing else is.
    let mut txn = store.begin();
    let refused = (0u64..100_000).find_map(|i| txn.update(pages[i as usize % 12], 0, &[i as u8 ^ 0x55; 500]).err());
    let refused = refused.expect("the disk is full");
    assert!(refused.is_no_space(), "{refused}");
    // There may be no room to undo the transaction: then it becomes an orphan.
    let id = txn.id();
    let aborted = txn.abort();
    assert_eq!(aborted.is_err(), store.is_live(id));
    assert_eq!(aborted.is_err(), store.stats().orphans == 1);
    disk.set_capacity(None);
    store.checkpoint().unwrap();
    assert!(store.stats().orphans == 0 && !store.is_live(id));
    for &page in &pages {
        assert_eq!(store.read(page).unwrap()[..500], [0; 500]);
    }
    let mut txn = store.begin();
    txn.update(pages[0], 0, b"on").unwrap();
    txn.commit().unwrap();
    drop(store);
    let store = options(&disk.kill(), 1).open(DIR).unwrap();
    assert_eq!(&store.read(pages[0]).unwrap()[..2], b"on");
}

/// A process that is killed between the renaming of the page file and the syncing of its directory
/// leaves a name that a power failure can lose.
#[test]
fn a_page_file_that_is_there_is_not_yet_durable() {
    for change in 1.. {
        let disk = SimDisk::new(change);
        disk.power_off_at(change);
        drop(options(&disk, 1).open(DIR));
        let is_cut = disk.is_off();
        let disk = disk.kill();
        let store = options(&disk, 1).open(DIR).unwrap();
        let mut txn = store.begin();
        let page = txn.allocate().unwrap();
        txn.update(page, 0, b"there").unwrap();
        txn.commit().unwrap();
        let store = options(&disk.crash(&Choice::None), 1).open(DIR).unwrap_or_else(|e| panic!("cut at {change}: {e}"));
        assert_eq!(&store.read(page).unwrap()[..5], b"there");
        if !is_cut {
            break;
        }
    }
}
