//! The front: trees by name, and transactions on them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foreword_pages::{Options, PageId, Store};

use crate::engine::{Engine, Tree};
use crate::error::{Error, Result};
use crate::node::u64_of;
use crate::records;
use crate::sync::thread;
use crate::tree::{BTree, undo};
use crate::txn::Txn;

/// What the store's root begins with.
const MAGIC: &[u8; 8] = b"FWRDTREE";
const VERSION: u32 = 1;
const NAMES: usize = 16;
/// How often [`Db::run`] begins a transaction that meets others.
const ATTEMPTS: u32 = 100;
/// How much longer it waits before each time: half a second in all.
const PAUSE: Duration = Duration::from_micros(100);

/// Trees in a store, each with a name, and transactions on any of them.
///
/// A clone is another handle of the same store. All methods but [`close`](Db::close) may be called
/// from any number of threads.
///
/// Where a transaction could not be rolled back, its changes are still there. Until a
/// [checkpoint](Store::checkpoint) has rolled it back, all calls that read or change keys are
/// refused with the error that the rollback had: one with [`Error::is_no_space`] if the disk is
/// full. (The background thread takes a checkpoint at once then, after other errors as it is due.)
#[derive(Clone, Debug)]
pub struct Db(Arc<Engine>);

/// What a [check](Db::verify) has found: all fits together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Keys in all trees.
    pub keys: u64,
    /// Pages in use. (Without those of long values, if others might change them.)
    pub pages: u64,
    /// Levels of the highest tree: one, if each is a leaf.
    pub levels: u64,
}

impl Db {
    /// Opens the store in a directory with the default [`Options`], making it if there is none, and
    /// recovers it if need be.
    ///
    /// # Errors
    /// As [`open_with`](Db::open_with).
    pub fn open(dir: impl AsRef<Path>) -> Result<Db> {
        Db::open_with(Options::new(), dir)
    }

