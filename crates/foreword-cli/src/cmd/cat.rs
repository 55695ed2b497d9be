//! `foreword cat`: records to standard output.

use std::path::PathBuf;

use foreword::{Error, Lsn, View};

use crate::encode::OutputFormat;
use crate::exit::{Failure, Status};
use crate::output::Output;

/// Write records to standard output
///
/// Changes nothing, and works while a writer has the log open: then it shows what is durable. What a damaged log holds before the damage is written,
/// then the error is told (exit status 3).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword cat mylog
  foreword cat mylog --from 1000 --to 1999 --format json
  foreword cat mylog --follow | grep ERROR")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// The first record [default: the first of the log]
    #[arg(long, value_name = "LSN", value_parser = super::lsn)]
    from: Option<Lsn>,
    /// The last record [default: the last of the log]
    #[arg(long, value_name = "LSN", value_parser = super::lsn)]
    to: Option<Lsn>,
    /// Go on with what is appended, as it becomes durable
    #[arg(long, short)]
    follow: bool,
    /// How records are written
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let view = View::open(&args.dir)?;
    let start = view.start_lsn();
    if let Some(lsn) = args.from.filter(|&from| from < start) {
        return Err(Error::Dropped { lsn, start }.into());
    }
    let mut out = Output::new();
    let copied = copy(args, &view, &mut out);
    // What is readable comes first, then why there is no more.
    out.flush()?;
    copied.map(|()| Status::Fine)
}

fn copy(args: &Args, view: &View, out: &mut Output) -> Result<(), Failure> {
    let mut reader = view.reader_at(args.from.unwrap_or(Lsn::ZERO));
    let last = args.to.unwrap_or(Lsn::MAX);
    let mut expected = reader.position();
    while expected <= last {
        let record = match reader.next()? {
            Some(record) => record,
            None if args.follow => {
                out.flush()?;
                match reader.wait_next(None)? {
                    Some(record) => record,
                    None => continue,
                }
            }
            None => break,
        };
        if record.lsn > last {
            break;
        }
        if record.lsn > expected {
            let gap = crate::verdict::stretches(&[(expected, record.lsn.prev())]);
            crate::note(format_args!("LSN {gap}: given up in a repair"));
        }
        expected = record.lsn.next();
        args.format.write(record, out.writer()).map_err(Failure::output)?;
    }
    Ok(())
}
