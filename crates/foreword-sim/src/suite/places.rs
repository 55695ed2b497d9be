//! Logs whose directories are moved, whose lock files are removed, and in whose way other files
//! are.

use std::path::{Path, PathBuf};

use foreword::disk::Access;
use foreword::{Error, Log, Lsn, OnDamage};

use super::log::{DIR, Shape, options};
use super::model::{Checked, Violation, ensure, violated};
use crate::rng::Rng;
use crate::{Choice, SimDisk};

/// A log, the path of its directory now, and what the log acknowledged.
struct Moved {
    log: Log,
    path: PathBuf,
    start: u64,
    records: Vec<Vec<u8>>,
}

impl Moved {
    /// A new log in [`DIR`], where no log is.
    fn open(disk: &SimDisk) -> Checked<Moved> {
        let log = open(disk, Path::new(DIR), OnDamage::Refuse)?;
        Ok(Moved { log, path: DIR.into(), start: 1, records: Vec::new() })
    }

    fn commit(&mut self, rng: &mut Rng) -> Checked {
        let record = vec![rng.next() as u8; rng.below(30_000) as usize];
        let lsn = self.log.commit(&record).or_else(|e| violated("a moved log goes on", e.to_string()))?;
        self.records.push(record);
        ensure(lsn.0 == self.records.len() as u64, "a moved log counts on", || format!("{lsn}"))
    }

    fn truncate(&mut self, rng: &mut Rng) -> Checked {
        let start = self.start.max(1 + rng.below(self.records.len() as u64 + 1));
        self.log.truncate_front(Lsn(start)).or_else(|e| violated("a moved log goes on", e.to_string()))?;
        self.start = start;
        Ok(())
    }

    /// Checks after a crash that all acknowledged records are there.
    fn check(&self, disk: &SimDisk) -> Checked {
        let log = open(disk, &self.path, OnDamage::Refuse)?;
        ensure(log.id() == self.log.id(), "each directory is one log's", || self.path.display().to_string())?;
        let found: Result<Vec<_>, _> = log.iter(Lsn::ZERO).collect();
        let found = found.or_else(|e| violated("a log that was moved can be read", e.to_string()))?;
        let expected = (self.start..).zip(&self.records[self.start as usize - 1..]);
        let same = found.len() as u64 + self.start == self.records.len() as u64 + 1
            && found.iter().zip(expected).all(|(found, (lsn, record))| found.lsn.0 == lsn && found.data == *record);
        ensure(same, "nothing acknowledged is lost", || format!("{} of {}", found.len(), self.records.len()))
    }
}

fn open(disk: &SimDisk, path: &Path, action: OnDamage) -> Checked<Log> {
    let opened = options(disk, Shape::SMALL).on_damage(action).open(path);
    opened.or_else(|e| violated("a log that was moved opens", format!("{}: {e}", path.display())))
}

/// Directories are moved under open logs, and new logs are made in their place.
fn moves(seed: u64) -> Checked {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(seed);
    let mut logs = vec![Moved::open(&disk)?];
    for n in 0..60 {
        let free = logs.iter().all(|moved| moved.path != Path::new(DIR));
        let i = rng.below(logs.len() as u64) as usize;
        match rng.below(10) {
            0 if free => logs.push(Moved::open(&disk)?),
            0..=1 => {
                let to = if free { PathBuf::from(DIR) } else { PathBuf::from(format!("/moved-{n}")) };
                ensure(disk.rename_dir(&logs[i].path, &to), "a directory can be moved", || to.display().to_string())?;
                logs[i].path = to;
            }
            2 => logs[i].truncate(&mut rng)?,
            _ => logs[i].commit(&mut rng)?,
        }
    }
    let after = disk.crash(&Choice::Seed(seed));
    logs.iter().try_for_each(|moved| moved.check(&after))
}

/// Invariant: whatever becomes of the lock's files, no two writers acknowledge records, and no
/// acknowledged record is lost.
fn locks(seed: u64) -> Checked {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(seed);
    let mut first = Moved::open(&disk)?;
    for _ in 0..rng.below(20) {
        first.commit(&mut rng)?;
    }
    let both = rng.chance(500);
    disk.lose(Path::new(DIR).join("LOCK"));
    if both {
        disk.lose(Path::new(DIR).join("LOG"));
    }
    let second = match options(&disk, Shape::SMALL).on_damage(OnDamage::Salvage).open(DIR) {
        Ok(log) => Some(log),
        Err(Error::Locked { .. }) if !both => None,
        Err(error) => return violated("a removed lock is no damage", error.to_string()),
    };
    ensure(second.is_some() == both, "LOG's lock keeps others out", || "it was opened".into())?;
    let mut second = second.map(|log| Moved { log, path: DIR.into(), start: first.start, records: first.records.clone() });
    if let Some(second) = &mut second {
        second.commit(&mut rng)?;
    }
    for _ in 0..1 + rng.below(3) {
        // Some of these records need another segment.
        let told = first.log.commit(&vec![1; rng.below(60_000) as usize]);
        ensure(told.is_err(), "a writer without its lock acknowledges nothing", || format!("{told:?}"))?;
        if let Some(second) = &mut second {
            second.commit(&mut rng)?;
        }
    }
    // Where there is nothing to drop, the call may succeed.
    let told = first.log.truncate_front(Lsn(first.records.len() as u64 + 1));
    ensure(told.is_err() || first.records.is_empty(), "a writer without its lock drops nothing", || format!("{told:?}"))?;
    match second {
        Some(second) => second.check(&disk.crash(&Choice::Seed(seed))),
        None => Ok(()),
    }
}

/// Invariant: the log never replaces a file that is not its own, whatever the file's name.
fn strangers(seed: u64) -> Checked {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(seed);
    let mut moved = Moved::open(&disk)?;
    for _ in 0..rng.below(5) {
        moved.commit(&mut rng)?;
    }
    let next = (1..).map(|epoch| format!("{epoch:020}.seg")).find(|name| disk.peek(Path::new(DIR).join(name), 0, 1).is_none());
    let path = Path::new(DIR).join(next.unwrap_or_default());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let made = disk.handle().open_dir(Path::new(DIR)).and_then(|dir| dir.open(name, Access::New)?.write_all_at(b"precious", 0));
    made.or_else(|e| violated("a strange file can be made", e.to_string()))?;
    let refused = (0..20).any(|_| moved.log.commit(&[2; 20_000]).is_err());
    ensure(refused, "a strange file is in the way", || name.to_owned())?;
    let there = disk.peek(&path, 0, 8);
    ensure(there.as_deref() == Some(b"precious"), "a strange file is not replaced", || format!("{name}: {there:?}"))
}

/// Moves directories, removes lock files and puts other files in a log's way, as a seed decides.
///
/// # Errors
/// The invariant that does not hold.
pub fn places(seed: u64) -> Result<(), Violation> {
    moves(seed)?;
    locks(seed)?;
    strangers(seed)
}