    /// As [`open`](Db::open), with other options: those of the pages, where the types of records
    /// from 0x5401 to 0x54ff are the trees'.
    ///
    /// # Errors
    /// [`Error::NotTrees`] if the pages are another program's; otherwise as [`Options::open`].
    pub fn open_with(options: Options, dir: impl AsRef<Path>) -> Result<Db> {
        let store = undo::with_undo(records::with_redo(options)).open(dir)?;
        let names = match store.root()? {
            Some(root) => read_root(&store, root)?,
            None if store.stats().pages_used > 0 => {
                return Err(Error::NotTrees { why: "they have no root".into() });
            }
            None => make_root(&store)?,
        };
        Ok(Db(Arc::new(Engine::new(store, names))))
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Txn {
        Txn::begin(&self.0)
    }

    /// Runs a transaction and commits it. If it meets other transactions ([`Error::is_conflict`]) it
    /// is rolled back, and run again, up to a hundred times, after a pause that gets longer each time
    /// (half a second in all). If `work` fails otherwise, it is rolled back, and the error is returned.
    ///
    /// ```
    /// # fn main() -> foreword_tree::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = foreword_tree::Db::open(dir.path())?;
    /// let tree = db.tree("counts")?;
    /// let next = db.run(|txn| {
    ///     let count = txn.get_for_update(tree, "visits")?.map_or(0, |count| count[0]);
    ///     txn.put(tree, "visits", [count + 1])?;
    ///     Ok(count + 1)
    /// })?;
    /// assert_eq!(next, 1);
    /// // An error of one's own rolls it back, too.
    /// let refused = db.run(|txn| {
    ///     txn.put(tree, "visits", [0])?;
    ///     Err::<(), _>(foreword_tree::Error::other("visits are not taken back"))
    /// });
    /// assert_eq!(refused.unwrap_err().to_string(), "visits are not taken back");
    /// assert_eq!(db.begin().get(tree, "visits")?, Some(vec![1]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of `work`, its own among them ([`Error::other`]), and of [`Txn::commit`].
    pub fn run<T>(&self, mut work: impl FnMut(&mut Txn) -> Result<T>) -> Result<T> {
        let mut attempt = 0;
        loop {
            let mut txn = self.begin();
            match work(&mut txn).and_then(|done| txn.commit().map(|_| done)) {
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
            // Those that it met have locks, and mostly soon end: at once it would meet them again.
            thread::sleep(PAUSE * attempt);
        }
    }

    /// The tree with a name. Makes it if there is none: it is there then, durably, whatever becomes
    /// of other transactions. Waits for others that make it.
    ///
    /// # Errors
    /// As [`Txn::get`] and [`Txn::commit`].
    pub fn tree(&self, name: &str) -> Result<Tree> {
        let names = self.0.names;
        let txn = self.begin();
        if let Some(found) = txn.get(names, name)? {
            txn.commit()?; // What another has made may not be durable yet.
            return self.found(&found);
        }
        drop(txn);
        self.run(|txn| {
            if let Some(found) = txn.get_for_update(names, name)? {
                return self.found(&found);
            }
            let tree = txn.create_tree()?;
            txn.put(names, name, tree.pages.root.0.to_le_bytes())?;
            Ok(tree)
        })
    }

    fn found(&self, value: &[u8]) -> Result<Tree> {
        Ok(self.0.tree(parse(value)?))
    }

    /// The names of all trees, in their order.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub fn trees(&self) -> Result<Vec<String>> {
        let txn = self.begin();
        txn.scan(self.0.names, ..).map(|name| Ok(String::from_utf8_lossy(&name?.0).into_owned())).collect()
    }

    /// Reads all trees, and checks that their pages fit together. Others may read and write
    /// meanwhile; the pages of long values are checked only if they may not (`while_idle`), and then
    /// also that no page is used by no tree.
    ///
    /// # Errors
    /// [`Error::Damaged`], which names the page; [`Error::Pages`].
    pub fn verify(&self, while_idle: bool) -> Result<Verified> {
        let pages = self.0.store.begin();
        let names = self.0.names.pages.check(&pages, false)?;
        let mut verified = Verified { keys: 0, pages: names.pages + 1, levels: 0 };
        let txn = self.begin();
        let trees: Vec<BTree> = txn.scan(self.0.names, ..).map(|entry| parse(&entry?.1)).collect::<Result<_>>()?;
        for tree in trees {
            let counted = tree.check(&pages, while_idle)?;
            verified.keys += counted.keys;
            verified.pages += counted.pages + counted.long_pages;
            verified.levels = verified.levels.max(counted.levels);
        }
        let root = self.0.store.root()?.unwrap_or_default();
        if while_idle && verified.pages != self.0.store.stats().pages_used {
            return Err(Error::Damaged { page: root, why: "pages are in use that no tree has" });
        }
        Ok(verified)
    }

    /// The pages below: for checkpoints, backups and counters.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The most bytes that a key may have here.
    #[must_use]
    pub fn key_max(&self) -> usize {
        self.0.key_max()
    }

    /// Writes all pages, and gives the store up for all handles. The next opening has nothing to
    /// recover, but for transactions that have not ended.
    ///
    /// # Errors
    /// As [`Store::close`]. What was committed is safe all the same.
    pub fn close(self) -> Result<()> {
        Ok(self.0.store.clone().close()?)
    }
}

fn parse(value: &[u8]) -> Result<BTree> {
    let root = u64_of(value).filter(|_| value.len() == 8);
    let root = root.ok_or(Error::NotTrees { why: "a tree's name leads nowhere".into() })?;
    Ok(BTree { root: PageId(root) })
}

fn read_root(store: &Store, root: PageId) -> Result<BTree> {
    let not = |why: String| Err(Error::NotTrees { why });
    let page = store.read(root)?;
    if &page[..8] != MAGIC {
        return not(format!("its root, page {root}, begins with {:02x?}", &page[..8]));
    }
    let version = u32::from_le_bytes([page[8], page[9], page[10], page[11]]);
    if version != VERSION {
        return not(format!("its trees have format version {version}; this program reads version {VERSION}"));
    }
    parse(&page[NAMES..NAMES + 8])
}

fn make_root(store: &Store) -> Result<BTree> {
    let mut txn = store.begin();
    let root = txn.allocate()?;
    let names = BTree::create(&mut txn)?;
    let version = [VERSION.to_le_bytes(), [0; 4]].concat();
    txn.update(root, 0, &[&MAGIC[..], &version, &names.root.0.to_le_bytes()].concat())?;
    txn.set_root(root)?;
    txn.commit()?;
    Ok(names)
}
