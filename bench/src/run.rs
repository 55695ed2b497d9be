//! A run: every workload, all contestants in turn, round by round.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use foreword_measure::Scratch;
use foreword_measure::idle::{CpuTimes, Idle};
use foreword_measure::machine::{Machine, Place};
use foreword_measure::report::Unit;
use indicatif::{ProgressBar, ProgressStyle};

use crate::ablation;
use crate::cell::Step;
use crate::gauge::{Disk, Spent};
use crate::outcome::Outcome;
use crate::peers::{self, PEERS};
use crate::results::{Book, Contestant, Line, Measured, Results, Run};
use crate::tables;
use crate::wait;
use crate::workload::Workload;

/// Measures, and writes tables, JSON and a page.
///
/// Each contestant is measured in a process of its own, in a fresh directory, for a short time;
/// then the next one; and all again, round by round, so that a change of the disk's pace affects
/// all. Each result is written at once: a run that was stopped goes on with --resume.
#[derive(clap::Args)]
pub struct Args {
    /// The directory to measure in, on the disk that you want to know about. The run makes a
    /// directory of its own there, and removes it.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The results, as JSON lines; beside them come a page (.html) and a summary (.json).
    #[arg(long, default_value = "foreword-bench.jsonl")]
    out: PathBuf,
    /// Go on with the results that are there.
    #[arg(long)]
    resume: bool,
    /// A first look, in about 2 minutes: fewer workloads, for half the time, once, so that there is
    /// no spread.
    #[arg(long)]
    short: bool,
    /// Only these workloads and contestants, by parts of their names:
    /// `commit/8x,append,writeahead`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Measure these workloads instead of the usual ones, by name:
    /// `commit/32x4096,append/64,recover/64MiBx128`.
    #[arg(long, value_delimiter = ',', conflicts_with = "short")]
    workload: Vec<Workload>,
    /// How often to measure each; the median counts. [default: 6; short: 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// How many seconds each measurement takes. [default: 0.5; short: 0.25]
    #[arg(long)]
    seconds: Option<f64>,
    /// Measure even if the machine is not idle.
    #[arg(long)]
    anyway: bool,
    /// Stop after this many seconds, so that --resume can go on.
    #[arg(long)]
    stop_after: Option<f64>,
}

/// If other processes use more of the processors than this, a contestant is measured again.
const OTHERS_MAX: f64 = 0.25;
/// The same for bytes a second that other processes write.
const OTHERS_DISK_MAX: f64 = 16e6;
/// At most this often.
const TRIES: usize = 2;

impl Args {
    pub fn run(self) -> Result<()> {
        let (workloads, contestants) = self.chosen()?;
        self.measure(&workloads, &contestants)
    }

    /// Measures Foreword without each choice that its options can do without, in turn.
    pub fn run_ablation(self) -> Result<()> {
        let choices = ablation::CHOICES.iter().map(|(choice, instead, _)| {
            println!("{choice}: {instead}");
            format!("foreword-growing:{choice}")
        });
        let contestants: Vec<String> = std::iter::once(ablation::WHOLE.to_owned()).chain(choices).collect();
        let commits = || [1, 8, 64, 256].map(|threads| Workload::Commit { threads, size: 128 }).to_vec();
        let workloads = if self.workload.is_empty() { commits() } else { self.workload.clone() };
        self.measure(&workloads, &contestants)
    }

    /// Measures these contestants: names of peers, or `foreword:` and what is switched off in it.
    fn measure(&self, workloads: &[Workload], contestants: &[String]) -> Result<()> {
        let rounds = self.rounds.unwrap_or(if self.short { 1 } else { 6 });
        let seconds = self.seconds.unwrap_or(if self.short { 0.25 } else { 0.5 });
        ensure!(seconds > 0.0 && seconds <= 60.0, "--seconds is more than 0 and at most 60");
        ensure!(self.resume || !self.out.exists(), "{} is there: --resume goes on with it", self.out.display());
        let known = if self.out.exists() { Results::read(&self.out)? } else { Results::default() };
        let mut book = Book::open(&self.out)?;
        book.write(&Line::Run(self.circumstances(contestants, seconds)?))?;
        let todo: Vec<(Workload, Vec<&str>)> =
            workloads.iter().map(|&w| (w, present(w, contestants))).filter(|(_, peers)| !peers.is_empty()).collect();
        let bar = progress(todo.iter().map(|(w, peers)| left(&known, *w, peers, rounds)).sum::<usize>());
        let stop = self.stop_after.map(|s| Instant::now() + Duration::from_secs_f64(s));
        let scratch = Scratch::new(&self.dir, "foreword-bench")?;
        let mut stopped = false;
        for (workload, peers) in &todo {
            let mut field = Field { dir: scratch.path(), workload: *workload, seconds, built: Vec::new(), failed: Vec::new() };
            for round in 0..rounds {
                // Each begins once.
                let (before, after) = peers.split_at(round % peers.len());
                for &peer in after.iter().chain(before) {
                    if known.has(*workload, peer, round) || field.failed.contains(&peer) {
                        continue;
                    }
                    stopped |= stop.is_some_and(|stop| Instant::now() >= stop);
                    if stopped {
                        break;
                    }
                    bar.set_message(format!("{workload} {peer}"));
                    book.write(&field.measure(peer, round))?;
                    bar.inc(1);
                }
            }
            field.clear();
            if !stopped && left(&known, *workload, peers, rounds) > 0 {
                let now = Results::read(&self.out)?;
                bar.suspend(|| println!("{}", tables::text(&now.brief(*workload))));
            }
        }
        bar.finish_and_clear();
        if stopped {
            println!("stopped; --resume goes on");
            return Ok(());
        }
        tables::write(&self.out)
    }

