//! The machine's clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By this machine's clock; nothing, if it stands before that.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time that frames bear.
pub(crate) fn now_micros() -> u64 {
    since_1970().as_micros() as u64
}

/// A clock that does not jump, and may be asked for each record: where the system has a coarse one
/// that is at most so far behind, it is that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    #[cfg(target_os = "linux")]
    clock: rustix::time::ClockId,
    #[cfg(not(target_os = "linux"))]
    begun: std::time::Instant,
}

impl Ticks {
    #[cfg(target_os = "linux")]
    pub(crate) fn behind_at_most(behind: Duration) -> Ticks {
        use rustix::time::{ClockId, clock_getres};
        let tick = clock_getres(ClockId::MonotonicCoarse);
        let fits = tick.tv_sec == 0 && (1..=behind.as_nanos()).contains(&(tick.tv_nsec as u128));
        Ticks { clock: if fits { ClockId::MonotonicCoarse } else { ClockId::Monotonic } }
    }

    /// In nanoseconds.
    #[cfg(target_os = "linux")]
    pub(crate) fn now(self) -> u64 {
        let now = rustix::time::clock_gettime(self.clock);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn behind_at_most(_behind: Duration) -> Ticks {
        Ticks { begun: std::time::Instant::now() }
    }

    /// In nanoseconds.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn now(self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn ticks_are_behind_by_no_more_than_they_may_be() {
        for behind in [Duration::ZERO, Duration::from_millis(4), Duration::from_secs(1)] {
            let ticks = Ticks::behind_at_most(behind);
            let (begun, from) = (Instant::now(), ticks.now());
            std::thread::sleep(Duration::from_millis(30));
            let (least, passed) = (begun.elapsed(), Duration::from_nanos(ticks.now() - from));
            // A coarse clock may have been that far behind at the beginning, and not at the end.
            // (None has a tick of more than 10 ms; and the two clocks are not asked at one
            // instant.)
            let apart = behind.min(Duration::from_millis(10)) + Duration::from_millis(1);
            assert!(passed + apart >= least && passed <= begun.elapsed() + apart, "{passed:?}, {behind:?}");
        }
    }
}
