//! What a contestant does when one flush fails. strace lets it fail, so the process sees what it
//! would see of a failing disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use foreword_measure::Scratch;
use foreword_measure::report::Table;
use indicatif::ProgressBar;

use crate::damage::{record, shortened};
use crate::peers::{self, Feature, Need, Peer};
use crate::wait::within;
use crate::{doc, tables};

/// Lets one flush of every contestant fail, and shows what its commits return then.
///
/// One thread commits 20 records. From the 11th on, the first flush of each thread fails with EIO,
/// once (by strace, which must be allowed to attach).
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    survey: doc::Survey,
}

/// The process whose flush fails.
#[derive(clap::Args)]
pub struct Part {
    #[arg(long)]
    peer: String,
    #[arg(long)]
    dir: PathBuf,
    /// Lines: `ready`, and then what each commit returned. The file of this name with `.go` lets it
    /// go on.
    #[arg(long)]
    out: PathBuf,
}

const BEFORE: usize = 10;
const COMMITS: usize = 20;
const CALLS: &str = "fsync,fdatasync,msync,sync_file_range,pwritev2";
/// A process that has not returned by then never will.
const LIMIT: Duration = Duration::from_secs(10);

impl Args {
    pub fn run(self) -> Result<()> {
        let committers = |p: &&Peer| p.lacks(Feature::Commit).is_none() && self.survey.wants(p.name);
        let peers: Vec<_> = peers::logs().filter(committers).collect();
        let scratch = Scratch::new(&self.survey.dir, "foreword-fail")?;
        let bar = ProgressBar::new(peers.len() as u64);
        let head = ["", "the commit whose flush fails", "the nine after it", "what was said first"];
        let mut table = Table::new("", &head, Vec::new()).words(head.len());
        for peer in peers {
            let [first, then, said] = examine(peer, scratch.path()).with_context(|| peer.name.to_owned())?;
            table.rows.push(vec![format!("{} {}", peer.name, peer.version()), first, then, said]);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let text = tables::markdown(&table);
        self.survey.put("fail", &text)
    }
}

fn examine(peer: &Peer, scratch: &Path) -> Result<[String; 3]> {
    let dir = scratch.join(peer.name);
    std::fs::create_dir(&dir)?;
    let (out, errors, trace) = (scratch.join("out"), scratch.join("errors"), scratch.join("trace"));
    File::create(&out)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("fail-part").arg("--peer").arg(peer.name).arg("--dir").arg(&dir).arg("--out").arg(&out);
    peers::tell_walrus(&mut command, &dir);
    let mut child = command.stdout(Stdio::null()).stderr(File::create(&errors)?).spawn().context("start a process")?;
    if !within(Duration::from_secs(60), || Ok(std::fs::read_to_string(&out)?.starts_with("ready\n")))? {
        child.kill()?;
        bail!("it does not get ready: {}", std::fs::read_to_string(&errors)?);
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", &format!("trace={CALLS}"), "-e", &format!("inject={CALLS}:error=EIO:when=1"), "-o"]);
    let strace = strace.arg(&trace).arg("-p").arg(child.id().to_string()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut strace = strace.context("start strace (is it installed? `apt-get install strace`)")?;
    let attached = within(LIMIT, || is_traced(&child))?;
    File::create(go(&out))?;
    let returned = attached && within(LIMIT, || Ok(child.try_wait()?.is_some()))?;
    if !returned {
        child.kill()?;
    }
    let status = child.wait()?;
    strace.wait()?;
    ensure!(attached, "strace did not attach");
    ensure!(std::fs::read_to_string(&trace)?.contains("INJECTED"), "it flushed nothing");
    let lines = std::fs::read_to_string(&out)?;
    let lines: Vec<&str> = lines.lines().skip(1).collect();
    let said = lines.iter().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned);
    let said = match said {
        Some(said) => said,
        None => std::fs::read_to_string(&errors)?.lines().find(|line| !line.trim().is_empty()).unwrap_or("").to_owned(),
    };
    std::fs::remove_file(go(&out))?;
    std::fs::remove_dir_all(&dir)?;
    let end = match returned {
        false => "**hangs**",
        true if !status.success() => "**breaks**",
        true => "",
    };
    let [first, then] = words(&lines, end);
    Ok([first, then, shortened(&said, &dir)])
}

/// What the first commit returned, and those after it. `end`: what became of the one that did not
/// return, if one did not.
fn words(lines: &[&str], end: &str) -> [String; 2] {
    let word = |line: &&str| if *line == "ok" { "ok" } else { "error" };
    let mut all: Vec<&str> = lines.iter().map(word).collect();
    if all.len() < COMMITS - BEFORE && !end.is_empty() {
        all.push(end);
    }
    let first = all.first().copied().unwrap_or("").to_owned();
    // Runs of the same word.
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for word in all.into_iter().skip(1) {
        match runs.last_mut() {
            Some((last, n)) if *last == word => *n += 1,
            _ => runs.push((word, 1)),
        }
    }
    let runs = runs.iter().map(|&(word, n)| if n == 1 { word.to_owned() } else { format!("{n} {word}") });
    [first, runs.collect::<Vec<_>>().join(", ")]
}

/// Whether strace has all its threads.
fn is_traced(child: &Child) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{}/task", child.id()))? {
        if std::fs::read_to_string(task?.path().join("status"))?.contains("TracerPid:\t0\n") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn go(out: &Path) -> PathBuf {
    out.with_extension("go")
}

impl Part {
    pub fn run(&self) -> Result<()> {
        let peer = peers::find(&self.peer)?;
        let log = (peer.open)(&self.dir, Need { bytes: 1 << 20 })?;
        let mut writer = log.writer(0)?;
        (1..=BEFORE).try_for_each(|number| writer.commit(record(number)))?;
        let mut out = OpenOptions::new().append(true).open(&self.out)?;
        out.write_all(b"ready\n")?;
        ensure!(within(Duration::from_secs(60), || Ok(go(&self.out).exists()))?, "it was not told to continue");
        for number in BEFORE + 1..=COMMITS {
            let line = match writer.commit(record(number)) {
                Ok(()) => "ok\n".to_owned(),
                Err(e) => format!("error: {}\n", format!("{e:#}").replace('\n', " ")),
            };
            out.write_all(line.as_bytes())?;
        }
        drop(writer);
        // Closing is not asked about.
        std::mem::forget(log);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commits_returned_in_words() {
        let two = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(words(&[["error: EIO"; 1].as_slice(), &["ok"; 9]].concat(), ""), two("error", "9 ok"));
        assert_eq!(words(&["error: EIO", "error: x", "ok"], "**hangs**"), two("error", "error, ok, **hangs**"));
        assert_eq!(words(&[], "**breaks**"), two("**breaks**", ""));
        assert_eq!(words(&["ok"; 10], "**breaks**"), two("ok", "9 ok"), "it ended when all was done");
    }
}
