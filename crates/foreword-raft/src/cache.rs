//! The newest entries in memory: all that are not durable (the log's readers do not return them
//! yet), and as many of the others as fit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use foreword::Lsn;

use crate::sync::lock;

type ByLsn = BTreeMap<Lsn, Arc<[u8]>>;

pub(crate) struct Cache {
    /// The entries, and the sum of their lengths.
    entries: Mutex<(ByLsn, usize)>,
    bytes_max: usize,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Cache {
        Cache { entries: Mutex::default(), bytes_max }
    }

    pub(crate) fn put(&self, lsn: Lsn, data: Arc<[u8]>, durable: Lsn) {
        let mut guard = lock(&self.entries);
        guard.1 += data.len();
        guard.0.insert(lsn, data);
        self.trim_locked(&mut guard, durable);
    }

    /// Forgets the oldest durable entries until the others fit.
    pub(crate) fn trim(&self, durable: Lsn) {
        self.trim_locked(&mut lock(&self.entries), durable);
    }

    fn trim_locked(&self, (entries, bytes): &mut (ByLsn, usize), durable: Lsn) {
        while *bytes > self.bytes_max
            && let Some(oldest) = entries.first_entry()
            && *oldest.key() <= durable
        {
            *bytes -= oldest.remove().len();
        }
    }

    pub(crate) fn get(&self, lsn: Lsn) -> Option<Arc<[u8]>> {
        lock(&self.entries).0.get(&lsn).cloned()
    }

    pub(crate) fn remove(&self, lsns: &[Lsn]) {
        let mut guard = lock(&self.entries);
        let (entries, bytes) = &mut *guard;
        for lsn in lsns {
            *bytes -= entries.remove(lsn).map_or(0, |data| data.len());
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        lock(&self.entries).1
    }
}
