//! `foreword top`: a live view of a log that another process is writing.

mod keys;
mod watch;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foreword::{Histogram, Published, Verdict};
use foreword_measure::report::Unit;
use serde_json::{Value, json};
#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGQUIT};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::{Failure, Status};
use crate::output::{Column, Output, Tone};
use crate::verdict;
use foreword_command::units;
use keys::Keys;
use watch::{Activity, Health, Look, Watch};

/// Moves the cursor home and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[J";
/// The signals that end it. It ends by itself then, so that the terminal is left as it was found.
#[cfg(unix)]
const SIGNALS: &[i32] = &[SIGINT, SIGTERM, SIGHUP, SIGQUIT];
#[cfg(not(unix))]
const SIGNALS: &[i32] = &[SIGINT, SIGTERM];
/// How long a signal or a key may wait.
const NAP: Duration = Duration::from_millis(50);

/// Live view of a log that another process is writing
///
/// Shows rates, group sizes, flush latencies, segments, holds and the lag of readers, until it is
/// interrupted; on a terminal, `q` and Esc end it too. The writing process publishes its figures
/// once a second in the file STATS; if it does not (`Options::publish`), top shows what the log's
/// files say. Top does not disturb the writer: it writes nothing, and takes no lock that the writer
/// takes. Quantiles are upper bounds: the next power of two.
///
/// States: running; idle; closed (no process has the log open); stalled (a flush takes more than a
/// second); silent (a flush was under way, and the process has published nothing for seconds, so it
/// is stopped or has no processor); failed (the log accepts nothing more). A process that is stopped
/// with no flush under way looks idle.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword top mylog
  foreword top mylog --once
  foreword top mylog --json --interval 10s >> mylog.top
  foreword top mylog --once --json | jq '.state, .flush_p99_seconds'")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// How often to look, from 100ms to 1h. A log publishes its figures once a second
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Look twice, an interval apart, show what happened in between, and end
    #[arg(long, short = '1')]
    once: bool,
    /// Print one JSON object per look
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = units::time(text)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&time);
    fits.then_some(time).ok_or_else(|| "from 100ms to 1h (60m)".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for &signal in SIGNALS {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(Failure::io("handle signals"))?;
    }
    let redraws = !args.once && !args.json && std::io::stdout().is_terminal();
    let mut keys = Keys::of_terminal(redraws);
    let mut watch = Watch::new(&args.dir);
    let first = watch.look()?;
    if redraws {
        print(args, &first, redraws)?;
    }
    let mut sleep = |time| sleep(time, &interrupted, &mut keys);
    while sleep(args.interval) {
        let mut look = watch.look()?;
        // The log may not have said anything in an interval of less than a second; and whether it
        // is at rest takes some more to see.
        while args.once && look.activity.is_none() && sleep(NAP) {
            look = watch.look()?;
        }
        print(args, &look, redraws)?;
        if args.once {
            return Ok(status(&look));
        }
    }
    Ok(Status::Fine)
}

/// As `stat` has it: of a log without a writer, damage that was seen.
fn status(look: &Look) -> Status {
    match look.verdict {
        Some(Verdict::Corruption(_)) => Status::Corruption,
        _ => Status::Fine,
    }
}

/// Whether to continue after this time.
fn sleep(time: Duration, interrupted: &AtomicBool, keys: &mut Keys) -> bool {
    let started = Instant::now();
    while !interrupted.load(Ordering::Relaxed) && !keys.end() {
        match time.checked_sub(started.elapsed()) {
            Some(left) => std::thread::sleep(left.min(NAP)),
            None => return true,
        }
    }
    false
}

fn print(args: &Args, look: &Look, redraws: bool) -> Result<(), Failure> {
    // Opened for each: in between, nothing holds standard output.
    let mut out = Output::new();
    if args.json {
        out.json(&look_json(args, look))?;
    } else {
        if redraws {
            out.bytes(CLEAR.as_bytes())?;
        }
        print_text(&mut out, args, look)?;
        if !args.once {
            out.line(format_args!(""))?;
        }
    }
    out.flush()
}

