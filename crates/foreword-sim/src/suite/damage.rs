//! Damage to files, of each kind, in each place of several logs. The log reports it, or has lost
//! nothing acknowledged.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use foreword::{Error, Log, Lsn, OnDamage};

use super::exhaustive::Failure;
use super::log::{DIR, Shape, options, read_log};
use super::model::{Checked, Model, Violation, ensure, violated};
use super::runner::{Runner, Step};
use crate::rng::{Rng, mix};
use crate::{Choice, SECTOR, SimDisk};

/// What is done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Damage {
    Flip(u64, u8),
    /// A sector that reads as zeros: a lost write.
    Zero(u64),
    Lose,
    Cut(u64),
    /// An older copy of the file.
    Old,
}

/// What the damage did, over all places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DamageTally {
    /// Damaged disks.
    pub states: u64,
    /// Of those, disks whose damage the log reported.
    pub reported: u64,
    /// Repairs after which the log could go on.
    pub repaired: u64,
    /// Salvages that were refused with an error. Stopping at the damage still works.
    pub refused: u64,
}

impl std::ops::Add for DamageTally {
    type Output = DamageTally;

    fn add(self, more: DamageTally) -> DamageTally {
        DamageTally {
            states: self.states + more.states,
            reported: self.reported + more.reported,
            repaired: self.repaired + more.repaired,
            refused: self.refused + more.refused,
        }
    }
}

/// The logs to damage: their steps, and whether the log is closed then.
fn logs() -> Vec<(Vec<Step>, bool)> {
    let batch = Step::Batch(4, 2500, true);
    let commits = vec![Step::Commit(300), Step::Commit(5000), batch.clone(), Step::Commit(10)];
    let rotated = [vec![Step::Rotate, Step::Rotate], commits.clone()].concat();
    let cut =
        [rotated.clone(), vec![Step::TruncateBack(300), Step::Commit(200), Step::TruncateFront(300), Step::Commit(30)]].concat();
    let reopened = [commits.clone(), vec![Step::Reopen, Step::Rotate, batch, Step::Hold(1, 300), Step::Commit(10)]].concat();
    let large = vec![Step::Commit(100), Step::Commit(150_000), Step::Commit(100)];
    let all = [commits, rotated, cut, reopened, large];
    all.into_iter().flat_map(|steps| [(steps.clone(), false), (steps, true)]).collect()
}

/// Damages each of several logs, in each sector of each file and in other ways, and checks what
/// follows. Uses all processors.
///
/// # Errors
/// The first failure.
pub fn damages(seed: u64) -> Result<DamageTally, Box<Failure>> {
    let logs = logs();
    let next = AtomicUsize::new(0);
    let work = || -> Result<DamageTally, Box<Failure>> {
        let mut tally = DamageTally::default();
        for i in std::iter::repeat_with(|| next.fetch_add(1, Relaxed)).take_while(|&i| i < logs.len()) {
            let (steps, close) = &logs[i];
            damage(steps, *close, mix(&[seed, i as u64]), &mut tally).map_err(|(what, violation)| {
                let how = if *close { "closed" } else { "then the power fails" };
                Box::new(Failure { violation, story: format!("{steps:?}, {how}, {what}, seed {seed}") })
            })?;
        }
        Ok(tally)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_fold(DamageTally::default(), |sum, worker| {
            let tally = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(sum + tally)
        })
    })
}

/// Damages one log in all ways. An error has the damage, and the invariant that does not hold.
fn damage(steps: &[Step], close: bool, seed: u64, tally: &mut DamageTally) -> Result<(), (String, Violation)> {
    let subject = Subject::make(steps, close, seed).map_err(|v| ("no damage".to_owned(), v))?;
    for (path, damage) in subject.damages(seed) {
        subject.check(&path, &damage, tally).map_err(|v| (format!("{damage:?} of {}", path.display()), v))?;
    }
    Ok(())
}

struct Subject {
    disk: SimDisk,
    model: Model,
    /// The disk two steps before the end, and what was durable then.
    old: SimDisk,
    old_durable: u64,
}

