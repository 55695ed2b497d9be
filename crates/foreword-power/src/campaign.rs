//! A recording of real work on each file system, and a check of many disks that power failures
//! could have left.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use foreword::Durability;
use indicatif::{ProgressBar, ProgressStyle};

use crate::drive::Remote;
use crate::history::{History, Known, Note, Violation};
use crate::life::{self, Notes, Writer};
use crate::machine::{Kind, Loop, Mount};
use crate::recording::{Failure, LARGE_SECTOR, SECTOR};
use crate::tally::{Outcome, Tally};

/// Recordings: of the workload, and of the last check.
const WORK: usize = 0;
const CHECK: usize = 1;
/// Under this number the check itself appends.
const LIFE_OF_CHECK: u16 = u16::MAX;
/// After so many states, one is crashed again in its recovery.
const AGAIN_EVERY: usize = 4;
/// So many events lie just behind another.
const JUST_BEHIND: usize = 20;

/// Real file systems under a log, on a disk whose power fails: record, rebuild, mount, check
///
/// Needs root, /dev/fuse and loop devices. A file in user space under a loop device records each
/// write and flush that a file system sends to its disk while processes use a log there (threads,
/// batches, rotations, truncations, both durable writes) and are killed. The disk is then rebuilt
/// as a power failure could have left it: all that was flushed, and any of the 512-byte sectors
/// that were not (any of the 4 KiB blocks, where the file system does not mount otherwise);
/// mounted, with the kernel's own journal replay; the log is opened and every record compared,
/// appended to, and opened again. Every fourth state is crashed once more in its recovery.
///
/// Exit status: 0 if all holds, 1 if anything acknowledged is lost, anything is there that nobody
/// wrote, or a log does not open; 2 if it cannot run here.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file systems
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Ext4, Kind::Xfs, Kind::Btrfs])]
    fs: Vec<Kind>,
    /// States for each file system
    #[arg(long, value_name = "N", default_value_t = 1200)]
    states: usize,
    /// Lives of the workload's process to record
    #[arg(long, value_name = "N", default_value_t = 40)]
    lives: u16,
    /// Decides the workload, the moments and what is lost (threads and the kernel have their own
    /// mind)
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// A lying disk: up to so many of the last flushes did nothing. The check must report losses
    #[arg(long, value_name = "N", default_value_t = 0)]
    lies: usize,
    /// A directory to work in; disks are kept in memory
    #[arg(long, value_name = "DIR", default_value = "/tmp/foreword-power")]
    work: PathBuf,
    /// Print one JSON object for each file system
    #[arg(long)]
    json: bool,
}

/// Whether all held.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let mut held = true;
    for &kind in &args.fs {
        let campaign = Campaign::start(args, kind)?;
        let started = Instant::now();
        campaign.record().with_context(|| format!("the workload failed on {}", kind.name()))?;
        let recorded = started.elapsed();
        let tally = campaign.replay()?;
        // Nobody may be reading any more.
        let _ = writeln!(std::io::stdout(), "{}", tally.report(kind.name(), args.json, recorded, started.elapsed() - recorded));
        held &= tally.held();
    }
    Ok(held)
}

/// One file system's. Fields are dropped in this order.
struct Campaign<'a> {
    args: &'a Args,
    kind: Kind,
    device: Loop,
    disk: Remote,
    mountpoint: PathBuf,
}

