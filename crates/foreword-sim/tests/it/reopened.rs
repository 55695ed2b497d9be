//! Openings and repairs that died, and what the next ones make of what they left.

use foreword::{Error, Log, Lsn, OnDamage, Options, SyncPolicy, Verdict};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

fn options(disk: &SimDisk, segment_bytes: u64) -> Options {
    let options = Options::new().segment_bytes(segment_bytes).background(false).sync(SyncPolicy::manual());
    options.on_error(|_| ()).disk(disk.handle())
}

fn open(disk: &SimDisk) -> foreword::Result<Log> {
    options(disk, 64 << 10).open("/log")
}

/// Opens the log, and is killed then at the latest.
fn open_and_die(disk: &SimDisk) {
    drop(open(disk).map(std::mem::forget));
}

/// Runs the work with the power failing at each change. Returns the disks as they are then.
fn at_each_change(base: &SimDisk, run: impl Fn(&SimDisk)) -> Vec<SimDisk> {
    let whole = base.copy();
    run(&whole);
    let dead = |change| {
        let disk = base.copy();
        disk.power_off_at(change);
        run(&disk);
        disk
    };
    (base.changes() + 1..=whole.changes()).map(dead).collect()
}

fn segment(epoch: u64) -> String {
    format!("/log/{epoch:020}.seg")
}

/// Whether a segment is there, and has a LINK.
fn has_link(disk: &SimDisk, epoch: u64) -> bool {
    disk.peek(segment(epoch), 4096, 4).is_some_and(|magic| magic == b"FWRD")
}

/// The newest segment that has a LINK.
fn newest(disk: &SimDisk) -> u64 {
    (1..40).rev().find(|&epoch| has_link(disk, epoch)).unwrap()
}

/// A log of segments of 1 MiB, when the power had failed behind so many commits.
fn crashed_after(commits: u64) -> SimDisk {
    let disk = SimDisk::new(1);
    let log = options(&disk, 1 << 20).open("/log").unwrap();
    (0..commits).for_each(|_| _ = log.commit(&[7; 60_000]).unwrap());
    let crashed = disk.crash(&Choice::None);
    drop(log);
    crashed
}

/// What an opening of such a log leaves that is killed just before this segment, with which its fork
/// begins, gets its LINK.
fn killed_before_joining(crashed: &SimDisk, epoch: u64) -> SimDisk {
    let open_and_die = |disk: &SimDisk| drop(options(disk, 1 << 20).open("/log").map(std::mem::forget));
    let killed = at_each_change(crashed, open_and_die).into_iter().map(|disk| disk.kill());
    killed.filter(|disk| !has_link(disk, epoch)).last().unwrap()
}

/// A log of one large segment, whose process was killed: the records that no promise covers fill
/// several of those that it is opened with.
fn burst(records: u64) -> SimDisk {
    let disk = SimDisk::new(1);
    let log = options(&disk, 4 << 20).open("/log").unwrap();
    log.commit(b"one").unwrap();
    (0..records).for_each(|_| _ = log.append(&[7; 12_000]).unwrap());
    log.write().unwrap();
    let killed = disk.kill();
    drop(log);
    killed
}

/// An opening died in its fork over several segments. The next was killed while it took their LINKs
/// back: one of them was zeros in the page cache alone. The third saw no LINK there, and
/// removed the files from the oldest on. The power failed, and the disk had a LINK whose predecessor
/// was gone: `LostSegment`, of a segment that never was the log's.
#[test]
fn a_link_that_is_taken_back_in_the_page_cache_alone() {
    let burst = burst(16);
    let newest = |disk: &SimDisk| (2..40).rev().find(|&epoch| has_link(disk, epoch)).unwrap_or(0);
    let forked = at_each_change(&burst, open_and_die).into_iter().map(|disk| disk.kill());
    let forked = forked.filter(|disk| newest(disk) >= 4 && !has_link(disk, 2)).last().unwrap();
    let takes_back = |disk: &SimDisk| newest(disk) + 1 < newest(&forked);
    let second = at_each_change(&forked, open_and_die).into_iter().map(|disk| disk.kill()).find(takes_back).unwrap();
    let mut refused = Vec::new();
    for third in at_each_change(&second, open_and_die).into_iter().take(12) {
        // Of what was not synced the first removals reached the disk, and nothing else.
        for removed in 0..6 {
            let kept = (0..third.undecided()).map(|unit| unit < removed).collect();
            refused.extend(open(&third.crash(&Choice::These(kept))).err().map(|error| error.to_string()));
        }
    }
    assert!(refused.is_empty(), "{} refused: {}", refused.len(), refused[0]);
}

