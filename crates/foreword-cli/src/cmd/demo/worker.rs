//! The process that is killed: commits from many threads, and says of each record that it was
//! acknowledged, once it was.

use std::io::Stdout;

use foreword::{Log, Options};

use super::content::Id;
use crate::exit::{Failure, Status};
use crate::victim::{Args, say};

/// What the worker says when it begins to commit.
pub(super) const READY: &str = "ready";
/// Small, so that the log rotates now and then.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let log = Options::new().publish(true).segment_bytes(SEGMENT_BYTES).open(&args.dir)?;
    let out = std::io::stdout();
    say(&out, READY)?;
    std::thread::scope(|scope| {
        let (log, out) = (&log, &out);
        let threads: Vec<_> = (0..args.threads).map(|thread| scope.spawn(move || commit(args, log, out, thread))).collect();
        // They end when standard output is closed or the log fails, and no later.
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err(Failure::Wrong("a thread panicked".to_owned()))))
    })?;
    Ok(Status::Fine)
}

fn commit(args: &Args, log: &Log, out: &Stdout, thread: u64) -> Result<(), Failure> {
    for counter in 0.. {
        let id = Id { round: args.round, thread, counter };
        let lsn = log.commit(&id.content(args.seed))?;
        say(out, format_args!("{thread} {counter} {lsn}"))?;
    }
    Ok(())
}
