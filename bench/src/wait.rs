//! Waiting for processes, with a time limit.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Polls a condition; `false` if it does not hold in time.
pub fn within(limit: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if is_so()? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(false)
}

/// How a process ended; `None` if it had to be killed for it.
pub fn ended(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let in_time = within(limit, || Ok(child.try_wait()?.is_some()))?;
    if !in_time {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(in_time.then_some(status))
}
