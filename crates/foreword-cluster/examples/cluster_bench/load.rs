//! One measurement: clients that append for a few seconds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foreword_cluster::Bytes;
use foreword_measure::sample::Latencies;
use serde::Serialize;

use crate::Result;
use crate::cluster::Cluster;

/// What clients do: each has a connection of its own, so many requests under way on it, and so many
/// records in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) in_flight: usize,
    pub(crate) batch: usize,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.clients)?;
        if self.in_flight > 1 {
            write!(f, ", {} under way each", self.in_flight)?;
        }
        if self.batch > 1 {
            write!(f, ", batches of {}", self.batch)?;
        }
        Ok(())
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// Records acknowledged a second.
    pub(crate) rate: f64,
    /// Of a request, in seconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Requests that failed.
    pub(crate) errors: u64,
    /// Seconds of a processor for each record: of the three nodes, and of the clients' process.
    pub(crate) nodes_cpu: f64,
    pub(crate) clients_cpu: f64,
}

/// Loads a cluster: requests that are acknowledged within the time that is measured count.
pub(crate) async fn measure(cluster: &Cluster, load: Load, seconds: f64, bytes: usize) -> Result<Measured> {
    let record = Bytes::from(vec![0x5a; bytes]);
    let (keys, errors) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    let connections = cluster.connect(load.clients).await?;
    let warm = Duration::from_secs_f64((seconds / 4.0).clamp(0.3, 1.0));
    let from = Instant::now() + warm;
    let end = from + Duration::from_secs_f64(seconds);
    let mut tasks = Vec::new();
    for connection in connections {
        for _ in 0..load.in_flight {
            let (connection, record, keys, errors) = (connection.clone(), record.clone(), keys.clone(), errors.clone());
            tasks.push(tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let key = keys.fetch_add(load.batch as u64, Ordering::Relaxed);
                    let begun = Instant::now();
                    if begun >= end {
                        return took;
                    }
                    let done = connection.append(key, vec![record.clone(); load.batch]).await;
                    let now = Instant::now();
                    match done {
                        Err(_) if errors.fetch_add(1, Ordering::Relaxed) > 1000 => return took,
                        Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                        Ok(()) if now >= from && now < end => took.push(now - begun),
                        Ok(()) => {}
                    }
                }
            }));
        }
    }
    tokio::time::sleep_until(from.into()).await;
    let before = (processor_time(&cluster.processes()), processor_time(&[std::process::id()]));
    tokio::time::sleep_until(end.into()).await;
    let after = (processor_time(&cluster.processes()), processor_time(&[std::process::id()]));
    let mut all = Latencies::new();
    for task in tasks {
        let took = task.await.map_err(|error| format!("a client panicked: {error}"))?;
        took.into_iter().for_each(|took| all.record(took));
    }
    let records = all.count() * load.batch as u64;
    if records == 0 {
        return Err(format!("nothing was acknowledged; {} requests failed", errors.load(Ordering::Relaxed)));
    }
    Ok(Measured {
        rate: records as f64 / seconds,
        p50: all.quantile(0.5).as_secs_f64(),
        p99: all.quantile(0.99).as_secs_f64(),
        errors: errors.load(Ordering::Relaxed),
        nodes_cpu: (after.0 - before.0) / records as f64,
        clients_cpu: (after.1 - before.1) / records as f64,
    })
}

/// Seconds of a processor that processes have used; what Linux does not say is 0.
fn processor_time(processes: &[u32]) -> f64 {
    let one = |process: &u32| std::fs::read_to_string(format!("/proc/{process}/stat")).ok().and_then(|stat| ticks(&stat));
    processes.iter().filter_map(one).sum::<u64>() as f64 / 100.0 // USER_HZ is 100 wherever Linux runs today.
}

/// The ticks in user mode and in the kernel.
fn ticks(stat: &str) -> Option<u64> {
    // A name may hold blanks and parentheses; fields are counted behind it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
    Some(fields.next()? + fields.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 80 0 0 0 250 50 7 9 20 0 1 0 100 1 2";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("12 (a"), None);
    }

    #[test]
    fn loads_say_what_is_more_than_one() {
        let load = |clients, in_flight, batch| Load { clients, in_flight, batch }.to_string();
        assert_eq!(load(64, 1, 1), "64");
        assert_eq!(load(8, 128, 1), "8, 128 under way each");
        assert_eq!(load(8, 1, 100), "8, batches of 100");
    }
}
