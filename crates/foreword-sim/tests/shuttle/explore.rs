//! How scenarios are run; those of pages and trees, too.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// Runs a scenario under as many schedules as `SHUTTLE_SCHEDULES` says. In half of them any thread
/// may be the next at any step; in the others one works on until it waits, but for a few steps
/// (PCT). What one half finds may be out of reach of the other.
pub fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    const CHANGES: usize = 3;
    let schedules = std::env::var("SHUTTLE_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    // Of a log that is not optimized a thread needs more than shuttle's 32 KiB.
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    let scenario = std::sync::Arc::new(scenario);
    let again = scenario.clone();
    Runner::new(RandomScheduler::new(schedules / 2), config.clone()).run(move || again());
    Runner::new(PctScheduler::new(CHANGES, schedules.div_ceil(2)), config).run(move || scenario());
}
