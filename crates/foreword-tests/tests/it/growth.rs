//! What a log's directory takes of its disk at every instant, whatever was killed before: the
//! directories to which kills can lead are found and tried, one after the other, until there is
//! none of another kind (or, if there are too many, up to a limit).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use foreword::{Error, Log, Lsn, Options};
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
