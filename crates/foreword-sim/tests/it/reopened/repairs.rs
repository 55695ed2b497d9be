//! Repairs that died, and repairs of what openings have left that died.

use foreword::{Lsn, OnDamage};

use super::*;

/// A log of some segments of 1 MiB with a flipped bit in the second.
fn damaged() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = options(&disk, 1 << 20).open("/log").unwrap();
    (0..60).for_each(|_| _ = log.commit(&[7; 60_000]).unwrap());
    log.close().unwrap();
    assert!(disk.flip(segment(2), 300_000, 3));
    disk
}

pub(super) fn repair(disk: &SimDisk, action: OnDamage) -> foreword::Result<Log> {
    options(disk, 1 << 20).on_damage(action).open("/log")
}

/// The records of a log, without those that were given up.
fn readable(log: &Log) -> Vec<(u64, Vec<u8>)> {
    let lsns = log.start_lsn().0..=log.last_lsn().0;
    lsns.filter_map(|lsn| Some((lsn, log.get(Lsn(lsn)).ok()?))).collect()
}

/// A cut at the back counted, and the segments that it superseded could not be removed yet. A
/// salvage of a record before the cut went on in those, and lost what was committed behind the cut.
#[test]
fn a_salvage_before_a_cut_whose_segments_are_still_there() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    let record = |lsn: u64, generation: u64| [lsn as u8, generation as u8].repeat(2_000);
    (1..=40).for_each(|lsn| _ = log.commit(&record(lsn, 1)).unwrap());
    disk.fault(Fault::new(OpKind::Remove, Effect::Eio).forever());
    log.truncate_back(Lsn(14)).unwrap();
    (14..=20).for_each(|lsn| _ = log.commit(&record(lsn, 2)).unwrap());
    let after = disk.crash(&Choice::None);
    drop(log);
    let is_data = |disk: &SimDisk, epoch, block: u64| {
        disk.peek(segment(epoch), block * 4096, 13).is_some_and(|head| head[..4] == *b"FWRD" && head[12] == 3)
    };
    let mut wrong = Vec::new();
    for (epoch, block) in (1..20).flat_map(|epoch| (2..15).map(move |block| (epoch, block))) {
        if !is_data(&after, epoch, block) {
            continue;
        }
        let disk = after.copy();
        disk.flip(segment(epoch), block * 4096 + 700, 1);
        let log = options(&disk, 64 << 10).on_damage(OnDamage::Salvage).open("/log").unwrap();
        let records = readable(&log);
        let right = records.iter().all(|(lsn, data)| *data == record(*lsn, if *lsn < 14 { 1 } else { 2 }));
        if !right || records.len() < 19 {
            let lsns: Vec<_> = records.iter().map(|record| record.0).collect();
            wrong.push(format!("segment {epoch}, block {block}: {lsns:?}, all as committed: {right}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The newest segment's HEADER was damaged when an opening had died that wrote its records again. A
/// repair took the copies that there were for the log's end, and did not tell of the records behind.
#[test]
fn a_repair_tells_of_what_an_unfinished_fork_lacks() {
    let disk = SimDisk::new(1);
    let log = options(&disk, 1 << 20).open("/log").unwrap();
    (0..20).for_each(|_| _ = log.commit(&[7; 60_000]).unwrap());
    (0..20).for_each(|_| _ = log.append(&[7; 12_000]).unwrap());
    let last = log.commit(b"last").unwrap();
    let crashed = disk.crash(&Choice::None);
    drop(log);
    let newest = newest(&crashed);
    let mut untold = Vec::new();
    for (change, dead) in at_each_change(&crashed, open_and_die).into_iter().enumerate() {
        let dead = dead.crash(&Choice::None);
        if !has_link(&dead, newest) || has_link(&dead, newest + 1) {
            continue; // The fork is the log by now.
        }
        dead.flip(segment(newest), 20, 1);
        for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
            let log = repair(&dead.copy(), action).unwrap();
            let report = log.recovery();
            let given_up = |lsn: Lsn| report.given_up.iter().any(|(first, end)| (*first..=*end).contains(&lsn));
            let told = |lsn: Lsn| given_up(lsn) || report.unknown_from.is_some_and(|from| lsn >= from);
            let lost = (1..=last.0).map(Lsn).find(|lsn| log.get(*lsn).is_err() && !told(*lsn));
            untold.extend(lost.map(|lsn| format!("{action:?}, died in change {change}: {lsn} to {last}, {:?}", report.given_up)));
        }
    }
    assert!(untold.is_empty(), "{untold:#?}");
}

/// A salvage wrote a large record again over many segments, and was killed. The next took each of them for
/// what follows the damage, behind a stretch of its own: too many, and it was refused.
#[test]
fn a_salvage_that_is_killed_in_its_fork_can_be_done_again() {
    let salvage = |disk: &SimDisk| options(disk, 64 << 10).on_damage(OnDamage::Salvage).open("/log");
    let disk = SimDisk::new(1);
    let log = options(&disk, 4 << 20).open("/log").unwrap();
    log.commit(&[7; 3_000_000]).unwrap();
    let cut = disk.crash(&Choice::None);
    drop(log);
    assert!(cut.cut(segment(1), (4 << 20) - 10_000)); // Behind the record.
    let whole = cut.copy();
    let last = salvage(&whole).unwrap().last_lsn();
    let mut refused = Vec::new();
    for change in (whole.changes() - 280..=whole.changes()).step_by(40) {
        let disk = cut.copy();
        disk.power_off_at(change);
        drop(salvage(&disk).map(std::mem::forget));
        let again = salvage(&disk.kill()).map(|log| log.last_lsn());
        if again.as_ref().ok() != Some(&last) {
            refused.push(format!("killed in change {change}: {:?}", again.map_err(|error| error.to_string())));
        }
    }
    assert!(refused.is_empty(), "{} refused: {}", refused.len(), refused[0]);
}

/// How much more a log has after repairs that were killed in this change.
fn added_by_killed_repairs(action: OnDamage, change: u64) -> u64 {
    let mut disk = damaged();
    let whole = disk.copy();
    drop(repair(&whole, action).unwrap());
    for _ in 0..10 {
        disk.power_off_at(disk.changes() + change);
        drop(repair(&disk, action).map(std::mem::forget));
        disk = disk.kill();
    }
    drop(repair(&disk, action).unwrap());
    disk.used().saturating_sub(whole.used())
}

/// Each repair that is killed leaves another copy of what is damaged, and a segment. One that stops
/// at the damage puts those of all others aside, as if they were evidence.
#[test]
fn repairs_that_are_killed_do_not_add_up() {
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let worst = (1..40).map(|change| (added_by_killed_repairs(action, change), change)).max().unwrap();
        assert!(worst.0 <= 4 << 20, "{action:?}: {} bytes more, killed in change {}", worst.0, worst.1);
    }
}

/// A repair that finds no room leaves a part of a copy, and takes what room there was. (An empty one
/// is a place that is kept for a segment.)
#[test]
fn a_repair_without_room_leaves_nothing() {
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let disk = damaged();
        let before = disk.used();
        disk.set_free(300 << 10);
        for _ in 0..5 {
            assert!(matches!(repair(&disk, action), Err(Error::NoSpace { .. })));
        }
        let (aside, others): (Vec<_>, Vec<_>) = disk.files().into_iter().partition(|file| file.0.starts_with("/log/damaged"));
        let holds: u64 = others.iter().filter(|file| *file.0 == *"/log/HOLDS").map(|file| file.1).sum();
        let directory = 4096;
        let more = disk.used().saturating_sub(before + holds + directory);
        assert!(more == 0 && aside.is_empty(), "{action:?}: {more} bytes more, {aside:?}");
    }
}

/// On a full disk there was no room for the directory of what is put aside, and a repair that only
/// moves files there failed. Where it is to have a copy there, it changes nothing, and says how much
/// that takes.
#[test]
fn a_repair_on_a_full_disk_has_room_for_its_directory() {
    for segment_bytes in [128 << 10, 1 << 20] {
        let open = |disk: &SimDisk, action| options(disk, segment_bytes).on_damage(action).open("/log");
        let disk = SimDisk::new(1);
        let log = open(&disk, OnDamage::Refuse).unwrap();
        (0..40).for_each(|_| _ = log.commit(&[7; 60_000]).unwrap());
        let crashed = disk.crash(&Choice::None);
        drop(log);
        let newest = newest(&crashed);
        crashed.set_free(0);
        for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
            let disk = crashed.copy();
            assert!(disk.flip(segment(newest), 20, 1)); // Its HEADER: it is moved.
            let repaired = open(&disk, action).unwrap();
            assert!(!repaired.recovery().put_aside.is_empty() && repaired.get(Lsn(1)).is_ok(), "{action:?}");
            let kept = format!("/log/damaged/{newest:020}.seg");
            assert!(disk.files().iter().any(|file| *file.0 == *kept && file.1 == segment_bytes));
            std::mem::forget(repaired);
            let again = disk.kill();
            again.set_free(0);
            drop(open(&again, OnDamage::Refuse).unwrap());

            let disk = crashed.copy();
            assert!(disk.flip(segment(newest - 1), 8192 + 700, 1)); // It stays, and so it is copied.
            // (A segment that was prepared may go.)
            let kept = |disk: &SimDisk| {
                let mut files = disk.files();
                files.retain(|(file, _)| {
                    let name = file.to_string_lossy();
                    *name <= *segment(newest) || name.contains("damaged/") || name.contains("RESERVE")
                });
                files
            };
            let before = kept(&disk);
            let refused = open(&disk, action).map(drop);
            let asks_for = |bytes| bytes == Some(segment_bytes);
            assert!(matches!(&refused, Err(Error::NoSpace { bytes, .. }) if asks_for(*bytes)), "{refused:?}");
            assert_eq!(kept(&disk), before, "{action:?}");
        }
    }
}