    /// The workloads and contestants that are asked for.
    fn chosen(&self) -> Result<(Vec<Workload>, Vec<String>)> {
        let workloads = match &self.workload[..] {
            [] if self.short => Workload::short(),
            [] => Workload::all(),
            given => given.to_vec(),
        };
        let of_workloads = |word: &&String| workloads.iter().any(|w| w.to_string().contains(word.as_str()));
        let (by_workload, by_peer): (Vec<_>, Vec<_>) = self.only.iter().partition(of_workloads);
        if let Some(word) = by_peer.iter().find(|word| !PEERS.iter().any(|p| p.name.contains(word.as_str()))) {
            bail!(
                "--only {word}: there is no such workload or contestant. Contestants: {}. Workloads: {}",
                peers::names().join(", "),
                workloads.iter().map(Workload::to_string).collect::<Vec<_>>().join(", ")
            );
        }
        let wanted = |name: &str, words: &[&String]| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
        let workloads = workloads.into_iter().filter(|w| wanted(&w.to_string(), &by_workload)).collect();
        let contestants = PEERS.iter().map(|p| p.name.to_owned()).filter(|name| wanted(name, &by_peer)).collect();
        Ok((workloads, contestants))
    }

    fn circumstances(&self, contestants: &[String], seconds: f64) -> Result<Run> {
        let place = Place::of(&self.dir)?;
        ensure!(!place.is_memory(), "{} is in memory, where nothing is durable: --dir names another", self.dir.display());
        let warnings = Idle::look(Duration::from_secs(1)).objections();
        if !warnings.is_empty() && !self.anyway {
            bail!("the machine is not idle: {} (--anyway measures all the same)", warnings.join("; "));
        }
        let contestants = contestants.iter().filter(|name| !name.contains(':')).map(|name| {
            let peer = peers::find(name)?;
            let lacks = peer.lacks.iter().map(|(feature, why)| format!("{feature:?}: {why}")).collect();
            let (version, setting) = (peer.version().to_owned(), peer.setting.to_owned());
            Ok(Contestant { name: name.clone(), version, setting, lacks })
        });
        Ok(Run { facts: facts(&place), warnings, contestants: contestants.collect::<Result<_>>()?, seconds })
    }
}

/// The machine and the disk, in words.
fn facts(place: &Place) -> Vec<(String, String)> {
    let machine = Machine::here();
    let mut facts = vec![("processor".to_owned(), format!("{} processors, {}", machine.cpus, machine.cpu))];
    let mut fact = |name: &str, value: Option<String>| facts.extend(value.map(|value| (name.to_owned(), value)));
    fact("memory", machine.memory_bytes.map(|bytes| Unit::Bytes.text(bytes as f64)));
    fact("virtual machine", machine.hypervisor);
    fact("system", Some(machine.system));
    fact("file system", place.file_system.as_ref().map(|kind| format!("{kind} ({})", place.mount_options.join(","))));
    fact(
        "disk",
        place.device.as_ref().map(|device| {
            let model = device.model.as_ref().map_or(String::new(), |model| format!(", {model}"));
            let cache = match device.volatile_cache {
                Some(true) => ", volatile write cache",
                Some(false) => ", no volatile write cache",
                None => "",
            };
            let fua = if device.fua == Some(true) { ", FUA" } else { ", no FUA" };
            format!("{}{model}{cache}{fua}, scheduler {}", device.name, device.scheduler.as_deref().unwrap_or("none"))
        }),
    );
    facts
}

/// Which of the contestants take part in a workload.
fn present(workload: Workload, contestants: &[String]) -> Vec<&str> {
    let takes_part = |name: &&str| peers::find(name).is_ok_and(|peer| workload.absent(peer).is_none());
    contestants.iter().map(String::as_str).filter(takes_part).collect()
}

