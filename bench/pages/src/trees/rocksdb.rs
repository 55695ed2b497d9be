//! RocksDB: an LSM tree with a log; transactions lock rows, and a leader syncs for a group of them.

use std::path::Path;

use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBCompressionType, Direction, ErrorKind, IteratorMode,
    Options, Transaction, TransactionDB, TransactionDBOptions, TransactionOptions, WriteBatchWithTransaction, WriteOptions,
};

use super::op::{Op, change, key, legs, sum};
use super::stores::{CACHE, Contestant, Entry, See, Store, Table, Worker};

pub(crate) const STORE: Contestant = Contestant {
    name: "RocksDB",
    package: "rocksdb",
    setting: "`TransactionDB` with deadlock detection, `WriteOptions::sync`, recycled logs, Bloom filters; an operation \
              is run again after a deadlock; no compression; memtables (64 MiB) beside the cache; the version is the \
              crate's (ROCKSDB_LIB_DIR may have named another library)",
    open: |dir| Ok(Box::new(Open::new(dir)?)),
};

struct Open {
    db: TransactionDB,
    synced: WriteOptions,
    options: TransactionOptions,
}

impl Open {
    fn new(dir: &Path) -> Result<Open> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE));
        blocks.set_bloom_filter(10.0, false);
        let mut all = Options::default();
        all.create_if_missing(true);
        all.create_missing_column_families(true);
        all.set_recycle_log_file_num(4);
        all.set_compression_type(DBCompressionType::None);
        all.set_block_based_table_factory(&blocks);
        let families = ["keys", "accounts"].map(|name| ColumnFamilyDescriptor::new(name, all.clone()));
        let db = TransactionDB::open_cf_descriptors(&all, &TransactionDBOptions::default(), dir, families)?;
        let (mut synced, mut options) = (WriteOptions::default(), TransactionOptions::default());
        synced.set_sync(true);
        options.set_deadlock_detect(true);
        Ok(Open { db, synced, options })
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily> {
        let name = match table {
            Table::Keys => "keys",
            Table::Accounts => "accounts",
        };
        self.db.cf_handle(name).ok_or_else(|| anyhow::anyhow!("no column family {name}"))
    }

    fn write<T>(&self, mut work: impl FnMut(&Transaction<'_, TransactionDB>) -> Result<T, rocksdb::Error>) -> Result<T> {
        loop {
            let txn = self.db.transaction_opt(&self.synced, &self.options);
            match work(&txn).and_then(|done| txn.commit().map(|()| done)) {
                Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::TimedOut | ErrorKind::TryAgain) => {}
                done => return Ok(done?),
            }
        }
    }

    fn carry_out(&self, op: &Op) -> Result<usize> {
        let keys = self.family(Table::Keys)?;
        match *op {
            // Transactions that only read end without a commit: it would sync. What others see is
            // synced, and an iterator is a snapshot.
            Op::Read(n) => Ok(self.db.transaction().get_pinned_cf(keys, key(n))?.map_or(0, |value| value.len())),
            Op::Scan(n, most) => {
                let (txn, from) = (self.db.transaction(), key(n));
                let mut entries = txn.iterator_cf(keys, IteratorMode::From(&from, Direction::Forward)).take(most);
                entries.try_fold(0, |sum, entry| Ok(sum + entry?.1.len()))
            }
            Op::Put { n, ref value, .. } => self.write(|txn| txn.put_cf(keys, key(n), value).map(|()| 0)),
            Op::ReadAndPut(n) => self.write(|txn| {
                let mut value = txn.get_for_update_cf(keys, key(n), true)?.unwrap_or_default();
                change(&mut value, 1);
                txn.put_cf(keys, key(n), &value)?;
                Ok(value.len())
            }),
            Op::Transfer(from, to) => {
                let accounts = self.family(Table::Accounts)?;
                self.write(|txn| {
                    let mut read = 0;
                    for (account, added) in legs(from, to) {
                        let old = txn.get_for_update_cf(accounts, account, true)?.unwrap_or_default();
                        read += old.len();
                        txn.put_cf(accounts, account, sum(&old, added))?;
                    }
                    Ok(read)
                })
            }
        }
    }
}

impl Store for Open {
    fn load(&self, table: Table, entries: &mut dyn Iterator<Item = Entry>) -> Result<()> {
        let family = self.family(table)?;
        loop {
            let mut batch = WriteBatchWithTransaction::<true>::default();
            entries.take(1000).for_each(|(key, value)| batch.put_cf(family, key, value));
            if batch.is_empty() {
                return Ok(());
            }
            self.db.write_opt(batch, &self.synced)?;
        }
    }

    fn worker(&self) -> Worker<'_> {
        Box::new(|op| self.carry_out(op))
    }

    fn each(&self, table: Table, see: &mut See<'_>) -> Result<()> {
        for entry in self.db.iterator_cf(self.family(table)?, IteratorMode::Start) {
            let (key, value) = entry?;
            see(&key, &value)?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }
}
