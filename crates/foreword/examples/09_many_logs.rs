//! Many logs in one process, as a store of many shards has them: they share the threads of one
//! `Runtime`.
//!
//! Says what they cost: threads, open files, memory, and how often a thread wakes while all of them
//! are idle. `cargo run --release --example 09_many_logs 1000`

use std::time::{Duration, Instant};

use foreword::{Lsn, Options, Runtime};

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir()?;
    let runtime = Runtime::new(4)?; // six threads, for however many logs
    let options = Options::new().segment_bytes(1 << 20).runtime(&runtime);
    let before = usage();
    let start = Instant::now();
    let logs = (0..count).map(|n| options.open(dir.path().join(format!("shard-{n}")))).collect::<Result<Vec<_>, _>>()?;
    println!("{count} logs opened in {:.1?}", start.elapsed());

    // No caller waits for these: the runtime syncs each log within 100 ms.
    let start = Instant::now();
    for log in &logs {
        log.append("a record of this shard")?;
    }
    while logs.iter().any(|log| log.durable_lsn() < Lsn::FIRST) {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("a record in each is durable after {:.1?}", start.elapsed());

    // Each says in a MARK what is durable, once; then all of them are idle.
    std::thread::sleep(Duration::from_millis(500 + 10 * count));
    let idle = usage();
    std::thread::sleep(Duration::from_secs(2));
    let after = usage();
    if let (Some(before), Some(idle), Some(after)) = (before, idle, after) {
        let each = |n: u64| n as f64 / count as f64;
        println!("threads {}, open files {:.1} a log", after.threads, each(after.files.saturating_sub(before.files)));
        println!("memory {:.0} KiB a log", each(after.kib.saturating_sub(before.kib)));
        println!("in two idle seconds, threads woke {} times", after.wakes.saturating_sub(idle.wakes));
    }
    for log in &logs {
        log.close()?;
    }
    Ok(())
}

struct Usage {
    threads: u64,
    files: u64,
    kib: u64,
    wakes: u64,
}

/// As Linux says it.
fn usage() -> Option<Usage> {
    let field = |text: &str, name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let mut usage = Usage { threads: 0, files: 0, kib: 0, wakes: 0 };
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let task = task.ok()?.path();
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("foreword-")) {
            usage.threads += 1;
            usage.wakes += field(&std::fs::read_to_string(task.join("status")).ok()?, "voluntary_ctxt_switches:")?;
        }
    }
    usage.files = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    usage.kib = field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")?;
    Some(usage)
}
