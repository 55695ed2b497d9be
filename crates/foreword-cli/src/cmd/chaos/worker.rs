//! The process that is killed: it writes in every way there is, cuts the front off, reads along, and says what it was promised.

use std::io::Stdout;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foreword::{Commit, Error, Log, Lsn, Options, SyncPolicy};

use super::check::follow;
use super::script::{CHECKPOINT_BYTES, Script};
use super::words::Word;
use crate::exit::{Failure, Status};
use crate::noise::Noise;
use crate::victim::{self, Args};

/// How long a full disk is left alone before it is tried again.
const FULL: Duration = Duration::from_millis(3);

/// Small segments, so that the log goes from one to the next all the time, and a background that has work.
pub(super) fn options() -> Options {
    Options::new().segment_bytes(256 << 10).sync(SyncPolicy::interval(Duration::from_millis(5)))
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let script = Script { seed: args.seed, round: args.round };
    let out = std::io::stdout();
    let log = open(args, &out)?;
    victim::say(&out, Word::Ready(log.start_lsn(), log.last_lsn()))?;
    let (kick, kicked) = sync_channel(1);
    let first = log.last_lsn().next();
    let next = Mutex::new(first);
    let writer = Writer { script, log: &log, out: &out, next: &next, kick };
    std::thread::scope(|scope| {
        for thread in 0..args.threads {
            let writer = &writer;
            scope.spawn(move || or_exit(writer.write(Noise(args.seed ^ args.round << 32 ^ thread))));
        }
        scope.spawn(|| or_exit(follow("a reader", log.reader_at(first), |_| script, |w| victim::say(&out, w), || true)));
        or_exit(cut(&log, &out, Noise(args.seed ^ args.round << 32 ^ args.threads), &kicked));
    });
    Ok(Status::Fine)
}

fn open(args: &Args, out: &Stdout) -> Result<Log, Failure> {
    loop {
        match options().open(&args.dir) {
            Err(Error::NoSpace { .. }) => victim::say(out, Word::Full)?,
            opened => return Ok(opened?),
        }
        std::thread::sleep(FULL);
    }
}

/// A thread that failed ends the process: the others might wait for ever.
fn or_exit(done: Result<(), Failure>) {
    if let Err(failure) = done {
        if !matches!(failure, Failure::OutputClosed) {
            crate::note(format_args!("the writing process: {failure}"));
        }
        std::process::exit(failure.status() as i32);
    }
}

struct Writer<'a> {
    script: Script,
    log: &'a Log,
    out: &'a Stdout,
    /// The LSN that the next unit will have: what it holds is decided by that, so it is appended under this lock.
    next: &'a Mutex<Lsn>,
    /// Wakes who makes room.
    kick: SyncSender<()>,
}

/// How a unit is appended, and what is waited for then.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Append,
    Write,
    Sync,
    Await,
    Commit,
}

enum Appended {
    InMemory,
    Promised(Commit),
    /// By this call.
    Safe(&'static str),
}

impl Writer<'_> {
    fn write(&self, mut noise: Noise) -> Result<(), Failure> {
        loop {
            let how = match noise.below(100) {
                0..20 => How::Append,
                20..35 => How::Write,
                35..75 => How::Sync,
                75..95 => How::Await,
                _ => How::Commit,
            };
            match self.append(how) {
                Ok(Some((lsn, by))) => victim::say(self.out, Word::Acknowledged(lsn, by.to_owned()))?,
                Ok(None) => {}
                Err(Error::NoSpace { .. }) => {
                    victim::say(self.out, Word::Full)?;
                    // Somebody may have asked already.
                    let _ = self.kick.try_send(());
                    std::thread::sleep(FULL);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Appends the next unit: the LSN up to which the log has answered for all records, and by which call.
    fn append(&self, how: How) -> foreword::Result<Option<(Lsn, &'static str)>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, unit) = (*next, self.script.unit(*next));
        let last = Lsn(first.0 + unit.len() as u64 - 1);
        let appended = match how {
            How::Await => self.log.commit_batch_async(&unit).map(Appended::Promised),
            How::Commit => self.log.commit_batch(&unit).map(|_| Appended::Safe("commit_batch")),
            How::Append | How::Write | How::Sync => self.log.append_batch(&unit).map(|_| Appended::InMemory),
        };
        let appended = match (appended, &unit[..]) {
            // A checkpoint has room when nothing else does, now and then.
            (Err(Error::NoSpace { .. }), [record]) if record.len() <= CHECKPOINT_BYTES => {
                self.log.commit_checkpoint(record).map(|_| Appended::Safe("commit_checkpoint"))?
            }
            (appended, _) => appended?,
        };
        *next = last.next();
        drop(next);
        // (Should the log give the unit another LSN than is its turn, its bytes will tell.)
        match (appended, how) {
            (Appended::Safe(call), _) => Ok(Some((last, call))),
            (Appended::Promised(commit), _) => pollster::block_on(commit).map(|_| Some((last, "commit_batch_async"))),
            (Appended::InMemory, How::Write) => self.log.write().map(|written| Some((written, "write"))),
            (Appended::InMemory, How::Sync) => self.log.sync_to(last).map(|()| Some((last, "sync_to"))),
            (Appended::InMemory, _) => Ok(None),
        }
    }
}

/// Drops old records now and then, and when the disk is full.
fn cut(log: &Log, out: &Stdout, mut noise: Noise, kicked: &Receiver<()>) -> Result<(), Failure> {
    const KEPT: u64 = 4000;
    loop {
        // It is kicked, or its time has come.
        let _ = kicked.recv_timeout(Duration::from_millis(noise.below(50)));
        let kept = if noise.below(8) == 0 { 0 } else { noise.below(KEPT) };
        let before = Lsn((log.durable_lsn().0 + 1).saturating_sub(kept));
        if before > log.start_lsn() {
            victim::say(out, Word::Cutting(before))?;
            match log.truncate_front(before) {
                Ok(start) => victim::say(out, Word::Cut(start))?,
                // It may be refused if it frees no segment.
                Err(Error::NoSpace { .. }) => victim::say(out, Word::Full)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
