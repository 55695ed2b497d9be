//! `foreword demo`: shows the log's main job. A process commits from many threads and is killed at
//! random moments, again and again; the records that it had acknowledged must be there.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use foreword::{Options, RecoveryReport, View};
use serde_json::json;

use self::check::{Acknowledged, Found, check};
use self::content::Id;
use crate::exit::{Failure, Status};
use crate::noise::{Noise, random_seed};
use crate::output::Output;
use crate::verdict;
use crate::victim::{self, Victim};
use foreword_command::plain;
use foreword_command::units;

mod check;
mod content;
pub(crate) mod worker;

/// Show that acknowledged records survive: commit from many threads, kill, recover, check
///
/// A child process commits from many threads and reports each acknowledged record. It is killed
/// (SIGKILL) at a random moment, the log is recovered, and every record that was ever acknowledged
/// is compared byte for byte. Exit status 3 if a record is missing, or if there is one that was
/// never written.
///
/// "rewritten" counts the records that opening wrote again: those that only the page cache may have
/// held, and durable ones before them in a segment that held little.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword demo
  foreword demo --rounds 20 --for 3s --threads 64
  foreword demo /mnt/disk/try && foreword stat /mnt/disk/try")]
pub(crate) struct Args {
    /// Where to create the log; it is kept [default: a temporary directory, removed at the end]
    dir: Option<PathBuf>,
    /// How often to kill
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// The longest time until a kill
    #[arg(long = "for", value_name = "TIME", default_value = "1s", value_parser = units::time)]
    time: Duration,
    /// Threads that commit
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    threads: u64,
    /// Determines the records and the moments of the kills [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object per round, and one for all of them
    #[arg(long)]
    json: bool,
}

/// One round, from start to check.
struct Round {
    number: u64,
    ran: Duration,
    acknowledged: u64,
    report: RecoveryReport,
    found: Found,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let seed = args.seed.unwrap_or_else(random_seed);
    let (dir, temporary) = match &args.dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let dir = temporary_dir(seed)?;
            (dir.join("log"), Some(dir))
        }
    };
    // Refuses a directory in which there is something.
    Options::new().create_new().segment_bytes(worker::SEGMENT_BYTES).open(&dir)?.close()?;
    let mut out = Output::new();
    if !args.json {
        let Args { rounds, threads, .. } = args;
        out.line(format_args!("{threads} threads commit to {}, {rounds} kills, --seed {seed}", plain(dir.display())))?;
        out.line(format_args!("{HEAD}"))?;
        out.flush()?;
    }
    let mut moments = Noise(seed);
    let mut acknowledged = Acknowledged::default();
    let (mut lost, mut wrong, mut ran) = (0, Vec::new(), Duration::ZERO);
    for number in 1..=args.rounds {
        let life = args.time.mul_f64(0.1 + 0.9 * moments.fraction());
        let round = play(args, &dir, seed, number, life, &mut acknowledged)?;
        print_round(&mut out, args, &round)?;
        out.flush()?;
        (lost, ran) = (round.found.lost, ran + round.ran);
        wrong.extend(round.found.wrong);
    }
    let sound = lost == 0 && wrong.is_empty();
    print_end(&mut out, args, &acknowledged, lost, &wrong, ran)?;
    out.flush()?;
    match temporary {
        Some(temporary) if sound => std::fs::remove_dir_all(temporary).map_err(Failure::io("remove the temporary directory"))?,
        Some(_) => crate::output::note(format_args!("the log is kept in {}", dir.display())),
        None => {}
    }
    Ok(if sound { Status::Fine } else { Status::Corruption })
}

fn temporary_dir(seed: u64) -> Result<PathBuf, Failure> {
    let dir = std::env::temp_dir().join(format!("foreword-demo-{}-{seed}", std::process::id()));
    std::fs::create_dir(&dir).map_err(Failure::io("make a temporary directory"))?;
    Ok(dir)
}

