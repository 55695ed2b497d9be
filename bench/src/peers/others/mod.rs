//! The peers, a module each.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Feature, Log, Need, Peer, Records, Sink, WALRUS_DIR, Writer, floor, foreword};

mod commitlog;
mod files;
mod fjall;
mod mrecordlog;
mod okaywal;
mod raft_engine;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sharded_log;
mod sled;
mod sqlite;
mod surrealkv;
mod walrus;
mod writeahead;

/// The floor, Foreword, and all of them by name.
pub const PEERS: &[&Peer] = &[
    &floor::DIRECT,
    &floor::FDATASYNC,
    &foreword::PEER,
    &foreword::GROWING,
    &commitlog::PEER,
    &fjall::PEER,
    &mrecordlog::PEER,
    &okaywal::PEER,
    &raft_engine::PEER,
    &redb::PEER,
    #[cfg(feature = "rocksdb")]
    &rocksdb::PEER,
    &sharded_log::PEER,
    &sled::PEER,
    &sqlite::PEER,
    &surrealkv::PEER,
    &walrus::PEER,
    &writeahead::PEER,
];

/// Keys for those that are not logs but stores: a counter that all threads share, big-endian, so
/// that order of keys is order of insertion.
#[derive(Default)]
struct Keys(AtomicU64);

impl Keys {
    fn next(&self) -> [u8; 8] {
        self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }
}
