//! What a log's directory takes of its disk at every instant, whatever was killed before: the
//! directories to which kills can lead are found and tried, one after the other, until there is
//! none of another kind (or, if there are too many, up to a limit).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use foreword::disk::Access;
use foreword::{Durability, Error, Log, Lsn, Options};
use foreword_sim::{Choice, SimDisk};
use foreword_tests::hooked::{Op, hooked};
use foreword_tests::*;

const MIB: u64 = 1 << 20;

/// A file of a kind of directory: by its name, in which the epoch is counted back from the newest,
/// its length, and the frames that it has.
type Kind = Vec<(String, u64, Vec<(usize, [u8; 2], [u64; 5])>)>;

/// What an opening finds, but for the numbers that rise with each. What is only in the page cache
/// is there like all else: to a process that is killed that makes no difference.
fn kind(disk: &SimDisk) -> (Kind, u64) {
    let files = disk.files();
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let epoch = |name: &str| name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
    let newest = files.iter().filter_map(|(path, _)| epoch(&name(path))).max().unwrap_or(0);
    let back = |epoch: u64| if epoch == 0 { u64::MAX } else { newest.wrapping_sub(epoch) };
    let mut kind: Kind = Vec::new();
    for (path, len) in files {
        let name = name(&path);
        let Some(own) = epoch(&name) else {
            kind.push((name, len, Vec::new()));
            continue;
        };
        let mut frames = Vec::new();
        let bytes = disk.peek(&path, 0, len as usize).unwrap();
        for (block, sector) in bytes.chunks_exact(BLOCK).enumerate() {
            let u64_at = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().unwrap());
            let u32_at = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().unwrap());
            // What a recycled file had before reads as unwritten.
            if u64::from(u32_at(504)) == own & u64::from(u32::MAX) {
                let pred = if sector[12] == LINK { back(u64_at(80)) } else { 0 };
                let numbers = [back(u64_at(32)), u64::from(u32_at(28)), u64_at(40), u64_at(48), pred];
                frames.push((block, [sector[12], sector[13]], if sector[12] == HEADER { [0; 5] } else { numbers }));
            }
        }
        kind.push((format!("{}{}", back(own), &name[20..]), len, frames));
    }
    (kind, disk.used())
}

/// All kinds of directories that come about when one of `works` is done on a disk and killed in any
/// operation, again and again.
struct Search<'a> {
    works: &'a [&'a dyn Fn(Options) -> Result<(), Error>],
    /// What may be taken at any instant, and in how many files.
    bound: (u64, usize),
    /// Not only kills, but power failures, too.
    power: bool,
    /// Another program takes all space that is freed, at once.
    eaten: bool,
    /// The most kinds of directories to try, those first that the fewest kills lead to.
    limit: usize,
}

