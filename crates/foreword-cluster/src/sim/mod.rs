//! The judge of all this: clusters in one thread, with simulated disks, a simulated network and a
//! clock of their own, which run through what a seed decides, and a check of all that clients saw.
//! Compiled for tests only.
//!
//! - [`world`]: nodes on [`SimDisk`](foreword_sim::SimDisk)s, and what happens to them.
//! - [`network`]: what becomes of messages. It takes the place of gRPC at
//!   [`Connection`](crate::rpc::network::Connection); the node that is called answers as it answers
//!   gRPC.
//! - [`clients`]: calls, each noted with when it was made and when it was answered.
//! - [`check`]: whether a log can have answered so.
//! - [`plan`]: what a seed decides, and the smallest part of it that still fails.
//! - [`aimed`]: nodes that are lost at the moments that the protocol relies on.
//! - [`bugs`]: deliberate bugs, each of which must be found.
//! - [`runtime`]: tokio, with chance from the seed and no other threads.
//!
//! All is on one thread, with a paused clock, and chance from the seed alone: also openraft's, that
//! of identities, and tokio's (which decides in what order the receivers of a watch channel are
//! woken). The last can be given to a runtime only with `--cfg tokio_unstable`, as `.ci/run` and
//! `scripts/campaign.sh` build it; without, a seed that fails may pass when it is run again.

mod aimed;
mod bugs;
mod check;
mod clients;
mod network;
mod plan;
mod random;
mod runtime;
mod tests;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use random::Random;
use tokio::sync::oneshot;

pub(crate) use bugs::{Bug, Store};
pub(crate) use network::Link;
pub(crate) use runtime::Runtime;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Random {
    fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What all parts of a simulation share.
pub(crate) struct Sim {
    random: Mutex<Random>,
    bug: Option<Bug>,
    net: Mutex<network::State>,
    /// How often what happened.
    seen: Mutex<BTreeMap<&'static str, u64>>,
    /// A sum over all that happened, in order.
    trace: AtomicU64,
    begun: tokio::time::Instant,
    /// Whose disks make nothing durable, until when, in milliseconds.
    stalled: Mutex<BTreeMap<u64, u64>>,
    /// Waits for the next node that has durable what it appended behind a truncation.
    truncated: Mutex<Option<oneshot::Sender<u64>>>,
}

thread_local! {
    static NOW: RefCell<Option<Arc<Sim>>> = const { RefCell::new(None) };
}

/// The simulation that this thread runs.
fn current() -> Option<Arc<Sim>> {
    NOW.with(|now| now.borrow().clone())
}

/// Whether a deliberate bug is switched on in the simulation that this thread runs.
pub(crate) fn has(bug: Bug) -> bool {
    current().is_some_and(|sim| sim.bug == Some(bug))
}

/// Chance for an identity.
pub(crate) fn identity() -> Option<u128> {
    current().map(|sim| u128::from(sim.draw(Random::next)) | 1 << 120)
}

/// Does what waits for a disk: that takes no time here.
pub(crate) fn at_once<T>(work: impl FnOnce() -> T) -> Result<T, impl FnOnce() -> T> {
    if current().is_some() { Ok(work()) } else { Err(work) }
}

impl Sim {
    /// To be called in the runtime that simulates.
    fn begin(seed: u64, bug: Option<Bug>) -> Arc<Sim> {
        let sim = Arc::new(Sim {
            random: Mutex::new(Random(seed)),
            bug,
            net: Mutex::default(),
            seen: Mutex::default(),
            trace: AtomicU64::new(0),
            begun: tokio::time::Instant::now(),
            stalled: Mutex::default(),
            truncated: Mutex::default(),
        });
        NOW.with(|now| *now.borrow_mut() = Some(sim.clone()));
        sim
    }

    /// Runs something in a simulation of its own.
    fn run<T>(seed: u64, bug: Option<Bug>, work: impl AsyncFnOnce(Arc<Sim>) -> T) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        // The order in which the receivers of a watch channel are woken is tokio's chance.
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let ran = runtime.block_on(async { work(Sim::begin(seed, bug)).await });
        drop(runtime);
        Sim::end();
        ran
    }

    fn end() {
        NOW.with(|now| *now.borrow_mut() = None);
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut lock(&self.random))
    }

    fn count(&self, what: &'static str) {
        *lock(&self.seen).entry(what).or_default() += 1;
    }

    /// So long a flush takes.
    async fn flush(&self, node: u64) {
        let takes = Duration::from_micros(self.draw(|random| random.between(200, 4000)));
        let until = lock(&self.stalled).get(&node).copied().unwrap_or(0);
        tokio::time::sleep(takes.max(Duration::from_millis(until.saturating_sub(self.now())))).await;
    }

    /// Milliseconds since the beginning.
    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn note(&self, what: &[u64]) {
        let mut sum = Random(self.trace.load(Ordering::Relaxed) ^ self.now());
        for word in what {
            sum = Random(sum.next() ^ word);
        }
        self.trace.store(sum.next(), Ordering::Relaxed);
    }
}
