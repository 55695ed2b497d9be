//! Does a contestant acknowledge only what is synced? strace shows each record on its way to a
//! file. A flush of that file must begin after that write, and end before the commit returns.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use foreword_measure::Scratch;

use crate::cell::Step;
use crate::marked::{COMMITS, NOWHERE, SIZE};
use crate::peers::{self, Feature};
use crate::results::{Book, Honest, Line};
use crate::run;
use crate::workload::Workload;

/// Checks with strace that every acknowledgement of every contestant is covered by a flush.
///
/// From one thread and from eight. What is found is added to the results, so that the tables can
/// mark contestants that fail.
#[derive(clap::Args)]
pub struct Args {
    /// The directory to write in.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The results that it is added to.
    #[arg(long, default_value = "foreword-bench.jsonl")]
    out: PathBuf,
    /// Only these contestants, by parts of their names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

const SYNCED: &str = "a synced write";
const CALLS: &str =
    "trace=fsync,fdatasync,sync_file_range,msync,syncfs,sync,write,writev,pwrite64,pwritev,pwritev2,open,openat,io_uring_enter";

impl Args {
    pub fn run(self) -> Result<()> {
        let mut book = Book::open(&self.out)?;
        println!("{:16} {:>7} {:>8} {:>8}  flushes seen", "contestant", "threads", "commits", "covered");
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()));
        let committers = peers::logs().filter(|p| p.lacks(Feature::Commit).is_none() && wanted(p.name));
        for peer in committers {
            for threads in [1, 8] {
                let honest = self.check(peer.name, threads).with_context(|| format!("{}, {threads} threads", peer.name))?;
                let seen: Vec<String> = honest.flushes.iter().map(|(call, n)| format!("{n} {call}")).collect();
                let verdict = if honest.is_honest() { "" } else { "  NOT COVERED" };
                println!(
                    "{:16} {threads:>7} {:>8} {:>8}  {}{verdict}",
                    peer.name,
                    honest.commits,
                    honest.covered,
                    seen.join(", ")
                );
                book.write(&Line::Honest(honest))?;
            }
        }
        Ok(())
    }

    fn check(&self, peer: &str, threads: usize) -> Result<Honest> {
        let scratch = Scratch::new(&self.dir, "foreword-honest")?;
        let (dir, trace) = (scratch.path().join("log"), scratch.path().join("trace"));
        std::fs::create_dir(&dir)?;
        let workload = Workload::Commit { threads, size: SIZE };
        let cell = run::cell(peer, workload, Step::Honest, &dir, 1.0, &scratch.path().join("outcome"))?;
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-qq", "-s", "4194304", "-e", CALLS, "-e", "signal=none", "-o"]).arg(&trace);
        strace.arg(cell.get_program()).args(cell.get_args()).stdout(Stdio::null());
        strace.envs(cell.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let ended = strace.output().context("start strace (is it installed? `apt-get install strace`)")?;
        ensure!(ended.status.success(), "{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr).trim());
        let trace = std::fs::read(&trace)?;
        let (commits, covered, flushes) = judge(&String::from_utf8_lossy(&trace))?;
        ensure!(commits == (threads * COMMITS) as u64, "{commits} commits were seen");
        Ok(Honest { peer: peer.to_owned(), threads, commits, covered, flushes })
    }
}

/// A system call in a trace.
#[derive(Debug, PartialEq)]
struct Call<'a> {
    name: &'a str,
    /// Its arguments, as far as they were known when it began.
    args: &'a str,
    /// Lines of its beginning and end.
    from: usize,
    to: usize,
    failed: bool,
}

impl Call<'_> {
    /// The file of the descriptor that is its first argument.
    fn file(&self) -> &str {
        let path = self.args.split_once('<').filter(|(fd, _)| fd.bytes().all(|b| b.is_ascii_digit()));
        path.and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path)
    }

    fn is_write(&self) -> bool {
        matches!(self.name, "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2")
    }
}

/// The calls of a trace, in the order in which they ended.
fn calls(trace: &str) -> Result<Vec<Call<'_>>> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (usize, &str, &str)> = HashMap::new();
    for (i, line) in trace.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let failed = |rest: &str| rest.rsplit_once(" = ").is_some_and(|(_, result)| result.starts_with('-'));
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let (from, name, args) = unfinished.remove(pid).with_context(|| format!("line {}: what is resumed?", i + 1))?;
            calls.push(Call { name, args, from, to: i, failed: failed(resumed) });
        } else if let Some((name, args)) = rest.split_once('(') {
            if let Some(args) = args.strip_suffix(" <unfinished ...>") {
                unfinished.insert(pid, (i, name, args));
            } else {
                calls.push(Call { name, args, from: i, to: i, failed: failed(args) });
            }
        }
    }
    Ok(calls)
}

