//! Transactions on keys: the workloads of YCSB, and transfers, on trees and on other stores.

mod contest;
mod contestants;
mod fjall;
mod foreword;
mod ledger;
mod mix;
mod op;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sqlite;
mod stores;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use foreword_measure::Scratch;
use foreword_measure::report::Unit;
use foreword_measure::sample::{Spread, ratio};

use contest::{Contest, Measured};
use contestants::STORES;
use mix::Workload;

/// YCSB's workloads, and transfers, on trees and on other stores: operations a second, each of
/// which is a durable transaction.
///
/// A: half reads, half updates. B: 5% updates. C: reads. E: 95% scans of up to 100 keys, 5%
/// inserts. F: half reads, half reads that are followed by an update. Keys are chosen as YCSB does
/// (zipfian). Transfers change eight bytes in two of 10,000 rows. Reads are transactions, too, and
/// what they have read is durable. Each store has 256 MiB of cache. The first lines say how each is
/// set.
///
/// The stores come in turn, round by round, in one process; what one has left to be written is
/// written before the next begins. For each there are the operations a second and how long one
/// takes (p50, p99), the median of the rounds; in the end the ratio of the first to the best other
/// of the same round: median, least and most. Then each store is closed and opened, and every byte
/// in it is compared with what was written. `--features rocksdb` at building adds RocksDB.
///
/// As it stands it takes five to six minutes; `--workloads f,transfers --threads 64` looks at a
/// part.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk that is to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How often each is made.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    threads: Vec<usize>,
    /// Which workloads.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Workload::ALL)]
    workloads: Vec<Workload>,
    /// How many keys with values of 1,000 bytes each.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    records: u64,
}

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(self.rounds > 0 && !self.threads.contains(&0), "--rounds and --threads are more than 0");
        let time = Duration::try_from_secs_f64(self.seconds)?;
        let scratch = Scratch::new(&self.dir, "foreword-pages-bench")?;
        for store in STORES {
            println!("{} ({} {}): {}", store.name, store.package, store.version(), store.setting);
        }
        let contests =
            STORES.iter().map(|store| Contest::new(store, scratch.path(), self.records)).collect::<Result<Vec<_>>>()?;
        println!("\n| workload | threads |{} to the best peer |", columns(|name| format!(" {name} | p50, p99 |")));
        println!("|---|---:|{}---:|", columns(|_| "---:|---:|".to_owned()));
        for &workload in &self.workloads {
            for &threads in &self.threads {
                let mut measured = vec![Vec::new(); contests.len()];
                for round in 0..self.rounds {
                    for k in 0..contests.len() {
                        let at = (round + k) % contests.len();
                        quiet(scratch.path())?;
                        measured[at].push(contests[at].measure(workload, threads, time, round as u64)?);
                    }
                }
                let cells: String = measured.iter().map(|all| cell(all)).collect();
                println!("| {workload} | {threads} |{cells} {} |", to_the_best(&measured));
            }
        }
        for contest in contests {
            contest.check()?;
        }
        println!("\nEach store has every byte that was written, and the sum of all accounts is 0.");
        Ok(())
    }
}

fn columns(column: impl Fn(&str) -> String) -> String {
    STORES.iter().map(|store| column(store.name)).collect()
}

/// What one store leaves to be written must not be written in another's turn.
fn quiet(dir: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
}

fn cell(all: &[Measured]) -> String {
    let median = |figure: fn(&Measured) -> f64| {
        Spread::of(&all.iter().map(figure).collect::<Vec<_>>()).map_or(f64::NAN, |spread| spread.median)
    };
    let time = |figure| Unit::Seconds.text(median(figure));
    format!(" {:.0} | {}, {} |", median(|m| m.rate), time(|m| m.p50), time(|m| m.p99))
}

/// The first store's rate to that of the best other one, round by round.
fn to_the_best(measured: &[Vec<Measured>]) -> String {
    let Some((own, peers)) = measured.split_first() else { return String::new() };
    let best = |round: usize| peers.iter().map(|all| all[round].rate).fold(f64::NAN, f64::max);
    let (own, best): (Vec<f64>, Vec<f64>) = own.iter().enumerate().map(|(round, m)| (m.rate, best(round))).unzip();
    ratio(&own, &best).map_or("–".into(), |r| format!("{:.2} ({:.2} to {:.2})", r.median, r.min, r.max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_to_the_best_peer_of_each_round() {
        let rates = |rates: [f64; 3]| rates.map(|rate| Measured { rate, p50: 0.0, p99: 0.0 }).to_vec();
        let measured = [rates([10.0, 20.0, 30.0]), rates([10.0, 5.0, 10.0]), rates([5.0, 40.0, 20.0])];
        assert_eq!(to_the_best(&measured), "1.00 (0.50 to 1.50)");
    }
}
