//! Every workload of a few steps, every point at which it can crash, and every state that the crash
//! can leave.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::check::check_state;
use super::followers::Follower;
use super::log::{DIR, Shape, options, recover, summary};
use super::model::{Checked, Found, Model, Violation, ensure};
use super::runner::{Runner, Step};
use crate::rng::{Rng, mix};
use crate::{Choice, SimDisk};

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most steps of a workload on a new log.
    pub steps: usize,
    /// Of the longest workloads on a new log, one of so many; 1: all.
    pub one_of: usize,
    /// The most steps of a workload on a log with a past: segments, a cut, dropped records.
    pub steps_aged: usize,
    /// States of each crash point of a workload of one step: all, if there are at most this many;
    /// otherwise this many, chosen by the seed. Each further step quarters that number.
    pub states: usize,
    /// Crashes in the recovery of each state.
    pub recovery_points: usize,
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// Threads that run workloads.
    pub threads: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Bounds { steps: 3, one_of: 1, steps_aged: 2, states: 256, recovery_points: 1, seed: 1, threads }
    }
}

/// What was visited, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Workloads.
    pub workloads: u64,
    /// Crash points: changing operations of the workloads' last steps.
    pub crash_points: u64,
    /// States that a crash at one of these can leave.
    pub states: u64,
    /// Of those, states of crash points whose states were all visited.
    pub states_complete: u64,
    /// States that a crash in the recovery of one of those left.
    pub recovery_states: u64,
}

/// A workload that violates an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The invariant.
    pub violation: Violation,
    /// The workload, and how to run it again.
    pub story: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.violation, self.story)
    }
}

impl std::error::Error for Failure {}

#[derive(Default)]
struct Counters {
    workloads: AtomicU64,
    crash_points: AtomicU64,
    states: AtomicU64,
    states_complete: AtomicU64,
    recovery_states: AtomicU64,
}

impl Counters {
    fn tally(&self) -> Tally {
        Tally {
            workloads: self.workloads.load(Relaxed),
            crash_points: self.crash_points.load(Relaxed),
            states: self.states.load(Relaxed),
            states_complete: self.states_complete.load(Relaxed),
            recovery_states: self.recovery_states.load(Relaxed),
        }
    }
}

/// The steps that workloads are made of.
fn alphabet() -> Vec<Step> {
    vec![
        Step::Append(700),
        Step::Commit(300),
        Step::Batch(3, 2000, false),
        Step::Sync,
        Step::Rotate,
        Step::TruncateFront(700),
        Step::TruncateBack(400),
        Step::Reopen,
    ]
}

/// The log that a workload begins with.
struct Past {
    name: &'static str,
    shape: Shape,
    steps: Vec<Step>,
}

impl Past {
    fn none() -> Past {
        Past { name: "a new log", shape: Shape::SMALL, steps: Vec::new() }
    }

    fn aged() -> Past {
        let batch = Step::Batch(5, 3000, true);
        let first = [Step::Commit(100), Step::Rotate, batch, Step::TruncateBack(300), Step::Rotate, Step::TruncateFront(500)];
        let second = [Step::Reopen, Step::Hold(1, 400), Step::Append(5000), Step::Write, Step::Append(20)];
        Past { name: "a log with a past", shape: Shape::SMALL, steps: first.into_iter().chain(second).collect() }
    }

    /// Large segments, with writes farther behind a CLOSED mark than the fast path of opening
    /// looks.
    fn reopened() -> Past {
        let far = [Step::Append(260_000), Step::Write, Step::Append(40_000), Step::Write];
        let steps = [Step::Commit(100), Step::Reopen].into_iter().chain(far).collect();
        Past { name: "a log of large segments, reopened and written to", shape: Shape::of(1 << 20), steps }
    }

    /// Records over several segments that no promise covers: a recovery writes all of them again.
    fn burst() -> Past {
        Past { name: "a log with a burst of records", shape: Shape::SMALL, steps: vec![Step::Append(12_000); 16] }
    }
}

