//! The workload: lives of a process that uses a log, each until it ends or is killed, and notes
//! down what it knows.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use fastrand::Rng;
use foreword::{Durability, Log, Lsn, Options, SyncPolicy};

use crate::fdatasync::Fdatasync;
use crate::history::{Found, Id, Note, Violation};

/// Longer texts are written in parts: the kernel cuts writes, and a note is not to be cut.
const NOTES_BYTES: usize = 64 << 10;
/// So many records stay in the log, roughly.
const RECORDS_KEPT: u64 = 300;

/// Where notes are written; each call returns when they lie behind all that the disk was asked
/// before.
pub(crate) struct Notes(File);

impl Notes {
    pub(crate) fn open(path: &Path) -> Result<Notes> {
        Ok(Notes(File::options().write(true).open(path).with_context(|| format!("cannot open {}", path.display()))?))
    }

    pub(crate) fn write(&self, notes: &[Note]) -> Result<()> {
        let mut text = String::new();
        for (i, note) in notes.iter().enumerate() {
            text += &format!("{note}\n");
            if text.len() > NOTES_BYTES || i + 1 == notes.len() {
                (&self.0).write_all(text.as_bytes()).context("cannot write the notes")?;
                text.clear();
            }
        }
        Ok(())
    }
}

/// One way of opening the log: small segments of any size, with either durable write.
pub(crate) fn options(rng: &mut Rng) -> Options {
    let options = Options::new().segment_bytes(rng.u64(16..=64) * 4096).on_error(|_| ());
    let options = if rng.bool() { options.disk(Arc::new(Fdatasync)) } else { options };
    let policy = if rng.bool() { SyncPolicy::manual() } else { SyncPolicy::interval(Duration::from_millis(rng.u64(1..20))) };
    options.sync(policy)
}

/// Everything that is in the log, each byte of it checked.
pub(crate) fn read(log: &Log, seed: u64) -> Result<Found, Violation> {
    let mut records = Vec::new();
    for record in log.iter(Lsn::ZERO) {
        let record = record.map_err(|error| Violation::Unopened(error.to_string()))?;
        match Id::of_record(&record.data, seed) {
            Some(id) => records.push((record.lsn.0, id)),
            None => return Err(Violation::Phantom(format!("record {} has bytes that were never written", record.lsn))),
        }
    }
    Ok(Found { start: log.start_lsn().0, last: log.durable_lsn().0, records })
}

/// Notes down what was found.
pub(crate) fn note_opened(notes: &Notes, life: u16, found: &Found) -> Result<()> {
    let mut all: Vec<Note> = found.records.iter().map(|&(lsn, id)| Note::Found(lsn, id)).collect();
    all.push(Note::Opened { life, start: found.start, last: found.last });
    notes.write(&all)
}

/// A thread that appends, and knows the next of its records.
pub(crate) struct Writer<'a> {
    pub(crate) log: &'a Log,
    pub(crate) notes: &'a Notes,
    pub(crate) seed: u64,
    pub(crate) life: u16,
    pub(crate) thread: u16,
    pub(crate) count: u32,
    pub(crate) rng: Rng,
}

impl Writer<'_> {
    /// Appends so many records as one, and notes down what it was told.
    pub(crate) fn append(&mut self, of: u16, durability: Durability) -> Result<()> {
        self.count += 1;
        let (life, thread, count) = (self.life, self.thread, self.count);
        let ids: Vec<Id> = (0..of).map(|index| Id { life, thread, count, index, of, len: self.len() }).collect();
        let records: Vec<Vec<u8>> = ids.iter().map(|id| id.record(self.seed)).collect();
        let first = self.log.append_batch_with(&records, durability)?.0;
        let mut told: Vec<Note> = ids.iter().enumerate().map(|(i, &id)| Note::Record(first + i as u64, id)).collect();
        if durability == Durability::Synced {
            told.push(Note::Durable(first + u64::from(of) - 1));
        }
        self.notes.write(&told)
    }

    /// Most records are small; some fill blocks, a few span segments.
    fn len(&mut self) -> u32 {
        match self.rng.u32(..100) {
            0..60 => self.rng.u32(16..300),
            60..90 => self.rng.u32(300..5000),
            90..99 => self.rng.u32(5000..40_000),
            _ => self.rng.u32(40_000..150_000),
        }
    }

    fn step(&mut self) -> Result<()> {
        match self.rng.u32(..100) {
            0..45 => self.append(1, Durability::Synced),
            45..60 => self.append(1, Durability::Buffered),
            60..65 => self.append(1, Durability::Written),
            65..82 => {
                let of = self.rng.u16(2..6);
                self.append(of, Durability::Synced)
            }
            82..88 => {
                let of = self.rng.u16(2..6);
                self.append(of, Durability::Buffered)
            }
            88..96 => {
                let durable = self.log.sync()?;
                self.notes.write(&[Note::Durable(durable.0)])
            }
            // Long enough for the mark that an idle log makes, now and then.
            _ => {
                std::thread::sleep(Duration::from_millis(self.rng.u64(..30)));
                Ok(())
            }
        }
    }
}

