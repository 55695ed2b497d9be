//! Several threads commit while the power fails. Every acknowledged record is there afterwards.

use std::sync::Mutex;

use foreword::{Log, Lsn, Options};
use foreword_sim::{Choice, SimDisk};

fn open(disk: &SimDisk) -> foreword::Result<Log> {
    Options::new().segment_bytes(64 << 10).on_error(|_| ()).disk(disk.handle()).open("/log")
}

/// The bytes of a record: the thread and the count, and a tail so that lengths differ.
fn record(thread: u64, count: u64) -> Vec<u8> {
    let mut bytes = [thread.to_le_bytes(), count.to_le_bytes()].concat();
    bytes.resize(16 + (thread * 7919 + count * 104_729) as usize % 3000, thread as u8);
    bytes
}

/// Runs three threads that commit, beside truncations of the front, until the power fails. Returns
/// what was acknowledged, and the start.
fn run(disk: &SimDisk) -> (Vec<(Lsn, Vec<u8>)>, Lsn) {
    let acknowledged = Mutex::new(Vec::new());
    let Ok(log) = open(disk) else { return (Vec::new(), Lsn::FIRST) };
    let start = std::thread::scope(|scope| {
        for thread in 0..3 {
            let (log, acknowledged) = (&log, &acknowledged);
            scope.spawn(move || {
                for count in 0..40 {
                    let bytes = record(thread, count);
                    let Ok(lsn) = log.commit(&bytes) else { break };
                    acknowledged.lock().unwrap().push((lsn, bytes));
                }
            });
        }
        let truncate = || {
            let mut start = Lsn::FIRST;
            while let Ok(now) = log.truncate_front(Lsn(log.durable_lsn().0 / 2).max(start)) {
                start = now;
                if log.durable_lsn() >= Lsn(100) || disk.is_off() {
                    break;
                }
                std::thread::yield_now();
            }
            start
        };
        truncate()
    });
    (acknowledged.into_inner().unwrap(), start)
}

#[test]
fn what_threads_were_told_survives() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        disk.power_off_at(10 + seed * 13 % 150);
        let (acknowledged, start) = run(&disk);
        let (after, how) = match seed % 4 {
            0 => (disk.kill(), "killed"),
            _ => (disk.crash(&Choice::Seed(seed)), "without power"),
        };
        let log = open(&after).unwrap_or_else(|error| panic!("seed {seed}, {how}: {error}"));
        assert!(log.start_lsn() >= start, "seed {seed}, {how}: starts at {} after {start}", log.start_lsn());
        for (lsn, bytes) in acknowledged.iter().filter(|(lsn, _)| *lsn >= log.start_lsn()) {
            assert_eq!(log.get(*lsn).as_ref().ok(), Some(bytes), "seed {seed}, {how}: record {lsn}");
        }
        for record in log.iter(Lsn::ZERO) {
            let data = record.unwrap().data;
            let number = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
            assert_eq!(data, self::record(number(0), number(8)), "seed {seed}, {how}");
        }
    }
}
