//! The physical floor: one thread that does the same to the disk, with nothing around it. Not a log, so [`measure`] takes the place of its methods.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use foreword_measure::floor::{Bandwidth, DIRECT_ALIGN, FileState, Method, Probe, Shape, Strategy};

use super::{Feature, Peer};
use crate::cell::{self, Outcome};
use crate::gauge::{Gauge, Latency};
use crate::workload::Workload;

const CHUNK: usize = 1 << 20;

/// Past the page cache.
pub const DIRECT: Peer = Peer {
    name: "floor",
    package: "",
    setting: "zero-filled file, one block behind the other, `O_DIRECT` and `RWF_DSYNC`; of T threads the last to come writes for all, and wakes them, and that is all they do; append: 1 MiB pieces, two at a time; recover: a file read in 1 MiB pieces, with its checksum",
    lacks: &[(Feature::Batch, "it knows no records"), (Feature::Async, "it knows no records")],
    open: |_, _| bail!("the floor is no log"),
    read: |_, _| bail!("the floor is no log"),
};

/// Through it.
pub const FDATASYNC: Peer = Peer { name: "floor-fdatasync", setting: "the same with `pwrite` and `fdatasync`", ..DIRECT };

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
            burst(seconds * cell::WARM_UP)?;
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
                file.write_all_at(crate::payload::all(), at)?;
            }
            if cold {
                cell::chill(dir)?;
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
