//! A concurrent B+tree with serializable transactions, on the pages of [`foreword_pages`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod error;
pub mod locks;

pub use error::{Error, Result};
