//! A log's metrics for Prometheus: `cargo run --release --example 08_metrics --features metrics`,
//! then `curl localhost:9900/metrics`. Any other recorder of the `metrics` facade does as well; it
//! is to be installed before the log is opened.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use foreword::{Log, Lsn};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Buckets, so that quantiles can be taken over many logs and any time: from 16 µs to 8 s, and
    // from 1 record to 64k.
    let powers = |first: f64, n: i32| (0..n).map(|i| first * 2f64.powi(i)).collect::<Vec<f64>>();
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &powers(16e-6, 20))?
        .set_buckets_for_metric(Matcher::Full("foreword_flush_records".to_owned()), &powers(1.0, 17))?
        .install_recorder()?;

    let dir = tempfile::tempdir()?;
    let log = Log::open(dir.path())?;
    // Runs for this many seconds; a service would run forever.
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(60), |text| text.parse())?;
    let until = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < until {
                    log.commit(b"something that happened")?;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok::<(), foreword::Error>(())
            });
        }
        scope.spawn(|| {
            while Instant::now() < until {
                std::thread::sleep(Duration::from_secs(1));
                log.truncate_front(Lsn(log.durable_lsn().0.saturating_sub(10_000)))?;
            }
            Ok::<(), foreword::Error>(())
        });
        // Your own server has a route for it; this one answers everything with the metrics.
        let listener = TcpListener::bind("127.0.0.1:9900")?;
        listener.set_nonblocking(true)?;
        println!("curl localhost:9900/metrics");
        while Instant::now() < until {
            let Ok((mut client, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            client.set_nonblocking(false)?;
            client.set_read_timeout(Some(Duration::from_secs(1)))?;
            let _ = client.read(&mut [0; 4096])?;
            let body = prometheus.render();
            write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    log.close()?;
    Ok(())
}