impl Campaign<'_> {
    fn start(args: &Args, kind: Kind) -> Result<Campaign<'_>> {
        let disk = Remote::start(&args.work.join("disk"), kind.disk_bytes())?;
        let device = Loop::attach(&disk.file())?;
        kind.make(&device.device)?;
        Ok(Campaign { args, kind, device, disk, mountpoint: args.work.join("mount") })
    }

    fn log(&self) -> PathBuf {
        self.mountpoint.join("log")
    }

    fn mount(&self) -> std::io::Result<Mount> {
        Mount::new(self.kind, &self.device.device, &self.mountpoint)
    }

    /// Records the workload's lives.
    fn record(&self) -> Result<()> {
        self.disk.begin()?;
        let mounted = self.mount().context("a new file system does not mount")?;
        let mut rng = Rng::with_seed(self.args.seed);
        for life in 1..=self.args.lives {
            self.live(life, &mut rng)?;
        }
        // Not unmounted first: the power fails while it is in use.
        self.disk.keep(WORK)?;
        mounted.end()
    }

    /// A process, until it ends or is killed.
    fn live(&self, life: u16, rng: &mut Rng) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("live").arg(self.log()).arg(self.disk.notes()).arg(self.args.seed.to_string()).arg(life.to_string());
        let mut process = command.spawn().context("cannot start the workload")?;
        let patience = if rng.u8(..8) == 0 { Duration::MAX } else { Duration::from_millis(rng.u64(10..500)) };
        let started = Instant::now();
        while started.elapsed() < patience {
            match process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("life {life} of the workload failed ({status})"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Checks states.
    fn replay(&self) -> Result<Tally> {
        let notes = self.notes(WORK)?;
        let mut tally = Tally::default();
        let history = match History::new(&notes) {
            Ok(history) => history,
            Err(violation) => {
                tally.violated("in the workload itself, without a power failure", &violation);
                return Ok(tally);
            }
        };
        let mut rng = Rng::with_seed(self.args.seed);
        let pending = self.disk.pending_by_point(WORK)?;
        tally.recorded(&pending, notes.len());
        let points = points(&pending, &notes, self.args.states, &mut rng);
        let bar = ProgressBar::new(points.len() as u64);
        bar.set_style(ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len} states, {eta} left")?);
        bar.set_prefix(self.kind.name());
        for (i, point) in points.into_iter().enumerate() {
            let failure = Failure { point, lies: rng.usize(..=self.args.lies), torn: SECTOR, seed: rng.u64(..) };
            let known = history.known_at(point);
            let (pending, outcome) = self.check(WORK, &failure, &history, known)?;
            tally.state(pending, &outcome, &failure.to_string());
            if i % AGAIN_EVERY == 0 && matches!(outcome, Outcome::Held { .. }) {
                self.check_again(&history, known, &failure, &mut rng, &mut tally)?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(tally)
    }

    fn notes(&self, shelf: usize) -> Result<Vec<(usize, Note)>> {
        self.disk.notes_by_point(shelf)?.into_iter().map(|(point, note)| Ok((point, note.parse()?))).collect()
    }

    /// What the last check did is cut short by another power failure.
    fn check_again(&self, history: &History, known: &Known, first: &Failure, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        self.disk.keep(CHECK)?;
        let notes = self.notes(CHECK)?;
        let history = match history.after(known, &notes) {
            Ok(history) => history,
            Err(violation) => {
                tally.violated(&first.to_string(), &violation);
                return Ok(());
            }
        };
        let pending = self.disk.pending_by_point(CHECK)?;
        for point in points(&pending, &notes, 1, rng) {
            let second = Failure { point, lies: 0, torn: SECTOR, seed: rng.u64(..) };
            let (_, outcome) = self.check(CHECK, &second, &history, history.known_at(point))?;
            tally.again(&outcome, &format!("{first}, and then {second}"));
        }
        Ok(())
    }

    /// Lets the power fail, and checks what it left. How many sectors were pending.
    fn check(&self, shelf: usize, failure: &Failure, history: &History, known: &Known) -> Result<(usize, Outcome)> {
        let (pending, mounted) = self.fail(shelf, failure)?;
        let (mounted, torn_block) = match mounted {
            // Here and there file systems assume that a block of 4 KiB is written whole.
            Err(error) => (self.fail(shelf, &Failure { torn: LARGE_SECTOR, ..*failure })?.1, Some(error.to_string())),
            Ok(mounted) => (Ok(mounted), None),
        };
        let mounted = match mounted {
            Ok(mounted) => mounted,
            Err(error) => return Ok((pending, Outcome::Unmountable(error.to_string()))),
        };
        let outcome = match check_log(&self.log(), &self.disk, self.args.seed, failure.seed, history, known)? {
            Ok(verdict) => Outcome::Held { verdict, torn_block },
            Err(violation) => Outcome::Violated(violation),
        };
        mounted.end()?;
        Ok((pending, outcome))
    }

    /// Lets the power fail, and mounts what it left.
    fn fail(&self, shelf: usize, failure: &Failure) -> Result<(usize, std::io::Result<Mount>)> {
        let pending = self.disk.fail(shelf, failure)?;
        self.device.forget()?;
        Ok((pending, self.mount()))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "power failure after event {} (seed {}", self.point, self.seed)?;
        if self.lies > 0 {
            write!(f, ", {} lying flushes", self.lies)?;
        }
        f.write_str(")")
    }
}

/// Points at which something is pending, ascending; the same ones again if they are few. Half of
/// them lie just behind something rare that must last: an opening, a truncation.
fn points(pending: &[usize], notes: &[(usize, Note)], count: usize, rng: &mut Rng) -> Vec<usize> {
    let is_pending = |point: &usize| pending.get(*point).is_some_and(|sectors| *sectors > 0);
    let anywhere: Vec<usize> = (0..pending.len()).filter(is_pending).collect();
    let rare = notes.iter().filter(|(_, note)| matches!(note, Note::Opened { .. } | Note::FrontAt(_) | Note::CutAt(_)));
    let mut behind: Vec<usize> = rare.flat_map(|&(point, _)| point..point + JUST_BEHIND).filter(is_pending).collect();
    behind.dedup();
    let mut points = draw(&behind, count / 2, rng);
    points.extend(draw(&anywhere, count - points.len(), rng));
    points.sort_unstable();
    points
}

fn draw(candidates: &[usize], count: usize, rng: &mut Rng) -> Vec<usize> {
    let mut drawn = Vec::new();
    while drawn.len() < count && !candidates.is_empty() {
        drawn.extend(rng.choose_multiple(candidates, count - drawn.len()));
    }
    drawn
}

/// Opens the log, compares every record, goes on with it, and opens it again: the verdict of the
/// first opening.
fn check_log(
    dir: &Path,
    disk: &Remote,
    work_seed: u64,
    seed: u64,
    history: &History,
    known: &Known,
) -> Result<Result<&'static str, Violation>> {
    let notes = Notes::open(&disk.notes())?;
    let mut rng = Rng::with_seed(seed);
    let open = |rng: &mut Rng, create: bool| {
        let log = life::options(rng).create(create).open(dir).map_err(|error| Violation::Unopened(error.to_string()))?;
        let found = life::read(&log, work_seed)?;
        Ok((log, found))
    };
    let (log, found) = match open(&mut rng, !known.made) {
        Ok(opened) => opened,
        Err(violation) => return Ok(Err(violation)),
    };
    if let Err(violation) = history.check(known, &found) {
        return Ok(Err(violation));
    }
    let verdict = log.recovery().verdict.name();
    life::note_opened(&notes, LIFE_OF_CHECK, &found)?;
    let mut writer =
        Writer { log: &log, notes: &notes, seed: work_seed, life: LIFE_OF_CHECK, thread: 0, count: 0, rng: rng.fork() };
    for of in [1, 3, 1] {
        if let Err(error) = writer.append(of, Durability::Synced) {
            return Ok(Err(Violation::Unopened(format!("{error:#}"))));
        }
    }
    let last = log.last_lsn().0;
    if let Err(error) = log.close() {
        return Ok(Err(Violation::Unopened(error.to_string())));
    }
    Ok(match open(&mut rng, false) {
        Ok((log, again)) => {
            let same = again.start == found.start && again.last == last && again.records.starts_with(&found.records);
            log.close().map_err(|error| Violation::Unopened(error.to_string())).and(if same {
                Ok(verdict)
            } else {
                Err(Violation::Lost(format!(
                    "records {} to {last} were there, {} to {} after closing and opening",
                    found.start, again.start, again.last
                )))
            })
        }
        Err(violation) => Err(violation),
    })
}