/// A fork over several segments found no room, and could not take back a LINK of what it had begun
/// (an I/O error; or no space, where a file system writes in no place twice). It began anew under the
/// same name, and joined the log: then that LINK was the newest, and what was committed could not be
/// read.
#[test]
fn a_fork_that_could_not_take_back_what_it_had_begun() {
    let disk = burst(150);
    disk.set_free(25 * (64 << 10));
    disk.fault(Fault::new(OpKind::DurableWrite, Effect::Eio).forever().on(&segment(3)));
    let opened = open(&disk);
    let opened = opened.or_else(|error| {
        assert!(matches!(error, Error::Io { .. } | Error::NoSpace { .. }), "{error}");
        disk.heal();
        disk.set_capacity(None);
        open(&disk)
    });
    let log = opened.unwrap();
    disk.heal();
    disk.set_capacity(None);
    let acknowledged = log.commit(b"more").unwrap();
    let after = disk.crash(&Choice::All);
    drop(log);
    let opened = open(&after).map(|log| log.last_lsn());
    assert!(opened.as_ref().is_ok_and(|last| *last >= acknowledged), "{acknowledged}: {opened:?}");
}

/// The newest segment was lost, and the SEAL of the one before says so. But an opening had died in a
/// fork over several segments: then one of these was the newest that has a LINK, and has no SEAL.
/// `verify` took the loss of what was committed for a torn tail. (So does opening at first; it removes
/// the fork, with the copies of what is lost, and sees it then; if it can.)
#[test]
fn a_newest_segment_that_is_lost_beside_an_unfinished_fork() {
    let open = |disk: &SimDisk| options(disk, 1 << 20).open("/log");
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    log.commit(b"one").unwrap();
    (0..200).for_each(|_| _ = log.append(&[7; 12_000]).unwrap());
    let last = log.commit(b"last").unwrap();
    let crashed = disk.crash(&Choice::None);
    drop(log);
    let newest = newest(&crashed);
    let (mut states, mut silent) = (0, Vec::new());
    for dead in at_each_change(&crashed, |disk| drop(open(disk).map(std::mem::forget))) {
        let after = dead.crash(&Choice::None);
        if has_link(&after, newest + 1) || !after.lose(segment(newest)) {
            continue; // The fork is the log by now.
        }
        states += 1;
        let verified = foreword::Verify::new().disk(after.handle()).run("/log").unwrap();
        let opened = open(&after.copy()).map(|log| log.last_lsn());
        if !matches!(verified.verdict, Some(Verdict::Corruption(_))) && !opened.as_ref().is_ok_and(|end| *end == last) {
            silent.push(format!("{:?}, up to {}; open: {opened:?}", verified.verdict, verified.last_lsn));
        }
        // The same where the fork cannot be removed.
        after.fault(Fault::new(OpKind::Remove, Effect::Eio).on(&segment(newest + 2)));
        let opened = open(&after).map(|log| log.last_lsn());
        if opened.as_ref().is_ok_and(|end| *end != last) {
            silent.push(format!("open: {opened:?}"));
        }
    }
    assert!(
        silent.is_empty(),
        "{} in {states} states, without {last}: {:?}",
        silent.len(),
        &silent[silent.len().saturating_sub(2)..]
    );
}

