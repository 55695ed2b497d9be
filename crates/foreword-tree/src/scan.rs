//! Scans of a range of keys, in both directions.
//!
//! Invariant: between two keys that a scan has locked one after the other no key can come or go
//! until its transaction ends, because each lock was taken while the leaves were latched that show
//! that the two are neighbours: that of the one, that of the other, and those between, which are
//! empty. (A scan lets latches go when it has locked a key. Then it looks for the neighbour anew.)

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, RangeBounds};

use crate::engine::Tree;
use crate::error::{Error, Result};
use crate::locks::Mode;
use crate::node::{OwnedValue, Seek};
use crate::sabotage::{self, Bug};
use crate::sync::thread;
use crate::tree::{self, Passed};
use crate::txn::Txn;

/// The most keys that are read and locked at a time.
const BATCH_MAX: usize = 256;

/// The keys of a range with their values, one after the other: [`Txn::scan`] makes it. After an
/// error it ends.
pub struct Scan<'t> {
    txn: &'t Txn,
    tree: Tree,
    /// What is left of the range.
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    is_back: bool,
    found: VecDeque<(Vec<u8>, OwnedValue)>,
    batch: usize,
    is_done: bool,
    /// Of a scan back: the key behind the range is locked.
    is_bounded: bool,
    /// Of a scan back: all leaves from this key on are done.
    left: Option<Vec<u8>>,
}

/// What a step has come to.
enum Step {
    /// Go on.
    Done,
    /// A lock is to be waited for: on this key, or on the tree's end.
    Blocked(Option<Vec<u8>>),
}

fn owned(bound: Bound<&&[u8]>) -> Bound<Vec<u8>> {
    bound.map(|key| key.to_vec())
}

impl Txn {
    /// The keys of a range with their values, in rising order. Locks what it returns, and the key
    /// behind the range (or the tree's end), for reading: no other transaction changes what a
    /// repeated scan would return.
    ///
    /// Keys are read and locked some at a time, ever more of them: at first one, then up to 256.
    ///
    /// ```
    /// # fn main() -> foreword_tree::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = foreword_tree::Db::open(dir.path())?;
    /// let tree = db.tree("fruit")?;
    /// let mut txn = db.begin();
    /// for name in ["apple", "cherry", "banana"] {
    ///     txn.put(tree, name, "ripe")?;
    /// }
    /// let from_b: Vec<_> = txn.scan(tree, &b"b"[..]..).collect::<Result<_, _>>()?;
    /// assert_eq!(from_b[0].0, b"banana");
    /// assert_eq!(txn.scan_back(tree, ..).next().unwrap()?.0, b"cherry");
    /// # Ok(()) }
    /// ```
    pub fn scan<'k>(&self, tree: Tree, range: impl RangeBounds<&'k [u8]>) -> Scan<'_> {
        Scan::new(self, tree, &range, false)
    }

    /// As [`scan`](Txn::scan), in falling order.
    pub fn scan_back<'k>(&self, tree: Tree, range: impl RangeBounds<&'k [u8]>) -> Scan<'_> {
        Scan::new(self, tree, &range, true)
    }
}

impl<'t> Scan<'t> {
    fn new<'k>(txn: &'t Txn, tree: Tree, range: &impl RangeBounds<&'k [u8]>, is_back: bool) -> Scan<'t> {
        let (from, to) = (owned(range.start_bound()), owned(range.end_bound()));
        let is_empty = match (&from, &to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
            _ => false,
        };
        let found = VecDeque::new();
        Scan { txn, tree, from, to, is_back, found, batch: 1, is_done: is_empty, is_bounded: false, left: None }
    }

    /// Reads and locks the next keys.
    fn load(&mut self) -> Result<()> {
        self.txn.pages_of(self.tree)?;
        while self.found.is_empty() && !self.is_done {
            let step = match (self.is_back, self.is_bounded) {
                (false, _) => self.forward()?,
                (true, false) => self.bound()?,
                (true, true) => self.back()?,
            };
            if let Step::Blocked(key) = step
                && self.found.is_empty()
            {
                self.txn.lock(self.tree.pages, key.as_deref(), Mode::Shared)?;
            }
        }
        self.batch = (2 * self.batch).min(BATCH_MAX);
        Ok(())
    }

    fn try_lock(&self, key: Option<&[u8]>) -> Result<bool> {
        let is_granted = self.txn.try_lock(self.tree.pages, key, Mode::Shared)?;
        if is_granted {
            self.txn.end_read(self.tree.pages, key, Mode::Shared);
        }
        Ok(is_granted)
    }

