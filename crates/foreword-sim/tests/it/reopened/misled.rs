//! Repairs that were misled by what lies beside the log, or by an error.

use foreword::{Lsn, OnDamage};

use super::repairs::repair;
use super::*;

/// A MARK that a power failure left behind a hole: its truncation failed, and did not come about,
/// and the log went on in a fork before it. When a record before was damaged, a repair took its
/// start for the log's, and dropped all that was left.
#[test]
fn a_truncation_that_did_not_come_about_does_not_come_about_later() {
    let record = [7; 60_000];
    let begun = |change| {
        let disk = SimDisk::new(1);
        let log = options(&disk, 1 << 20).open("/log").unwrap();
        (1..=10).for_each(|_| _ = log.commit(&record).unwrap());
        log.append(&record).unwrap();
        log.write().unwrap();
        disk.power_off_at(disk.changes() + change);
        log.truncate_front(Lsn(11)).unwrap_err();
        std::mem::forget(log);
        disk
    };
    let frames = |disk: &SimDisk| -> Vec<(u64, u8)> {
        let kind = |block| disk.peek(segment(1), block * 4096, 13).filter(|head| head[..4] == *b"FWRD").map(|head| head[12]);
        (2..255).filter_map(|block| Some((block, kind(block)?))).collect()
    };
    // The MARK that names the start reached the disk, and the record before it did not.
    let torn = (1..20).find_map(|change| {
        let disk = begun(change);
        let last = |first| disk.crash(&Choice::These((0..disk.undecided()).map(|unit| unit >= first).collect()));
        (0..disk.undecided()).rev().take(16).map(last).find(|disk| frames(disk).last().is_some_and(|frame| frame.1 == 4))
    });
    let disk = torn.unwrap();
    let log = repair(&disk, OnDamage::Refuse).unwrap();
    assert_eq!((log.start_lsn(), log.last_lsn()), (Lsn(1), Lsn(10)));
    (11..=40).for_each(|_| _ = log.commit(&record).unwrap());
    log.close().unwrap();
    let damaged = frames(&disk)[6].0;
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        // The seventh record, and the LINK of the fork: flipped, or lost.
        for (file, at, is_zero) in [(1, damaged, false), (2, 1, false), (2, 1, true)] {
            let disk = disk.copy();
            let done = match is_zero {
                true => disk.overwrite(segment(file), at * 4096, &[0; 4096]),
                false => disk.flip(segment(file), at * 4096 + 700, 1),
            };
            assert!(done);
            let repaired = repair(&disk, action).unwrap();
            let first = repaired.get(Lsn(1)).ok();
            assert!(first.is_some_and(|first| first == record), "{action:?}, segment {file}: {:?}", repaired.recovery());
        }
    }
}

/// A directory could not be made for want of something that no block of the reserve is: the repair
/// failed, and had given up all of it that it could.
#[test]
fn a_repair_that_no_room_helps_leaves_the_reserve() {
    let disk = crashed_after(40);
    let newest = newest(&disk);
    assert!(disk.flip(segment(newest), 20, 1)); // Its HEADER: it is moved.
    disk.fault(Fault::new(OpKind::CreateDir, Effect::NoSpace).forever());
    let reserve = |disk: &SimDisk| -> Vec<_> {
        disk.files().into_iter().filter(|(file, _)| file.to_string_lossy().contains("RESERVE")).collect()
    };
    let before = reserve(&disk);
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let refused = repair(&disk, action).map(drop);
        assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
        assert_eq!(before, reserve(&disk));
    }
}

/// An empty file with the highest name that a log may reach. A repair went on in the next, and what
/// was committed there could not be read again: no LINK of it counts.
#[test]
fn a_file_with_the_highest_name() {
    for below in 1..=3 {
        for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
            let disk = crashed_after(40);
            let name = format!("{:020}.seg", (1u64 << 55) - below);
            drop(disk.handle().open_dir("/log".as_ref()).unwrap().create_like(&name, "LOG").unwrap());
            let log = repair(&disk, action).unwrap();
            let last = (0..60).map(|_| log.commit(&[7; 60_000]).unwrap()).last();
            log.close().unwrap();
            let again = repair(&disk, OnDamage::Refuse).map(|log| log.last_lsn());
            assert_eq!(again.as_ref().ok(), last.as_ref(), "{action:?}: {again:?}");
        }
    }
}
