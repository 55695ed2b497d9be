//! A machine with a disk: what the suites of Raft libraries run on, and what befalls it behind each
//! call.
#![allow(dead_code)] // Not each test uses all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foreword::SyncPolicy;
use foreword_raft::{Group, GroupLogs, Options};
use foreword_sim::{Choice, SimDisk};
use tempfile::TempDir;

pub(crate) enum Disk {
    Real(TempDir),
    Sim(SimDisk),
}

impl Disk {
    pub(crate) fn real() -> Disk {
        Disk::Real(tempfile::tempdir().unwrap())
    }

    /// Small segments and a small cache, compaction all the time, and nothing is synced that nobody
    /// waits for.
    pub(crate) fn open(&self) -> GroupLogs {
        let log = foreword::Options::new().segment_bytes(64 << 10).sync(SyncPolicy::manual()).on_error(|_| ());
        let (log, dir) = match self {
            Disk::Real(dir) => (log, dir.path()),
            Disk::Sim(disk) => (log.disk(disk.handle()), "/log".as_ref()),
        };
        let options = Options::new().cache_bytes(2000).compact_factor(2).compact_slack(1 << 10).compact_step(1 << 10);
        options.log(log).open(dir).unwrap()
    }
}

/// What happens behind each call, before the caller hears that it is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Then {
    Nothing,
    Reopen,
    /// What was not synced is gone.
    PowerFailure,
    /// Some of it is: by a seed.
    PowerFailures(u64),
}

pub(crate) struct Machine {
    disk: Disk,
    logs: GroupLogs,
    then: Then,
    calls: Arc<AtomicU64>,
}

impl Machine {
    pub(crate) fn new(disk: Disk, then: Then, calls: Arc<AtomicU64>) -> Machine {
        let logs = disk.open();
        Machine { disk, logs, then, calls }
    }

    pub(crate) fn group(&self) -> Group {
        self.logs.group(3)
    }

    /// A call is done: the caller hears of it behind this.
    pub(crate) fn done(&mut self) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let choice = match self.then {
            Then::Nothing => return,
            Then::Reopen => {
                self.logs.close().unwrap();
                self.logs = self.disk.open();
                return;
            }
            Then::PowerFailure => Choice::None,
            Then::PowerFailures(seed) => Choice::Seed(seed + call),
        };
        let Disk::Sim(disk) = &self.disk else { panic!("the power of a real disk does not fail") };
        self.disk = Disk::Sim(disk.crash(&choice));
        self.logs = self.disk.open();
    }
}

/// How machines are made for a suite, which asks for many.
#[derive(Clone)]
pub(crate) struct Machines {
    real: bool,
    then: Then,
    calls: Arc<AtomicU64>,
}

impl Machines {
    pub(crate) fn new(real: bool, then: Then) -> Machines {
        Machines { real, then, calls: Arc::default() }
    }

    pub(crate) fn make(&self) -> Machine {
        let disk = if self.real { Disk::real() } else { Disk::Sim(SimDisk::new(self.calls())) };
        Machine::new(disk, self.then, self.calls.clone())
    }

    /// How often something has befallen them.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Runs a suite on machines that are opened anew behind each call, and on some whose power
    /// fails there. At once, for all of them wait most of the time.
    pub(crate) fn all(suite: impl Fn(Machines) + Sync) {
        let reopened = [Machines::new(true, Then::Reopen), Machines::new(false, Then::Reopen)];
        let failures = [Then::PowerFailure, Then::PowerFailures(1 << 32), Then::PowerFailures(2 << 32)];
        std::thread::scope(|scope| {
            for machines in reopened.into_iter().chain(failures.map(|then| Machines::new(false, then))) {
                let suite = &suite;
                scope.spawn(move || {
                    suite(machines.clone());
                    println!("{:?} behind each of {} calls", machines.then, machines.calls());
                    assert!(machines.calls() > 200, "the suite writes more than in {} calls", machines.calls());
                });
            }
        });
    }
}
