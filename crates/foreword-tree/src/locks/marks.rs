//! Marks: what those have left behind that had a lock exclusively and have let it go.
//!
//! Names share marks, so a mark may be higher than that of a name alone: never lower.

use std::hash::{DefaultHasher, Hasher};

const MARKS: usize = 1024;

#[derive(Debug)]
pub(super) struct Marks(Box<[u64]>);

impl Marks {
    pub(super) fn new() -> Marks {
        Marks(vec![0; MARKS].into())
    }

    fn place(name: &[u8]) -> usize {
        let mut hasher = DefaultHasher::new();
        hasher.write(name);
        hasher.finish() as usize % MARKS
    }

    pub(super) fn raise(&mut self, name: &[u8], mark: u64) {
        let old = &mut self.0[Marks::place(name)];
        *old = mark.max(*old);
    }

    pub(super) fn of(&self, name: &[u8]) -> u64 {
        self.0[Marks::place(name)]
    }
}
