//! What comes back of a log whose files were damaged: is the loss of an acknowledged record
//! noticed, and reported?

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foreword_measure::Scratch;
use foreword_measure::report::Table;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::peers::{self, Feature, Need, Peer};
use crate::{doc, payload, tables, wait};

/// Damages the log of every contestant in several ways, and shows what comes back of it.
///
/// A process commits 300 records and ends without closing the log; then its files are damaged; then
/// another process opens the log and reads it.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    survey: doc::Survey,
}

/// What one of those processes does.
#[derive(clap::Args)]
pub struct Part {
    #[arg(long)]
    peer: String,
    #[arg(long)]
    dir: PathBuf,
    /// Write; then do nothing for so many milliseconds.
    #[arg(long)]
    write: Option<u64>,
    /// Where what was read goes, as JSON. (Some peers print.)
    #[arg(long)]
    out: PathBuf,
}

/// SQLite would move many more to its database, out of the log.
const RECORDS: usize = 300;
/// Several sectors.
const SIZE: usize = 2000;
const SECTOR: u64 = 512;
/// A crash comes at once, or long after what a log does when it is idle.
const IDLE: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(60);

/// Contestants without a log to damage.
const NO_LOG: &[(&str, &str)] = &[("redb", "its file is a tree of pages, not a log")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Nothing,
    Torn,
    EndZeroed,
    EndFlipped,
    MiddleFlipped,
    MiddleZeroed,
}

impl Damage {
    const ALL: [Damage; 6] =
        [Damage::Nothing, Damage::Torn, Damage::EndZeroed, Damage::EndFlipped, Damage::MiddleFlipped, Damage::MiddleZeroed];

    fn title(self) -> &'static str {
        match self {
            Damage::Nothing => "nothing",
            Damage::Torn => "last record torn, at once",
            Damage::EndZeroed => "last record's second half zeroed",
            Damage::EndFlipped => "bit flipped in the last",
            Damage::MiddleFlipped => "bit flipped in the 150th",
            Damage::MiddleZeroed => "sector zeroed where the 150th begins",
        }
    }

    /// How long the writer did nothing before it ended.
    fn idle(self) -> Duration {
        if self == Damage::Torn { Duration::ZERO } else { IDLE }
    }

    /// Does it to a log.
    fn strike(self, dir: &Path) -> Result<()> {
        let number = match self {
            Damage::Nothing => return Ok(()),
            Damage::Torn | Damage::EndZeroed | Damage::EndFlipped => RECORDS,
            Damage::MiddleFlipped | Damage::MiddleZeroed => RECORDS / 2,
        };
        // Several, if it was written as part of a page more than once.
        let places = find(dir, name(number).as_bytes())?;
        ensure!(!places.is_empty(), "record {number} is in no file");
        for (path, begin) in places {
            let file =
                OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("open {}", path.display()))?;
            self.strike_at(&file, begin)?;
        }
        Ok(())
    }

    /// Does it to a record that begins there.
    fn strike_at(self, file: &File, begin: u64) -> io::Result<()> {
        let middle = begin + SIZE as u64 / 2;
        let end = begin + SIZE as u64;
        let sector = middle.next_multiple_of(SECTOR);
        let len = file.metadata()?.len();
        match self {
            Damage::Nothing => Ok(()),
            // What a crash leaves of a write that was under way: some of its sectors, and behind
            // them what was there before.
            Damage::Torn if len < end + (4 << 10) => file.set_len(sector),
            Damage::Torn => zero(file, sector, len.min(end + (1 << 20))),
            Damage::EndZeroed => zero(file, sector, end.next_multiple_of(SECTOR).min(len)),
            Damage::EndFlipped | Damage::MiddleFlipped => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, middle)?;
                file.write_all_at(&[byte[0] ^ 1], middle)
            }
            Damage::MiddleZeroed => {
                let sector = begin / SECTOR * SECTOR;
                zero(file, sector, sector + SECTOR)
            }
        }
    }
}

fn zero(file: &File, from: u64, to: u64) -> io::Result<()> {
    file.write_all_at(&vec![0; (to - from) as usize], from)
}