/// A repair on a full disk that is killed: each takes a part of the reserve for a segment of another
/// epoch, and the third finds none.
#[test]
fn a_repair_on_a_full_disk_can_be_killed_however_often() {
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let crashed = crashed_after(60);
        let newest = newest(&crashed);
        assert!(crashed.lose(segment(newest)));
        crashed.set_free(0);
        let whole = crashed.copy();
        drop(repair(&whole, action).unwrap());
        let mut stuck = Vec::new();
        for change in 1..=whole.changes() - crashed.changes() {
            let mut disk = crashed.copy();
            for _ in 0..4 {
                disk.set_free(0);
                disk.power_off_at(disk.changes() + change);
                drop(repair(&disk, action).map(std::mem::forget));
                disk = disk.kill();
            }
            disk.set_free(0);
            stuck.extend(repair(&disk.copy(), action).err().map(|error| (change, error.to_string())));
            disk.set_capacity(None);
            let log = repair(&disk, action).unwrap();
            log.commit(b"more").unwrap();
            log.close().unwrap();
            let again = options(&disk, 1 << 20).open("/log").unwrap();
            assert_eq!(again.recovery().verdict, Verdict::Clean);
        }
        assert!(stuck.is_empty(), "{action:?}: {stuck:#?}");
    }
}

