//! `foreword append`: records from standard input, each acknowledged as soon as it is as durable as
//! was asked.
//!
//! Two threads overlap: one reads and appends, the other makes appended records durable and prints
//! their LSNs. So input is flushed as it arrives, input that arrives during a flush is the next
//! group, and no flush waits for more input.

use std::io::{Read as _, StdinLock};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foreword::{Error, Log, Lsn, Stats, SyncPolicy};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::decode::{Decoder, InputFormat};
use crate::exit::{Failure, Status};
use crate::output::Output;
#[cfg(unix)]
use crate::signals::Signals;
use crate::{options, verdict};
use foreword_command::units;

/// Read at once: more than a pipe holds, so that all that is there comes in one piece.
const READ: usize = 256 << 10;

/// Append records from standard input
///
/// Prints the LSN of each record, in order, as soon as the record is durable. All input that is
/// available forms one group, which is made durable without waiting for more. The log is created if
/// there is none. If standard output is closed, appending continues without printing.
///
/// SIGINT and SIGTERM end the input: complete records that were read are made durable and
/// acknowledged, the log is closed, and the exit status is 130 or 143. A second signal ends the
/// process at once.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  dmesg | foreword append mylog
  seq 1000000 | foreword append mylog --quiet
  foreword append mylog --sync interval=10ms --segment-size 16M < events.txt
  foreword cat old --format hex | foreword append new --format hex --quiet")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// When to flush: `always` (at once), `interval[=TIME]` (in the background, every 100ms by
    /// default), `none` (at the end of the input only: until then a printed record survives a crash
    /// of this process, but not of the machine)
    #[arg(long, value_name = "WHEN", default_value = "always", value_parser = sync)]
    sync: Sync,
    /// Size of new segments, 64K to 4G [default: as in the log; 64M for a new log]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    segment_size: Option<u64>,
    /// The longest record, up to 1G. Memory use grows with the records
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = max_record)]
    max_record: u64,
    /// How records are encoded in the input
    #[arg(long, value_enum, default_value = "lines")]
    format: InputFormat,
    /// Print no LSNs, but a summary at the end, to standard error (on a terminal, with a progress
    /// bar)
    #[arg(long, short)]
    quiet: bool,
    /// Print no LSNs, but the summary as JSON, to standard output
    #[arg(long)]
    json: bool,
}