fn left(known: &Results, workload: Workload, peers: &[&str], rounds: usize) -> usize {
    (0..rounds)
        .flat_map(|round| peers.iter().map(move |peer| (round, peer)))
        .filter(|(round, peer)| !known.has(workload, peer, *round))
        .count()
}

fn progress(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed} of about {duration}  {msg}");
    ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Where a workload is measured.
struct Field<'a> {
    dir: &'a Path,
    workload: Workload,
    seconds: f64,
    /// Contestants whose log is there.
    built: Vec<&'a str>,
    failed: Vec<&'a str>,
}

impl<'a> Field<'a> {
    /// One measurement; once more if others disturbed it.
    fn measure(&mut self, peer: &'a str, round: usize) -> Line {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_measure(peer) {
                Ok((outcome, others)) if tries < TRIES && (others > Some(OTHERS_MAX) || is_disturbed(&outcome.spent)) => {}
                Ok((outcome, others)) => {
                    return Line::Measured(Box::new(Measured {
                        workload: self.workload,
                        peer: peer.to_owned(),
                        round,
                        others,
                        outcome,
                    }));
                }
                Err(e) => {
                    self.failed.push(peer);
                    return Line::Failed { workload: self.workload, peer: peer.to_owned(), why: format!("{e:#}") };
                }
            }
        }
    }

    fn try_measure(&mut self, peer: &'a str) -> Result<(Outcome, Option<f64>)> {
        let dir = self.dir.join(peer.replace(':', "-"));
        let keeps = matches!(self.workload, Workload::Recover { .. } | Workload::Open { .. }) && !peer.starts_with("floor");
        if !keeps || !self.built.contains(&peer) {
            renew(&dir)?;
        }
        if keeps && !self.built.contains(&peer) {
            self.step(peer, Step::Build, &dir)?;
            self.built.push(peer);
        }
        if matches!(self.workload, Workload::Open { killed: true, .. }) {
            self.step(peer, Step::Kill, &dir)?;
        }
        // What the last one left is on the disk before the next begins.
        rustix::fs::syncfs(File::open(self.dir)?)?;
        Disk::of(self.dir).settle();
        let (before, started) = (CpuTimes::now(), Instant::now());
        let outcome = self.step(peer, Step::Measure, &dir)?.context("no outcome")?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let own = outcome.process_cpu_seconds / (started.elapsed().as_secs_f64() * cpus);
        let all = CpuTimes::now().zip(before).map(|(now, before)| now.since(&before));
        let others = all.map(|all| (all.busy + all.steal - own).max(0.0));
        if !keeps {
            std::fs::remove_dir_all(&dir)?;
        }
        Ok((outcome, others))
    }

    /// A step of it, in a process of its own.
    fn step(&self, peer: &str, step: Step, dir: &Path) -> Result<Option<Outcome>> {
        let out = self.dir.join("outcome");
        let mut child = cell(peer, self.workload, step, dir, self.seconds, &out)?;
        let errors = self.dir.join("errors");
        let mut child = child.stdout(Stdio::null()).stderr(File::create(&errors)?).spawn().context("start a process")?;
        let limit = Duration::from_secs_f64(180.0 + 4.0 * self.seconds);
        let Some(status) = wait::ended(&mut child, limit)? else { bail!("it did not end") };
        if !status.success() {
            let said = String::from_utf8_lossy(&std::fs::read(&errors)?).into_owned();
            bail!("{status}: {}", said.trim().lines().take(3).collect::<Vec<_>>().join(" / "));
        }
        Ok(serde_json::from_slice(&std::fs::read(&out)?)?)
    }

    /// Removes what it built.
    fn clear(&mut self) {
        for peer in self.built.drain(..) {
            let _ = std::fs::remove_dir_all(self.dir.join(peer.replace(':', "-")));
        }
    }
}

/// Whether others wrote to the disk meanwhile, more than the file system does for a contestant.
fn is_disturbed(spent: &Spent) -> bool {
    let others = spent.disk_written_bytes.zip(spent.own_written_bytes).map(|(disk, own)| disk.saturating_sub(own * 3 / 2) as f64);
    others > Some(spent.seconds * OTHERS_DISK_MAX)
}

/// The command that does a step.
pub fn cell(peer: &str, workload: Workload, step: Step, dir: &Path, seconds: f64, out: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("cell").arg("--peer").arg(peer).arg("--workload").arg(workload.to_string());
    command.arg("--step").arg(step.to_string()).arg("--dir").arg(dir);
    command.arg("--seconds").arg(seconds.to_string()).arg("--out").arg(out);
    peers::tell_walrus(&mut command, dir);
    if let Some((_, without)) = peer.split_once(':') {
        command.env(ablation::WITHOUT, without);
    }
    Ok(command)
}

fn renew(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(std::fs::create_dir(dir)?)
}