impl Subject {
    fn make(steps: &[Step], close: bool, seed: u64) -> Checked<Subject> {
        let mut runner = Runner::new(SimDisk::new(seed), Shape::SMALL);
        runner.open()?;
        let mut old = (runner.disk.crash(&Choice::None), 0);
        for (i, step) in steps.iter().enumerate() {
            if i + 2 == steps.len() {
                old = (runner.disk.crash(&Choice::None), runner.model.durable);
            }
            runner.step(step)?;
        }
        ensure(!runner.is_down(), "a sound disk stops no log", || format!("{steps:?}"))?;
        if let Some(log) = runner.log.take_if(|_| close) {
            if let Err(error) = log.close() {
                return violated("a sound disk stops no log", error.to_string());
            }
            runner.model.promised = runner.model.last();
        }
        let disk = runner.disk.crash(&Choice::None);
        runner.disk.power_off();
        Ok(Subject { disk, model: runner.model, old: old.0, old_durable: old.1 })
    }

    fn damages(&self, seed: u64) -> Vec<(PathBuf, Damage)> {
        let mut rng = Rng::new(seed);
        let mut all = Vec::new();
        for (path, len) in self.disk.files() {
            all.extend([Damage::Lose, Damage::Old, Damage::Cut(len / 2), Damage::Cut(len + 4096)].map(|d| (path.clone(), d)));
            for at in (0..len).step_by(SECTOR) {
                let size = SECTOR.min((len - at) as usize);
                let empty = self.disk.peek(&path, at, size).is_none_or(|sector| sector.iter().all(|&b| b == 0));
                if empty && !rng.chance(60) {
                    continue;
                }
                all.push((path.clone(), Damage::Flip(at + rng.below(size as u64), rng.below(8) as u8)));
                // A bit in the header of a frame.
                all.push((path.clone(), Damage::Flip(at + rng.below(size.min(80) as u64), rng.below(8) as u8)));
                all.push((path.clone(), Damage::Zero(at)));
            }
        }
        all
    }

