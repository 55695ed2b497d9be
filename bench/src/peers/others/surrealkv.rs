//! surrealkv: an LSM tree whose commits go through a ring to a log.

use std::path::Path;

use anyhow::Result;
use futures::FutureExt;
use surrealkv::{Durability, LSMIterator, Mode, Options, Transaction, Tree, TreeBuilder};
use tokio::runtime::Runtime;

use super::super::peer::{Log, Peer, Records, Writer};
use super::keys::Keys;
use crate::window::Window;

pub const PEER: Peer = Peer {
    name: "surrealkv",
    package: "surrealkv",
    // Nothing is flushed from memory while it is measured.
    setting: "its log preallocated with zeros, a memtable of 1 GiB; each commit `Durability::Immediate`",
    lacks: &[],
    open: |dir, _| {
        let runtime = runtime()?;
        let tree = open(dir, &runtime)?;
        Ok(Box::new(Open { tree, runtime, keys: Keys::default() }))
    },
    read: |dir, mut each| {
        let runtime = runtime()?;
        let tree = open(dir, &runtime)?;
        {
            let transaction = tree.begin_with_mode(Mode::ReadOnly)?;
            let mut iter = transaction.iter()?;
            let mut valid = iter.seek_first()?;
            while valid {
                each(&iter.value_ref()?);
                valid = iter.next()?;
            }
        }
        Ok(runtime.block_on(tree.close())?)
    },
};

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn open(dir: &Path, runtime: &Runtime) -> Result<Tree> {
    let _in = runtime.enter();
    let options = Options::new().with_wal_preallocation(true).with_path(dir.to_owned()).with_max_memtable_size(1 << 30);
    Ok(TreeBuilder::with_options(options).build()?)
}

struct Open {
    tree: Tree,
    runtime: Runtime,
    keys: Keys,
}

impl Open {
    fn begin(&self, durability: Durability) -> Result<Transaction> {
        Ok(self.tree.begin_with_mode(Mode::WriteOnly)?.with_durability(durability))
    }
}

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.runtime.block_on(self.tree.close())?)
    }
}

struct One<'a>(&'a Open);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.commit_batch(&[record])
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut transaction = self.0.begin(Durability::Immediate)?;
        for &record in records {
            transaction.set(&self.0.keys.next()[..], record)?;
        }
        Ok(self.0.runtime.block_on(transaction.commit())?)
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        self.0.runtime.block_on(async {
            while let Some(record) = next() {
                let mut transaction = self.0.begin(Durability::Eventual)?;
                transaction.set(&self.0.keys.next()[..], record)?;
                transaction.commit().await?;
            }
            anyhow::Ok(())
        })?;
        Ok(self.0.tree.flush_wal(true)?)
    }

    fn commit_window(&mut self, window: &mut Window) -> Result<()> {
        window.run(false, |record| {
            let mut transaction = self.0.begin(Durability::Immediate)?;
            transaction.set(&self.0.keys.next()[..], record)?;
            // (A commit does nothing until it is polled, and may have to be polled for others'
            // sake: a task for each.)
            let task = self.0.runtime.spawn(async move { transaction.commit().await });
            Ok(task.map(|joined| anyhow::Ok(joined??)))
        })
    }
}
