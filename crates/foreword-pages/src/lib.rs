//! Pages that survive. (Documentation follows.)

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod alloc;
mod checkpoint;
mod error;
mod file;
mod ids;
mod options;
mod page;
mod policy;
mod pool;
mod record;
mod recovery;
#[doc(hidden)]
pub mod sabotage;
mod store;
mod txn;

pub use error::{Error, Result};
pub use options::Options;
pub use page::PageId;
pub use recovery::{Phase, Recovery};
pub use store::{Checkpointed, PageRef, Stats, Store};
pub use txn::{Savepoint, Txn};
