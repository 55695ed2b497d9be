//! Threads that repeat an operation, and how long each operation took.
//!
//! [`closed`]: each thread starts the next operation as soon as the last is done, which measures throughput. [`open`]: operations start at given times, whether
//! or not the last is done, as requests arrive in practice, which measures the wait at that load.
//! There a latency counts from the intended start, so that a stall counts for all operations that
//! were due meanwhile (no coordinated omission).

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::sample::Latencies;

/// What a run gave.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// How often it was done.
    pub count: u64,
    /// From the first start to the last end, in seconds.
    pub seconds: f64,
    /// How long it took each time: from the start, or from the intended start.
    pub latencies: Latencies,
}

impl Outcome {
    /// Times a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.seconds.max(1e-9)
    }

    fn of(latencies: Latencies, took: Duration) -> Outcome {
        Outcome { count: latencies.count(), seconds: took.as_secs_f64(), latencies }
    }
}

/// This many threads, for a time, each as fast as possible. `worker` makes the operation that a
/// thread (numbered from 0) repeats, before the clock starts; the first error ends the run for all.
///
/// # Errors
/// The first that a worker returns.
pub fn closed<W, E>(threads: usize, time: Duration, worker: impl Fn(usize) -> W) -> Result<Outcome, E>
where
    W: FnMut() -> Result<(), E> + Send,
    E: Send,
{
    together((0..threads).map(worker).collect(), |work, start, stop| {
        let mut latencies = Latencies::new();
        let started = start();
        let mut begun = started;
        while !stop.load(Ordering::Relaxed) {
            work()?;
            let done = Instant::now();
            latencies.record(done - begun);
            if done - started >= time {
                break;
            }
            begun = done;
        }
        Ok(latencies)
    })
}

/// Starts operations at a rate per second (random gaps, as requests of independent clients arrive),
/// for a time, by this many threads: a free thread takes the next operation. If no thread is free,
/// the operation starts late, and that counts. Otherwise as [`closed`]. When the time is over,
/// overdue operations are still done, for at most the same time again.
///
/// # Errors
/// The first that a worker returns.
pub fn open<W, E>(threads: usize, rate: f64, time: Duration, worker: impl Fn(usize) -> W) -> Result<Outcome, E>
where
    W: FnMut() -> Result<(), E> + Send,
    E: Send,
{
    let due = arrivals(rate, time);
    let next = AtomicU64::new(0);
    together((0..threads).map(worker).collect(), |work, start, stop| {
        let mut latencies = Latencies::new();
        let started = start();
        sleep_exactly();
        while !stop.load(Ordering::Relaxed)
            && let Some(&offset) = due.get(next.fetch_add(1, Ordering::Relaxed) as usize)
        {
            let intended = started + offset;
            if let Some(early) = intended.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            if started.elapsed() > 2 * time {
                break;
            }
            work()?;
            latencies.record(intended.elapsed());
        }
        Ok(latencies)
    })
}

/// Runs threads that start together, and gathers what they measured.
pub(crate) fn together<W: Send, E: Send>(
    workers: Vec<W>,
    run: impl Fn(&mut W, &dyn Fn() -> Instant, &AtomicBool) -> Result<Latencies, E> + Sync,
) -> Result<Outcome, E> {
    let (barrier, stop) = (Barrier::new(workers.len()), AtomicBool::new(false));
    let first = std::sync::OnceLock::new();
    let start = || {
        barrier.wait();
        *first.get_or_init(Instant::now)
    };
    let all = std::thread::scope(|scope| {
        let running: Vec<_> = workers
            .into_iter()
            .map(|mut work| {
                let (run, stop, start) = (&run, &stop, &start);
                scope.spawn(move || run(&mut work, start, stop).inspect_err(|_| stop.store(true, Ordering::Relaxed)))
            })
            .collect();
        let mut all = Latencies::new();
        let mut failed = None;
        for thread in running {
            match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                Ok(some) => all.merge(&some),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        failed.map_or(Ok(all), Err)
    })?;
    Ok(Outcome::of(all, first.get().map_or(Duration::ZERO, Instant::elapsed)))
}

/// When each is due: gaps of an exponential distribution, the same in each run.
fn arrivals(rate: f64, time: Duration) -> Vec<Duration> {
    let mut due = Vec::with_capacity((rate * time.as_secs_f64()) as usize + 1);
    let (mut at, mut state) = (0.0, 0x9e37_79b9_7f4a_7c15_u64);
    loop {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        at += -uniform.ln() / rate;
        if at >= time.as_secs_f64() {
            return due;
        }
        due.push(Duration::from_secs_f64(at));
    }
}

/// The kernel may otherwise wake a thread some 50 us late, to save power.
fn sleep_exactly() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn nap<E>() -> Result<(), E> {
        std::thread::sleep(MS);
        Ok(())
    }

    #[test]
    fn a_closed_loop_counts_what_was_done() {
        let outcome = closed::<_, ()>(4, 50 * MS, |_| nap).unwrap();
        assert!((8..=200).contains(&outcome.count), "{outcome:?}");
        assert!(outcome.seconds >= 0.05 && outcome.latencies.quantile(0.5) >= MS);
    }

    #[test]
    fn the_first_error_ends_it_for_all() {
        let started = Instant::now();
        let outcome = closed(3, 10_000 * MS, |thread| move || if thread == 1 { Err("broken") } else { nap() });
        assert_eq!(outcome.unwrap_err(), "broken");
        assert!(started.elapsed() < 5_000 * MS);
        let outcome = open(3, 100.0, 10_000 * MS, |_| || Err("broken"));
        assert_eq!(outcome.unwrap_err(), "broken");
    }

    #[test]
    fn an_open_loop_keeps_the_rate_and_sees_a_stall_as_those_who_came_meanwhile() {
        let rate = 1000.0;
        let calm = open::<_, ()>(2, rate, 300 * MS, |_| || Ok(())).unwrap();
        assert!((200..=400).contains(&calm.count), "{calm:?}");
        // One stall of 100 ms: a closed loop would show it once in 300, as p99.7.
        let stalled = AtomicBool::new(false);
        let stall = open::<_, ()>(1, rate, 300 * MS, |_| {
            || {
                if !stalled.swap(true, Ordering::Relaxed) {
                    std::thread::sleep(100 * MS);
                }
                Ok(())
            }
        });
        let latencies = stall.unwrap().latencies;
        assert!(latencies.quantile(0.75) >= 10 * MS, "{latencies:?}");
    }

    #[test]
    fn arrivals_come_at_the_rate_in_order_and_unevenly() {
        let due = arrivals(10_000.0, Duration::from_secs(1));
        assert!((9_500..10_500).contains(&due.len()), "{}", due.len());
        assert!(due.is_sorted());
        let gaps: Vec<f64> = due.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        let above_mean = gaps.iter().filter(|&&gap| gap > 1e-4).count() as f64 / gaps.len() as f64;
        assert!((0.34..0.40).contains(&above_mean), "of an exponential distribution 1/e are: {above_mean}");
        assert!(arrivals(0.1, MS).is_empty());
    }
}
