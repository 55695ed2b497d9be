//! The instructions of the hot paths, each held below a limit: a regression fails however noisy the
//! machine is. `scripts/instructions.sh` runs it.
//!
//! Each path runs in a process of its own under callgrind, which counts what the calling thread
//! does within [`counted`], the kernel left out: placing, copying, checksums, encoding, the lock.
//! There is no other thread.
//!
//! The limits are some 4 to 8 % above what was counted with Rust 1.95 on x86-64: a change of the
//! compiler may ask for others.
#![allow(clippy::unwrap_used, missing_docs)]

use std::env;
use std::process::{Command, ExitCode};

use foreword::{Log, Lsn, Options, SyncPolicy};

/// As the standard one, which panics where nobody reads standard output any more (`| head`).
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

const RECORDS: u64 = 20_000;
const COMMITS: u64 = 1_000;

/// What is counted, and how many instructions one call may take.
struct HotPath {
    name: &'static str,
    record_bytes: usize,
    calls: u64,
    limit: u64,
    run: fn(&Log, record_bytes: usize),
}

const HOT_PATHS: &[HotPath] = &[
    HotPath { name: "append_16_bytes", record_bytes: 16, calls: RECORDS, limit: 380, run: append_all },
    HotPath { name: "append_128_bytes", record_bytes: 128, calls: RECORDS, limit: 475, run: append_all },
    HotPath { name: "append_4_kib", record_bytes: 4096, calls: RECORDS, limit: 4_450, run: append_all },
    HotPath { name: "commit_128_bytes", record_bytes: 128, calls: COMMITS, limit: 10_850, run: commit_all },
    HotPath { name: "read_16_bytes", record_bytes: 16, calls: RECORDS, limit: 130, run: read_all },
    HotPath { name: "read_128_bytes", record_bytes: 128, calls: RECORDS, limit: 190, run: read_all },
    HotPath { name: "read_4_kib", record_bytes: 4096, calls: RECORDS, limit: 2_400, run: read_all },
];

fn append_all(log: &Log, record_bytes: usize) {
    let record = vec![7; record_bytes];
    for _ in 0..RECORDS {
        log.append(&record).unwrap();
    }
}

fn commit_all(log: &Log, record_bytes: usize) {
    let record = vec![7; record_bytes];
    for _ in 0..COMMITS {
        log.commit(&record).unwrap();
    }
}

fn read_all(log: &Log, _: usize) {
    let mut reader = log.reader_at(Lsn::FIRST);
    for _ in 0..RECORDS {
        assert!(reader.next().unwrap().is_some());
    }
}

impl HotPath {
    /// Runs it on a log in steady state: what the process under callgrind does.
    fn run(&self) {
        let dir = tempfile::tempdir().unwrap();
        let log = Options::new().background(false).sync(SyncPolicy::manual()).open(dir.path()).unwrap();
        // What is allocated once is allocated now. Behind the records that are read lie more frames
        // than are kept in memory: a copy out of those is counted, and one by the kernel is not.
        append_all(&log, self.record_bytes);
        (0..40).for_each(|_| _ = log.commit(b"behind").unwrap());
        append_all(&log, self.record_bytes);
        log.sync().unwrap();
        counted(self, &log);
    }

    /// The instructions that it takes, by callgrind.
    fn count(&self) -> Result<u64, String> {
        let program = env::current_exe().map_err(|e| e.to_string())?;
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--toggle-collect=*counted*", "--callgrind-out-file=/dev/null"]);
        let output = valgrind.arg(program).args(["--run", self.name]).output().map_err(|e| format!("valgrind: {e}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.parse().ok());
        collected.filter(|&count| output.status.success() && count > 0).ok_or_else(|| said.into_owned())
    }
}

/// All that callgrind counts.
#[inline(never)]
fn counted(path: &HotPath, log: &Log) {
    (path.run)(log, path.record_bytes);
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [run, name] = &args[..]
        && run == "--run"
    {
        HOT_PATHS.iter().filter(|path| path.name == name).for_each(HotPath::run);
        return ExitCode::SUCCESS;
    }
    let asked: Vec<_> =
        HOT_PATHS.iter().filter(|path| args.is_empty() || args.iter().any(|name| path.name.contains(name.as_str()))).collect();
    if asked.is_empty() {
        let names: Vec<_> = HOT_PATHS.iter().map(|path| path.name).collect();
        eprintln!("no hot path is named {}; there are {}", args.join(" or "), names.join(", "));
        return ExitCode::from(2);
    }
    println!("{:<18} {:>12} {:>8} {:>8}", "instructions of", "counted", "a call", "limit");
    let mut failed = false;
    for path in asked {
        match path.count() {
            Ok(count) => {
                let over = count > path.limit * path.calls;
                let says = if over { "  FAILED: more than the limit" } else { "" };
                println!("{:<18} {count:>12} {:>8} {:>8}{says}", path.name, count / path.calls, path.limit);
                failed |= over;
            }
            Err(why) => {
                println!("{:<18} FAILED: {why}", path.name);
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
