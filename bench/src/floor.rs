//! What the disk allows: one thread, or a group of them, that does to it what a workload asks of a
//! log, and nothing else.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use foreword_measure::floor::{Bandwidth, DIRECT_ALIGN, FileState, Method, Probe, Shape, Strategy};

use crate::files;
use crate::gauge::{Gauge, Latency};
use crate::outcome::{Outcome, WARM_UP};
use crate::payload;
use crate::peers::{Peer, floor::DIRECT};
use crate::workload::Workload;

const CHUNK: usize = 1 << 20;

/// Does to the disk what a workload asks of a log.
pub fn measure(peer: &Peer, workload: Workload, dir: &Path, seconds: f64) -> Result<Outcome> {
    match workload {
        Workload::Commit { threads, size } => {
            let method = if peer.name == DIRECT.name { Method::DirectDsync } else { Method::Fdatasync };
            let block_bytes = (threads * size).next_multiple_of(DIRECT_ALIGN);
            let mut probe =
                Probe::open(dir, Strategy { state: FileState::Zeroed, method }, (256 << 20).max(256 * block_bytes as u64))?;
            let mut burst = |seconds: f64| match (threads, Duration::from_secs_f64(seconds)) {
                (1, time) => probe.burst(Shape { block_bytes, in_flight: 1 }, time),
                (members, time) => probe.group(members, block_bytes, time),
            };
            burst(seconds * WARM_UP)?;
            let gauge = Gauge::start(dir);
            let burst = burst(seconds)?;
            let latency = Some(Latency::from(&burst.latencies));
            Ok(Outcome { records: burst.latencies.count(), spent: gauge.spent(), latency, ..Outcome::default() })
        }
        Workload::Append { size, .. } => {
            let bytes = 1 << 30;
            let file = Bandwidth::open(dir, bytes)?;
            let gauge = Gauge::start(dir);
            file.write()?;
            Ok(Outcome { records: bytes / size as u64, spent: gauge.spent(), ..Outcome::default() })
        }
        Workload::Recover { bytes, size, cold } => {
            let file = File::create_new(dir.join("floor"))?;
            for at in (0..bytes).step_by(CHUNK) {
                file.write_all_at(payload::all(), at)?;
            }
            if cold {
                files::chill(dir)?;
            }
            let file = File::open(dir.join("floor"))?;
            let mut buf = vec![0; CHUNK];
            let gauge = Gauge::start(dir);
            let mut read = 0;
            loop {
                let n = file.read_at(&mut buf, read)? as u64;
                if n == 0 {
                    break;
                }
                std::hint::black_box(crc32c::crc32c(&buf[..n as usize]));
                read += n;
            }
            ensure!(read >= bytes, "the file is too short");
            Ok(Outcome { records: bytes / size as u64, spent: gauge.spent(), ..Outcome::default() })
        }
        _ => bail!("the floor has no {workload}"),
    }
}