/// A life of the workload's process.
#[derive(clap::Args)]
pub(crate) struct Life {
    dir: PathBuf,
    notes: PathBuf,
    seed: u64,
    life: u16,
}

impl Life {
    /// Opens the log, uses it and closes it, several times.
    pub(crate) fn live(&self) -> Result<()> {
        // Nobody else would end it.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let notes = Notes::open(&self.notes)?;
        let mut rng = Rng::with_seed(self.seed ^ u64::from(self.life) << 32);
        let mut threads = 0;
        for _ in 0..rng.usize(1..5) {
            let log = options(&mut rng).open(&self.dir)?;
            let found = read(&log, self.seed).map_err(|violation| anyhow!("{violation}"))?;
            note_opened(&notes, self.life, &found)?;
            for _ in 0..rng.usize(1..4) {
                self.bustle(&log, &notes, &mut rng, &mut threads)?;
                if rng.bool() {
                    cut_back(&log, &notes, &mut rng)?;
                }
                if rng.bool() {
                    std::thread::sleep(Duration::from_millis(rng.u64(..40)));
                }
            }
            let last = log.last_lsn();
            log.close()?;
            notes.write(&[Note::Durable(last.0)])?;
        }
        Ok(())
    }

    /// Threads that append, while the front is dropped.
    fn bustle(&self, log: &Log, notes: &Notes, rng: &mut Rng, threads: &mut u16) -> Result<()> {
        let working = AtomicUsize::new(rng.usize(1..5));
        std::thread::scope(|scope| {
            let mut workers = Vec::new();
            for _ in 0..working.load(Ordering::Relaxed) {
                *threads += 1;
                let mut writer =
                    Writer { log, notes, seed: self.seed, life: self.life, thread: *threads, count: 0, rng: rng.fork() };
                let working = &working;
                workers.push(scope.spawn(move || {
                    let steps = writer.rng.usize(1..30);
                    let done = (0..steps).try_for_each(|_| writer.step());
                    working.fetch_sub(1, Ordering::Relaxed);
                    done
                }));
            }
            while working.load(Ordering::Relaxed) > 0 {
                std::thread::sleep(Duration::from_millis(rng.u64(1..10)));
                if rng.bool() {
                    drop_front(log, notes, rng)?;
                }
            }
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
        })
    }
}

fn drop_front(log: &Log, notes: &Notes, rng: &mut Rng) -> Result<()> {
    let before = log.durable_lsn().0.saturating_sub(rng.u64(..RECORDS_KEPT)).max(log.start_lsn().0);
    notes.write(&[Note::FrontTo(before)])?;
    let start = log.truncate_front(Lsn(before))?;
    notes.write(&[Note::FrontAt(start.0)])
}

/// Nobody else may append meanwhile: whose record it was that has an LSN would be unknown.
fn cut_back(log: &Log, notes: &Notes, rng: &mut Rng) -> Result<()> {
    let last = log.last_lsn().0;
    let from = (last + 1).saturating_sub(rng.u64(..10)).max(log.start_lsn().0);
    notes.write(&[Note::CutFrom(from)])?;
    log.truncate_back(Lsn(from))?;
    notes.write(&[Note::CutAt(from)])
}
