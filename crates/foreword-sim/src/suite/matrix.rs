//! Fault by outcome, in the manner of "Can Applications Recover from fsync Failures?": what the
//! caller sees, and what a reopening finds. Each cell is the outcome of the fault on the simulated
//! disk.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreword::{Error, Log, Lsn, View};

use super::log::{DIR, Shape, options};
use crate::{Choice, Effect, Fault, OpKind, SECTOR, SimDisk};

/// Runs of each fault, by seeds that decide what the fault does not.
const RUNS: u64 = 8;
/// States of the disk after each power failure.
const STATES: usize = 64;
/// Records that are durable before the fault; they fit the first segment.
const BEFORE: u64 = 6;
const RECORD_BYTES: usize = 1000;
/// A view that was opened so long ago looks at the log anew before it reads, or nearly.
const VIEW_LOOKS: Duration = Duration::from_millis(1);

/// The call that the fault strikes.
#[derive(Clone, Copy)]
enum Call {
    /// A commit.
    Commit,
    /// Appends, a write, and a sync of all.
    Sync,
    /// Commits until the log rotates.
    NextSegment,
    TruncateFront,
    TruncateBack,
    Close,
    /// Opening, after the process was killed.
    Open,
    /// Opening a second time.
    OpenTwice,
    /// A record that was acknowledged before is read, through a view.
    Get,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Call::Commit => "`commit`",
            Call::Sync => "`sync`",
            Call::NextSegment => "`commit`, next segment",
            Call::TruncateFront => "`truncate_front`",
            Call::TruncateBack => "`truncate_back`",
            Call::Close => "`close`",
            Call::Open => "`open`",
            Call::OpenTwice => "`open`, a second writer",
            Call::Get => "`get`",
        }
    }
}

/// What goes wrong.
enum Harm {
    Nothing,
    Fault(OpKind, Effect, Times),
    /// As a fault, but only while the second segment is prepared.
    Preparing(OpKind, Effect),
    Full,
    /// Whether there was something to damage.
    Damage(fn(&SimDisk) -> bool),
}

enum Times {
    Once,
    Forever,
}

struct Scenario {
    fault: &'static str,
    call: Call,
    harm: Harm,
}

/// The file of the first segment, which has the records that were durable before the fault.
fn segment() -> PathBuf {
    PathBuf::from(DIR).join(format!("{:020}.seg", 1))
}

/// A byte of the second record: blocks 0 and 1 are HEADER and LINK, and each record has a block of
/// its own.
const OF_RECORD_2: u64 = 3 * 4096 + 100;

const STALL: Effect = Effect::Stall(Duration::from_millis(1));

