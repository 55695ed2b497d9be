//! Long workloads with crashes, kills and faults, drawn from a seed; and the shortest part of a
//! workload that still fails.

use foreword::Error;

use super::check::check_state;
use super::followers::Follower;
use super::log::{DIR, Shape, options, read_log};
use super::model::{Checked, Violation, ensure, violated};
use super::runner::{Runner, Step};
use crate::rng::{Rng, mix};
use crate::{Choice, Effect, Fault, OpKind, SimDisk};

/// What happens to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A call of the log.
    Step(Step),
    /// The power fails after this many changes; the seed decides what is left.
    PowerFailure(u64, u64),
    /// The process is killed after this many changes; the seed decides whether the page cache is
    /// dropped before the log is opened again.
    Kill(u64, u64),
    /// A fault that must lose nothing acknowledged: an error, a short write, an interruption.
    Fault(Fault),
    /// A fault that the disk hides: a write that is lost, misdirected or garbled, or syncs that
    /// lie. The power fails at the end of the case.
    Betrayal(Fault),
    /// This many bytes are free on the disk.
    Room(u64),
    /// There is room again, and the faults are gone.
    Relief,
}

/// A workload that can be run again: the same events give the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Decides what the events do not.
    pub seed: u64,
    /// The log's options.
    pub shape: Shape,
    /// What happens, in order.
    pub events: Vec<Event>,
}

/// What a run of a case saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Steps run.
    pub steps: u64,
    /// Recoveries after a crash, a kill, or an error.
    pub recoveries: u64,
    /// Records acknowledged in all.
    pub acknowledged: u64,
    /// Damage that the log has reported.
    pub reported: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        self.steps += other.steps;
        self.recoveries += other.recoveries;
        self.acknowledged += other.acknowledged;
        self.reported += other.reported;
    }
}

impl Case {
    /// The case of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Case {
        let mut rng = Rng::new(seed);
        let segment_bytes = [64 << 10, 64 << 10, 128 << 10, 1 << 20][rng.below(4) as usize];
        let rarely = |what| mix(&[seed, what]).is_multiple_of(4);
        let shape = Shape { segment_bytes, zero_fill: !rarely(1), reserve: !rarely(2) };
        let count = 10 + rng.below(60);
        let mut events: Vec<Event> = (0..count).map(|_| draw_event(&mut rng)).collect();
        if rng.chance(300) {
            events.retain(|event| !matches!(event, Event::Fault(_) | Event::Room(_)));
            events.push(Event::Relief);
            events.push(Event::Betrayal(draw_betrayal(&mut rng)));
            events.extend((0..1 + rng.below(8)).map(|_| Event::Step(draw_append(&mut rng))));
        }
        Case { seed, shape, events }
    }

    /// Runs the case.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn run(&self) -> Result<Summary, Violation> {
        let runner = Runner::new(SimDisk::new(self.seed), self.shape);
        let mut run = Run { case: self, runner, summary: Summary::default(), end: None, betrayed: None };
        run.all()?;
        Ok(run.summary)
    }

    /// Leaves events out as long as the case still fails. Returns the shortest case found.
    #[must_use]
    pub fn shrink(&self) -> Case {
        let mut case = self.clone();
        let mut chunk = case.events.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            let mut shorter = false;
            while at < case.events.len() {
                let mut less = case.clone();
                less.events.drain(at..(at + chunk).min(case.events.len()));
                if less.run().is_err() {
                    case = less;
                    shorter = true;
                } else {
                    at += chunk;
                }
            }
            if !shorter {
                chunk /= 2;
            }
        }
        case
    }
}

fn draw_len(rng: &mut Rng) -> u32 {
    let magnitude = rng.below(15);
    (rng.below(1 << magnitude) + rng.below(2)) as u32
}

fn draw_append(rng: &mut Rng) -> Step {
    match rng.below(8) {
        0 => Step::Append(draw_len(rng)),
        1..=3 => Step::Commit(draw_len(rng)),
        4 => Step::Batch(1 + rng.below(8) as u8, draw_len(rng), rng.chance(500)),
        5 => Step::Write,
        6 => Step::Sync,
        _ if rng.chance(300) => Step::Rotate,
        _ => Step::Checkpoint,
    }
}

fn draw_step(rng: &mut Rng) -> Step {
    match rng.below(30) {
        0..=17 => draw_append(rng),
        18 => Step::Append(rng.below(200_000) as u32),
        19 => Step::Commit(rng.below(200_000) as u32),
        20 => Step::Batch(2 + rng.below(20) as u8, rng.below(20_000) as u32, true),
        21 | 22 => Step::Rotate,
        23 | 24 => Step::TruncateFront(rng.below(1100) as u16),
        25 => Step::TruncateBack(rng.below(700) as u16),
        26 => Step::Hold(rng.below(3) as u8, rng.below(1000) as u16),
        27 => Step::Release(rng.below(3) as u8),
        _ => Step::Reopen,
    }
}