impl Search<'_> {
    fn run(&self, what: &str, start: SimDisk) {
        let of = |disk: &SimDisk| (kind(disk), self.power.then(|| kind(&disk.crash(&Choice::None))));
        let mut known = HashSet::from([of(&start)]);
        // Each with how it came about: which work was killed in which change.
        let mut queue = VecDeque::from([(start, String::new())]);
        let (mut most, mut most_files, mut tries) = (0, 0, 0);
        let mut tried = 0;
        while tried < self.limit
            && let Some((base, path)) = queue.pop_front()
        {
            tried += 1;
            for (number, work) in self.works.iter().enumerate() {
                for change in 1.. {
                    let disk = base.copy();
                    disk.power_off_at(change);
                    let peak = Arc::new(AtomicU64::new(0));
                    let (seen, told, eaten) = (disk.clone(), peak.clone(), self.eaten);
                    let watched = hooked(disk.clone(), move |op, _| {
                        // Between any two of these, only what is taken already is read or written.
                        if matches!(op, Op::Allocate(_) | Op::SetLen | Op::Rename | Op::Remove | Op::Sync | Op::SyncDir) {
                            told.fetch_max(seen.used(), SeqCst);
                        }
                        if eaten {
                            seen.set_free(0);
                        }
                        Ok(())
                    });
                    let done = work(options().disk(watched));
                    let at = || format!("{what}:{path} {number}:{change}: {:#?}", disk.files());
                    if !disk.is_off() {
                        done.unwrap_or_else(|error| panic!("{error}, {}", at()));
                    }
                    let (bytes, files) = (peak.load(SeqCst).max(disk.used()), disk.files().len());
                    (most, most_files, tries) = (most.max(bytes), most_files.max(files), tries + 1);
                    assert!(bytes <= self.bound.0 && files <= self.bound.1, "{bytes} bytes in {files} files, {}", at());
                    let failed = [("none", Choice::None), ("all", Choice::All), ("some", Choice::Seed(change))];
                    let failed = failed.iter().filter(|_| self.power).map(|(how, choice)| (*how, disk.crash(choice)));
                    for (how, after) in std::iter::once(("kill", disk.kill())).chain(failed) {
                        if known.insert(of(&after)) {
                            queue.push_back((after, format!("{path} {number}:{change} {how},")));
                        }
                    }
                    if !disk.is_off() {
                        break;
                    }
                }
            }
        }
        println!(
            "{what}: {tried} of {} kinds of directories, {tries} kills: at most {} KiB in {most_files} files",
            known.len(),
            most >> 10
        );
    }
}

fn options() -> Options {
    small().segment_bytes(MIB).on_error(|_| ())
}

/// A log with records up to an LSN that was killed.
fn killed_log(records: u64, options: Options) -> SimDisk {
    let disk = SimDisk::new(1);
    let log = options.disk(disk.handle()).open("/log").unwrap();
    commit(&log, 1..records + 1);
    disk.kill()
}

/// Opens a log, which has the records up to this LSN, and perhaps one more.
fn open(options: Options, records: u64) -> Result<Log, Error> {
    let log = options.open("/log")?;
    let (found, error) = collect(log.iter(Lsn::ZERO));
    error.map_or(Ok(()), Err)?;
    assert!((records..=records + 1).contains(&(found.len() as u64)), "{} records of {records}", found.len());
    assert!(found.iter().all(|(lsn, data)| *data == record(*lsn)), "wrong bytes");
    Ok(log)
}

fn open_and_close(options: Options) -> Result<(), Error> {
    open(options, 0)?.close()
}

#[test]
fn openings_without_records() {
    Search { works: &[&open_and_close], bound: (4 * MIB, 7), power: false, eaten: false, limit: usize::MAX }
        .run("from nothing", SimDisk::new(1));
}

#[test]
fn openings_with_power_failures() {
    Search { works: &[&open_and_close], bound: (4 * MIB, 7), power: true, eaten: false, limit: 40 }
        .run("power failures", SimDisk::new(1));
}

#[test]
fn openings_of_a_log_with_records() {
    let work = |options: Options| open(options, 3)?.close();
    let search = Search { works: &[&work], bound: (4 * MIB, 7), power: true, eaten: false, limit: 40 };
    search.run("a few records", killed_log(3, options()));
}

#[test]
fn cuts_at_the_back() {
    let work = |options: Options| {
        let log = open(options, 3)?;
        log.truncate_back(Lsn(4))?;
        log.commit(&record(4))?;
        log.truncate_back(Lsn(4))?;
        log.close()
    };
    // (HOLDS is there, too.)
    let search = Search { works: &[&work], bound: (4 * MIB, 8), power: false, eaten: false, limit: usize::MAX };
    search.run("cuts", killed_log(3, options()));
}

#[test]
fn openings_with_spares() {
    let work = |options: Options| open(options.spare_segments(2), 3)?.close();
    let search = Search { works: &[&work], bound: (4 * MIB, 7), power: false, eaten: false, limit: usize::MAX };
    search.run("spares", killed_log(3, options()));
}

#[test]
fn openings_with_segments_of_several_sizes() {
    let (small, large) =
        (|options: Options| open(options, 3)?.close(), |options: Options| open(options.segment_bytes(2 * MIB), 3)?.close());
    let search = Search { works: &[&small, &large], bound: (8 * MIB, 8), power: false, eaten: false, limit: 60 };
    search.run("sizes", killed_log(3, options()));
}

