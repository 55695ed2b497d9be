//! Exercise 3: `guide/exercises/e3_group.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use foreword_guide::e3_group::{Device, GroupCommit};

/// Remembers the groups that it made durable. Its first flush waits until it is let go.
#[derive(Debug, Default)]
struct Gate {
    groups: Mutex<Vec<Vec<Vec<u8>>>>,
    calls: Mutex<u32>,
    open: Mutex<bool>,
    opened: Condvar,
    fails: bool,
}

impl Gate {
    fn let_go(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn calls(&self) -> u32 {
        *self.calls.lock().unwrap()
    }

    fn has(&self, record: &[u8]) -> bool {
        self.groups.lock().unwrap().iter().flatten().any(|r| r == record)
    }
}

impl Device for Gate {
    fn flush(&self, records: &[Vec<u8>]) -> io::Result<()> {
        *self.calls.lock().unwrap() += 1;
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        if self.fails {
            return Err(io::Error::other("broken"));
        }
        self.groups.lock().unwrap().push(records.to_vec());
        Ok(())
    }
}

/// Fails rather than hangs.
fn within_patience(test: impl FnOnce() + Send + 'static) {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match wait.recv_timeout(Duration::from_secs(30)) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}

fn wait_for(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < Duration::from_secs(20), "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

type Committer = std::thread::JoinHandle<io::Result<u64>>;

/// One committer whose flush is held at the gate, and 99 that arrive after it.
fn hundred(log: &Arc<GroupCommit<Gate>>) -> Vec<Committer> {
    let commit = |i: u32| {
        let log = log.clone();
        std::thread::spawn(move || {
            let record = i.to_le_bytes();
            let lsn = log.commit(&record)?;
            assert!(log.device().has(&record), "it returned, and the record is not durable");
            Ok(lsn)
        })
    };
    let mut threads = vec![commit(0)];
    wait_for(|| log.device().calls() == 1 || threads[0].is_finished());
    threads.extend((1..100).map(commit));
    wait_for(|| log.waiting() == 99 || threads.iter().any(Committer::is_finished));
    threads
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 3: group commit")]
fn one_committer_needs_nobody_else() {
    within_patience(|| {
        let log = GroupCommit::new(Gate::default());
        log.device().let_go();
        assert_eq!((log.commit(b"one").unwrap(), log.commit(b"two").unwrap()), (1, 2));
        assert_eq!(*log.device().groups.lock().unwrap(), [vec![b"one".to_vec()], vec![b"two".to_vec()]]);
    });
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 3: group commit")]
fn who_comes_during_a_flush_shares_the_next() {
    within_patience(|| {
        let log = Arc::new(GroupCommit::new(Gate::default()));
        let threads = hundred(&log);
        log.device().let_go();
        let mut lsns: Vec<(u64, u32)> =
            threads.into_iter().zip(0..).map(|(thread, i)| (thread.join().unwrap().unwrap(), i)).collect();
        lsns.sort_unstable();
        assert!(lsns.iter().map(|(lsn, _)| *lsn).eq(1..=100), "LSNs are dense");
        let groups = log.device().groups.lock().unwrap();
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1, 99], "two flushes for a hundred commits");
        let order: Vec<Vec<u8>> = lsns.iter().map(|(_, i)| i.to_le_bytes().to_vec()).collect();
        assert_eq!(groups.concat(), order, "the records stand in the order of their LSNs");
    });
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 3: group commit")]
fn a_failed_flush_is_everybodys_and_final() {
    within_patience(|| {
        let log = Arc::new(GroupCommit::new(Gate { fails: true, ..Gate::default() }));
        let threads = hundred(&log);
        log.device().let_go();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_err()));
        assert!(log.commit(b"later").is_err());
        assert_eq!(log.device().calls(), 1, "it was not tried again");
    });
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 3: group commit")]
fn nobody_sleeps_for_ever() {
    within_patience(|| {
        let log = Arc::new(GroupCommit::new(Gate::default()));
        log.device().let_go();
        let threads: Vec<_> = (0..16u32)
            .map(|t| {
                let log = log.clone();
                std::thread::spawn(move || {
                    for i in 0..2000u32 {
                        log.commit(&(t << 16 | i).to_le_bytes()).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.device().groups.lock().unwrap().concat().len(), 32_000);
    });
}
