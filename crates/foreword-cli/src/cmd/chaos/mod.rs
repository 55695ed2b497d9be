//! `foreword chaos`: a log on the user's own disk, under load, killed again and again at random
//! moments, and checked against what it had acknowledged.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foreword::{Error, Log, Lsn, Verdict, View};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::check::{Found, Ledger, follow};
use self::deed::{Deed, Deeds, Moved};
use self::place::{Ballast, Place, copy_files};
use self::words::Word;
use crate::exit::{Failure, Status};
use crate::noise::{Noise, random_seed};
use crate::output::Output;
use crate::verdict;
use crate::victim::{self, Victim};
use foreword_command::plain;
use foreword_command::units;

mod check;
mod deed;
mod place;
mod script;
mod words;
pub(crate) mod worker;

/// How often the living process is looked after.
const TICK: Duration = Duration::from_millis(2);
/// How long it may take until something is acknowledged, on a disk that has room.
const PATIENCE: Duration = Duration::from_secs(30);
const OTHER_READER: &str = "a reader in another process than the writer's";
/// Kills that are to hit the opening of the log come within this time.
const OPENING: Duration = Duration::from_millis(20);

/// Kill a writer again and again on this disk, and check each time that it lost nothing
/// acknowledged
///
/// A child process writes from several threads in every way that the log offers: records of 0 bytes
/// to 700 KB, batches, commits, writes, futures, small segments, truncation at both ends. It
/// reports each acknowledgement at once. It is killed (SIGKILL) at random moments, also during
/// recovery.
///
/// Ordinary operations are tried as well: the process opens the log by a relative path and changes
/// its working directory; while it writes, the log's directory is renamed, another log is created
/// under its name, a second writer tries to open it, and its file LOCK is removed, which must stop
/// it.
///
/// After each kill the whole log is read; every other time it is opened for writing and read again.
/// Every acknowledged record that was not cut off must be there. Every record must have been
/// appended at its LSN with its bytes (they follow from the seed, the LSN, and how often the LSN
/// was used). LSNs must be dense, batches whole, and the log must start and end where it was cut.
/// Recovery, killed or not, must end in the same records. A record that a reader in another process
/// saw must stay, or the reader must have been told. One writer writes at a time, and two logs do
/// not mix.
///
/// Chaos cannot show what the disk does when the power fails: a kill leaves the operating system's
/// memory as it is.
///
/// Everything happens in a new directory in DIR, which is removed at the end. If a check fails it
/// is kept, with a copy of the log as the kill left it.
///
/// Exit status: 0 nothing was lost; 3 something was lost or should not be there; 1 it could not
/// run, or was interrupted.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  foreword chaos /mnt/disk
  foreword chaos /mnt/disk --seconds 3600 --threads 16 --json > chaos.jsonl
  sudo foreword chaos --full-disk --kills 100
  foreword chaos --seed 7 --kills 50        # the same records and kills (not the same timing)"
)]
pub(crate) struct Args {
    /// A directory on the disk to try
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// How often to kill
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    kills: u64,
    /// Kill for this many seconds, however often that is
    #[arg(long, value_name = "N", conflicts_with = "kills", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    seconds: Option<u64>,
    /// The longest time until a kill
    #[arg(long = "for", value_name = "TIME", default_value = "500ms", value_parser = units::time)]
    time: Duration,
    /// Threads that write
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    threads: u64,
    /// Mount a file system of 32 MiB (a file in DIR) and keep it full most of the time: each
    /// refused append must leave the log as it was, and the log must continue when there is space.
    /// Needs Linux and root
    #[arg(long)]
    full_disk: bool,
    /// Determines the records and the moments of the kills [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object per kill, and one for all of them
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let seed = args.seed.unwrap_or_else(random_seed);
    let stopped = stop_on_signals()?;
    let mut place = Place::make(&args.dir, seed, args.full_disk)?;
    let mut out = Output::new();
    if !args.json {
        let often = args.seconds.map_or(format!("{} kills", args.kills), |s| format!("killed for {s} s"));
        out.line(format_args!("{} threads write to {}, {often}, --seed {seed}", args.threads, plain(place.log().display())))?;
        out.flush()?;
    }
    let mut campaign = Campaign::new(args, seed, &place, stopped)?;
    let ended = campaign.run(&mut out);
    campaign.bar.finish_and_clear();
    let Campaign { tally, .. } = campaign;
    if ended.is_err() || !tally.is_sound() {
        place.keep();
        crate::output::note(format_args!("everything is kept in {}", place.dir().display()));
    }
    tally.print(&mut out, args, seed, &place)?;
    out.flush()?;
    match ended? {
        _ if !tally.is_sound() => Ok(Status::Corruption),
        End::Done => Ok(Status::Fine),
        End::Interrupted => Err(Failure::Wrong("interrupted".to_owned())),
    }
}