const SCENARIOS: &[Scenario] = {
    use Call::*;
    use Effect::*;
    use Harm::*;
    use Times::*;
    const fn row(fault: &'static str, call: Call, harm: Harm) -> Scenario {
        Scenario { fault, call, harm }
    }
    &[
        row("EIO on a write, once", Commit, Fault(OpKind::Write, Eio, Once)),
        row("EIO on writes, for ever", Commit, Fault(OpKind::Write, Eio, Forever)),
        row("EIO on a flush, once; pages dropped", Commit, Fault(OpKind::Sync, Eio, Once)),
        row("EIO on a flush, once; pages dropped", Sync, Fault(OpKind::Sync, Eio, Once)),
        row("EIO on a flush, once; pages dropped", TruncateFront, Fault(OpKind::Sync, Eio, Once)),
        row("EIO on a flush, once; pages dropped", TruncateBack, Fault(OpKind::Sync, Eio, Once)),
        row("EIO on a flush, once; pages dropped", Close, Fault(OpKind::Sync, Eio, Once)),
        row("EIO on flushes, for ever; pages dropped", Commit, Fault(OpKind::Sync, Eio, Forever)),
        row("EIO on flushes, for ever; pages dropped", Open, Fault(OpKind::Sync, Eio, Forever)),
        row("short write", Commit, Fault(OpKind::Write, Short, Once)),
        row("EINTR", Commit, Fault(OpKind::Write, Interrupted, Once)),
        row("a flush that takes long", Commit, Fault(OpKind::Sync, STALL, Once)),
        row("EIO on a write, preparing a segment", NextSegment, Preparing(OpKind::Write, Eio)),
        row("EIO on a flush, preparing a segment", NextSegment, Preparing(OpKind::Sync, Eio)),
        row("EIO on a rename, preparing a segment", NextSegment, Preparing(OpKind::Rename, Eio)),
        row("EIO on a sync of the directory", NextSegment, Fault(OpKind::SyncDir, Eio, Once)),
        row("disk full", NextSegment, Full),
        row("disk full", TruncateFront, Full),
        row("disk full", TruncateBack, Full),
        row("disk full", Open, Full),
        row("ENOSPC on a write to prepared space", Commit, Fault(OpKind::Write, NoSpace, Once)),
        row("EIO on reads", Get, Fault(OpKind::Read, Eio, Forever)),
        row("EIO on reads", TruncateBack, Fault(OpKind::Read, Eio, Forever)),
        row("EIO on reads", Open, Fault(OpKind::Read, Eio, Forever)),
        row("flipped bit in a read, once", Get, Fault(OpKind::Read, Flip, Once)),
        row("lock taken", OpenTwice, Nothing),
        row("flipped bit in an acknowledged record", Get, Damage(|disk| disk.flip(segment(), OF_RECORD_2, 3))),
        row(
            "acknowledged sector reads as zeros",
            Get,
            Damage(|disk| disk.overwrite(segment(), OF_RECORD_2 / SECTOR as u64 * SECTOR as u64, &[0; SECTOR])),
        ),
        row("newest segment lost", Commit, Damage(|disk| disk.lose(segment()))),
        row("flipped bit in a write", Commit, Fault(OpKind::Write, Flip, Once)),
        row("misdirected write", Commit, Fault(OpKind::Write, Misdirected(-16), Once)),
        row("lost write", Commit, Fault(OpKind::Write, Lost, Once)),
        row("lying flush, once", Commit, Fault(OpKind::Sync, Lie, Once)),
        row("lying flushes, until the power fails", Commit, Fault(OpKind::Sync, Lie, Forever)),
    ]
};

impl Harm {
    fn happen(&self, disk: &SimDisk) {
        match *self {
            Harm::Nothing => {}
            Harm::Fault(op, effect, Times::Once) => disk.fault(Fault::new(op, effect)),
            Harm::Fault(op, effect, Times::Forever) => disk.fault(Fault::new(op, effect).forever()),
            Harm::Preparing(op, effect) => disk.fault(Fault::new(op, effect).on("2.seg.tmp")),
            Harm::Full => disk.set_free(0),
            Harm::Damage(damage) => assert!(damage(disk), "there is nothing to damage"),
        }
    }

    /// Whether the disk's journal shows the harm.
    fn strikes(&self) -> bool {
        matches!(self, Harm::Fault(..) | Harm::Preparing(..))
    }
}

/// The matrix as a table in Markdown.
#[must_use]
pub fn matrix() -> String {
    let mut table = String::from(
        "| fault | the call it strikes | the call sees | the next commit, the fault being over | \
         found after the process is killed | found after the power fails | found after the power fails behind the next commit |\n|---|---|---|---|---|---|---|\n",
    );
    for scenario in SCENARIOS {
        let mut row = Row::default();
        (0..RUNS).for_each(|seed| row.run(scenario, seed));
        let cells = [&row.call, &row.next, &row.killed, &row.power, &row.later].map(|cell| cell.text());
        let _ = writeln!(table, "| {} | {} | {} |", scenario.fault, scenario.call.name(), cells.join(" | "));
    }
    table
}

/// What was seen in any run.
#[derive(Default)]
struct Cell(BTreeSet<String>);

impl Cell {
    fn saw(&mut self, text: String) {
        self.0.insert(text);
    }

