//! The peers, a module each.

use super::peer::Peer;
use super::{floor, foreword};

mod commitlog;
mod files;
mod fjall;
mod keys;
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
