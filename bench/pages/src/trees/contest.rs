//! A contestant with its files, and what it has been given to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foreword_measure::load;

use super::ledger::Ledger;
use super::mix::{Mix, Workload, Zipfian};
use super::op::{ACCOUNTS, Op, VALUE, key, value};
use super::stores::{Contestant, Store, Table, Worker};

pub(crate) struct Contest {
    contestant: &'static Contestant,
    dir: PathBuf,
    store: Box<dyn Store>,
    records: u64,
    keys: Zipfian,
    ledger: Ledger,
}

/// What was measured: operations a second, and the seconds of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Contest {
    /// Makes a store below a directory, with so many keys and all accounts.
    pub(crate) fn new(contestant: &'static Contestant, dir: &Path, records: u64) -> Result<Contest> {
        let dir = dir.join(contestant.name);
        std::fs::create_dir(&dir)?;
        let (keys, ledger) = (Zipfian::new(records), Ledger::new(records));
        let store = (contestant.open)(&dir).context(contestant.name)?;
        let contest = Contest { contestant, dir, store, records, keys, ledger };
        contest.fill().context(contestant.name)?;
        Ok(contest)
    }

    fn fill(&self) -> Result<()> {
        self.store.load(Table::Keys, &mut (0..self.records).map(|n| (key(n).to_vec(), value(n, 0))))?;
        self.store.load(Table::Accounts, &mut (0..ACCOUNTS).map(|n| (n.to_be_bytes().to_vec(), vec![0; 8])))
    }

    pub(crate) fn measure(&self, workload: Workload, threads: usize, time: Duration, round: u64) -> Result<Measured> {
        let done = load::closed(threads, time, |thread| {
            let mut mix = Mix::new(&self.keys, &self.ledger, workload, round * 1000 + thread as u64);
            let mut worker = self.store.worker();
            move || self.carry_out(&mut worker, &mix.next())
        });
        let done = done.with_context(|| format!("{}, {workload}, {threads} threads", self.contestant.name))?;
        let at = |q| done.latencies.quantile(q).as_secs_f64();
        Ok(Measured { rate: done.rate(), p50: at(0.5), p99: at(0.99) })
    }

    fn carry_out(&self, worker: &mut Worker<'_>, op: &Op) -> Result<()> {
        let read = worker(op)?;
        self.ledger.done(op);
        let least = match *op {
            Op::Put { .. } => 0,
            Op::Read(_) | Op::ReadAndPut(_) => VALUE,
            Op::Scan(n, most) => VALUE * most.min((self.records - n) as usize),
            Op::Transfer(..) => 16,
        };
        ensure!(read >= least, "{op:?} read {read} bytes, not {least}");
        Ok(())
    }

    /// Closes the store, opens it again, and compares what is in it with all that was written.
    pub(crate) fn check(self) -> Result<()> {
        let Contest { contestant, dir, store, ledger, .. } = self;
        let check = move || {
            store.close()?;
            let store = (contestant.open)(&dir)?;
            ledger.check(&*store)?;
            store.close()
        };
        check().with_context(|| format!("checking {}", contestant.name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::contestants::STORES;
    use super::*;

    const RECORDS: u64 = 200;

    fn for_each_store(test: impl Fn(Contest)) {
        for store in STORES {
            let dir = tempfile::tempdir().unwrap();
            test(Contest::new(store, dir.path(), RECORDS).unwrap());
        }
    }

    #[test]
    fn every_store_has_what_threads_have_written() {
        for_each_store(|contest| {
            for (round, workload) in Workload::ALL.into_iter().chain([Workload::A]).enumerate() {
                contest.measure(workload, 4, Duration::from_millis(50), round as u64).unwrap();
            }
            contest.check().unwrap();
        });
    }

    #[test]
    fn no_change_is_lost_where_threads_meet() {
        for_each_store(|contest| {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut worker = contest.store.worker();
                        for _ in 0..10 {
                            contest.carry_out(&mut worker, &Op::ReadAndPut(7)).unwrap();
                            contest.carry_out(&mut worker, &Op::Transfer(1, 2)).unwrap();
                            contest.carry_out(&mut worker, &Op::Transfer(2, 1)).unwrap();
                        }
                    });
                }
            });
            contest.check().unwrap();
        });
    }

    #[test]
    fn all_stores_read_and_write_the_same() {
        let all = std::cell::RefCell::new(Vec::new());
        for_each_store(|contest| {
            let mut worker = contest.store.worker();
            let mut seen = Vec::new();
            for workload in Workload::ALL {
                let mut mix = Mix::new(&contest.keys, &contest.ledger, workload, 1);
                for _ in 0..40 {
                    seen.push(worker(&mix.next()).unwrap());
                }
            }
            drop(worker);
            let mut entries = Vec::new();
            for table in [Table::Keys, Table::Accounts] {
                let see = &mut |key: &[u8], value: &[u8]| {
                    entries.push((key.to_vec(), value.to_vec()));
                    Ok(())
                };
                contest.store.each(table, see).unwrap();
            }
            all.borrow_mut().push((contest.contestant.name, seen, entries));
            contest.store.close().unwrap();
        });
        let all = all.into_inner();
        for (name, seen, entries) in &all[1..] {
            assert_eq!(seen, &all[0].1, "what {name} read");
            assert!(entries == &all[0].2, "{name} has other entries");
        }
    }

    #[test]
    fn an_operation_that_was_left_out_is_found() {
        for_each_store(|contest| {
            let refused = |why: &str| {
                let e = contest.ledger.check(&*contest.store).unwrap_err().to_string();
                assert!(e.contains(why), "{}: {e}", contest.contestant.name);
            };
            let mut worker = contest.store.worker();
            let mut leave_out = |op: Op, why: &str| {
                contest.ledger.done(&op);
                refused(why);
                worker(&op).unwrap();
                contest.ledger.check(&*contest.store).unwrap();
            };
            let put = |n| {
                let write = contest.ledger.begin();
                Op::Put { n, write, value: value(n, write) }
            };
            leave_out(put(7), "key 7 has the value of write 0;");
            leave_out(put(7), "key 7 has the value of write 1;");
            leave_out(Op::ReadAndPut(7), "key 7 has another value");
            leave_out(put(contest.ledger.insert()), "there are 200 keys of 201");
            leave_out(Op::Transfer(3, 4), "account 3 has");
            // One that the ledger does not know.
            worker(&Op::Transfer(5, 6)).unwrap();
            refused("account 5 has");
        });
    }

    #[test]
    fn reading_less_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let contest = Contest::new(STORES[0], dir.path(), RECORDS).unwrap();
        let mut worker: Worker<'_> = Box::new(|_| Ok(VALUE - 1));
        for op in [Op::Read(1), Op::ReadAndPut(1), Op::Scan(1, 1)] {
            assert!(contest.carry_out(&mut worker, &op).unwrap_err().to_string().contains("read 999 bytes"));
        }
    }
}
