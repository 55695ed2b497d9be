//! What has been written, for comparison with what a store has in the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use super::op::{ACCOUNTS, Op, change, key, legs, value, write_of};
use super::stores::{Store, Table};

/// Accounts of all writes to a store that have returned.
#[derive(Debug)]
pub(crate) struct Ledger {
    records: u64,
    inserted: AtomicU64,
    /// Orders the beginnings and the ends of writes.
    clock: AtomicU64,
    rows: Mutex<HashMap<u64, Row>>,
    accounts: Vec<AtomicU64>,
}

/// A key that was written.
#[derive(Debug, Default)]
struct Row {
    /// The writes one of which was the last, each with its end: none of them ended before another
    /// began.
    last: Vec<(u64, u64)>,
    /// Changes since. (No workload has writes and changes at the same time.)
    changes: u8,
}

impl Ledger {
    pub(crate) fn new(records: u64) -> Ledger {
        Ledger {
            records,
            inserted: AtomicU64::new(0),
            clock: AtomicU64::new(1),
            rows: Mutex::default(),
            accounts: (0..ACCOUNTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A key that is not there.
    pub(crate) fn insert(&self) -> u64 {
        self.records + self.inserted.fetch_add(1, SeqCst)
    }

    /// A write begins: its name, and the time.
    pub(crate) fn begin(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    /// An operation has returned.
    pub(crate) fn done(&self, op: &Op) {
        match *op {
            Op::Read(_) | Op::Scan(..) => {}
            Op::Put { n, write, .. } => {
                let end = self.clock.fetch_add(1, SeqCst);
                let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
                let row = rows.entry(n).or_default();
                row.last.retain(|&(_, end)| end > write);
                row.last.push((write, end));
                row.changes = 0;
            }
            Op::ReadAndPut(n) => {
                let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
                let row = rows.entry(n).or_default();
                row.changes = row.changes.wrapping_add(1);
            }
            Op::Transfer(from, to) => {
                for (account, (_, added)) in [from, to].into_iter().zip(legs(from, to)) {
                    self.accounts[account as usize].fetch_add(added, SeqCst);
                }
            }
        }
    }

    /// Whether a store has all that was written, and nothing else.
    pub(crate) fn check(&self, store: &dyn Store) -> Result<()> {
        let (mut count, rows) = (0, self.rows.lock().unwrap_or_else(PoisonError::into_inner));
        store.each(Table::Keys, &mut |found, bytes| {
            let n = count;
            count += 1;
            ensure!(found == key(n), "key {n} is not there, but {:?}", String::from_utf8_lossy(found));
            let write = write_of(bytes).with_context(|| format!("the value of key {n} has {} bytes", bytes.len()))?;
            let row = rows.get(&n);
            let last: Vec<u64> = row.iter().flat_map(|row| &row.last).map(|&(write, _)| write).collect();
            let is_last = if last.is_empty() { write == 0 && n < self.records } else { last.contains(&write) };
            ensure!(is_last, "key {n} has the value of write {write}; the last was one of {last:?}");
            let mut expected = value(n, write);
            change(&mut expected, row.map_or(0, |row| row.changes));
            ensure!(bytes == expected, "key {n} has another value than write {write} and its changes gave it");
            Ok(())
        })?;
        let all = self.records + self.inserted.load(SeqCst);
        ensure!(count == all, "there are {count} keys of {all}");
        let (mut count, mut sum) = (0, 0u64);
        store.each(Table::Accounts, &mut |found, bytes| {
            ensure!(found == u64::to_be_bytes(count), "account {count} is not there, but {found:?}");
            let has = u64::from_le_bytes(bytes.try_into().with_context(|| format!("account {count} is {bytes:?}"))?);
            let expected = self.accounts.get(count as usize).map(|sum| sum.load(SeqCst));
            ensure!(expected == Some(has), "account {count} has {has}, not {expected:?}");
            (count, sum) = (count + 1, sum.wrapping_add(has));
            Ok(())
        })?;
        ensure!(count == ACCOUNTS, "there are {count} accounts of {ACCOUNTS}");
        ensure!(sum == 0, "the sum of all accounts is {sum}");
        Ok(())
    }
}
