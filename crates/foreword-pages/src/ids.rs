//! Maps by page id or transaction id. Ids are small numbers that no attacker chooses, so a
//! multiplication hashes them well enough.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::page::PageId;

pub(crate) type PageMap<V> = HashMap<PageId, V, BuildHasherDefault<IdHasher>>;
pub(crate) type PageSet = HashSet<PageId, BuildHasherDefault<IdHasher>>;
pub(crate) type TxnMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// (Public for `foreword-tree`.)
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u64(u64::from(b)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value);
    }
}

/// Spreads an id over all bits.
pub(crate) fn mix(value: u64) -> u64 {
    let mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}
