//! Names of targets: the bytes of each are hashed once for a request, whatever is looked up with
//! them, and not again when its locks are let go.

use std::borrow::Borrow;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::ops::Deref;
use std::sync::Arc;

use foreword_pages::IdHasher;

use super::target::Target;

/// The bytes that name a target, and their hash. An owner's list shares them with the table.
#[derive(Clone, Debug)]
pub(super) struct Name {
    hash: u64,
    bytes: Arc<[u8]>,
}

/// The name of the target at hand: a lock that is there is found by it without an allocation.
#[derive(Debug, Default)]
pub(super) struct AtHand {
    hash: u64,
    bytes: Vec<u8>,
    hasher: RandomState,
}

/// Both of these, to look something up.
pub(super) trait Named {
    fn parts(&self) -> (u64, &[u8]);
}

impl Name {
    pub(super) fn is(&self, other: &Name) -> bool {
        Arc::ptr_eq(&self.bytes, &other.bytes)
    }
}

impl AtHand {
    pub(super) fn set(&mut self, target: Target<'_>) {
        target.write(&mut self.bytes);
        self.hash = self.hasher.hash_one(&self.bytes);
    }

    pub(super) fn to_name(&self) -> Name {
        Name { hash: self.hash, bytes: (&*self.bytes).into() }
    }
}

impl Named for Name {
    fn parts(&self) -> (u64, &[u8]) {
        (self.hash, &self.bytes)
    }
}

impl Named for AtHand {
    fn parts(&self) -> (u64, &[u8]) {
        (self.hash, &self.bytes)
    }
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'n> Borrow<dyn Named + 'n> for Name {
    fn borrow(&self) -> &(dyn Named + 'n) {
        self
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Named + '_ {}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.parts().0);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// For maps by what is a hash already, or a small number that no attacker chooses.
pub(super) type ByNumber = BuildHasherDefault<IdHasher>;