fn print_text(out: &mut Output, args: &Args, look: &Look) -> Result<(), Failure> {
    out.field("log", args.dir.display())?;
    out.field("writer", writer_text(look))?;
    out.toned("state", tone(look), state_text(look))?;
    if look.lock_gone {
        let what = "was removed or replaced under the writer, which stops before it acknowledges anything more (foreword::Error::LockLost)";
        out.toned("LOCK", Tone::Bad, what)?;
    }
    if let Some(apart) = look.clocks.apart {
        let apart = units::long_time(apart);
        out.toned("clocks", Tone::Warn, format_args!("the writer's clock and this one differ by {apart} or more"))?;
    }
    if let Some(published) = look.published() {
        print_rates(out, look.activity.as_ref(), &Activity::of(published))?;
    } else if let (Some(_), Some(activity)) = (&look.writer, &look.activity) {
        out.field("records/s", Unit::Count.text(activity.per_second(activity.records)))?;
    }
    out.field("records", verdict::range(look.start, look.durable))?;
    if let Some(Published { stats, .. }) = look.published() {
        let waiting = stats.appended_lsn.0.saturating_sub(stats.durable_lsn.0);
        let flushes = match stats.flushes_under_way {
            0 => "no flush under way".to_owned(),
            1 => format!("a flush under way for {}", nanos(stats.oldest_flush_nanos)),
            n => format!("{n} flushes under way, the oldest for {}", nanos(stats.oldest_flush_nanos)),
        };
        out.field("waiting", format_args!("{waiting} records are not durable yet; {flushes}"))?;
    }
    out.field("segments", segments_text(look))?;
    for (name, hold) in &look.holds {
        let lsn = hold.lsn;
        if hold.lost {
            let what = format_args!("`{name}` was to keep LSN {lsn} and later: lost, for it had reached its limit");
            out.toned("hold", Tone::Warn, what)?;
        } else {
            let kept = (look.durable.0 + 1).saturating_sub(lsn.0);
            out.field("hold", format_args!("`{name}` keeps LSN {lsn} and later: {kept} records"))?;
        }
    }
    verdict::holds_unknown(out, look.holds_unknown.as_ref())?;
    match look.published().map(|p| (p.stats.readers, reader_lag(p))) {
        None | Some((0, _)) => Ok(()),
        Some((n, lag)) => {
            out.field("readers", format_args!("{n} at the tail in that process; the slowest is {lag} records behind"))
        }
    }
}