    fn text(&self) -> String {
        let seen: Vec<&str> = self.0.iter().map(String::as_str).collect();
        seen.join(" or ").replace("all, with the record or all, without the record", "all, with or without the record")
    }
}

#[derive(Default)]
struct Row {
    call: Cell,
    next: Cell,
    killed: Cell,
    power: Cell,
    later: Cell,
}

impl Row {
    fn run(&mut self, scenario: &Scenario, seed: u64) {
        let mut tries = 0..100;
        let (mut run, said) = loop {
            let mut run = Run::new(seed);
            if matches!(scenario.call, Call::Open) {
                run.kill();
            }
            scenario.harm.happen(&run.disk);
            let said = run.call(scenario.call);
            // On a busy machine the view may look at the log anew first: a fault that comes once would
            // strike that.
            let is_once = matches!(scenario.harm, Harm::Fault(_, _, Times::Once));
            let is_late = matches!(scenario.call, Call::Get) && is_once && run.opened.elapsed() > VIEW_LOOKS;
            if !is_late || tries.next().is_none() {
                break (run, said);
            }
        };
        self.call.saw(said);
        let struck = run.disk.ops().iter().any(|op| op.struck);
        assert_eq!(struck, scenario.harm.strikes(), "{} in {}", scenario.fault, scenario.call.name());
        self.killed.saw(run.found(&run.disk.kill(), seed));
        run.disk.crash_states(STATES, seed).for_each(|after| self.power.saw(run.found(&after, seed)));
        run.disk.heal();
        run.disk.set_capacity(None);
        let next = run.next();
        if next == "ok" {
            run.disk.crash_states(STATES, seed).for_each(|after| self.later.saw(run.found(&after, seed)));
        } else {
            self.later.saw("as before".to_owned());
        }
        self.next.saw(next);
    }
}

/// A log that a fault strikes.
struct Run {
    disk: SimDisk,
    log: Option<Log>,
    /// Reads the log's files. (The log itself has the last records in memory.)
    view: Option<View>,
    /// When it was.
    opened: Instant,
    /// The last LSN that was acknowledged.
    acknowledged: u64,
    /// The LSN of a record that may be appended, and was not acknowledged.
    in_doubt: Option<u64>,
    /// LSNs at which the log may start.
    starts: Vec<u64>,
    /// The last LSN, if a cut was to be made.
    cut: Option<u64>,
}

fn record(lsn: u64) -> Vec<u8> {
    (0..RECORD_BYTES).map(|i| (lsn as usize * 31 + i * 7) as u8).collect()
}

fn answer<T>(result: &foreword::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error_name(error),
    }
}