/// A record, from 1 on: a name by which it is found in a file, and bytes that cannot be compressed.
pub fn record(number: usize) -> &'static [u8] {
    static ALL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let of = |number| {
            let name = name(number);
            [name.as_bytes(), payload::record(SIZE - name.len(), number)].concat()
        };
        (1..=RECORDS).map(of).collect()
    });
    &ALL[number - 1]
}

fn name(number: usize) -> String {
    format!("<record {number:05}>")
}

/// Where some bytes are in the files of a directory, and of those below it.
fn find(dir: &Path, bytes: &[u8]) -> Result<Vec<(PathBuf, u64)>> {
    let mut places = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            places.append(&mut find(&path, bytes)?);
            continue;
        }
        let file = File::open(&path)?;
        let mut at = 0;
        // (Some prepare a gigabyte, most of it a hole.)
        while let Ok(from) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(from))?;
            let mut data = vec![0; (at - from) as usize];
            file.read_exact_at(&mut data, from)?;
            let found = data.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
            places.extend(found.map(|(i, _)| (path.clone(), from + i as u64)));
        }
    }
    Ok(places)
}

/// What reading gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    /// Records as they were written.
    right: BTreeSet<usize>,
    /// Records that were never written.
    wrong: usize,
    /// Why there were no more, if it said so.
    error: Option<String>,
    /// It did not even return.
    broke: bool,
    /// Warnings and errors that it logged or printed.
    said: Vec<String>,
}

impl Found {
    fn take(&mut self, bytes: &[u8]) {
        match (1..=RECORDS).find(|&number| record(number) == bytes) {
            Some(number) => drop(self.right.insert(number)),
            None => self.wrong += 1,
        }
    }

    fn text(&self) -> String {
        let n = self.right.len();
        let records = match () {
            () if n == RECORDS => "all".to_owned(),
            () if n == 0 => "none".to_owned(),
            () if self.right.last() == Some(&n) => format!("the first {n}"),
            () => {
                let missing = BTreeSet::from_iter(1..=RECORDS);
                let missing: Vec<String> = missing.difference(&self.right).map(usize::to_string).collect();
                if missing.len() <= 3 { format!("all but {}", missing.join(", ")) } else { format!("{n}, with gaps") }
            }
        };
        let wrong = if self.wrong > 0 { format!(", **{} wrong**", self.wrong) } else { String::new() };
        let how = match () {
            () if self.broke => "**breaks**",
            () if self.error.is_some() => "error",
            () if !self.said.is_empty() => "warning",
            () if n == RECORDS => return records + wrong.as_str(),
            () => "silent",
        };
        format!("{records}{wrong}; {how}")
    }
}

impl Args {
    pub fn run(self) -> Result<()> {
        let has_log = |name: &str| NO_LOG.iter().all(|(without, _)| *without != name);
        let peers: Vec<&Peer> = peers::logs().filter(|p| self.survey.wants(p.name) && has_log(p.name)).collect();
        let scratch = Scratch::new(&self.survey.dir, "foreword-damage")?;
        let bar = ProgressBar::new((peers.len() * Damage::ALL.len()) as u64);
        let head: Vec<String> =
            std::iter::once(String::new()).chain(Damage::ALL.map(|damage| damage.title().to_owned())).collect();
        let mut table = Table { title: String::new(), words: head.len(), head, rows: Vec::new() };
        let mut said = Table::new("The first line of each message", &["", "damage", ""], Vec::new()).words(3);
        for peer in peers {
            let title = format!("{} {}", peer.name, peer.version());
            let mut row = vec![title.clone()];
            // Messages about an undamaged log say nothing of damage.
            let mut usual = BTreeSet::new();
            let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
            for damage in Damage::ALL {
                bar.set_message(format!("{}: {}", peer.name, damage.title()));
                let examined = examine(peer, damage, scratch.path());
                let mut found = examined.with_context(|| format!("{}, {}", peer.name, damage.title()))?;
                if damage == Damage::Nothing {
                    usual = found.said.iter().map(|line| without_numbers(line)).collect();
                }
                found.said.retain(|line| !usual.contains(&without_numbers(line)));
                row.push(found.text());
                if let Some(line) = found.error.as_ref().or(found.said.first()) {
                    match lines.iter_mut().find(|(known, _)| without_numbers(known) == without_numbers(line)) {
                        Some((_, when)) => when.push(damage.title()),
                        None => lines.push((line.clone(), vec![damage.title()])),
                    }
                }
                bar.inc(1);
            }
            table.rows.push(row);
            said.rows.extend(lines.into_iter().map(|(line, when)| vec![title.clone(), when.join("; "), line]));
        }
        bar.finish_and_clear();
        let mut text = tables::markdown(&table);
        for (name, why) in NO_LOG {
            text += &format!("Without {name}: {why}.\n\n");
        }
        text += &tables::markdown(&said);
        self.survey.put("damage", &text)
    }
}