#[test]
fn openings_on_a_full_disk() {
    let work = |options: Options| open(options, 3)?.close();
    let search = Search { works: &[&work], bound: (4 * MIB, 7), power: false, eaten: false, limit: usize::MAX };
    for free in [0, 400 << 10, MIB] {
        let disk = killed_log(3, options());
        disk.set_free(free);
        search.run(&format!("{} KiB left", free >> 10), disk);
    }
}

/// Records over several segments that were written and not durable when the log was killed: each
/// opening has to write all of them again.
struct Unproven {
    records: u64,
    len: usize,
}

const UNPROVEN: [Unproven; 2] = [Unproven { records: 1, len: 5 << 19 }, Unproven { records: 8, len: 5 << 16 }];

impl Unproven {
    fn killed_log(&self) -> SimDisk {
        let disk = SimDisk::new(1);
        let log = options().disk(disk.handle()).open("/log").unwrap();
        for lsn in 1..=self.records {
            log.append_with(self.record(lsn), Durability::Written).unwrap();
        }
        disk.kill()
    }

    fn record(&self, lsn: u64) -> Vec<u8> {
        vec![lsn as u8; self.len]
    }

    /// Opens a log that has at least some of the records, and closes it.
    fn open(&self, options: Options, least: u64) -> Result<(), Error> {
        let log = options.open("/log")?;
        let last = log.last_lsn().0;
        assert!((least..=self.records).contains(&last), "the last is {last}");
        for lsn in 1..=last {
            assert!(log.get(Lsn(lsn))? == self.record(lsn), "{lsn}");
        }
        log.close()
    }

    /// The changes of an opening.
    fn changes_of_opening(&self, start: &SimDisk) -> u64 {
        let disk = start.copy();
        self.open(options().disk(disk.handle()), self.records).unwrap();
        disk.changes() - start.changes()
    }
}

/// A log has at most what it had, what an opening that did not come to its end has written of it
/// again, and four segments more.
fn is_within_bounds(disk: &SimDisk, what: &dyn Fn() -> String) {
    assert!(disk.used() <= 10 * MIB && disk.files().len() <= 12, "{}: {:#?}", what(), disk.files());
}

/// Bug: what an opening that was killed had written was taken for the log's newest segments, and
/// stayed until one came to its end.
#[test]
fn openings_that_are_killed_while_they_write_records_again() {
    for unproven in UNPROVEN {
        let start = unproven.killed_log();
        for change in 1..=unproven.changes_of_opening(&start) {
            let mut disk = start.copy();
            for _ in 0..5 {
                disk.power_off_at(disk.changes() + change);
                drop(options().disk(disk.handle()).open("/log"));
                disk = disk.kill();
                is_within_bounds(&disk, &|| format!("{} records, change {change}", unproven.records));
            }
            unproven.open(options().disk(disk.handle()), unproven.records).unwrap();
        }
    }
}

/// Bug: each such opening took as much again, so that a service that is started again and again
/// filled its disk.
#[test]
fn openings_that_fail_while_they_write_records_again() {
    for unproven in UNPROVEN {
        let disk = unproven.killed_log();
        // To seal them is the last thing before the fork joins the log.
        for failing in (1..=3).map(segment_name) {
            for _ in 0..5 {
                let fails = failing.clone();
                let hooked = hooked(disk.clone(), move |op, name| match op {
                    Op::Open(Access::Write) if *name == fails => Err(std::io::Error::from_raw_os_error(24)),
                    _ => Ok(()),
                });
                unproven.open(options().disk(hooked), unproven.records).unwrap_err();
                is_within_bounds(&disk, &|| format!("{} records, {failing} fails", unproven.records));
            }
        }
        unproven.open(options().disk(disk.handle()), unproven.records).unwrap();
    }
}

