//! foreword-tree: locks on keys, and commits that share a flush.

use anyhow::{Context, Result};
use foreword_tree::{Db, Options, Tree};

use super::op::{Op, change, key, legs, sum};
use super::stores::{CACHE, Contestant, Entry, See, Store, Table, Worker};

pub(crate) const STORE: Contestant = Contestant {
    name: "foreword-tree",
    package: "foreword-tree",
    setting: "defaults; each operation in `Db::run`, which commits durably",
    open: |dir| {
        let db = Db::open_with(Options::new().pool_bytes(CACHE), dir)?;
        let (keys, accounts) = (db.tree("keys")?, db.tree("accounts")?);
        Ok(Box::new(Open { db, keys, accounts }))
    },
};

struct Open {
    db: Db,
    keys: Tree,
    accounts: Tree,
}

impl Open {
    fn tree(&self, table: Table) -> Tree {
        match table {
            Table::Keys => self.keys,
            Table::Accounts => self.accounts,
        }
    }

    fn carry_out(&self, op: &Op) -> foreword_tree::Result<usize> {
        let keys = self.keys;
        self.db.run(|txn| match op {
            Op::Read(n) => Ok(txn.get(keys, key(*n))?.map_or(0, |value| value.len())),
            Op::Put { n, value, .. } => txn.put(keys, key(*n), value).map(|()| 0),
            Op::ReadAndPut(n) => {
                let mut value = txn.get_for_update(keys, key(*n))?.unwrap_or_default();
                change(&mut value, 1);
                txn.put(keys, key(*n), &value)?;
                Ok(value.len())
            }
            Op::Scan(n, most) => txn.scan(keys, &key(*n)[..]..).take(*most).try_fold(0, |sum, entry| Ok(sum + entry?.1.len())),
            Op::Transfer(from, to) => {
                let mut read = 0;
                for (account, added) in legs(*from, *to) {
                    let old = txn.get_for_update(self.accounts, account)?.unwrap_or_default();
                    read += old.len();
                    txn.put(self.accounts, account, sum(&old, added))?;
                }
                Ok(read)
            }
        })
    }
}

impl Store for Open {
    fn load(&self, table: Table, entries: &mut dyn Iterator<Item = Entry>) -> Result<()> {
        let tree = self.tree(table);
        loop {
            let some: Vec<Entry> = entries.take(1000).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.db.run(|txn| some.iter().try_for_each(|(key, value)| txn.put(tree, key, value)))?;
        }
    }

    fn worker(&self) -> Worker<'_> {
        Box::new(|op| Ok(self.carry_out(op)?))
    }

    fn each(&self, table: Table, see: &mut See<'_>) -> Result<()> {
        let txn = self.db.begin();
        for entry in txn.scan(self.tree(table), ..) {
            let (key, value) = entry?;
            see(&key, &value)?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.verify(true).context("checking the trees")?;
        Ok(self.db.close()?)
    }
}