fn print_rates(out: &mut Output, now: Option<&Activity>, all: &Activity) -> Result<(), Failure> {
    /// A row: its name, and what it says of an activity.
    type Row = (&'static str, fn(&Activity) -> Option<String>);
    let rows: [Row; 7] = [
        ("records/s", |a| Some(Unit::Count.text(a.per_second(a.records)))),
        ("bytes/s", |a| Some(Unit::BytesPerSecond.text(a.per_second(a.work.as_ref()?.record_bytes)))),
        ("to disk/s", |a| Some(Unit::BytesPerSecond.text(a.per_second(a.work.as_ref()?.written_bytes)))),
        ("flushes/s", |a| Some(Unit::Count.text(a.per_second(a.work.as_ref()?.flushes)))),
        ("group", |a| Some(Unit::Count.text(any(&a.work.as_ref()?.group_records)?.mean()))),
        ("flush p50", |a| Some(nanos(any(&a.work.as_ref()?.flush_nanos)?.quantile(0.5)))),
        ("flush p99", |a| Some(nanos(any(&a.work.as_ref()?.flush_nanos)?.quantile(0.99)))),
    ];
    let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> =
        rows.iter().map(|(name, of)| vec![(*name).to_owned(), cell(now.and_then(of)), cell(of(all))]).collect();
    out.line(format_args!(""))?;
    out.table(&[Column::left(""), Column::right("now"), Column::right("since opened")], &rows)?;
    out.line(format_args!(""))
}

/// A histogram that has anything in it.
fn any(histogram: &Histogram) -> Option<&Histogram> {
    Some(histogram).filter(|h| h.count() > 0)
}

fn nanos(nanos: u64) -> String {
    Unit::Seconds.text(nanos as f64 / 1e9)
}

fn writer_text(look: &Look) -> String {
    match (&look.writer, look.published()) {
        (None, _) => "none: no process has the log open".to_owned(),
        (Some(writer), Some(published)) => format!("{}, for {}", writer.holder, units::long_time(published.open_for)),
        (Some(writer), None) => format!("{}, which does not publish its figures (yet): from the files", writer.holder),
    }
}

fn state_text(look: &Look) -> String {
    let name = look.health().name();
    let published = look.published();
    let age = age_text(look);
    match look.health() {
        Health::Closed => format!("{name}; {}", verdict::tail_sentence(look.verdict.as_ref())),
        Health::Failed => {
            let why = published.and_then(|p| p.failure.as_deref()).unwrap_or_default();
            format!("{}: {why}", name.to_uppercase())
        }
        Health::Stalled => format!("{}: the disk does not answer", name.to_uppercase()),
        Health::Silent => format!("{}: no figures for {age}, with a flush under way", name.to_uppercase()),
        Health::Idle if published.is_some() => format!("{name} for {age}"),
        Health::Idle | Health::Running => name.to_owned(),
    }
}

/// The time that was watched is certain; the time before that is known by clocks alone.
fn age_text(look: &Look) -> String {
    let watched = units::long_time(look.age);
    match look.clocks.age.filter(|age| age.saturating_sub(look.age) > Duration::from_secs(2)) {
        Some(age) => format!("{} by its clock, {watched} of them watched", units::long_time(age)),
        None => watched,
    }
}

fn tone(look: &Look) -> Tone {
    match look.health() {
        Health::Closed => verdict::tone(look.verdict.as_ref()),
        Health::Running => Tone::Good,
        Health::Idle => Tone::Plain,
        Health::Stalled | Health::Silent => Tone::Warn,
        Health::Failed => Tone::Bad,
    }
}

fn segments_text(look: &Look) -> String {
    let size = units::human(look.disk_bytes);
    match look.published() {
        None => format!("{} files; {size} on disk", look.segment_files),
        Some(Published { stats, .. }) => {
            let waits = any(&stats.rotation_wait_nanos);
            let waited = waits.map(|w| format!(", {} of which waited, {} at most", w.count(), nanos(w.quantile(1.0))));
            let dropped = Some(stats.segments_dropped).filter(|&n| n > 0).map(|n| format!(", {n} dropped and still there"));
            format!(
                "{} and {} prepared{}; {size} on disk; {} rotations{}",
                stats.segments,
                stats.segments_prepared,
                dropped.unwrap_or_default(),
                stats.rotations,
                waited.unwrap_or_default()
            )
        }
    }
}

fn reader_lag(published: &Published) -> u64 {
    published.stats.durable_lsn.0.saturating_sub(published.stats.slowest_reader_lsn.0)
}

fn look_json(args: &Args, look: &Look) -> Value {
    let published = look.published();
    let mut value = json!({
        "dir": args.dir.display().to_string(),
        "state": look.health().name(),
        "writer": look.writer.as_ref().map(|w| &w.holder),
        "lock_gone": look.lock_gone,
        "verdict": look.writer.is_none().then(|| verdict::name(look.verdict.as_ref())),
        "start_lsn": look.start.0,
        "durable_lsn": look.durable.0,
        "holds": look.holds.iter().map(|(name, hold)| (name.clone(), Value::from(hold.lsn.0))).collect::<Value>(),
        "lost_holds": look.holds.iter().filter(|(_, hold)| hold.lost).map(|(name, _)| name).collect::<Vec<_>>(),
        "holds_unknown": look.holds_unknown.as_ref().map(ToString::to_string),
        "disk_bytes": look.disk_bytes,
        "segment_files": look.segment_files,
        "now": look.activity.as_ref().map(activity_json),
        "since_opened": published.map(|p| activity_json(&Activity::of(p))),
    });
    if let Some(published) = published {
        let Published { process, open_for, stats, failure, .. } = published;
        let more = json!({
            "process": process,
            "open_seconds": open_for.as_secs_f64(),
            "age_seconds": look.age.as_secs_f64(),
            "age_by_clock_seconds": look.clocks.age.map(|age| age.as_secs_f64()),
            "clocks_apart_seconds": look.clocks.apart.map(|apart| apart.as_secs_f64()),
            "failure": failure,
            "appended_lsn": stats.appended_lsn.0,
            "flushes_under_way": stats.flushes_under_way,
            "oldest_flush_seconds": stats.oldest_flush_nanos as f64 / 1e9,
            "segments": stats.segments,
            "segments_prepared": stats.segments_prepared,
            "segments_dropped": stats.segments_dropped,
            "rotations": stats.rotations,
            "rotation_waits": stats.rotation_wait_nanos.count(),
            "readers": stats.readers,
            "reader_lag_records": (stats.readers > 0).then(|| reader_lag(published)),
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
    }
    value
}

/// Quantities that are not known are null.
fn activity_json(activity: &Activity) -> Value {
    let work = activity.work.as_ref();
    let rate = |count: u64| activity.per_second(count);
    let quantile = |q| work.and_then(|w| any(&w.flush_nanos)).map(|h| h.quantile(q) as f64 / 1e9);
    json!({
        "seconds": activity.seconds,
        "records_per_second": rate(activity.records),
        "bytes_per_second": work.map(|w| rate(w.record_bytes)),
        "written_bytes_per_second": work.map(|w| rate(w.written_bytes)),
        "flushes_per_second": work.map(|w| rate(w.flushes)),
        "records_per_flush": work.and_then(|w| any(&w.group_records)).map(Histogram::mean),
        "flush_p50_seconds": quantile(0.5),
        "flush_p99_seconds": quantile(0.99),
    })
}