/// On a full disk openings make a segment of the reserve. Where that fails, the part of the reserve
/// is gone, and its space is another program's: then the log does not open any more.
#[test]
fn an_opening_that_fails_on_a_full_disk_keeps_the_reserve() {
    let open = |disk: &SimDisk| options(disk, 1 << 20).open("/log");
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    (0..8).for_each(|_| _ = log.commit(&[7; 60_000]).unwrap());
    let disk = disk.kill();
    drop(log);
    for _ in 0..2 {
        disk.set_free(0);
        disk.fault(Fault::new(OpKind::Write, Effect::Eio).forever().on(".seg.tmp"));
        assert!(matches!(open(&disk), Err(Error::Io { .. } | Error::NoSpace { .. })));
        disk.heal();
    }
    disk.set_free(0);
    let opened = open(&disk).map(drop);
    assert!(opened.is_ok(), "{opened:?}, {:?}", disk.files());
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

/// A log of some segments of 1 MiB with a flipped bit in the second.
fn damaged() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = options(&disk, 1 << 20).open("/log").unwrap();
    (0..60).for_each(|_| _ = log.commit(&[7; 60_000]).unwrap());
    log.close().unwrap();
    assert!(disk.flip(segment(2), 300_000, 3));
    disk
}

fn repair(disk: &SimDisk, action: OnDamage) -> foreword::Result<Log> {
    options(disk, 1 << 20).on_damage(action).open("/log")
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
        let more = disk.used().saturating_sub(before + holds);
        assert!(more == 0 && aside.is_empty(), "{action:?}: {more} bytes more, {aside:?}");
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
    let forked = killed_before_joining(&crashed, newest + 1);
    assert!(forked.flip(segment(1), 20 * 4096 + 700, 1));
    let mut lost = Vec::new();
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        for dead in at_each_change(&forked, |disk| drop(repair(disk, action).map(std::mem::forget))) {
            let verified = foreword::Verify::new().disk(dead.kill().handle()).run("/log").unwrap();
            let verdict = verified.verdict.unwrap();
            lost.extend(matches!(&verdict, Verdict::Corruption(damage) if damage.evidence.contains("sealed")).then_some(verdict));
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

/// An opening was killed when it had taken back the LINKs of a fork, the last of them in the page
/// cache alone. The next could not remove that file, and went on beside it. The power failed, and
/// the LINK was there again: the newest, which led to where the fork had been.
#[test]
fn a_link_that_is_taken_back_of_a_file_that_stays() {
    let burst = burst(16);
    let links = |disk: &SimDisk| (2..40).filter(|&epoch| has_link(disk, epoch)).count();
    let forked = at_each_change(&burst, open_and_die).into_iter().map(|disk| disk.kill());
    let forked = forked.filter(|disk| links(disk) >= 2 && !has_link(disk, 2)).last().unwrap();
    let seconds = at_each_change(&forked, open_and_die).into_iter().map(|disk| disk.kill());
    let (mut states, mut lost) = (0, Vec::new());
    for disk in seconds.filter(|disk| links(disk) == 0 && disk.peek(segment(3), 0, 1).is_some()) {
        disk.fault(Fault::new(OpKind::Remove, Effect::Eio).forever().on(&segment(3)));
        // (In one large segment, and without a spare: either would be made in its place. Of another
        // size than the superseded one, of which a spare would be made.)
        let Ok(log) = options(&disk, 2 << 20).spare_segments(0).open("/log") else { continue };
        let acknowledged = log.commit(b"more").unwrap();
        let after = disk.crash(&Choice::None);
        drop(log);
        states += 1;
        let opened = open(&after).map(|log| log.last_lsn());
        lost.extend((!opened.as_ref().is_ok_and(|last| *last >= acknowledged)).then_some((acknowledged, opened)));
    }
    assert!(states > 0 && lost.is_empty(), "{} of {states}: {lost:?}", lost.len());
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