    fn check(&self, path: &Path, damage: &Damage, tally: &mut DamageTally) -> Checked {
        let disk = self.disk.copy();
        let (done, floor) = match *damage {
            Damage::Flip(at, bit) => (disk.flip(path, at, bit), self.model.durable),
            Damage::Zero(at) => (disk.overwrite(path, at, &zeros(&disk, path, at)), self.model.promised),
            Damage::Lose => (disk.lose(path), self.model.durable),
            Damage::Cut(len) => (disk.cut(path, len), self.model.durable),
            Damage::Old => (disk.replace(path, &self.old), self.old_durable.min(self.model.durable)),
        };
        if !done {
            return Ok(()); // The older disk has no such file.
        }
        tally.states += 1;
        let look = |disk: &SimDisk| options(disk, Shape::SMALL).open(DIR).and_then(|log| read_log(&log));
        let looked_at = disk.copy();
        let read = match look(&looked_at) {
            // The log goes on without them, and says what to do.
            Err(Error::HoldsDamaged { .. }) if path.ends_with("HOLDS") => {
                looked_at.lose(path);
                look(&looked_at)
            }
            read => read,
        };
        let error = match read {
            Ok(found) => return self.model.check(&found, floor),
            Err(error) => error,
        };
        ensure(matches!(error, Error::Corruption(_)), "damage is reported as such", || error.to_string())?;
        tally.reported += 1;
        let verified = foreword::Verify::new().disk(disk.handle()).run(DIR);
        let says_so = verified.as_ref().is_ok_and(|v| v.verdict.as_ref().is_some_and(|v| v.name() == "corruption"));
        ensure(says_so, "verify finds the damage that readers find", || format!("{verified:?} for {error}"))?;
        for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
            let done = self.check_repair(&disk.copy(), action)?;
            *(if done { &mut tally.repaired } else { &mut tally.refused }) += 1;
            if tally.reported.is_multiple_of(4) {
                self.check_killed_repair(&disk, action, tally.states)?;
            }
        }
        Ok(())
    }

    /// Opens a damaged log nevertheless, and checks that its records are right and that it can go
    /// on. `false`: the salvage was refused.
    fn check_repair(&self, disk: &SimDisk, action: OnDamage) -> Checked<bool> {
        match self.repair(disk, action)? {
            Ok(()) => Ok(true),
            Err(_) if action == OnDamage::Salvage => Ok(false),
            Err(error) => violated("a log that stops at its damage can be gone on with", error.to_string()),
        }
    }

    /// Kills a repair in one of its changes. The next one leaves the same records, and in `damaged/`
    /// at least the same files.
    fn check_killed_repair(&self, disk: &SimDisk, action: OnDamage, seed: u64) -> Checked {
        let mut rng = Rng::new(seed);
        let repair = |disk: &SimDisk| options(disk, Shape::SMALL).on_damage(action).open(DIR);
        let left = |disk: &SimDisk| -> Result<_, Error> {
            let log = repair(disk)?;
            let (start, records) = (log.start_lsn(), log.iter(Lsn::ZERO).map(|r| r.map(|r| (r.lsn, r.data))).collect::<Vec<_>>());
            Ok((disk.changes(), start, log.last_lsn(), records.into_iter().map_while(Result::ok).collect::<Vec<_>>()))
        };
        let aside = |disk: &SimDisk| {
            let files = disk.files().into_iter().filter(|(path, _)| path.starts_with(Path::new(DIR).join("damaged")));
            files.map(|(path, len)| (path.with_extension("").with_extension(""), len)).collect::<Vec<_>>()
        };
        let whole = disk.copy();
        let Ok((changes, start, last, records)) = left(&whole) else { return Ok(()) };
        let point = 1 + rng.below(changes - disk.changes());
        let killed = disk.copy();
        killed.power_off_at(killed.changes() + point);
        drop(repair(&killed).map(std::mem::forget));
        let after = if rng.chance(500) { killed.kill() } else { killed.crash(&Choice::Seed(seed)) };
        let again = match left(&after) {
            Ok((_, start, last, records)) => (start, last, records),
            Err(error) => return violated("a repair that was killed can be done again", format!("{action:?}, {point}: {error}")),
        };
        ensure((start, last, &records) == (again.0, again.1, &again.2), "a repair that is killed changes nothing", || {
            format!("{action:?}, killed at change {point}: {}..{}, not {start}..{last}", again.0, again.1)
        })?;
        let (kept, want) = (aside(&after), aside(&whole));
        ensure(want.iter().all(|file| kept.contains(file)), "a repair that is killed loses no evidence", || {
            format!("{action:?}, killed at change {point}: {kept:?}, not {want:?}")
        })
    }

    fn repair(&self, disk: &SimDisk, action: OnDamage) -> Checked<Result<(), Error>> {
        let opened = options(disk, Shape::SMALL).on_damage(action).open(DIR);
        let read = opened.and_then(|log| self.read(&log).map(|before| (log, before)));
        let (log, before) = match read {
            Ok((log, before)) => (log, before?),
            // Opening for writing reads only the tail. Damage before the tail is found by reading.
            Err(Error::Corruption(_)) if action == OnDamage::StopAtDamage => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        let after = b"after the repair";
        match log.commit(after).and_then(|lsn| log.close().map(|()| lsn)) {
            Ok(lsn) if lsn.0 > before.last().copied().unwrap_or(0) => {}
            Ok(lsn) => return violated("LSNs rise", format!("{lsn} after {before:?}")),
            Err(error) => return Ok(Err(error)),
        }
        let read = options(disk, Shape::SMALL).open(DIR).and_then(|log| log.iter(Lsn::ZERO).collect::<Result<Vec<_>, _>>());
        let again = match read {
            Ok(again) => again,
            Err(error) => return Ok(Err(error)),
        };
        let kept = again.len() == before.len() + 1 && again.last().is_some_and(|r| r.data == after);
        ensure(kept, "what a repair left stays", || format!("{action:?}: {before:?}, then {} records", again.len()))?;
        Ok(Ok(()))
    }

    /// Reads what a repair left. Returns the LSNs, if each record is what was appended there.
    fn read(&self, log: &Log) -> Result<Checked<Vec<u64>>, Error> {
        let mut lsns = Vec::new();
        for record in log.iter(Lsn::ZERO) {
            let record = record?;
            if let Err(violation) = self.model.check_repaired_record(record.lsn.0, &record.data) {
                return Ok(Err(violation));
            }
            lsns.push(record.lsn.0);
        }
        Ok(Ok(lsns))
    }
}

fn zeros(disk: &SimDisk, path: &Path, at: u64) -> Vec<u8> {
    let whole = disk.peek(path, at, SECTOR).map(|_| SECTOR);
    let rest = || disk.files().iter().find(|(p, _)| p == path).map_or(0, |(_, len)| len.saturating_sub(at) as usize);
    vec![0; whole.unwrap_or_else(rest)]
}