/// A line of what a contestant said, without what is true on this machine alone.
pub fn shortened(line: &str, dir: &Path) -> String {
    let line = line.replace(&dir.display().to_string(), "LOG");
    let words = line.split(' ').map(|word| match word.split_once("/registry/src/") {
        Some((_, path)) => path.split_once('/').map_or(path, |(_, path)| path),
        None => word,
    });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((at, _)) => format!("{} ...", &line[..at]),
        None => line,
    }
}

fn without_numbers(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Writes a log, damages it, and reads it.
fn examine(peer: &Peer, damage: Damage, scratch: &Path) -> Result<Found> {
    let dir = scratch.join(peer.name);
    std::fs::create_dir(&dir)?;
    let written = part(peer, &dir, Some(damage.idle()), scratch)?;
    ensure!(!written.broke, "writing: {}", written.error.unwrap_or_default());
    damage.strike(&dir)?;
    let mut found = part(peer, &dir, None, scratch)?;
    found.error.iter_mut().chain(&mut found.said).for_each(|line| *line = shortened(line, &dir));
    std::fs::remove_dir_all(&dir)?;
    Ok(found)
}

/// Starts a process that does a part, and waits for it.
fn part(peer: &Peer, dir: &Path, write: Option<Duration>, scratch: &Path) -> Result<Found> {
    let (out, errors) = (scratch.join("found"), scratch.join("errors"));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("damage-part").arg("--peer").arg(peer.name).arg("--dir").arg(dir).arg("--out").arg(&out);
    if let Some(idle) = write {
        command.arg("--write").arg(idle.as_millis().to_string());
    }
    peers::tell_walrus(&mut command, dir);
    let mut child = command.stdout(Stdio::null()).stderr(File::create(&errors)?).spawn().context("start a process")?;
    let ended = wait::ended(&mut child, LIMIT)?.map_or("it did not end".to_owned(), |status| status.to_string());
    let said = String::from_utf8_lossy(&std::fs::read(&errors)?).into_owned();
    let said: Vec<String> = said.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if !out.exists() {
        let error = format!("{ended}: {}", said.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(" / "));
        return Ok(Found { error: Some(error), broke: true, ..Found::default() });
    }
    let found: Found = serde_json::from_slice(&std::fs::read(&out)?)?;
    std::fs::remove_file(&out)?;
    Ok(Found { said, ..found })
}

impl Part {
    /// Does it, in this process.
    pub fn run(&self) -> Result<()> {
        let peer = peers::find(&self.peer)?;
        let found = match self.write {
            Some(idle) => write(peer, &self.dir, Duration::from_millis(idle)).map(|()| Found::default())?,
            None => read(peer, &self.dir)?,
        };
        std::fs::write(&self.out, serde_json::to_vec(&found)?).with_context(|| format!("write {}", self.out.display()))
    }
}

/// Commits the records, and leaves the log as a process that is killed does.
fn write(peer: &Peer, dir: &Path, idle: Duration) -> Result<()> {
    let log = (peer.open)(dir, Need { bytes: (RECORDS * SIZE) as u64 })?;
    let mut writer = log.writer(0)?;
    if peer.lacks(Feature::Commit).is_none() {
        (1..=RECORDS).try_for_each(|number| writer.commit(record(number)))?;
    } else {
        let mut records = (1..=RECORDS).map(record);
        writer.append_all(&mut || records.next())?;
    }
    std::thread::sleep(idle);
    drop(writer);
    std::mem::forget(log);
    Ok(())
}

fn read(peer: &Peer, dir: &Path) -> Result<Found> {
    log::set_logger(&Warnings).map_err(|e| anyhow::anyhow!("{e}"))?;
    log::set_max_level(log::LevelFilter::Warn);
    let found = Arc::new(Mutex::new(Found::default()));
    let taker = found.clone();
    let take = move |record: &[u8]| taker.lock().unwrap_or_else(PoisonError::into_inner).take(record);
    let error = (peer.read)(dir, Box::new(take)).err().map(|e| format!("{e:#}").replace('\n', " "));
    let found = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Found { error, ..found })
}