fn salvage(disk: &SimDisk) -> Log {
    repair(disk, OnDamage::Salvage).unwrap()
}

/// What an opening had written again when it died was all that was left of the last records, once
/// the segment with these was damaged. A repair took it for something that is nowhere lost, and
/// removed it.
#[test]
fn a_repair_keeps_what_an_unfinished_fork_alone_has() {
    let record = |n: u8| vec![n; 60_000];
    let disk = SimDisk::new(1);
    let log = options(&disk, 1 << 20).open("/log").unwrap();
    (1..=4).for_each(|n| _ = log.commit(&record(n)).unwrap());
    let crashed = disk.crash(&Choice::None);
    drop(log);
    let forked = killed_before_joining(&crashed, 2);
    let is_frame = |epoch, block| forked.peek(segment(epoch), block * 4096, 4).is_some_and(|magic| magic == b"FWRD");
    let frames = |epoch| (2..200).filter(|&block| is_frame(epoch, block)).collect::<Vec<_>>();
    let last = frames(1)[3];
    assert!(!frames(2).is_empty());
    assert!(forked.flip(segment(1), last * 4096 + 700, 1));
    let salvaged = salvage(&forked.copy());
    assert_eq!(salvaged.get(Lsn(4)).ok(), Some(record(4)), "{:?}", salvaged.recovery());
    drop(repair(&forked, OnDamage::StopAtDamage).unwrap());
    let aside = format!("/log/damaged/{:020}.seg", 2);
    assert!(forked.peek(&aside, 2 * 4096, 4).is_some_and(|magic| magic == b"FWRD"), "{:?}", forked.files());
}

/// A log of one segment, all of which an opening wrote again after a crash: no frame of it promises
/// anything behind its LINK. When that was lost, a salvage took the segment for a fork that did not
/// come to its end.
#[test]
fn a_salvage_of_a_log_without_its_first_link() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    log.commit(b"one").unwrap();
    let crashed = disk.crash(&Choice::None);
    drop(log);
    open_and_die(&crashed);
    let crashed = crashed.crash(&Choice::None);
    assert!(has_link(&crashed, 2) && !has_link(&crashed, 1));
    assert!(crashed.overwrite(segment(2), 4096, &[0; 4096]));
    let salvaged = salvage(&crashed);
    assert_eq!(salvaged.get(Lsn(1)).ok(), Some(b"one".to_vec()), "{:?}", salvaged.recovery());
}