fn error_name(error: &Error) -> String {
    match error {
        Error::Corruption(damage) if damage.proven => "`Corruption`, proven".to_owned(),
        Error::Corruption(_) => "`Corruption`, possible".to_owned(),
        other => {
            let debug = format!("{other:?}");
            format!("`{}`", debug.split(['(', ' ']).next().unwrap_or_default())
        }
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        let disk = SimDisk::new(seed);
        let mut run = Run {
            disk,
            log: None,
            view: None,
            opened: Instant::now(),
            acknowledged: 0,
            in_doubt: None,
            starts: vec![1],
            cut: None,
        };
        let opened = run.open();
        debug_assert_eq!(opened, "ok");
        for _ in 0..BEFORE {
            run.commit();
        }
        // (Makes `HOLDS`: the fault is to strike what the call does itself.)
        let released = run.log.as_ref().map(|log| log.release("nobody"));
        debug_assert!(matches!(released, Some(Ok(false))));
        run.opened = Instant::now();
        run.view = View::open_on(Arc::new(run.disk.clone()), DIR).ok();
        run
    }

    fn kill(&mut self) {
        let after = self.disk.kill();
        // Closing the log after this changes nothing on the old disk.
        self.disk.power_off();
        self.log = None;
        self.disk = after;
    }

    fn open(&mut self) -> String {
        let opened = options(&self.disk, Shape::SMALL).open(DIR);
        let text = answer(&opened);
        self.log = opened.ok();
        text
    }

    fn commit(&mut self) -> String {
        let Some(log) = &self.log else { return "no log".to_owned() };
        let lsn = log.last_lsn().0 + 1;
        let committed = log.commit(&record(lsn));
        match committed {
            Ok(lsn) => self.acknowledged = lsn.0,
            Err(_) => self.in_doubt = Some(lsn),
        }
        answer(&committed)
    }

    fn next(&mut self) -> String {
        if self.log.is_none() && self.open() != "ok" {
            return "does not open".to_owned();
        }
        self.commit()
    }

    fn call(&mut self, call: Call) -> String {
        if matches!(call, Call::Open) {
            return self.open();
        }
        let Some(log) = &self.log else { return "no log".to_owned() };
        match call {
            Call::Commit => self.commit(),
            Call::NextSegment => {
                let before = log.stats().rotations;
                loop {
                    let text = self.commit();
                    if text != "ok" || self.log.as_ref().is_none_or(|log| log.stats().rotations > before) {
                        return text;
                    }
                }
            }
            Call::Sync => {
                self.in_doubt = Some(BEFORE + 1);
                let synced = log.append(&record(BEFORE + 1)).and_then(|_| log.write()).and_then(|_| log.sync());
                if let Ok(lsn) = synced {
                    self.acknowledged = lsn.0;
                }
                answer(&synced)
            }
            Call::TruncateFront => {
                self.starts.push(3);
                let done = log.truncate_front(Lsn(3));
                self.starts.retain(|start| done.is_err() || *start == 3);
                answer(&done)
            }
            Call::TruncateBack => {
                let done = log.truncate_back(Lsn(5));
                self.cut = Some(4);
                if done.is_ok() {
                    self.acknowledged = 4;
                }
                answer(&done)
            }
            Call::Close => self.log.take().map_or_else(String::new, |log| answer(&log.close())),
            Call::OpenTwice => answer(&options(&self.disk, Shape::SMALL).open(DIR)),
            Call::Get => self.view.as_ref().map_or_else(String::new, |view| answer(&view.get(Lsn(2)))),
            Call::Open => self.open(),
        }
    }

    /// What opening finds on a disk, at once and after another power failure.
    fn found(&self, disk: &SimDisk, seed: u64) -> String {
        let opened = options(disk, Shape::SMALL).open(DIR);
        let log = match opened {
            Ok(log) => log,
            Err(Error::NoSpace { .. }) => {
                disk.set_capacity(None);
                return format!("`NoSpace`; with room, {}", self.found(disk, seed));
            }
            Err(error) => return error_name(&error),
        };
        let first = self.read(&log);
        let again = match options(&disk.crash(&Choice::Seed(seed)), Shape::SMALL).open(DIR) {
            Ok(log) => self.read(&log),
            Err(error) => error_name(&error),
        };
        if again == first { first } else { format!("{first}; then, if the power fails: {again}") }
    }

    fn read(&self, log: &Log) -> String {
        let mut last = log.start_lsn().0 - 1;
        for found in log.iter(Lsn::ZERO) {
            match found {
                Ok(found) if found.data == record(found.lsn.0) => last = found.lsn.0,
                Ok(_) => return "**something false**".to_owned(),
                Err(error) => return format!("opens, reading: {}", error_name(&error)),
            }
        }
        if !self.starts.contains(&log.start_lsn().0) {
            return "**another start**".to_owned();
        }
        match self.in_doubt {
            _ if self.cut == Some(last) && last < self.acknowledged => "all, cut".to_owned(),
            _ if last < self.acknowledged => "**less than was acknowledged**".to_owned(),
            Some(lsn) if lsn > self.acknowledged => {
                if last >= lsn { "all, with the record" } else { "all, without the record" }.to_owned()
            }
            _ => "all".to_owned(),
        }
    }
}
