//! An archive of a write-ahead log in an object store: every record of a [`foreword`] log, in S3 and
//! what speaks it, Google Cloud Storage, Azure, or a directory; restored to any LSN or second.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let tmp = tempfile::tempdir()?;
//! # let (dir, bucket) = (tmp.path().join("log"), tmp.path().join("bucket"));
//! use foreword_archive::{Archive, Archiver, Keys, PushOptions, RestoreOptions, Store, Target};
//!
//! let log = foreword::Options::new().segment_bytes(1 << 20).open(&dir)?;
//! log.commit("one")?;
//! let lsn = log.commit("two")?;
//! log.commit("a mistake")?;
//! log.close()?;
//!
//! let mut options = PushOptions::default();
//! options.create = true;
//! let store = Store::create(bucket.to_str().unwrap())?; // or `open`, where it is there: s3://bucket/prefix
//! let mut archiver = Archiver::begin(&dir, store.clone(), Keys::default(), options).await?;
//! archiver.push_all().await?; // or `run`, which follows the log
//!
//! let mut options = RestoreOptions::default();
//! options.to = Target::Lsn(lsn);
//! let mut archive = Archive::open(store, Keys::default()).await?;
//! archive.restore(tmp.path().join("restored"), &options).await?;
//! let restored = foreword::Options::new().segment_bytes(1 << 20).open(tmp.path().join("restored"))?;
//! assert_eq!(restored.last_lsn(), lsn);
//! # restored.close()?;
//! # Ok(()) }) }
//! ```
//!
//! # What it promises
//!
//! - A record is archived when [`Event::Archived`] names it, or a later one: it is in a chunk that a
//!   manifest names, and both are in the store, which is asked to have them durably.
//! - Of two archivers of one archive the one that began last goes on; the other gets
//!   [`Error::Fenced`] when it next wants to confirm something, and nothing of that counts. This
//!   rests on the store: of several that create one object it must tell only one that it has
//!   ([`Store::atomicity`], [`probe`]).
//! - What is restored is what was archived, or an error that names the object: every byte is checked
//!   against a hash in a chain that the newest manifest vouches for. Against one who can write to
//!   the store, hashes protect nothing: encryption with a key shows changes of records, not of
//!   manifests.
//!
//! `docs/ARCHIVE.md` has the layout byte by byte, and how to operate it.

mod archive;
mod archiver;
mod backup;
mod chunk;
mod decode;
mod error;
mod fill;
mod history;
mod keys;
mod manifest;
mod meters;
mod operate;
mod probe;
mod read;
mod restore;
mod standby;
mod standing;
mod store;
mod tasks;

pub use archive::Archive;
pub use archiver::{Archiver, Event, EventHook, PushOptions};
pub use backup::Copied;
pub use chunk::{ArchiveId, Chunk, Hash, Record};
pub use error::{Error, Result};
pub use keys::{Key, KeyId, Keys};
pub use manifest::{Backup, Gap, Index, Parent, Timeline};
pub use object_store;
pub use operate::{Expired, Fault, Keep, Verified};
pub use probe::{Probe, probe};
pub use read::Records;
pub use restore::{Plan, ProgressHook, RestoreOptions, Target};
pub use standby::Standby;
pub use standing::Standing;
pub use store::{Atomicity, Store};
