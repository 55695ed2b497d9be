//! Stores for the logs of many Raft groups, side by side.

mod cell;
mod contestants;
mod foreword;
#[cfg(feature = "groups")]
mod raft_engine;
#[cfg(feature = "groups")]
mod raft_log;
mod stores;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use foreword_measure::Scratch;
use foreword_measure::report::Unit;

pub use cell::Part;
use cell::{Measured, Task};
use contestants::STORES;
use stores::Contestant;

use crate::files;
use crate::gauge::Disk;
use crate::wait;

/// Measures stores for the logs of many Raft groups: durable appends from threads over groups,
/// with purging; opening; what groups that lag behind cost.
///
/// Each measurement has a process of its own and a fresh directory; the stores come in turn, round
/// by round. An append is one entry, and is durable when the next is made. A group keeps its last
/// 32 entries. Where there are more threads than groups, they share groups.
#[derive(clap::Args)]
pub struct Args {
    /// Where to measure, on the disk that you want to know about.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How often to measure each; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many seconds appends are measured. (Laggards: five times that.)
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Threads that append.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    threads: Vec<usize>,
    /// Raft groups.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1_000, 10_000])]
    groups: Vec<u64>,
    /// Bytes of an entry.
    #[arg(long, value_delimiter = ',', default_values_t = [128, 1 << 10])]
    size: Vec<usize>,
    /// Only appends, only opening, or only laggards.
    #[arg(long, value_enum)]
    only: Option<Only>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    Appends,
    Open,
    Laggards,
}

/// What is opened: groups, and entries of 1 KiB in each.
const OPENED: (u64, u64) = (10_000, 100);

/// Beside what threads and groups the laggards are measured.
const BESIDE: (usize, u64) = (8, 1_000);

impl Args {
    pub fn run(&self) -> Result<()> {
        ensure!(self.rounds > 0 && self.seconds > 0.0, "--rounds and --seconds are more than 0");
        let scratch = Scratch::new(&self.dir, "foreword-groups")?;
        for store in STORES {
            println!("{}: {}", store.name, store.setting);
        }
        if self.only.is_none_or(|only| only == Only::Appends) {
            self.appends(scratch.path())?;
        }
        if self.only.is_none_or(|only| only == Only::Open) {
            self.opening(scratch.path())?;
        }
        if self.only.is_none_or(|only| only == Only::Laggards) {
            self.laggards(scratch.path())?;
        }
        Ok(())
    }

    fn appends(&self, dir: &Path) -> Result<()> {
        println!("\n| entries | threads | groups |{} to the better peer |", columns(|name| format!(" {name} | p50, p99 |")));
        println!("|---|---:|---:|{}---:|", columns(|_| "---:|---:|".to_owned()));
        for &size in &self.size {
            for &threads in &self.threads {
                for &groups in &self.groups {
                    let task = Task::Append { threads, groups, size, laggards: 0 };
                    let measured = self.rounds(dir, task)?;
                    let cells = measured.iter().map(|all| match &all[..] {
                        [] => " - | |".to_owned(),
                        all => {
                            let time = |pick: fn(&Measured) -> f64| Unit::Seconds.text(median(all.iter().map(pick)));
                            format!(" {:.0} | {}, {} |", median(all.iter().map(rate)), time(|m| m.p50), time(|m| m.p99))
                        }
                    });
                    println!(
                        "| {size} B | {threads} | {groups} |{} {} |",
                        cells.collect::<String>(),
                        to_the_better(&measured, rate)
                    );
                }
            }
        }
        Ok(())
    }

    fn opening(&self, dir: &Path) -> Result<()> {
        let (groups, entries) = OPENED;
        println!("\nOpening {groups} groups with {entries} entries of 1 KiB each:\n");
        println!("| store | files | time | memory | a group |\n|---|---|---:|---:|---:|");
        let mut ratios = Vec::new();
        for (cached, files) in [(true, "in the page cache"), (false, "on the disk")] {
            let measured = self.rounds(dir, Task::Open { groups, entries, cached })?;
            for (store, all) in STORES.iter().zip(&measured).filter(|(_, all)| !all.is_empty()) {
                let time = Unit::Seconds.text(median(all.iter().map(|m| m.seconds)));
                let memory = median(all.iter().map(|m| m.memory as f64));
                let of_group = Unit::Bytes.text(memory / groups as f64);
                println!("| {} | {files} | {time} | {} | {of_group} |", store.name, Unit::Bytes.text(memory));
            }
            ratios.push(format!("{files} {}", to_the_better(&measured, rate)));
        }
        println!("\nEntries a second to the better peer: {}", ratios.join(", "));
        Ok(())
    }

