//! `foreword cat`: records to standard output.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use foreword::{Error, Lsn, View};

use crate::encode::OutputFormat;
use crate::exit::{Failure, Status};
use crate::output::Output;
use foreword_command::units;

/// Write records to standard output
///
/// Changes nothing. While a writer has the log open, cat shows the durable records. Otherwise it
/// shows the records that opening the log would return, and reports the LSN from which on the log
/// does not show whether they were acknowledged: opening keeps them either way. The records before
/// any damage are written first, then the error is reported (exit status 3).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword cat mylog
  foreword cat mylog --from 1000 --to 1999 --format json
  foreword cat mylog --since 10m
  foreword cat mylog --since 2026-11-29T08:00:00Z --until 2026-11-29T09:00:00Z
  foreword cat mylog --follow | grep ERROR")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// The first record [default: the first of the log]
    #[arg(long, value_name = "LSN", value_parser = units::lsn)]
    from: Option<Lsn>,
    /// The last record; 0 for none [default: the last of the log]
    #[arg(long, value_name = "LSN", value_parser = units::lsn_or_none)]
    to: Option<Lsn>,
    /// Begin with the first record written at this time or later: 2026-11-29T08:30:00Z,
    /// 2026-11-29T09:30:00+01:00, 2026-11-29 (from midnight UTC), or how long ago, as in 10m,
    /// 2h 30m or 1w. Not with --from. Times are those of the clock of the machine that wrote the
    /// records: where it was set back, the log passes a time more than once, and this is one of the
    /// places, so records of that time may lie before it
    #[arg(long, value_name = "TIME", value_parser = units::moment, conflicts_with = "from")]
    since: Option<SystemTime>,
    /// End before the first record written at this time or later, as --since finds it. Not with
    /// --to or --follow
    #[arg(long, value_name = "TIME", value_parser = units::moment, conflicts_with_all = ["to", "follow"])]
    until: Option<SystemTime>,
    /// Continue with new records as they become durable
    #[arg(long, short)]
    follow: bool,
    /// How to write records
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

/// How often to look at a closed log for a new writer.
const AGAIN: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    if let Some((from, to)) = args.from.zip(args.to).filter(|(from, to)| from > to) {
        return Err(Failure::Wrong(format!("the range is empty: --from {from} is behind --to {to}")));
    }
    let view = View::open(&args.dir)?;
    let mut out = Output::new();
    let copied = copy(args, &view, &mut out);
    // Readable records come first, then the error that ended them.
    out.flush()?;
    copied.map(|()| Status::Fine)
}

fn copy(args: &Args, proves: &View, out: &mut Output) -> Result<(), Failure> {
    let view = proves.recoverable()?;
    let mut reader = view.reader_at(args.from.unwrap_or(Lsn::ZERO));
    let mut last = args.to.unwrap_or(Lsn::MAX);
    if let Some(time) = args.until {
        last = view.lsn_at(time)?.prev();
    }
    if let Some(time) = args.since {
        reader.seek_to_time(time)?;
    }
    let mut expected = reader.position();
    let end = view.last_lsn()?;
    if expected > end.next() && !args.follow {
        view.reader_at(expected).next()?; // If it is damage that ends it, that is the answer.
        let last = if end == Lsn::ZERO { "the log has none".to_owned() } else { format!("the last is {end}") };
        let durable = if proves.has_writer() { " that is durable" } else { "" };
        return Err(Failure::Wrong(format!("there is no record {expected}{durable}: {last}; `--follow` waits for it")));
    }
    let (mut proven, mut told) = (proves.last_lsn()?, false);
    while expected <= last {
        let read = match reader.next() {
            Ok(None) if args.follow => {
                out.flush()?;
                reader.wait_next(None)
            }
            read => read,
        };
        let record = match read {
            Ok(Some(record)) => record,
            Ok(None) if args.follow => {
                // The log was closed: another writer may open and continue it.
                std::thread::sleep(AGAIN);
                continue;
            }
            Ok(None) => break,
            Err(Error::Cut { at, .. }) if args.follow => {
                crate::output::note(format_args!(
                    "the log was cut at LSN {at}: that record and all after it are gone, and their LSNs may be used again"
                ));
                expected = at;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if record.lsn > last {
            break;
        }
        if record.lsn > expected {
            let gap = crate::verdict::stretches(&[(expected, record.lsn.prev())]);
            crate::output::note(format_args!("LSN {gap}: given up in a repair"));
        }
        if record.lsn > proven {
            proven = proves.last_lsn()?;
        }
        let unproven = record.lsn > proven && !proves.has_writer();
        if unproven && !std::mem::replace(&mut told, true) {
            let damaged = crate::verdict::damage(proves.verdict().as_ref()).is_some();
            crate::output::note(format_args!("{}", crate::verdict::unproven_from(record.lsn, damaged)));
        }
        expected = record.lsn.next();
        args.format.write((record.lsn, record.time()), record.data, unproven, out.writer()).map_err(Failure::output)?;
    }
    Ok(())
}