fn play(
    args: &Args,
    dir: &Path,
    seed: u64,
    number: u64,
    life: Duration,
    acknowledged: &mut Acknowledged,
) -> Result<Round, Failure> {
    let before = acknowledged.len();
    let (ran, acks) = live_and_die(args, dir, seed, number, life)?;
    let mut twice = None;
    for (lsn, id) in acks {
        if !acknowledged.add(lsn, id) {
            twice = Some(lsn);
        }
    }
    // A reader that changes nothing sees what recovery will return.
    let seen = View::open(dir)?.recoverable_lsn()?;
    let log = Options::new().create(false).segment_bytes(worker::SEGMENT_BYTES).open(dir)?;
    let report = log.recovery().clone();
    let mut found = check(&log, acknowledged, seed, number)?;
    log.close()?;
    if seen != report.last_lsn {
        found.wrong.push(format!("a reader saw records up to LSN {seen}, recovery kept those up to {}", report.last_lsn));
    }
    if let Some(lsn) = twice {
        found.wrong.push(format!("LSN {lsn} was acknowledged twice"));
    }
    Ok(Round { number, ran, acknowledged: acknowledged.len() - before, report, found })
}

/// Runs the worker until it is killed: how long it committed, and what it had acknowledged.
fn live_and_die(args: &Args, dir: &Path, seed: u64, round: u64, life: Duration) -> Result<(Duration, Vec<(u64, Id)>), Failure> {
    let told = victim::Args { dir: dir.to_owned(), threads: args.threads, round, seed, leave: None };
    let (ready, is_ready) = mpsc::channel();
    let mut victim = Victim::start("demo-worker", &told, move |pipe| listen(pipe, round, ready))?;
    // An error if the child ended before it was ready; the check of its status says so.
    let _ = is_ready.recv();
    let started = Instant::now();
    std::thread::sleep(life);
    if let Some(status) = victim.ended()? {
        return Err(Failure::Wrong(format!("the child process ended by itself ({status})")));
    }
    let ran = started.elapsed();
    Ok((ran, victim.kill()?))
}

/// Everything that the worker says until it is dead.
fn listen(pipe: impl BufRead, round: u64, ready: mpsc::Sender<()>) -> Vec<(u64, Id)> {
    let mut acks = Vec::new();
    for line in pipe.lines().map_while(Result::ok) {
        if line == worker::READY {
            let _ = ready.send(());
            continue;
        }
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        if let [thread, counter, lsn] = numbers[..] {
            acks.push((lsn, Id { round, thread, counter }));
        }
    }
    acks
}

const HEAD: &str = "round   ran for  commits/s  acknowledged  recovered  rewritten  lost  recovery  verdict";

fn print_round(out: &mut Output, args: &Args, round: &Round) -> Result<(), Failure> {
    let Round { number, ran, acknowledged, report, found } = round;
    let rate = *acknowledged as f64 / ran.as_secs_f64();
    if args.json {
        return out.json(&json!({
            "round": number,
            "seconds": ran.as_secs_f64(),
            "commits_per_second": rate,
            "acknowledged": acknowledged,
            "recovered": found.recovered,
            "rewritten": report.rewritten_records,
            "lost": found.lost,
            "recovery_seconds": report.took.as_secs_f64(),
            "verdict": verdict::name(Some(&report.verdict)),
        }));
    }
    out.line(format_args!(
        "{number:>5}  {:>6.0} ms  {rate:>9.0}  {acknowledged:>12}  {:>9}  {:>9}  {:>4}  {:>5.0} ms  {}",
        ran.as_secs_f64() * 1e3,
        found.recovered,
        report.rewritten_records,
        found.lost,
        report.took.as_secs_f64() * 1e3,
        verdict::name(Some(&report.verdict)),
    ))
}

fn print_end(
    out: &mut Output,
    args: &Args,
    acknowledged: &Acknowledged,
    lost: u64,
    wrong: &[String],
    ran: Duration,
) -> Result<(), Failure> {
    let (commits, rate) = (acknowledged.len(), acknowledged.len() as f64 / ran.as_secs_f64());
    if args.json {
        return out.json(&json!({
            "rounds": args.rounds,
            "acknowledged": commits,
            "commits_per_second": rate,
            "lost": lost,
            "wrong": wrong,
        }));
    }
    for what in wrong {
        out.line(format_args!("WRONG: {}", plain(what)))?;
    }
    if lost > 0 {
        return out.line(format_args!("LOST: {lost} of {commits} acknowledged records"));
    }
    if wrong.is_empty() {
        out.line(format_args!(
            "{commits} commits were acknowledged ({rate:.0} a second): all are there, byte for byte, and nothing else"
        ))?;
    }
    Ok(())
}