    fn laggards(&self, dir: &Path) -> Result<()> {
        let (threads, groups) = BESIDE;
        println!(
            "\n{threads} threads, {groups} groups, 1 KiB; the laggards have 1,000 entries each, and neither append nor purge:\n"
        );
        println!(
            "| store | laggards | appends/s | written for each byte of an entry | on the disk at the end |\n|---|---:|---:|---:|---:|"
        );
        for laggards in [0, 10, 100] {
            let measured = self.rounds(dir, Task::Append { threads, groups, size: 1 << 10, laggards })?;
            for (store, all) in STORES.iter().zip(&measured).filter(|(_, all)| !all.is_empty()) {
                let amplification =
                    median(all.iter().map(|m| m.written.map_or(f64::NAN, |bytes| bytes as f64 / (m.entries << 10) as f64)));
                let space = Unit::Bytes.text(median(all.iter().map(|m| m.space as f64)));
                println!("| {} | {laggards} | {:.0} | {amplification:.2} | {space} |", store.name, median(all.iter().map(rate)));
            }
        }
        Ok(())
    }

    /// What each store was measured at, round by round; nothing for one that takes no part.
    fn rounds(&self, dir: &Path, task: Task) -> Result<Vec<Vec<Measured>>> {
        let mut measured = vec![Vec::new(); STORES.len()];
        for round in 0..self.rounds {
            for k in 0..STORES.len() {
                let at = (round + k) % STORES.len();
                if task.groups() <= STORES[at].groups_max {
                    let one = self.one(dir, STORES[at], task).with_context(|| format!("{}, {task:?}", STORES[at].name))?;
                    measured[at].push(one);
                }
            }
        }
        Ok(measured)
    }

    fn one(&self, dir: &Path, store: &Contestant, task: Task) -> Result<Measured> {
        let place = dir.join(store.name);
        std::fs::create_dir(&place)?;
        if let Task::Open { cached, .. } = task {
            self.part(&place, store, task, true)?;
            if cached { files::warm(&place)? } else { files::chill(&place)? }
        }
        rustix::fs::syncfs(File::open(dir)?)?;
        Disk::of(dir).settle();
        let measured = self.part(&place, store, task, false)?;
        std::fs::remove_dir_all(&place)?;
        Ok(measured)
    }

    fn part(&self, dir: &Path, store: &Contestant, task: Task, build: bool) -> Result<Measured> {
        let out = dir.with_extension("out");
        let errors = dir.with_extension("errors");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("groups-part").arg("--store").arg(store.name).arg("--dir").arg(dir).arg("--out").arg(&out);
        command.arg("--seconds").arg(self.seconds.to_string()).arg("--task").arg(serde_json::to_string(&task)?);
        command.args(build.then_some("--build")).stdout(Stdio::null()).stderr(File::create(&errors)?);
        let limit = Duration::from_secs_f64(300.0 + 10.0 * self.seconds);
        let Some(status) = wait::ended(&mut command.spawn()?, limit)? else { bail!("it did not end") };
        ensure!(status.success(), "{status}: {}", String::from_utf8_lossy(&std::fs::read(&errors)?).trim());
        Ok(serde_json::from_slice(&std::fs::read(&out)?)?)
    }
}

fn columns(column: impl Fn(&str) -> String) -> String {
    STORES.iter().map(|store| column(store.name)).collect()
}

fn rate(measured: &Measured) -> f64 {
    measured.entries as f64 / measured.seconds
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    if all.is_empty() { f64::NAN } else { (all[(all.len() - 1) / 2] + all[all.len() / 2]) / 2.0 }
}

/// The first store's figure to the best of the others', round by round: the median, least and most.
fn to_the_better(measured: &[Vec<Measured>], figure: fn(&Measured) -> f64) -> String {
    let Some((own, peers)) = measured.split_first() else { return String::new() };
    let ratio = |(round, own): (usize, &Measured)| {
        let best = peers.iter().filter_map(|all| all.get(round)).map(figure).fold(f64::NAN, f64::max);
        figure(own) / best
    };
    let ratios: Vec<f64> = own.iter().enumerate().map(ratio).collect();
    let (least, most) = ratios.iter().fold((f64::MAX, f64::MIN), |(least, most), &r| (least.min(r), most.max(r)));
    format!("{:.2} ({least:.2} to {most:.2})", median(ratios.into_iter()))
}