    fn forward(&mut self) -> Result<Step> {
        let (pages, start, is_passed) = match &self.from {
            Bound::Included(key) => (self.txn.pages(), &key[..], false),
            Bound::Excluded(key) => (self.txn.pages(), &key[..], true),
            Bound::Unbounded => (self.txn.pages(), &b""[..], false),
        };
        let mut page = self.tree.pages.leaf(pages, Seek::Key(start))?;
        let mut at = match tree::read(page.id(), &page)?.search(start).map_err(Error::damaged(page.id()))? {
            Ok(at) => at + usize::from(is_passed),
            Err(at) => at,
        };
        let mut passed = Passed::default();
        loop {
            let node = tree::read(page.id(), &page)?;
            if at == node.count() {
                if let Some(next) = node.next()
                    && sabotage::has(Bug::NoCouplingAside)
                {
                    drop(page);
                    thread::yield_now();
                    (page, at) = (pages.fetch_shared(next)?, 0);
                    continue;
                }
                if let Some(right) = tree::neighbour(pages, page.id(), &page)? {
                    passed.go_on(&mut page, right);
                    at = 0;
                    continue;
                }
                self.is_done = sabotage::has(Bug::ScanForgetsNext) || self.try_lock(None)?;
                return Ok(if self.is_done { Step::Done } else { Step::Blocked(None) });
            }
            let key = node.key(at).map_err(Error::damaged(page.id()))?;
            let is_behind = match &self.to {
                Bound::Included(to) => key > *to,
                Bound::Excluded(to) => key >= *to,
                Bound::Unbounded => false,
            };
            let is_asked = !is_behind || !sabotage::has(Bug::ScanForgetsNext);
            if is_asked && !self.try_lock(Some(&key))? {
                return Ok(Step::Blocked(Some(key)));
            }
            passed.let_go();
            if is_behind {
                self.is_done = true;
                return Ok(Step::Done);
            }
            let value = node.cell(at).map_err(Error::damaged(page.id()))?.value.to_owned();
            self.is_done = matches!(&self.to, Bound::Included(to) if *to == key);
            self.from = Bound::Excluded(key.clone());
            self.found.push_back((key, value));
            if self.is_done || self.found.len() >= self.batch {
                return Ok(Step::Done);
            }
            at += 1;
        }
    }

    /// Locks the first key that is not lower than the range's end: it stands for what lies between.
    fn bound(&mut self) -> Result<Step> {
        let pages = self.txn.pages();
        let (page, at) = match &self.to {
            Bound::Included(key) | Bound::Excluded(key) => {
                let page = self.tree.pages.leaf(pages, Seek::Key(key))?;
                let at = tree::read(page.id(), &page)?.lower_bound(key).map_err(Error::damaged(page.id()))?;
                (page, at)
            }
            Bound::Unbounded => {
                let page = self.tree.pages.leaf(pages, Seek::Last)?;
                let at = tree::read(page.id(), &page)?.count();
                (page, at)
            }
        };
        tree::next_key(pages, (page.id(), &page), at, |key| {
            self.is_bounded = sabotage::has(Bug::ScanForgetsNext) || self.try_lock(key)?;
            Ok(if self.is_bounded { Step::Done } else { Step::Blocked(key.map(<[u8]>::to_vec)) })
        })
    }

    fn back(&mut self) -> Result<Step> {
        let seek = match (&self.left, &self.to) {
            (Some(left), _) => Seek::Before(left),
            (None, Bound::Included(key)) => Seek::Key(key),
            (None, Bound::Excluded(key)) if key.is_empty() => {
                self.is_done = true;
                return Ok(Step::Done);
            }
            (None, Bound::Excluded(key)) => Seek::Before(key),
            (None, Bound::Unbounded) => Seek::Last,
        };
        let page = self.tree.pages.leaf(self.txn.pages(), seek)?;
        let node = tree::read(page.id(), &page)?;
        let end = match &self.to {
            Bound::Included(key) => {
                let at = node.lower_bound(key).map_err(Error::damaged(page.id()))?;
                let is_there = at < node.count() && node.key(at).map_err(Error::damaged(page.id()))? == *key;
                at + usize::from(is_there)
            }
            Bound::Excluded(key) => node.lower_bound(key).map_err(Error::damaged(page.id()))?,
            Bound::Unbounded => node.count(),
        };
        for at in (0..end).rev() {
            let key = node.key(at).map_err(Error::damaged(page.id()))?;
            self.is_done = match &self.from {
                Bound::Included(from) => key < *from,
                Bound::Excluded(from) => key <= *from,
                Bound::Unbounded => false,
            };
            if self.is_done {
                return Ok(Step::Done);
            }
            if !self.try_lock(Some(&key))? {
                return Ok(Step::Blocked(Some(key)));
            }
            let value = node.cell(at).map_err(Error::damaged(page.id()))?.value.to_owned();
            (self.to, self.left) = (Bound::Excluded(key.clone()), None);
            self.found.push_back((key, value));
            if self.found.len() >= self.batch {
                return Ok(Step::Done);
            }
        }
        // What lies to the left, if the range reaches there.
        self.is_done = match &self.from {
            Bound::Included(from) | Bound::Excluded(from) => node.low() <= &from[..],
            Bound::Unbounded => node.low().is_empty(),
        };
        self.left = Some(node.low().to_vec());
        Ok(Step::Done)
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let loaded = if self.found.is_empty() { self.load() } else { Ok(()) };
        let found = loaded.and_then(|()| {
            let found = self.found.pop_front();
            found.map(|(key, value)| Ok((key, self.txn.value(value)?))).transpose()
        });
        if found.is_err() {
            self.is_done = true;
            self.found.clear();
        }
        found.transpose()
    }
}

impl fmt::Debug for Scan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scan { tree, from, to, is_back, .. } = self;
        f.debug_struct("Scan")
            .field("tree", tree)
            .field("from", from)
            .field("to", to)
            .field("is_back", is_back)
            .finish_non_exhaustive()
    }
}