fn draw_event(rng: &mut Rng) -> Event {
    match rng.below(100) {
        0..=79 => Event::Step(draw_step(rng)),
        80..=85 => Event::PowerFailure(1 + rng.below(20), rng.next()),
        86..=89 => Event::Kill(1 + rng.below(20), rng.next()),
        90..=95 => Event::Fault(draw_fault(rng)),
        96 | 97 => Event::Room(rng.below(200_000)),
        _ => Event::Relief,
    }
}

fn draw_fault(rng: &mut Rng) -> Fault {
    use OpKind::{Any, Create, DurableWrite, List, Open, Read, Remove, Rename, Sync, SyncDir, Write};
    let effect = [Effect::Eio, Effect::Eio, Effect::NoSpace, Effect::Short, Effect::Interrupted][rng.below(5) as usize];
    let op = match effect {
        Effect::Short => [Read, Write][rng.below(2) as usize],
        // The log repeats an interrupted call, but takes an interrupted sync as failed.
        Effect::Interrupted => [Read, Write, Sync][rng.below(3) as usize],
        _ => [Any, Create, DurableWrite, List, Open, Read, Remove, Rename, Sync, SyncDir, Write, Sync][rng.below(12) as usize],
    };
    let forever = rng.chance(100) && !matches!(effect, Effect::Interrupted);
    let times = if forever { u64::MAX } else { 1 + rng.below(3) };
    Fault::new(op, effect).skip(rng.below(15)).times(times)
}

fn draw_betrayal(rng: &mut Rng) -> Fault {
    let away = rng.below(64) as i32 - 32;
    let fault = match rng.below(5) {
        0 => Fault::new(OpKind::Sync, Effect::Lie).times(1 + rng.below(4)),
        1 => Fault::new(OpKind::Sync, Effect::Lie).forever(),
        2 => Fault::new(OpKind::Write, Effect::Lost),
        3 => Fault::new(OpKind::Write, Effect::Misdirected(if away == 0 { 1 } else { away })),
        _ => Fault::new(OpKind::Write, Effect::Flip),
    };
    fault.skip(rng.below(4))
}

/// How a run of the log ends.
#[derive(Clone, Copy)]
enum End {
    PowerFailure(u64),
    Kill(u64),
}

struct Run<'a> {
    case: &'a Case,
    runner: Runner,
    summary: Summary,
    /// How the run ends, when the disk stops.
    end: Option<End>,
    /// The fault that the disk hides, and the last LSN that was durable before it.
    betrayed: Option<(Effect, u64)>,
}

