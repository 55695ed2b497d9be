//! The crash suite: whatever a power failure or a kill at any I/O leaves, in work and in recovery,
//! the trees come back with what was committed.

use foreword_sim::Choice;
use foreword_tree::Db;

use crate::common::{DIR, Rng, World, crashes_wanted, options};

#[test]
fn random_work_and_crashes_at_random_writes() {
    let (mut crashes, mut levels, wanted) = (0, 0, crashes_wanted(150));
    for seed in 0.. {
        let mut world = World::new(seed);
        world.run(6).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        (crashes, levels) = (crashes + world.crashes, levels.max(world.levels));
        if crashes >= wanted {
            println!("{crashes} crashes, {} seeds, {levels} levels", seed + 1);
            assert!(levels >= 3, "{levels} levels");
            break;
        }
    }
}

/// A small fixed piece of work is cut at every write, and each recovery from that is cut, too.
#[test]
fn a_crash_at_every_write_and_in_the_recovery() {
    let run = |change: u64| {
        let mut world = World { is_high: false, ..World::new(1) };
        let db = world.reopen(0).unwrap();
        world.disk.power_off_at(world.disk.changes() + change);
        world.live(db, 200).unwrap();
        let is_cut = world.disk.is_off();
        (world, is_cut)
    };
    // In a campaign each write of the recovery.
    let sparse = if crashes_wanted(0) > 1000 { 3 } else { 40 };
    let mut recoveries = 0;
    for change in 1.. {
        let (world, is_cut) = run(change);
        let choice = if change % 2 == 0 { Choice::None } else { Choice::Seed(change) };
        let crashed = world.disk.crash(&choice);
        for second in (1 + change * 7 % sparse..).step_by(sparse as usize) {
            let disk = crashed.copy();
            disk.power_off_at(disk.changes() + second);
            drop(Db::open_with(options(&disk, 2), DIR));
            let is_cut_again = disk.is_off();
            let after = disk.crash(&Choice::Seed(second));
            let mut again = World { disk: after, rng: Rng::new(second), ..world.clone() };
            drop(again.reopen(0).unwrap_or_else(|v| panic!("cut at {change} ({choice:?}) and {second}: {v}")));
            recoveries += 1;
            if !is_cut_again {
                break;
            }
        }
        if !is_cut {
            break;
        }
    }
    println!("{recoveries} recoveries");
    assert!(recoveries > 100, "{recoveries}");
}