/// Set by SIGINT and SIGTERM: the campaign cleans up and ends.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stopped.clone()).map_err(Failure::io("listen for signals"))?;
    }
    Ok(stopped)
}

enum End {
    Done,
    Interrupted,
}

/// What is heard of the living process.
struct Heard {
    ledger: Ledger,
    /// The log of this round's writer was open.
    ready: bool,
    /// The reader in this process has it open.
    watched: bool,
    /// The writer has stopped because LOCK was removed.
    lock_lost: bool,
    /// Refusals for want of room.
    full: u64,
}

impl Heard {
    fn hear(&mut self, word: Word) {
        self.ready |= matches!(word, Word::Ready(..));
        self.full += u64::from(word == Word::Full);
        self.lock_lost |= word == Word::LockLost;
        self.ledger.hear(word);
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One kill, and what was there then.
struct Kill {
    lived: Duration,
    /// The process was killed before the log was open.
    opening: bool,
    acknowledged: u64,
    full: u64,
    /// What was done meanwhile, and cuts.
    deeds: Deeds,
    found: Found,
    verdict: &'static str,
    /// How long recovery took, if we opened the log ourselves.
    recovery: Option<Duration>,
}

struct Campaign<'a> {
    args: &'a Args,
    seed: u64,
    log: PathBuf,
    copy: PathBuf,
    elsewhere: PathBuf,
    /// How many deeds are done: they take turns.
    done: usize,
    ballast: Option<Ballast>,
    moments: Noise,
    heard: Arc<Mutex<Heard>>,
    stopped: Arc<AtomicBool>,
    started: Instant,
    tally: Tally,
    bar: ProgressBar,
}

impl<'a> Campaign<'a> {
    fn new(args: &'a Args, seed: u64, place: &Place, stopped: Arc<AtomicBool>) -> Result<Campaign<'a>, Failure> {
        let ledger = Ledger::new(seed);
        Ok(Campaign {
            args,
            seed,
            log: place.log(),
            copy: place.copy(),
            elsewhere: place.elsewhere()?,
            done: 0,
            ballast: place.ballast(seed),
            moments: Noise(seed),
            heard: Arc::new(Mutex::new(Heard { ledger, ready: false, watched: false, lock_lost: false, full: 0 })),
            stopped,
            started: Instant::now(),
            tally: Tally::default(),
            bar: progress(args),
        })
    }

    /// Kills until it is enough, or something is wrong.
    fn run(&mut self, out: &mut Output) -> Result<End, Failure> {
        while self.is_to_go_on() {
            let kill = self.kill()?;
            if self.args.json {
                out.json(&kill.json(self.tally.kills + 1, self.seed))?;
                out.flush()?;
            }
            self.tally.add(kill);
            self.bar.set_position(self.args.seconds.map_or(self.tally.kills, |_| self.started.elapsed().as_secs()));
            self.bar.set_message(format!("{} acknowledged, {} lost", self.tally.acknowledged, self.tally.lost));
        }
        if self.is_stopped() && self.tally.is_sound() { Ok(End::Interrupted) } else { Ok(End::Done) }
    }

    fn is_to_go_on(&self) -> bool {
        let enough = match self.args.seconds {
            Some(seconds) => self.started.elapsed() >= Duration::from_secs(seconds),
            None => self.tally.kills >= self.args.kills,
        };
        !enough && !self.is_stopped() && self.tally.is_sound()
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn kill(&mut self) -> Result<Kill, Failure> {
        let (acknowledged, cuts) = {
            let mut heard = lock(&self.heard);
            (heard.ready, heard.watched, heard.lock_lost, heard.full) = (false, false, false, 0);
            (heard.ledger.acknowledgements, heard.ledger.cuts)
        };
        let in_opening = self.moments.below(4) == 0;
        let life = if in_opening { OPENING.min(self.args.time) } else { self.args.time }.mul_f64(self.moments.fraction());
        let deed = (!in_opening).then(|| Deed::ALL[self.done % Deed::ALL.len()]);
        let leaves = self.moments.below(2) == 0;
        let started = Instant::now();
        let done = self.live_and_die(life, deed, leaves)?;
        let lived = started.elapsed();
        let (mut found, verdict) = self.look()?;
        let last = self.args.seconds.is_none() && self.tally.kills + 1 == self.args.kills;
        let opens = found.is_sound() && (last || self.moments.below(2) == 0);
        let recovery = if opens { Some(self.reopen(&mut found)?) } else { None };
        let mut heard = lock(&self.heard);
        let mut deeds = Deeds::from([
            ("cut_front", heard.ledger.cuts.0 - cuts.0),
            ("cut_back", heard.ledger.cuts.1 - cuts.1),
            ("left_directory", u64::from(leaves && heard.ready)),
        ]);
        deeds.extend(Deed::ALL.iter().map(|&deed| (deed.name(), u64::from(done == Some(deed)))));
        self.done += usize::from(done.is_some());
        let acknowledged = heard.ledger.acknowledgements - acknowledged;
        heard.ledger.close_round(&found);
        Ok(Kill { lived, opening: !heard.ready, acknowledged, full: heard.full, deeds, found, verdict, recovery })
    }

    /// Runs the writer until it is killed, with a reader in this process at its heels: what was
    /// done meanwhile.
    fn live_and_die(&mut self, life: Duration, deed: Option<Deed>, leaves: bool) -> Result<Option<Deed>, Failure> {
        let reading = AtomicBool::new(true);
        let (log, heard) = (self.log.clone(), self.heard.clone());
        std::thread::scope(|scope| {
            scope.spawn(|| watch(&log, &heard, &reading));
            let died = self.start_and_kill(life, deed, leaves);
            reading.store(false, Ordering::Relaxed);
            died
        })
    }

    fn start_and_kill(&mut self, life: Duration, deed: Option<Deed>, leaves: bool) -> Result<Option<Deed>, Failure> {
        let Args { threads, full_disk, .. } = *self.args;
        let (heard, log) = (self.heard.clone(), self.log.clone());
        let round = lock(&heard).ledger.generation();
        let leave = leaves.then(|| self.elsewhere.clone());
        let told = victim::Args { dir: log.clone(), threads, round, seed: self.seed, leave };
        let hearing = heard.clone();
        let mut victim = Victim::start("chaos-worker", &told, move |pipe| {
            pipe.lines().map_while(Result::ok).filter_map(|line| Word::parse(&line)).for_each(|word| lock(&hearing).hear(word));
        })?;
        let wrong = |what: String| lock(&heard).hear(Word::Wrong(what));
        let mut moved = None;
        let mut done = None;
        self.live(&mut victim, life / 2)?;
        let mut ended = None;
        if let Some(deed) = deed
            && self.can_do(&mut victim)?
        {
            done = Some(deed);
            match deed {
                Deed::SecondWriter if !deed::is_locked(&log)? && victim.ended()?.is_none() => {
                    wrong("a second writer could open the log".to_owned());
                }
                Deed::SecondWriter => {}
                Deed::Rename => moved = Some(Moved::rename(&log)?),
                Deed::Replace => moved.insert(Moved::rename(&log)?).make_other(self.seed)?,
                Deed::RemoveLock => ended = self.remove_lock(&mut victim)?,
            }
        }
        if done != Some(Deed::RemoveLock) {
            self.live(&mut victim, life / 2)?;
            ended = self.see_it_go_on(&mut victim)?;
        }
        victim.kill()?;
        if let Some(moved) = moved {
            moved.undo()?.into_iter().for_each(wrong);
        }
        if let Some(path) = deed::litter(&self.elsewhere) {
            wrong(format!("the writer left {} in the directory to which it went", path.display()));
        }
        match ended {
            None if done == Some(Deed::RemoveLock) && !self.is_stopped() => {
                wrong(format!("the writer went on for {} s without LOCK", PATIENCE.as_secs()));
            }
            Some(_) if done == Some(Deed::RemoveLock) && lock(&heard).lock_lost => {}
            None => {}
            // A full disk is no reason to, nor is anything else on a disk that is sound.
            Some(status) if full_disk || status.code() == Some(Status::Corruption as i32) => {
                wrong(format!("the writing process ended by itself ({status})"));
            }
            Some(status) => return Err(Failure::Wrong(format!("the writing process ended by itself ({status})"))),
        }
        Ok(done)
    }

    /// For a time.
    fn live(&mut self, victim: &mut Victim<()>, time: Duration) -> Result<(), Failure> {
        let started = Instant::now();
        while started.elapsed() < time && !self.is_stopped() && victim.ended()?.is_none() {
            if let Some(ballast) = &mut self.ballast {
                ballast.stir()?;
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Waits until the log is open, here and in the child: from then on neither uses its name.
    fn can_do(&mut self, victim: &mut Victim<()>) -> Result<bool, Failure> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE && !self.is_stopped() && victim.ended()?.is_none() {
            let heard = lock(&self.heard);
            if heard.ready && heard.watched {
                return Ok(true);
            }
            drop(heard);
            self.live(victim, TICK)?;
        }
        Ok(false)
    }

    /// Removes LOCK, and opens the log as soon as that is possible: when the writer has stopped,
    /// and not before. How it ended.
    fn remove_lock(&mut self, victim: &mut Victim<()>) -> Result<Option<ExitStatus>, Failure> {
        if let Some(ballast) = &mut self.ballast {
            ballast.free(u64::MAX)?;
        }
        std::fs::remove_file(self.log.join("LOCK")).map_err(Failure::io("remove LOCK"))?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE && !self.is_stopped() {
            if !deed::is_locked(&self.log)? {
                let ended = victim.ended()?;
                // A process that ends releases the log a moment before its end can be observed.
                if ended.is_some() || self.ends_soon(victim)? {
                    return victim.ended();
                }
                lock(&self.heard)
                    .hear(Word::Wrong("LOCK was removed, and a second writer could open the log beside the first".to_owned()));
                return Ok(None);
            }
            if let Some(status) = victim.ended()? {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    fn ends_soon(&self, victim: &mut Victim<()>) -> Result<bool, Failure> {
        const SOON: Duration = Duration::from_secs(1);
        let started = Instant::now();
        while started.elapsed() < SOON {
            if victim.ended()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(TICK);
        }
        Ok(false)
    }

    /// How it has ended, if by itself. Now and then it is left alive until it was seen to go on.
    fn see_it_go_on(&mut self, victim: &mut Victim<()>) -> Result<Option<ExitStatus>, Failure> {
        if self.moments.below(4) > 0 {
            return victim.ended();
        }
        if let Some(ballast) = &mut self.ballast {
            ballast.free(u64::MAX)?;
        }
        let acknowledged = || lock(&self.heard).ledger.acknowledgements;
        let (started, before) = (Instant::now(), acknowledged());
        while acknowledged() == before && !self.is_stopped() {
            if let Some(status) = victim.ended()? {
                return Ok(Some(status));
            }
            if started.elapsed() > PATIENCE {
                let what = format!("nothing was acknowledged in {} s; is the disk full?", PATIENCE.as_secs());
                if self.args.full_disk {
                    lock(&self.heard).hear(Word::Wrong(what));
                    return Ok(None);
                }
                return Err(Failure::Wrong(what));
            }
            std::thread::sleep(TICK);
        }
        victim.ended()
    }

    /// Reads everything, as the kill has left it. Changes nothing.
    fn look(&mut self) -> Result<(Found, &'static str), Failure> {
        let ledger = &lock(&self.heard).ledger;
        let view = match View::open(&self.log).and_then(|view| view.recoverable()) {
            // The process was killed before there was a log.
            Err(Error::NotFound { .. }) => return Ok((ledger.check_none(), "none")),
            view => view?,
        };
        copy_files(&self.log, &self.copy).map_err(Failure::io("copy the log"))?;
        let mut found = ledger.check(view.start_lsn(), view.reader_at(Lsn::ZERO));
        let report = foreword::verify(&self.log)?;
        if let Some(Verdict::Corruption(damage)) = &report.verdict {
            found.complain(format!("corruption: {damage}"));
        }
        if (report.start_lsn, report.last_lsn) != (found.start, found.last) {
            let (start, last) = (report.start_lsn, report.last_lsn);
            found.complain(format!("LSN {} to {} can be read, `verify` found {start} to {last}", found.start, found.last));
        }
        Ok((found, verdict::name(report.verdict.as_ref())))
    }

    /// Opens the log for writing: recovery gives the same, and can be closed. (Every other time the
    /// next writer does this, and may be killed in it.)
    fn reopen(&mut self, found: &mut Found) -> Result<Duration, Failure> {
        let log = self.open()?;
        let again = lock(&self.heard).ledger.check(log.start_lsn(), log.reader());
        if again != *found {
            found.complain(format!("LSN {} to {} could be read, recovery left this: {again:?}", found.start, found.last));
        }
        let took = log.recovery().took;
        log.close()?;
        Ok(took)
    }

    /// If the disk is to be full, it is.
    fn open(&mut self) -> Result<Log, Failure> {
        if let Some(ballast) = &mut self.ballast {
            ballast.fill()?;
            match worker::options().open(&self.log) {
                Err(Error::NoSpace { .. }) => ballast.free(u64::MAX)?,
                opened => return Ok(opened?),
            }
        }
        Ok(worker::options().open(&self.log)?)
    }
}

/// Reads along from another process than the writer's.
fn watch(log: &Path, heard: &Mutex<Heard>, reading: &AtomicBool) {
    let go_on = || reading.load(Ordering::Relaxed);
    let say = |word| {
        lock(heard).hear(word);
        Ok(())
    };
    let judge = |lsn, data: &[u8], before| lock(heard).ledger.eras.judge(lsn, data, before);
    while go_on() {
        let watched = View::open(log).and_then(|view| {
            let mut heard = lock(heard);
            heard.watched = true;
            let reader = view.reader_at(heard.ledger.end().next());
            drop(heard);
            follow(OTHER_READER, reader, judge, say, go_on)
        });
        match watched {
            Ok(()) => {}
            // There is no log yet.
            Err(Error::NotFound { .. }) => std::thread::sleep(TICK),
            Err(error) => {
                return lock(heard).hear(Word::Wrong(format!("{OTHER_READER}: {error}")));
            }
        }
    }
}

/// Drawn on a terminal alone.
fn progress(args: &Args) -> ProgressBar {
    let bar = ProgressBar::new(args.seconds.unwrap_or(args.kills));
    let unit = if args.seconds.is_some() { "s" } else { "kills" };
    match ProgressStyle::with_template(&format!("{{bar:30}} {{pos}} of {{len}} {unit}, {{eta}} to go: {{msg}}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Kill {
    fn json(&self, number: u64, seed: u64) -> serde_json::Value {
        let Kill { lived, opening, acknowledged, full, deeds, found, verdict, recovery } = self;
        json!({
            "kill": number,
            "seed": seed,
            "seconds": lived.as_secs_f64(),
            "while_opening": opening,
            "acknowledged": acknowledged,
            "refused_full": full,
            "meanwhile": deeds,
            "verdict": verdict,
            "start_lsn": found.start.0,
            "last_lsn": found.last.0,
            "read_records": found.records,
            "read_bytes": found.bytes,
            "recovery_seconds": recovery.map(|took| took.as_secs_f64()),
            "lost": found.lost,
            "wrong": found.wrong,
        })
    }
}

/// What all kills came to.
#[derive(Default)]
struct Tally {
    kills: u64,
    opening: u64,
    acknowledged: u64,
    full: u64,
    deeds: Deeds,
    read_records: u64,
    read_bytes: u64,
    verdicts: BTreeMap<&'static str, u64>,
    recoveries: u64,
    slowest: Duration,
    lost: u64,
    wrong: Vec<String>,
}

impl Tally {
    fn is_sound(&self) -> bool {
        self.lost == 0 && self.wrong.is_empty()
    }

    fn add(&mut self, kill: Kill) {
        self.kills += 1;
        self.opening += u64::from(kill.opening);
        self.acknowledged += kill.acknowledged;
        self.full += kill.full;
        for (deed, times) in kill.deeds {
            *self.deeds.entry(deed).or_default() += times;
        }
        self.read_records += kill.found.records;
        self.read_bytes += kill.found.bytes;
        *self.verdicts.entry(kill.verdict).or_default() += 1;
        self.recoveries += u64::from(kill.recovery.is_some());
        self.slowest = self.slowest.max(kill.recovery.unwrap_or_default());
        self.lost += kill.found.lost;
        self.wrong.extend(kill.found.wrong);
    }

    fn print(&self, out: &mut Output, args: &Args, seed: u64, place: &Place) -> Result<(), Failure> {
        if args.json {
            return out.json(&json!({
                "seed": seed,
                "kills": self.kills,
                "while_opening": self.opening,
                "acknowledged": self.acknowledged,
                "refused_full": self.full,
                "meanwhile": self.deeds,
                "read_records": self.read_records,
                "read_bytes": self.read_bytes,
                "verdicts": self.verdicts,
                "slowest_recovery_seconds": self.slowest.as_secs_f64(),
                "lost": self.lost,
                "wrong": self.wrong,
                "kept": (!self.is_sound()).then(|| place.dir().display().to_string()),
            }));
        }
        let times = |deed| self.deeds.get(deed).copied().unwrap_or_default();
        let verdicts: Vec<String> = self.verdicts.iter().map(|(name, n)| format!("{n} {name}")).collect();
        out.field("kills", format_args!("{}, of them {} while the log was being opened", self.kills, self.opening))?;
        out.field("acked", format_args!("{} records", self.acknowledged))?;
        out.field("cuts", format_args!("{} at the front, {} at the back", times("cut_front"), times("cut_back")))?;
        let tries = [
            ("left_directory", "opened by a relative path, and the directory left"),
            (Deed::Rename.name(), "renamed while open"),
            (Deed::Replace.name(), "renamed, and another log made under its name"),
            (Deed::SecondWriter.name(), "opened by a second writer, which was refused"),
            (Deed::RemoveLock.name(), "LOCK removed, and the writer stopped"),
        ];
        for (deed, what) in tries {
            out.field("meanwhile", format_args!("{} times {what}", times(deed)))?;
        }
        out.field("read back", format_args!("{} records, {}", self.read_records, units::human(self.read_bytes)))?;
        out.field("verdicts", verdicts.join(", "))?;
        out.field("recovery", format_args!("{} timed; the slowest {:.0} ms", self.recoveries, self.slowest.as_secs_f64() * 1e3))?;
        if args.full_disk {
            out.field("full disk", format_args!("{} calls were refused for want of room", self.full))?;
        }
        out.field("lost", format_args!("{} records", self.lost))?;
        for what in &self.wrong {
            out.field("WRONG", what)?;
        }
        Ok(())
    }
}
