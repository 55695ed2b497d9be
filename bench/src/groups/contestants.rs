//! The contestants of `groups`.

use anyhow::{Result, bail};

use super::foreword;
#[cfg(feature = "groups")]
use super::raft_engine;
#[cfg(feature = "groups")]
use super::raft_log;
use super::stores::Contestant;

/// All of them, Foreword first.
pub const STORES: &[&Contestant] = &[
    &foreword::STORE,
    #[cfg(feature = "groups")]
    &raft_engine::STORE,
    #[cfg(feature = "groups")]
    &raft_log::STORE,
];

/// The contestant of that name.
pub fn find(name: &str) -> Result<&'static Contestant> {
    match STORES.iter().find(|store| store.name == name) {
        Some(store) => Ok(store),
        None => bail!("there is no contestant {name:?}"),
    }
}
