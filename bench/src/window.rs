//! Asynchronous commits: a given number in flight from one thread.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use foreword_measure::sample::Latencies;

use crate::payload;

/// A window of commits in flight. When the oldest is durable, all that are durable leave the
/// window, and as many new ones enter.
pub struct Window {
    in_flight: usize,
    size: usize,
    time: Duration,
    /// How long each took, from when it was handed over until it was known to be durable.
    pub latencies: Latencies,
}

impl Window {
    /// A window that takes records of a size for a time, and then waits for those in flight.
    pub fn new(in_flight: usize, size: usize, time: Duration) -> Window {
        Window { in_flight, size, time, latencies: Latencies::new() }
    }

    /// Runs it. `submit` begins a commit; futures that do nothing until they are polled are polled
    /// once at the beginning (`lazy`).
    pub fn run<F, T, E>(&mut self, lazy: bool, mut submit: impl FnMut(&'static [u8]) -> Result<F>) -> Result<()>
    where
        F: Future<Output = Result<T, E>> + Unpin,
        anyhow::Error: From<E>,
    {
        let unpark = Arc::new(Unpark { thread: std::thread::current(), woken: AtomicBool::new(false) });
        let waker = Waker::from(unpark.clone());
        let mut cx = Context::from_waker(&waker);
        let mut flying: VecDeque<(F, Instant)> = VecDeque::with_capacity(self.in_flight);
        let started = Instant::now();
        let mut submitted = 0;
        loop {
            // One look at the clock for all that enter together: it is the log that is measured,
            // not the clock.
            let now = Instant::now();
            while flying.len() < self.in_flight && now - started < self.time {
                let mut future = submit(payload::record(self.size, submitted))?;
                submitted += 1;
                match lazy.then(|| Pin::new(&mut future).poll(&mut cx)) {
                    Some(Poll::Ready(done)) => {
                        done?;
                        self.latencies.record(now.elapsed());
                    }
                    _ => flying.push_back((future, now)),
                }
            }
            if flying.is_empty() {
                return Ok(());
            }
            let mut acknowledged = None;
            while let Some((oldest, entered)) = flying.front_mut() {
                match Pin::new(oldest).poll(&mut cx) {
                    Poll::Ready(done) => {
                        done?;
                        let now = *acknowledged.get_or_insert_with(Instant::now);
                        self.latencies.record(now - *entered);
                        flying.pop_front();
                    }
                    Poll::Pending if acknowledged.is_some() => break,
                    Poll::Pending => unpark.wait(),
                }
            }
        }
    }
}

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Unpark {
    fn wait(&self) {
        while !self.woken.swap(false, Ordering::Acquire) {
            std::thread::park();
        }
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