/// Bug: the segments of a fork that found no room were removed from the oldest on. The next, whose
/// predecessor was gone, was taken for the front of a log that had lost what was before.
#[test]
fn an_opening_that_finds_no_room_to_write_records_again_and_is_killed() {
    let unproven = Unproven { records: 12, len: 5 << 16 };
    let start = unproven.killed_log();
    start.set_free(7 * MIB / 2);
    for change in 1..=unproven.changes_of_opening(&start) {
        let disk = start.copy();
        disk.power_off_at(disk.changes() + change);
        drop(options().disk(disk.handle()).open("/log"));
        let is_sound = |how: &str, disk: SimDisk, least: u64| {
            for limited in [true, false] {
                let disk = disk.copy();
                if !limited {
                    disk.set_capacity(None);
                }
                let opened = unproven.open(options().disk(disk.handle()), least);
                opened.unwrap_or_else(|e| panic!("change {change}, {how}: {e}, {:#?}", disk.files()));
            }
        };
        is_sound("a kill", disk.kill(), unproven.records);
        is_sound("a power failure", disk.crash(&Choice::None), 0);
        is_sound("a power failure", disk.crash(&Choice::Seed(change)), 0);
    }
}

/// The same in a cut: within a batch that lies in several segments.
#[test]
fn a_cut_that_finds_no_room_to_write_records_again_and_is_killed() {
    let records = 12;
    let unproven = Unproven { records, len: 5 << 16 };
    let start = SimDisk::new(1);
    let log = options().disk(start.handle()).open("/log").unwrap();
    log.commit_batch((1..=records).map(|lsn| unproven.record(lsn)).collect::<Vec<_>>().iter()).unwrap();
    log.close().unwrap();
    start.set_free(7 * MIB / 2);
    let cut = |disk: &SimDisk| {
        let log = options().disk(disk.handle()).open("/log")?;
        let cut = log.truncate_back(Lsn(records));
        log.close().and(cut)
    };
    let whole = start.copy();
    assert!(matches!(cut(&whole), Err(Error::NoSpace { .. })), "it finds room");
    for change in 1..=whole.changes() - start.changes() {
        let disk = start.copy();
        disk.power_off_at(disk.changes() + change);
        drop(cut(&disk));
        for (how, disk) in
            [("kill", disk.kill()), ("none", disk.crash(&Choice::None)), ("some", disk.crash(&Choice::Seed(change)))]
        {
            let opened = unproven.open(options().disk(disk.handle()), records);
            opened.unwrap_or_else(|e| panic!("change {change}, {how}: {e}, {:#?}", disk.files()));
        }
    }
}

/// Segments that hold more than the reserve has room for, each or together, which grow by openings,
/// cuts and checkpoints: none of these leaves a part of the reserve behind.
#[test]
fn openings_on_a_full_disk_with_more_records_than_the_reserve_holds() {
    for (segment_bytes, first, second) in [(MIB, 60, 60), (MIB, 120, 85), (4 * MIB, 150, 0)] {
        for eaten in [false, true] {
            let options = || options().segment_bytes(segment_bytes);
            let disk = killed_log(first, options());
            disk.set_free(0);
            let log = options().disk(disk.handle()).open("/log").unwrap();
            commit(&log, first + 1..first + second + 1);
            let (last, disk) = (first + second, disk.kill());
            let opens = |options: Options| open(options.segment_bytes(segment_bytes), last - 1)?.close();
            let cuts = |options: Options| {
                let log = open(options.segment_bytes(segment_bytes), last - 1)?;
                log.truncate_back(Lsn(last))?;
                log.commit(&record(last))?;
                log.close()
            };
            let checkpoints = |options: Options| {
                let log = open(options.segment_bytes(segment_bytes), last - 1)?;
                log.truncate_back(Lsn(last))?;
                log.commit_checkpoint(&record(last))?;
                log.close()
            };
            let search = Search {
                works: &[&opens, &cuts, &checkpoints],
                bound: (segment_bytes + 4 * MIB, 8),
                power: false,
                eaten,
                limit: 4,
            };
            search.run(&format!("{segment_bytes} {first} {second} {eaten}"), disk);
        }
    }
}
