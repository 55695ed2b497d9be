//! Power failures, kills, failing flushes and full disks, against a model: each opening finds a
//! state that the logs were in, and none older than what was acknowledged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Model, Op, Random, Run, options, read};
use foreword_raft::Error;
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

/// How many seeds to run: `FOREWORD_RAFT_SEEDS`, or as many as take a few seconds.
fn seeds(default: u64) -> u64 {
    std::env::var("FOREWORD_RAFT_SEEDS").map_or(default, |seeds| seeds.parse().unwrap())
}

fn run(disk: &SimDisk, ops: &[Op]) -> Run {
    let Ok(logs) = options(disk).open("/log") else {
        return Run { logs: None, states: vec![Model::new()], acknowledged: Default::default(), moved: 0, refused: 0 };
    };
    let mut run = Run::new(logs, Model::new());
    for op in ops {
        if !run.step(op, disk) {
            break;
        }
    }
    run
}

/// The logs open on what is left, in a state that they were in; they work there; and what they do
/// then is found again after a close.
fn check(run: &Run, disk: &SimDisk, what: &dyn std::fmt::Debug) -> Model {
    let logs = options(disk).open("/log").unwrap_or_else(|error| panic!("{what:?}: {error}"));
    let found = read(&logs);
    run.check_found(&found, what);
    let mut again = Run::new(logs, found.clone());
    for op in
        [Op::Append(1, 2, 30), Op::Compact, Op::Vote(2, 9), Op::Truncate(1, 1), Op::Append(1, 1, 400), Op::Compact, Op::Reopen]
    {
        assert!(again.step(&op, disk), "{what:?}: {op:?}");
        again.check_now();
    }
    found
}

/// A group that is idle, one that is overwritten, one that is purged, one that is removed:
/// compaction has to copy and to drop.
fn small() -> Vec<Vec<Op>> {
    use Op::*;
    let garbage = |group| [Append(group, 9, 100), Purge(group, 0), Compact];
    let idle = [Append(0, 4, 40), Vote(0, 1), Purge(0, 2), Committed(0, 4), Truncate(0, 1), Append(0, 2, 50)];
    vec![
        [&idle[..], &garbage(1), &[Truncate(0, 1)], &garbage(1), &[Append(0, 1, 30)], &garbage(1)].concat(),
        [&idle[..], &garbage(1), &[Vote(0, 2), Remove(0), Append(0, 2, 20)], &garbage(1), &[Remove(1), Append(1, 1, 10)]]
            .concat(),
        [&garbage(0)[..], &idle, &[Reopen], &garbage(1), &[Truncate(0, 0), Purge(0, -5)], &garbage(2), &[Append(0, 1, 9), Sync]]
            .concat(),
    ]
}

#[test]
fn a_power_failure_at_every_change() {
    let mut moved = 0;
    for (n, ops) in small().iter().enumerate() {
        let disk = SimDisk::new(1);
        let whole = run(&disk, ops);
        whole.check_now();
        moved += whole.moved;
        println!("{n}: {} changes, {} bytes moved", disk.changes(), whole.moved);
        for change in 1..=disk.changes() {
            let disk = SimDisk::new(change);
            disk.power_off_at(change);
            let run = run(&disk, ops);
            for (state, after) in disk.crash_states(12, change).enumerate() {
                check(&run, &after, &(n, change, "power", state));
            }
            check(&run, &disk.kill(), &(n, change, "kill"));
        }
    }
    assert!(moved > 1000, "compaction moved only {moved} bytes");
}