/// Puts warnings and errors where the other process looks for them. (`tracing` hands its own to
/// `log`.)
struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string().replace('\n', " ");
            let _ = writeln!(io::stderr(), "{}: {line}", record.level().as_str().to_lowercase());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn found(right: impl IntoIterator<Item = usize>) -> Found {
        Found { right: right.into_iter().collect(), ..Found::default() }
    }

    #[test]
    fn what_was_found_in_words() {
        assert_eq!(found(1..=RECORDS).text(), "all");
        assert_eq!(found(1..=7).text(), "the first 7; silent");
        assert_eq!(found((1..=RECORDS).filter(|&n| n != 150)).text(), "all but 150; silent");
        assert_eq!(found((1..=RECORDS).filter(|n| n % 2 == 0)).text(), "150, with gaps; silent");
        assert_eq!(Found { error: Some("no".to_owned()), ..found([]) }.text(), "none; error");
        assert_eq!(Found { said: vec!["torn".to_owned()], ..found(1..RECORDS) }.text(), "the first 299; warning");
        assert_eq!(Found { wrong: 2, ..found(1..=RECORDS) }.text(), "all, **2 wrong**");
    }

    #[test]
    fn what_was_said_without_this_machine() {
        let line = "panicked at /home/me/.cargo/registry/src/index-1/sled-0.34.7/src/lib.rs:7: /here/log/1.seg is bad";
        assert_eq!(shortened(line, Path::new("/here/log")), "panicked at sled-0.34.7/src/lib.rs:7: LOG/1.seg is bad");
        assert_eq!(shortened(&"x".repeat(1000), Path::new("/here")).len(), 304);
        assert_eq!(without_numbers("at 12 of 3"), without_numbers("at 7 of 45"));
    }

    #[test]
    fn records_are_known_by_every_byte() {
        let mut found = Found::default();
        found.take(record(150));
        let mut flipped = record(151).to_vec();
        flipped[SIZE - 1] ^= 1;
        found.take(&flipped);
        assert_eq!((found.right, found.wrong), ([150].into(), 1));
    }

    #[test]
    fn damage_strikes_where_it_says() {
        for (damage, behind, from, to) in [
            // The middle of a record that begins at 100,001 is at 101,001, in the sector that ends
            // at 101,376.
            (Damage::Torn, 0, 101_376, 102_001),
            (Damage::Torn, 10_000, 101_376, 112_001),
            (Damage::EndZeroed, 10_000, 101_376, 102_400),
            (Damage::EndFlipped, 10_000, 101_001, 101_002),
            (Damage::MiddleFlipped, 10_000, 101_001, 101_002),
            (Damage::MiddleZeroed, 10_000, 99_840, 100_352),
        ] {
            let dir = tempfile::tempdir_in(".").unwrap();
            let path = dir.path().join("log");
            let number = if format!("{damage:?}").starts_with("Middle") { RECORDS / 2 } else { RECORDS };
            let before = [&vec![1; 100_001], record(number), &vec![2; behind]].concat();
            std::fs::write(&path, &before).unwrap();
            damage.strike(dir.path()).unwrap();
            let mut after = std::fs::read(&path).unwrap();
            assert_eq!(
                after.len() < before.len(),
                (damage, behind) == (Damage::Torn, 0),
                "{damage:?}: cut off if the file ends there"
            );
            after.resize(before.len(), 0);
            let changed: Vec<usize> = (0..before.len()).filter(|&i| before[i] != after[i]).collect();
            assert!(changed.iter().all(|i| (from..to).contains(i)) && !changed.is_empty(), "{damage:?}: {changed:?}");
        }
    }
}
