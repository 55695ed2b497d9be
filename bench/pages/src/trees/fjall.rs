//! fjall: an LSM tree with a journal; commits are checked for conflicts and synced one by one.

use anyhow::Result;
use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace, OptimisticWriteTx, PersistMode, Readable,
};

use super::op::{Op, change, key, legs, sum};
use super::stores::{CACHE, Contestant, Entry, See, Store, Table, Worker};

pub(crate) const STORE: Contestant = Contestant {
    name: "fjall",
    package: "fjall",
    setting: "`OptimisticTxDatabase` (serializable), each commit persisted with `SyncAll` before others see it, and run \
              again after a conflict; operations that only read have a snapshot; no compression; memtables (64 MiB) \
              beside the cache",
    open: |dir| {
        let db = OptimisticTxDatabase::builder(dir).cache_size(CACHE as u64).journal_compression(CompressionType::None);
        let db = db.open()?;
        let options = || KeyspaceCreateOptions::default().data_block_compression_policy(CompressionPolicy::disabled());
        let (keys, accounts) = (db.keyspace("keys", options)?, db.keyspace("accounts", options)?);
        Ok(Box::new(Open { db, keys, accounts }))
    },
};

struct Open {
    db: OptimisticTxDatabase,
    keys: OptimisticTxKeyspace,
    accounts: OptimisticTxKeyspace,
}

impl Open {
    fn keyspace(&self, table: Table) -> &OptimisticTxKeyspace {
        match table {
            Table::Keys => &self.keys,
            Table::Accounts => &self.accounts,
        }
    }

    fn write<T>(&self, mut work: impl FnMut(&mut OptimisticWriteTx) -> Result<T>) -> Result<T> {
        loop {
            let mut txn = self.db.write_tx()?.durability(Some(PersistMode::SyncAll));
            let done = work(&mut txn)?;
            if txn.commit()?.is_ok() {
                return Ok(done);
            }
        }
    }

    fn carry_out(&self, op: &Op) -> Result<usize> {
        let keys = &self.keys;
        match *op {
            Op::Read(n) => Ok(self.db.read_tx().get(keys, key(n))?.map_or(0, |value| value.len())),
            Op::Scan(n, most) => {
                self.db.read_tx().range(keys, key(n)..).take(most).try_fold(0, |sum, entry| Ok(sum + entry.into_inner()?.1.len()))
            }
            Op::Put { n, ref value, .. } => self.write(|txn| {
                txn.insert(keys, key(n), &value[..]);
                Ok(0)
            }),
            Op::ReadAndPut(n) => self.write(|txn| {
                let mut value = txn.get(keys, key(n))?.map_or_else(Vec::new, |value| value.to_vec());
                change(&mut value, 1);
                let read = value.len();
                txn.insert(keys, key(n), value);
                Ok(read)
            }),
            Op::Transfer(from, to) => self.write(|txn| {
                let mut read = 0;
                for (account, added) in legs(from, to) {
                    let old = txn.get(&self.accounts, account)?.map_or_else(Vec::new, |value| value.to_vec());
                    read += old.len();
                    txn.insert(&self.accounts, account, sum(&old, added));
                }
                Ok(read)
            }),
        }
    }
}

impl Store for Open {
    fn load(&self, table: Table, entries: &mut dyn Iterator<Item = Entry>) -> Result<()> {
        let keyspace = self.keyspace(table).inner();
        for (key, value) in entries {
            keyspace.insert(key, value)?;
        }
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn worker(&self) -> Worker<'_> {
        Box::new(|op| self.carry_out(op))
    }

    fn each(&self, table: Table, see: &mut See<'_>) -> Result<()> {
        for entry in self.db.read_tx().iter(self.keyspace(table)) {
            let (key, value) = entry.into_inner()?;
            see(&key, &value)?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}
