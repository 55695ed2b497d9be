//! The tests of the tree, in one program.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod history;