/// A repair cleared away the file for which the newest segment's SEAL vouches, and was killed: then
/// the log seemed to have lost its newest segment.
#[test]
fn a_killed_repair_does_not_lose_what_a_seal_vouches_for() {
    let crashed = crashed_after(40);
    let newest = newest(&crashed);
    let is_sealed = |disk: &SimDisk| disk.peek(segment(newest), (1 << 20) - 4096, 4).is_some_and(|magic| magic == b"FWRD");
    let open_and_die = |disk: &SimDisk| drop(repair(disk, OnDamage::Refuse).map(std::mem::forget));
    let killed = at_each_change(&crashed, open_and_die).into_iter().map(|disk| disk.kill());
    // The file is empty, or has copies of what is nowhere lost.
    let sealed: Vec<_> = killed.filter(|disk| is_sealed(disk) && !has_link(disk, newest + 1)).collect();
    let mut lost = Vec::new();
    for forked in [sealed.first().unwrap(), sealed.last().unwrap()] {
        assert!(forked.flip(segment(1), 20 * 4096 + 700, 1));
        for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
            for dead in at_each_change(forked, |disk| drop(repair(disk, action).map(std::mem::forget))) {
                let verified = foreword::Verify::new().disk(dead.kill().handle()).run("/log").unwrap();
                let is_lost =
                    |verdict: &Verdict| matches!(verdict, Verdict::Corruption(damage) if damage.evidence.contains("sealed"));
                lost.extend(verified.verdict.filter(is_lost));
            }
        }
    }
    assert!(lost.is_empty(), "{} times: {:?}", lost.len(), lost[0]);
}

/// The newest segment was lost, and the SEAL before it damaged, when an opening had died that wrote
/// again what was in it: that is what promises it. A repair cleared the fork away, and gave the
/// epoch of the lost segment to another.
#[test]
fn a_repair_gives_no_epoch_twice() {
    let crashed = crashed_after(40);
    let newest = newest(&crashed);
    let forked = killed_before_joining(&crashed, newest + 1);
    assert!(forked.lose(segment(newest)) && forked.overwrite(segment(newest - 1), (1 << 20) - 4096, &[0; 4096]));
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let disk = forked.copy();
        let repaired = repair(&disk, action).unwrap();
        assert!(!has_link(&disk, newest), "{action:?}: {:?}", repaired.recovery());
    }
}

/// The segments behind the first of a fork were lost. The LINK of the first promises all of them, and
/// stays. A repair gave the epoch of one of them to another segment: the promise was taken for one
/// of what had been written there. So the next opening did not make it durable, and a power failure
/// took what had been acknowledged.
#[test]
fn a_repair_gives_no_promised_epoch_to_another() {
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let repair = |disk: &SimDisk| repair(disk, action).unwrap();
        let disk = burst(20);
        open_and_die(&disk);
        let (disk, last) = (disk.crash(&Choice::None), newest(&disk));
        assert!(last >= 5 && (3..=last).all(|epoch| disk.lose(segment(epoch))), "{last}");
        let log = repair(&disk);
        // (So much that the next opening does not write it again.)
        (0..8).for_each(|_| _ = log.commit(&[7; 60_000]).unwrap());
        log.append(b"more").unwrap();
        log.write().unwrap();
        let killed = disk.kill();
        drop(log);
        let log = repair(&killed);
        let durable = log.durable_lsn();
        let after = killed.crash(&Choice::None);
        drop(log);
        let last = repair(&after).last_lsn();
        assert!(last >= durable, "{action:?}: {last}, but {durable} was durable");
    }
}

/// The newest segment was lost, and the LINK of the one before damaged. A salvage gave up that LINK,
/// and did not look whether the log had gone on behind its segment: it told nothing of what was lost
/// there.
#[test]
fn a_salvage_tells_of_what_is_lost_behind_a_link_that_it_gives_up() {
    let disk = crashed_after(60);
    let newest = newest(&disk);
    assert!(disk.flip(segment(newest - 1), 4096 + 700, 1) && disk.lose(segment(newest)));
    let salvaged = salvage(&disk);
    let (last, report) = (salvaged.last_lsn(), salvaged.recovery());
    assert!(last < Lsn(60) && salvaged.get(last).is_ok());
    assert!(report.unknown_from.is_some_and(|from| from <= Lsn(60)), "{report:?}");
}

fn crc32c(parts: &[&[u8]]) -> [u8; 4] {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part)).to_le_bytes()
}

/// A LINK that names its own segment as the predecessor, with right checksums. A repair that follows
/// the LINKs came to no end.
#[test]
fn a_link_that_leads_to_itself() {
    let disk = damaged();
    let newest = newest(&disk);
    let uuid = disk.peek(segment(newest), 72, 16).unwrap();
    let mut link = disk.peek(segment(newest), 4096, 4096).unwrap();
    link[80..88].copy_from_slice(&newest.to_le_bytes());
    let body = crc32c(&[&link[80..]]);
    link[8..12].copy_from_slice(&body);
    let header = crc32c(&[&uuid, &newest.to_le_bytes(), &1u64.to_le_bytes(), &link[8..80]]);
    link[4..8].copy_from_slice(&header);
    assert!(disk.overwrite(segment(newest), 4096, &link));
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let repaired = repair(&disk.copy(), action).map(|log| log.last_lsn());
        assert!(repaired.as_ref().is_ok_and(|last| *last > Lsn::ZERO), "{action:?}: {repaired:?}");
    }
}
