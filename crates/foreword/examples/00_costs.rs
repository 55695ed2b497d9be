//! What it costs to hand on a record: to this process's memory, to the operating system, to the
//! disk. Only the standard library.
//!
//! The figures are those of the machine and of the file system that holds the temporary directory;
//! run it in release mode. On a file system in memory (`tmpfs`) the last one says nothing: there is
//! no disk to wait for. (`TMPDIR=. cargo run ...` measures where you are.)

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

// ANCHOR: time
/// The mean time of one call.
fn mean(calls: u32, mut call: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let started = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(started.elapsed() / calls)
}
// ANCHOR_END: time

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let create = |name: &str| File::create(dir.path().join(name));
    // ANCHOR: three
    let record = [7; 100];

    // Into memory; when 64 KiB have gathered, all of them go to the operating system in one call.
    let mut buffered = BufWriter::with_capacity(64 << 10, create("buffered")?);
    let memory = mean(200_000, || buffered.write_all(&record))?;

    // To the operating system: a call for each record.
    let mut file = create("written")?;
    let system = mean(20_000, || file.write_all(&record))?;

    // To the disk: a call, and a wait for the device.
    let mut file = create("flushed")?;
    let disk = mean(100, || {
        file.write_all(&record)?;
        file.sync_data()
    })?;
    // ANCHOR_END: three
    let times = |took: Duration| took.as_secs_f64() / memory.as_secs_f64();
    println!("to memory              {memory:>10.1?}");
    println!("to the system          {system:>10.1?}   {:>7.0} times that", times(system));
    println!("to the disk            {disk:>10.1?}   {:>7.0} times that", times(disk));
    Ok(())
}