/// All workloads of one step to this many.
fn workloads(steps: usize) -> Vec<Vec<Step>> {
    let mut all = Vec::new();
    let mut longest = vec![Vec::new()];
    for _ in 0..steps {
        let extend = |w: &Vec<Step>| alphabet().into_iter().map(|step| [w.clone(), vec![step]].concat()).collect::<Vec<_>>();
        longest = longest.iter().flat_map(extend).collect();
        all.extend(longest.clone());
    }
    all
}

/// Visits all that the bounds ask for. `progress` gets the part that is done, from 0 to 1.
///
/// # Errors
/// The first failure.
pub fn exhaustive(bounds: &Bounds, progress: &(dyn Fn(f64) + Sync)) -> Result<Tally, Box<Failure>> {
    let (none, aged, reopened, burst) = (Past::none(), Past::aged(), Past::reopened(), Past::burst());
    let mut all = vec![(&none, Vec::new())]; // No step: the log is made.
    let (longest, shorter): (Vec<_>, Vec<_>) = workloads(bounds.steps).into_iter().partition(|w| w.len() == bounds.steps);
    let one_of = bounds.one_of.max(1);
    let drawn = longest.into_iter().skip(bounds.seed as usize % one_of).step_by(one_of);
    all.extend(shorter.into_iter().chain(drawn).map(|w| (&none, w)));
    all.extend(workloads(bounds.steps_aged).into_iter().map(|w| (&aged, w)));
    all.extend(workloads(1).into_iter().flat_map(|w| [(&reopened, w.clone()), (&burst, w)]));
    let counters = Counters::default();
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<Box<Failure>>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..bounds.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let i = next.fetch_add(1, Relaxed);
                    let Some((past, steps)) = all.get(i) else { break };
                    let workload = Workload { past, steps, bounds, counters: &counters };
                    if let Err(found) = workload.visit() {
                        stop.store(true, Relaxed);
                        failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(found);
                    }
                    progress(i as f64 / all.len() as f64);
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(counters.tally()),
    }
}

struct Workload<'a> {
    past: &'a Past,
    steps: &'a [Step],
    bounds: &'a Bounds,
    counters: &'a Counters,
}

