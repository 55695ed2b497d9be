//! What is locked, and how.

/// How a lock is shared. The later is the stronger: what allows the one allows those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// With other owners that have it shared.
    Shared,
    /// With no other owner.
    Exclusive,
}

impl Mode {
    /// Whether two owners can have these at once.
    pub(super) fn goes_with(self, other: Mode) -> bool {
        self == Mode::Shared && other == Mode::Shared
    }
}

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target<'a> {
    /// A key, whether the tree has it or not.
    Key {
        /// The tree's number.
        tree: u64,
        /// The key, of any length.
        key: &'a [u8],
    },
    /// The end of a tree: the next key of its last one.
    End {
        /// The tree's number.
        tree: u64,
    },
}

impl Target<'_> {
    /// Writes bytes that name this target and no other.
    pub(super) fn write(self, name: &mut Vec<u8>) {
        let (tree, key) = match self {
            Target::Key { tree, key } => (tree, Some(key)),
            Target::End { tree } => (tree, None),
        };
        name.clear();
        name.extend_from_slice(&tree.to_be_bytes());
        // Without a key, eight bytes; with an empty one, nine.
        if let Some(key) = key {
            name.push(0);
            name.extend_from_slice(key);
        }
    }
}