/// How many commits were acknowledged, how many of them rightly, and what flushed.
fn judge(trace: &str) -> Result<(u64, u64, BTreeMap<String, u64>)> {
    let calls = calls(trace)?;
    // Files whose writes are flushed as they are made.
    let mut synced_files: Vec<&str> = Vec::new();
    let mut flushes: BTreeMap<String, u64> = BTreeMap::new();
    // Flushes: of which file (`None`: of all), from, to.
    let mut flushed: Vec<(Option<&str>, usize, usize)> = Vec::new();
    let mut begun: HashMap<&str, usize> = HashMap::new();
    let mut written: HashMap<&str, Vec<&Call<'_>>> = HashMap::new();
    let mut commits = 0;
    let mut covered = 0;
    for call in calls.iter().filter(|call| !call.failed) {
        match call.name {
            "fsync" | "fdatasync" => flushed.push((Some(call.file()), call.from, call.to)),
            "sync" | "syncfs" => flushed.push((None, call.from, call.to)),
            "msync" if call.args.contains("MS_SYNC") => flushed.push((None, call.from, call.to)),
            "open" | "openat" if call.args.contains("O_SYNC") || call.args.contains("O_DSYNC") => {
                synced_files
                    .extend(call.args.rsplit_once("= ").and_then(|(_, fd)| fd.split_once('<')?.1.split_once('>')).map(|f| f.0));
            }
            _ => {}
        }
        let counts = match call.name {
            name if call.is_write() => {
                let dsync = call.args.contains("RWF_DSYNC") || call.args.contains("RWF_SYNC");
                if dsync || synced_files.contains(&call.file()) {
                    flushed.push((Some(call.file()), call.from, call.to));
                    Some(if dsync { name } else { SYNCED })
                } else {
                    None
                }
            }
            "open" | "openat" => None,
            name => Some(name),
        };
        if let Some(name) = counts {
            *flushes.entry(name.to_owned()).or_default() += 1;
        }
        if !call.is_write() {
            continue;
        }
        for record in records(call.args) {
            if call.file() != NOWHERE {
                written.entry(record).or_default().push(call);
            } else if call.args.contains("\"begin ") {
                begun.insert(record, call.to);
            } else {
                commits += 1;
                let Some(&begin) = begun.get(record) else { bail!("{record} was acknowledged before it began") };
                let is_covered = |write: &&Call<'_>| {
                    flushed.iter().any(|&(file, from, to)| {
                        let same = file.is_none_or(|file| file == write.file());
                        let behind = from > write.to || (from, to) == (write.from, write.to);
                        same && behind && to < call.from
                    })
                };
                let mut writes = written.get(record).map_or(&[][..], Vec::as_slice).iter().filter(|w| w.from > begin);
                covered += u64::from(writes.any(is_covered));
            }
        }
    }
    Ok((commits, covered, flushes))
}

/// The names of records in what was written.
fn records(args: &str) -> impl Iterator<Item = &str> {
    args.match_indices("<record ").filter_map(|(at, _)| {
        let end = args[at..].find('>')?;
        Some(&args[at..=at + end])
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn covered(trace: &str) -> (u64, u64) {
        let (commits, covered, _) = judge(trace).unwrap();
        (commits, covered)
    }

    const BEGIN: &str = "7 write(3</dev/null>, \"begin <record 0.1>\", 18) = 18\n";
    const WRITE: &str = "8 pwrite64(4</x/log>, \"..<record 0.1>..\", 30, 0) = 30\n";
    const ACKNOWLEDGED: &str = "7 write(3</dev/null>, \"acknowledged <record 0.1>\", 25) = 25\n";

    #[test]
    fn a_flush_covers_what_was_written_before_it() {
        let sync = |call: &str| format!("{BEGIN}{WRITE}9 {call}\n{ACKNOWLEDGED}");
        assert_eq!(covered(&sync("fdatasync(5</x/log>) = 0")), (1, 1));
        assert_eq!(covered(&sync("fdatasync(5</x/other>) = 0")), (1, 0), "of another file");
        assert_eq!(covered(&sync("fdatasync(5</x/log>) = -1 EIO (Input/output error)")), (1, 0), "a failed one");
        assert_eq!(covered(&sync("sync_file_range(5</x/log>, 0, 30, SYNC_FILE_RANGE_WRITE) = 0")), (1, 0), "flushes no disk");
        assert_eq!(covered(&format!("{BEGIN}9 fsync(5</x/log>) = 0\n{WRITE}{ACKNOWLEDGED}")), (1, 0), "before the write");
        assert_eq!(covered(&format!("{BEGIN}{WRITE}{ACKNOWLEDGED}9 fsync(5</x/log>) = 0\n")), (1, 0), "too late");
    }

    #[test]
    fn a_flush_that_began_before_the_write_covers_nothing() {
        let trace = format!("{BEGIN}9 fsync(5</x/log> <unfinished ...>\n{WRITE}9 <... fsync resumed>) = 0\n{ACKNOWLEDGED}");
        assert_eq!(covered(&trace), (1, 0));
        let trace = format!("{BEGIN}{WRITE}9 fsync(5</x/log> <unfinished ...>\n{ACKNOWLEDGED}9 <... fsync resumed>) = 0\n");
        assert_eq!(covered(&trace), (1, 0), "not ended yet");
    }

    #[test]
    fn synced_writes_are_flushes() {
        let dsync = "8 pwritev2(4</x/log>, [{iov_base=\"<record 0.1>\", iov_len=12}], 1, 0, RWF_DSYNC) = 12\n";
        assert_eq!(covered(&format!("{BEGIN}{dsync}{ACKNOWLEDGED}")), (1, 1));
        let open = "7 openat(AT_FDCWD</x>, \"log\", O_RDWR|O_SYNC|O_CLOEXEC) = 4</x/log>\n";
        assert_eq!(covered(&format!("{open}{BEGIN}{WRITE}{ACKNOWLEDGED}")), (1, 1));
        assert_eq!(covered(&format!("{BEGIN}{WRITE}{ACKNOWLEDGED}")), (1, 0));
    }
}