/// "1G" is meant as the most that there can be, which is a byte less.
fn max_record(text: &str) -> Result<u64, String> {
    units::size(text).map(|bytes| if bytes == 1 << 30 { bytes - 1 } else { bytes })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sync {
    Always,
    Interval(Duration),
    None,
}

fn sync(text: &str) -> Result<Sync, String> {
    match text.split_once('=') {
        None if text == "always" => Ok(Sync::Always),
        None if text == "interval" => Ok(Sync::Interval(Duration::from_millis(100))),
        None if text == "none" => Ok(Sync::None),
        Some(("interval", time)) => units::time(time).map(Sync::Interval),
        _ => Err("use always, interval, interval=100ms or none".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let started = Instant::now();
    #[cfg(unix)]
    let input = Arc::new(Input { signals: Signals::listen().map_err(Failure::io("listen for signals"))? });
    #[cfg(not(unix))]
    let input = Arc::new(Input {});
    let log = Arc::new(open(args)?);
    let before = log.last_lsn();
    let intake = Arc::new(Intake::default());
    let progress = if args.quiet { progress() } else { ProgressBar::hidden() };
    let reader = {
        let (log, intake, progress, input) = (log.clone(), intake.clone(), progress.clone(), input.clone());
        let (decoder, sync) = (Decoder::new(args.format, args.max_record as usize), args.sync);
        std::thread::spawn(move || take_in(&input, &log, &intake, decoder, sync, &progress))
    };
    // If the log fails, the reader may be waiting for input for ever: the process ends without it.
    acknowledge(&log, &intake, args, before)?;
    let read = reader.join().unwrap_or_else(|_| Err(Failure::Wrong("the reading thread panicked".to_owned())));
    progress.finish_and_clear();
    let stats = log.stats();
    log.close()?;
    summarize(args, &stats, before, started.elapsed())?;
    read.map(|()| input.status()).map_err(|failure| incomplete(failure, &stats, before))
}

/// What was read before the failure is in the log, which must not pass for a copy of all of it.
fn incomplete(failure: Failure, stats: &Stats, before: Lsn) -> Failure {
    let there = match stats.records {
        0 => "nothing of it was appended".to_owned(),
        _ => format!(
            "what came before it was appended (records {}), and nothing behind it",
            verdict::range(before.next(), stats.appended_lsn)
        ),
    };
    Failure::Wrong(format!("{failure}; the input is not complete in the log: {there}"))
}

/// Standard input, which a signal ends.
struct Input {
    #[cfg(unix)]
    signals: Signals,
}

/// What came of a read.
enum Read {
    Bytes(usize),
    /// The input has ended.
    End,
    /// A signal ended it: a record that is incomplete stays so.
    Interrupted,
}

impl Input {
    /// Waits for input, and reads what is there. (The read is larger than the standard library's
    /// buffer, so none of it is kept there.)
    fn read(&self, stdin: &mut StdinLock<'_>, buf: &mut [u8]) -> std::io::Result<Read> {
        #[cfg(unix)]
        if !self.signals.wait_for(stdin)? {
            return Ok(Read::Interrupted);
        }
        Ok(match stdin.read(buf)? {
            0 => Read::End,
            n => Read::Bytes(n),
        })
    }

    /// The exit status if nothing fails.
    fn status(&self) -> Status {
        #[cfg(unix)]
        if let Some(status) = self.signals.status() {
            return status;
        }
        Status::Fine
    }
}

fn open(args: &Args) -> Result<Log, Failure> {
    let policy = match args.sync {
        Sync::Interval(time) => SyncPolicy::interval(time),
        Sync::Always | Sync::None => SyncPolicy::manual(),
    };
    let mut options = options::for_log(&args.dir).record_bytes_max(args.max_record).sync(policy);
    if let Some(bytes) = args.segment_size {
        options = options.segment_bytes(bytes);
    }
    options.open(&args.dir).map_err(|error| match error {
        Error::NoSpace { .. } => Failure::Wrong(format!("{error}; --segment-size sets a smaller size, down to 64K")),
        error => error.into(),
    })
}

/// Reads all input and appends its records. Whatever ends it, what came before is appended and
/// acknowledged.
fn take_in(
    input: &Input,
    log: &Log,
    intake: &Intake,
    mut decoder: Decoder,
    sync: Sync,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let _end = End(intake);
    let mut stdin = std::io::stdin().lock();
    let mut buf = vec![0; READ];
    let mut last = Lsn::ZERO;
    let taken = loop {
        let mut put = |record: &[u8]| {
            last = log.append(record)?;
            Ok(())
        };
        let (taken, end) = match input.read(&mut stdin, &mut buf) {
            Ok(Read::End) => (decoder.finish(&mut put), true),
            Ok(Read::Interrupted) => (Ok(()), true),
            Ok(Read::Bytes(n)) => {
                progress.inc(n as u64);
                (decoder.feed(&buf[..n], &mut put), false)
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => (Ok(()), false),
            Err(e) => (Err(Failure::io("read standard input")(e)), true),
        };
        // All that was there is one group.
        intake.appended(last);
        if end || taken.is_err() {
            break taken;
        }
    };
    if sync != Sync::None {
        // There is no more to come: the interval need not be waited for.
        log.sync()?;
    }
    taken
}

/// Makes appended records as durable as was asked, and prints their LSNs.
fn acknowledge(log: &Log, intake: &Intake, args: &Args, before: Lsn) -> Result<(), Failure> {
    let mut out = (!args.quiet && !args.json).then(Output::new);
    let mut done = before;
    while let Some(appended) = intake.wait_beyond(done) {
        let reached = match args.sync {
            Sync::Always => {
                log.sync_to(appended)?;
                log.durable_lsn()
            }
            Sync::Interval(_) => {
                log.wait_durable(done.next(), None)?;
                log.durable_lsn()
            }
            Sync::None => log.write()?,
        };
        match print(out.as_mut(), done, reached) {
            // Standard output is closed; the records are still appended.
            Err(Failure::OutputClosed) => out = None,
            printed => printed?,
        }
        done = reached;
    }
    Ok(())
}

fn print(out: Option<&mut Output>, after: Lsn, to: Lsn) -> Result<(), Failure> {
    let Some(out) = out else { return Ok(()) };
    for lsn in after.0 + 1..=to.0 {
        out.line(format_args!("{lsn}"))?;
    }
    out.flush()
}

/// What the reading thread has appended, for the thread that makes it durable.
#[derive(Debug, Default)]
struct Intake {
    state: Mutex<(Lsn, bool)>,
    changed: Condvar,
}

impl Intake {
    fn lock(&self) -> MutexGuard<'_, (Lsn, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn appended(&self, lsn: Lsn) {
        self.lock().0 = lsn;
        self.changed.notify_one();
    }

    /// The last LSN appended, once it is beyond another; `None` if that will not be.
    fn wait_beyond(&self, lsn: Lsn) -> Option<Lsn> {
        let mut state = self.lock();
        while state.0 <= lsn && !state.1 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state.0 > lsn).then_some(state.0)
    }
}

/// Says that there is no more input, even if its thread panics.
struct End<'a>(&'a Intake);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().1 = true;
        self.0.changed.notify_one();
    }
}

/// Of known length if standard input is a file. Drawn on a terminal alone.
fn progress() -> ProgressBar {
    let len = stdin_len();
    let template = match len {
        Some(_) => "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go",
        None => "{spinner} {bytes}, {bytes_per_sec}",
    };
    let bar = len.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(unix)]
fn stdin_len() -> Option<u64> {
    use std::os::fd::AsFd;
    let stdin = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
    stdin.metadata().ok().filter(|m| m.is_file()).map(|m| m.len())
}

#[cfg(not(unix))]
fn stdin_len() -> Option<u64> {
    None
}

fn summarize(args: &Args, stats: &Stats, before: Lsn, took: Duration) -> Result<(), Failure> {
    let (first, last) = (before.next(), stats.appended_lsn);
    let rate = units::megabytes_per_second(stats.record_bytes, took);
    if args.json {
        let mut out = Output::new();
        out.json(&json!({
            "records": stats.records,
            "bytes": stats.record_bytes,
            "first_lsn": (stats.records > 0).then_some(first.0),
            "last_lsn": (stats.records > 0).then_some(last.0),
            "seconds": took.as_secs_f64(),
            "mb_per_second": rate,
            "flushes": stats.flushes,
            "written_bytes": stats.written_bytes,
        }))?;
        return out.flush();
    }
    if args.quiet {
        crate::output::note(format_args!(
            "appended {} (records {}) in {:.2} s: {}/s, {} flushes",
            units::human(stats.record_bytes),
            verdict::range(first, last),
            took.as_secs_f64(),
            units::human((rate * 1e6) as u64),
            stats.flushes
        ));
    }
    Ok(())
}