impl Workload<'_> {
    fn story(&self, point: u64, what: &str) -> String {
        let past = self.past.name;
        format!("{past}, {:?}, crash at change {point}, {what}, seed {}", self.steps, self.bounds.seed)
    }

    /// Visits the crash points of the last step. Earlier ones belong to shorter workloads.
    fn visit(&self) -> Result<(), Box<Failure>> {
        self.counters.workloads.fetch_add(1, Relaxed);
        let fail = |point: u64, what: &str, violation| Box::new(Failure { violation, story: self.story(point, what) });
        let (from, mut runner) = self.run(None).map_err(|v| fail(0, "running it", v))?;
        runner.check_live().map_err(|v| fail(0, "reading it", v))?;
        let to = runner.disk.changes();
        for point in from + 1..=to {
            let (_, mut runner) = self.run(Some(point)).map_err(|v| fail(point, "running it", v))?;
            self.check_point(&mut runner, point).map_err(|(what, v)| fail(point, &what, v))?;
        }
        self.check_point(&mut runner, to + 1).map_err(|(what, v)| fail(to + 1, &what, v))
    }

    /// Runs the workload, with the power failing at a point. Returns the number of changes before
    /// the last step.
    fn run(&self, power_off_at: Option<u64>) -> Checked<(u64, Runner)> {
        let mut runner = Runner::new(SimDisk::new(self.bounds.seed), self.past.shape);
        if let Some(point) = power_off_at {
            runner.disk.power_off_at(point);
        }
        let mut from = 0;
        runner.open()?;
        runner.watch()?;
        for step in self.past.steps.iter().chain(self.steps) {
            if runner.is_down() {
                break;
            }
            runner.follow()?;
            from = runner.disk.changes();
            runner.step(step)?;
        }
        runner.follow()?;
        Ok((from, runner))
    }

    /// Visits every state that a crash at this point can leave.
    fn check_point(&self, runner: &mut Runner, point: u64) -> Result<(), (String, Violation)> {
        self.counters.crash_points.fetch_add(1, Relaxed);
        let seed = mix(&[self.bounds.seed, point, self.steps.len() as u64]);
        let killed = runner.disk.kill();
        let (model, disk) = (&runner.model, &runner.disk);
        let most = (self.bounds.states >> (2 * self.steps.len().saturating_sub(1))).max(2);
        let complete = disk.undecided() < 20 && 1 << disk.undecided() <= most;
        for (i, after) in disk.crash_states(most, seed).enumerate() {
            self.counters.states.fetch_add(1, Relaxed);
            self.counters.states_complete.fetch_add(u64::from(complete), Relaxed);
            let seed = mix(&[seed, i as u64]);
            self.check_state(&after, model, model.durable.max(runner.shown()), seed).map_err(|v| (format!("state {i}"), v))?;
        }
        self.counters.states.fetch_add(1, Relaxed);
        let after_kill = || -> Checked {
            // First the kill alone; below, a power failure in the recovery from it.
            check_state(&killed.copy(), model, model.written.max(runner.shown()), self.past.shape, seed)?;
            // Or a power failure after the kill, when a view has read what the kill left.
            if let Some(looked) = Follower::before_recovery(&killed)? {
                let shown = looked.shown(model.cut_in_doubt()).max(model.durable);
                model.check(&recover(&killed.crash(&Choice::Seed(seed)), self.past.shape)?.1, shown)?;
            }
            self.check_state(&killed, model, model.written, seed)
        };
        after_kill().map_err(|v| ("the process killed".to_owned(), v))
    }

    /// Visits one state: recovers and checks it, goes on with the log, and lets recovery crash and
    /// run again.
    fn check_state(&self, disk: &SimDisk, model: &Model, floor: u64, seed: u64) -> Checked {
        let undecided = disk.undecided() > 0;
        let before = disk.copy();
        let (log, found) = check_state(disk, model, floor, self.past.shape, seed)?;
        let recovery = disk.changes();
        let mut model_after = model.clone();
        model_after.adopt(&found);
        let mut runner = Runner::resume(disk.clone(), model_after, log, self.past.shape);
        runner.step(&Step::Append(50))?;
        runner.step(&Step::Commit(60))?;
        let (model_after, crashed) = (runner.model.clone(), disk.crash(&Choice::Seed(seed)));
        runner.disk.power_off();
        drop(runner);
        let (_, again) = recover(&crashed, self.past.shape)?;
        model_after.check(&again, model_after.durable)?;

        let mut rng = Rng::new(seed);
        for _ in 0..self.bounds.recovery_points {
            let point = 1 + rng.below(recovery);
            self.crash_in_recovery(&before, point, rng.next(), (!undecided).then_some(&found), model)?;
        }
        Ok(())
    }

    fn crash_in_recovery(&self, before: &SimDisk, point: u64, seed: u64, found: Option<&Found>, model: &Model) -> Checked {
        let disk = before.copy();
        disk.power_off_at(disk.changes() + point);
        drop(options(&disk, self.past.shape).open(DIR));
        self.counters.recovery_states.fetch_add(1, Relaxed);
        let after = if seed.is_multiple_of(3) { disk.kill() } else { disk.crash(&Choice::Seed(seed)) };
        // A write that was not durable when recovery began may still be lost. Without such writes,
        // the second recovery finds what the first one found.
        let (_, again) = check_state(&after, model, model.durable, self.past.shape, seed)?;
        ensure(found.is_none_or(|found| *found == again), "recovery is idempotent", || {
            format!(
                "{} after a crash at its change {point}, and {} without",
                summary(&again),
                found.map_or_else(String::new, summary)
            )
        })
    }
}
