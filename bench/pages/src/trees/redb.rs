//! redb: a copy-on-write B+tree; one writer at a time, readers see the last commit.

use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::op::{Op, change, key, legs, sum};
use super::stores::{CACHE, Contestant, Entry, See, Store, Table, Worker};

pub(crate) const STORE: Contestant = Contestant {
    name: "redb",
    package: "redb",
    setting: "each operation a write transaction with `Durability::Immediate`, or a read transaction",
    open: |dir| Ok(Box::new(Open(Database::builder().set_cache_size(CACHE).create(dir.join("redb"))?))),
};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Keys => "keys",
        Table::Accounts => "accounts",
    })
}

struct Open(Database);

impl Open {
    fn write<T>(&self, table: Table, work: impl FnOnce(&mut redb::Table<'_, &[u8], &[u8]>) -> Result<T>) -> Result<T> {
        let mut txn = self.0.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        let done = work(&mut txn.open_table(definition(table))?)?;
        txn.commit()?;
        Ok(done)
    }

    fn carry_out(&self, op: &Op) -> Result<usize> {
        match *op {
            Op::Read(n) => {
                let table = self.0.begin_read()?.open_table(definition(Table::Keys))?;
                Ok(table.get(&key(n)[..])?.map_or(0, |value| value.value().len()))
            }
            Op::Scan(n, most) => {
                let table = self.0.begin_read()?.open_table(definition(Table::Keys))?;
                table.range(&key(n)[..]..)?.take(most).try_fold(0, |sum, entry| Ok(sum + entry?.1.value().len()))
            }
            Op::Put { n, ref value, .. } => self.write(Table::Keys, |table| {
                table.insert(&key(n)[..], &value[..])?;
                Ok(0)
            }),
            Op::ReadAndPut(n) => self.write(Table::Keys, |table| {
                let mut value = table.get(&key(n)[..])?.map_or_else(Vec::new, |value| value.value().to_vec());
                change(&mut value, 1);
                table.insert(&key(n)[..], &value[..])?;
                Ok(value.len())
            }),
            Op::Transfer(from, to) => self.write(Table::Accounts, |table| {
                let mut read = 0;
                for (account, added) in legs(from, to) {
                    let old = table.get(&account[..])?.map_or_else(Vec::new, |value| value.value().to_vec());
                    read += old.len();
                    table.insert(&account[..], &sum(&old, added)[..])?;
                }
                Ok(read)
            }),
        }
    }
}

impl Store for Open {
    fn load(&self, table: Table, entries: &mut dyn Iterator<Item = Entry>) -> Result<()> {
        self.write(table, |table| {
            for (key, value) in entries {
                table.insert(&key[..], &value[..])?;
            }
            Ok(())
        })
    }

    fn worker(&self) -> Worker<'_> {
        Box::new(|op| self.carry_out(op))
    }

    fn each(&self, table: Table, see: &mut See<'_>) -> Result<()> {
        for entry in self.0.begin_read()?.open_table(definition(table))?.iter()? {
            let (key, value) = entry?;
            see(key.value(), value.value())?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}
