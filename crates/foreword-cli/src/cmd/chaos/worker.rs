//! The process that is killed: it writes in every way there is, cuts off both ends, reads along,
//! and says what it was promised.

use std::io::Stdout;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreword::{Commit, Error, Log, Lsn, Options, SyncPolicy};

use super::check::follow;
use super::script::{CHECKPOINT_BYTES, Eras, Script};
use super::words::Word;
use crate::exit::{Failure, Status};
use crate::noise::Noise;
use crate::victim::{self, Args};

/// How long a full disk is left alone before it is tried again.
const FULL: Duration = Duration::from_millis(3);

/// Small segments, so that the log goes from one to the next all the time, and a background that
/// has work.
pub(super) fn options() -> Options {
    let options = Options::new().publish(true).segment_bytes(256 << 10).sync(SyncPolicy::interval(Duration::from_millis(5)));
    // The process that removed LOCK says so.
    options.on_error(|told| {
        if !is_lock_lost(&told.error) {
            crate::output::note(format_args!("{}", told.error));
        }
    })
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let out = std::io::stdout();
    let log = open(args, &out)?;
    if let Some(elsewhere) = &args.leave {
        std::env::set_current_dir(elsewhere).map_err(Failure::io("change the working directory"))?;
    }
    victim::say(&out, Word::Ready(log.start_lsn(), log.last_lsn()))?;
    let (kick, kicked) = sync_channel(1);
    let first = log.last_lsn().next();
    let next = Mutex::new(Next { lsn: first, generation: args.round });
    let eras = Mutex::new(Eras::new(args.seed, first, args.round));
    let writer = Writer { seed: args.seed, log: &log, out: &out, next: &next, eras: &eras, kick };
    let or_exit = |done| or_exit(done, &out);
    let judge = |lsn, data: &[u8], before| lock(&eras).judge(lsn, data, before);
    std::thread::scope(|scope| {
        for thread in 0..args.threads {
            let writer = &writer;
            scope.spawn(move || or_exit(writer.write(Noise(args.seed ^ args.round << 32 ^ thread))));
        }
        scope.spawn(|| or_exit(follow("a reader", log.reader_at(first), judge, |w| victim::say(&out, w), || true)));
        or_exit(writer.cut(Noise(args.seed ^ args.round << 32 ^ args.threads), &kicked));
    });
    Ok(Status::Fine)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
fn or_exit(done: Result<(), Failure>, out: &Stdout) {
    if let Err(failure) = done {
        match &failure {
            // Only the process that removed LOCK expects this.
            Failure::Log(error) if is_lock_lost(error) => drop(victim::say(out, Word::LockLost)),
            Failure::OutputClosed => {}
            _ => crate::output::note(format_args!("the writing process: {failure}")),
        }
        std::process::exit(failure.status() as i32);
    }
}

fn is_lock_lost(error: &Error) -> bool {
    match error {
        Error::LockLost { .. } => true,
        Error::Poisoned(cause) => is_lock_lost(cause),
        _ => false,
    }
}

/// What is appended next, which decides what it holds.
#[derive(Clone, Copy)]
struct Next {
    lsn: Lsn,
    generation: u64,
}

struct Writer<'a> {
    seed: u64,
    log: &'a Log,
    out: &'a Stdout,
    /// Held over each append and each cut at the back.
    next: &'a Mutex<Next>,
    /// What this process has begun, for its reader.
    eras: &'a Mutex<Eras>,
    /// Wakes the thread that makes room.
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
                Ok(Some((lsn, generation, by))) => victim::say(self.out, Word::Acknowledged(lsn, generation, by.to_owned()))?,
                Ok(None) => {}
                Err(Error::NoSpace { .. }) => {
                    victim::say(self.out, Word::Full)?;
                    // Another thread may have asked already.
                    let _ = self.kick.try_send(());
                    std::thread::sleep(FULL);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Appends the next unit: the LSN up to which the log has answered for all records, the unit's
    /// generation, and by which call.
    fn append(&self, how: How) -> foreword::Result<Option<(Lsn, u64, &'static str)>> {
        let mut next = lock(self.next);
        let Next { lsn: first, generation } = *next;
        let unit = Script { seed: self.seed, generation }.unit(first);
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
        next.lsn = last.next();
        drop(next);
        // (Should the log give the unit another LSN than is its turn, its bytes will tell.)
        let answered = match (appended, how) {
            (Appended::Safe(call), _) => Some((last, call)),
            (Appended::Promised(commit), _) => {
                pollster::block_on(commit)?;
                Some((last, "commit_batch_async"))
            }
            (Appended::InMemory, How::Write) => Some((self.log.write()?, "write")),
            (Appended::InMemory, How::Sync) => match self.log.sync_to(last) {
                // The record was cut off meanwhile.
                Err(Error::NotAppended { .. }) if lock(self.next).generation > generation => None,
                synced => synced.map(|()| Some((last, "sync_to")))?,
            },
            (Appended::InMemory, _) => None,
        };
        Ok(answered.map(|(lsn, by)| (lsn, generation, by)))
    }

    /// Drops old records now and then, and when the disk is full; and cuts the newest off now and
    /// then.
    fn cut(&self, mut noise: Noise, kicked: &Receiver<()>) -> Result<(), Failure> {
        loop {
            // Until the thread is kicked, or its time is over.
            let _ = kicked.recv_timeout(Duration::from_millis(noise.below(50)));
            self.cut_front(&mut noise)?;
            if noise.below(3) == 0 {
                self.cut_back(&mut noise)?;
            }
        }
    }

    fn cut_front(&self, noise: &mut Noise) -> Result<(), Failure> {
        const KEPT: u64 = 4000;
        let kept = if noise.below(8) == 0 { 0 } else { noise.below(KEPT) };
        let before = Lsn((self.log.durable_lsn().0 + 1).saturating_sub(kept));
        if before <= self.log.start_lsn() {
            return Ok(());
        }
        victim::say(self.out, Word::Cutting(before))?;
        match self.log.truncate_front(before) {
            Ok(start) => victim::say(self.out, Word::Cut(start)),
            // The truncation may be refused if it frees no segment.
            Err(Error::NoSpace { .. }) => victim::say(self.out, Word::Full),
            Err(error) => Err(error.into()),
        }
    }

    /// Cuts off a few records or, rarely, many; what is appended then is of another generation.
    fn cut_back(&self, noise: &mut Noise) -> Result<(), Failure> {
        const FEW: u64 = 60;
        const MANY: u64 = 2000;
        let most = if noise.below(8) == 0 { MANY } else { FEW };
        let far = noise.below(most);
        // Nothing is appended meanwhile: what follows would not know what it is.
        let mut next = lock(self.next);
        let (start, last) = (self.log.start_lsn(), next.lsn.prev());
        if last < start {
            return Ok(());
        }
        let (from, generation) = (Lsn(last.0.saturating_sub(far)).max(start), next.generation + 1);
        victim::say(self.out, Word::CuttingBack(from, generation))?;
        match self.log.truncate_back(from) {
            Ok(()) => {}
            Err(Error::NoSpace { .. }) => {
                victim::say(self.out, Word::Uncut)?;
                return victim::say(self.out, Word::Full);
            }
            Err(error) => return Err(error.into()),
        }
        lock(self.eras).begin(from, generation);
        *next = Next { lsn: from, generation };
        victim::say(self.out, Word::CutBack)
    }
}