#[test]
fn random_work() {
    let (mut moved, mut refused) = (0, 0);
    for seed in 0..seeds(200) {
        let mut random = Random(seed);
        let mut disk = SimDisk::new(seed);
        let mut now = Model::new();
        for round in 0..4 {
            let logs = options(&disk).open("/log").unwrap();
            assert_eq!(read(&logs), now, "{seed}, {round}");
            let mut run = Run::new(logs, now);
            let kind = random.below(5);
            match kind {
                0 => disk.fault(Fault::new(OpKind::Sync, Effect::Eio).skip(random.below(40))),
                1 => disk.fault(Fault::new(OpKind::Write, Effect::Eio).skip(random.below(40))),
                2 => disk.set_free(random.below(300_000)),
                _ => disk.power_off_at(disk.changes() + 1 + random.below(150)),
            }
            for _ in 0..80 {
                if !run.step(&random.op(4), &disk) {
                    break;
                }
                if random.below(4) == 0 && !disk.is_off() {
                    run.check_now();
                }
            }
            let after = if random.below(3) == 0 { disk.kill() } else { disk.crash(&Choice::Seed(random.below(1000))) };
            after.set_capacity(None);
            moved += run.moved;
            refused += run.refused;
            let found =
                options(&after).open("/log").map(|logs| read(&logs)).unwrap_or_else(|error| panic!("{seed}, {round}: {error}"));
            run.check_found(&found, &(seed, round, kind));
            (now, disk) = (found, after.kill());
        }
    }
    println!("moved {moved} bytes, refused {refused} calls");
    assert!(moved > 1000 && refused > 10);
}

/// The log's size and compaction's writes stay within the bounds that `Options::compact_factor`
/// documents.
#[test]
fn an_idle_group_keeps_no_space_and_moves_are_bounded() {
    for factor in [2, 4] {
        let disk = SimDisk::new(1);
        let (slack, step) = (20_000, 4_000);
        let options = options(&disk).compact_factor(factor).compact_slack(slack).compact_step(step);
        let logs = options.open("/log").unwrap();
        let mut live_most = 0;
        for id in 0..40 {
            logs.group(id).append((1..=10).map(|index| (index, vec![id as u8; 80])), |_| ()).unwrap();
            logs.group(id).save_vote([1; 8]).unwrap();
        }
        let (mut last, mut written) = (10, 0);
        for _ in 0..1500 {
            let group = logs.group(7);
            group.append((last + 1..=last + 5).map(|index| (index, [9; 100])), |_| ()).unwrap();
            last += 5;
            written += 5 * 115;
            group.purge(last - 3, "").unwrap();
            logs.compact().unwrap();
            let stats = logs.stats();
            live_most = live_most.max(stats.live_bytes);
            let log = stats.log.appended_lsn.0 - stats.log.start_lsn.0;
            assert!(log * 8 < (stats.live_bytes * factor).max(stats.live_bytes + slack) + 8 * step, "{log} records");
        }
        let moved = logs.stats().moved_bytes;
        // A share of what was written, and at most one unfinished pass through the log.
        let bound = written / (factor - 1) + live_most * factor / (factor - 1) + step;
        println!("factor {factor}: {written} bytes written, {moved} moved, {live_most} in force at most");
        assert!(moved > live_most && moved <= bound, "{moved} of {bound}");
        let model = read(&logs);
        logs.close().unwrap();
        assert_eq!(read(&options.open("/log").unwrap()), model);
    }
}

/// On a full disk, the calls that free space work.
#[test]
fn a_full_disk_is_purged() {
    let disk = SimDisk::new(1);
    let logs = options(&disk).open("/log").unwrap();
    let (group, idle) = (logs.group(1), logs.group(2));
    disk.set_free(500_000);
    let mut last = 0;
    let full = loop {
        match group.append([(last + 1, [1; 1000])], |_| ()) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
        if last == 120 {
            idle.append([(1, "stays")], |_| ()).unwrap();
        }
    };
    assert!(matches!(full, Error::Log(foreword::Error::NoSpace { .. })), "{full}");
    assert!(last > 180 && group.last().unwrap() == Some(last));
    group.purge(last, "term").unwrap();
    for _ in 0..10 {
        logs.compact().unwrap();
    }
    group.append([(last + 1, [1; 1000])], |_| ()).unwrap();
    group.save_vote("a vote").unwrap();
    let model = read(&logs);
    drop(logs);
    assert_eq!(read(&options(&disk.crash(&Choice::None)).open("/log").unwrap()), model);
}