impl Run<'_> {
    fn all(&mut self) -> Checked {
        self.runner.open()?;
        self.runner.watch()?;
        for event in &self.case.events {
            match event {
                Event::Step(step) => self.step(step)?,
                Event::PowerFailure(after, seed) => self.arm(*after, End::PowerFailure(*seed)),
                Event::Kill(after, seed) => self.arm(*after, End::Kill(*seed)),
                Event::Fault(fault) => self.runner.disk.fault(fault.clone()),
                Event::Room(bytes) => self.runner.disk.set_free(*bytes),
                Event::Relief => {
                    self.runner.disk.heal();
                    self.runner.disk.set_capacity(None);
                }
                Event::Betrayal(fault) => {
                    self.runner.disk.power_off_at(u64::MAX);
                    self.betrayed = Some((fault.effect, self.runner.model.durable));
                    self.runner.disk.fault(fault.clone());
                }
            }
        }
        if self.runner.log.is_some() && !self.runner.is_down() && self.betrayed.is_none() {
            self.runner.disk.heal();
            self.runner.check_live()?;
        }
        self.recover()
    }

    fn arm(&mut self, after: u64, end: End) {
        if self.betrayed.is_none() {
            self.runner.disk.power_off_at(self.runner.disk.changes() + after);
            self.end = Some(end);
        }
    }

    fn step(&mut self, step: &Step) -> Checked {
        if self.runner.is_down() {
            if self.betrayed.is_some() {
                return Ok(()); // The hidden fault has stopped the log, until the end of the case.
            }
            self.recover()?;
        }
        let before = self.runner.model.durable;
        self.summary.steps += 1;
        self.runner.step(step)?;
        if self.betrayed.is_none() {
            self.runner.follow()?;
        }
        self.summary.acknowledged += self.runner.model.durable.saturating_sub(before);
        Ok(())
    }

    fn recover(&mut self) -> Checked {
        self.summary.recoveries += 1;
        let seed = mix(&[self.case.seed, self.summary.recoveries]);
        let stopped = self.runner.disk.is_off();
        let end = self.end.take_if(|_| stopped).unwrap_or(match seed % 3 {
            0 => End::Kill(seed),
            _ => End::PowerFailure(seed),
        });
        self.end = None;
        if let Some((effect, floor)) = self.betrayed.take() {
            return self.end_betrayed(effect, floor, seed);
        }
        let model = &self.runner.model;
        let (disk, floor) = match end {
            End::PowerFailure(seed) => (self.runner.disk.crash(&Choice::Seed(seed)), model.durable),
            End::Kill(seed) if seed.is_multiple_of(4) => {
                let disk = self.runner.disk.kill();
                disk.drop_caches();
                (disk, model.durable)
            }
            // A view reads what the kill left, and then the power fails.
            End::Kill(seed) if seed % 4 == 1 => {
                let killed = self.runner.disk.kill();
                let looked = Follower::before_recovery(&killed)?;
                let shown = looked.map_or(0, |follower| follower.shown(model.cut_in_doubt()));
                (killed.crash(&Choice::Seed(seed)), model.durable.max(shown))
            }
            End::Kill(_) => (self.runner.disk.kill(), model.written),
        };
        let disk = self.recover_with_trouble(disk, seed)?;
        self.runner.go_on(disk, floor, seed)
    }

    /// Now and then recovery meets a fault or a full disk first. It returns an error, and spoils
    /// nothing.
    fn recover_with_trouble(&self, disk: SimDisk, seed: u64) -> Checked<SimDisk> {
        let mut rng = Rng::new(seed);
        for _ in 0..rng.below(3) {
            disk.fault(draw_fault(&mut rng).skip(rng.below(40)));
            match options(&disk, self.case.shape).open(DIR).and_then(|log| read_log(&log)) {
                Ok(_) | Err(Error::Io { .. } | Error::NoSpace { .. } | Error::Poisoned(_)) => {}
                Err(error) => return violated("a fault in recovery is not taken for damage", error.to_string()),
            }
            disk.heal();
        }
        disk.set_capacity(None);
        Ok(disk.kill())
    }

    /// Checks the log after a fault that the disk hid: the log reports it, or has lost only what no
    /// evidence can show.
    fn end_betrayed(&mut self, effect: Effect, before: u64, seed: u64) -> Checked {
        let model = &self.runner.model;
        let floor = match effect {
            // All syncs since the fault may have lied, and the end of the log may be lost as a
            // whole.
            Effect::Lie => before,
            // The last flush may be lost as a whole.
            Effect::Lost | Effect::Misdirected(_) => model.promised.max(before.min(model.promised)),
            _ => model.durable,
        };
        let disk = self.runner.disk.crash(&Choice::Seed(seed));
        let log = match options(&disk, self.case.shape).open(DIR) {
            Ok(log) => log,
            Err(Error::Corruption(_)) => {
                self.summary.reported += 1;
                return Ok(());
            }
            Err(error) => return violated("damage is reported as such", error.to_string()),
        };
        match read_log(&log) {
            Ok(found) => model.check(&found, floor),
            Err(Error::Corruption(_)) => {
                self.summary.reported += 1;
                Ok(())
            }
            Err(error) => violated("damage is reported as such", error.to_string()),
        }
    }
}

/// Fills a disk. The log returns an error, continues with what needs no space, and with everything
/// once there is room.
///
/// # Errors
/// The invariant that does not hold.
pub fn full_disk(seed: u64) -> Result<(), Violation> {
    let mut rng = Rng::new(seed);
    let mut runner = Runner::new(SimDisk::new(seed), Shape::SMALL);
    runner.open()?;
    for _ in 0..rng.below(3) {
        runner.step(&Step::Rotate)?;
    }
    runner.disk.set_free(rng.below(200_000));
    for round in 0..4 {
        let mut last = u64::MAX;
        while runner.model.last() != last {
            last = runner.model.last();
            runner.step(&Step::Commit(2000 + rng.below(5000) as u32))?;
        }
        ensure(!runner.is_down(), "a full disk does not stop the log", || format!("in round {round}"))?;
        runner.step(&Step::Append(100))?;
        runner.step(&Step::Checkpoint)?;
        // A segment has room for two checkpoints, unless a truncation frees another segment.
        let checkpointed = runner.model.durable > last;
        ensure(checkpointed || round >= 2, "a checkpoint finds room on a full disk", || format!("in round {round}"))?;
        let start = runner.model.start();
        runner.step(&Step::TruncateFront(1000))?;
        let truncated = runner.model.start() > start || !checkpointed;
        ensure(truncated, "front truncation works on a full disk", || format!("in round {round}"))?;
        if round == 2 {
            runner.disk.set_capacity(None);
            let last = runner.model.last();
            runner.step(&Step::Rotate)?;
            ensure(runner.model.last() > last, "a log goes on when there is space", || format!("in round {round}"))?;
            runner.disk.set_free(rng.below(200_000));
        }
        runner.check_live()?;
    }
    let after = runner.disk.crash(&Choice::Seed(seed));
    after.set_capacity(None);
    check_state(&after, &runner.model, runner.model.durable, Shape::SMALL, seed).map(drop)
}
