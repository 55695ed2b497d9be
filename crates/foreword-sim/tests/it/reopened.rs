//! Openings and repairs that died, and what the next ones make of what they left.

mod misled;
mod repairs;

use foreword::{Error, Log, Options, SyncPolicy, Verdict};
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
