//! All contestants.

#[cfg(feature = "rocksdb")]
use super::rocksdb;
use super::stores::Contestant;
use super::{fjall, foreword, redb, sqlite};

/// Ours first.
pub(crate) const STORES: &[&Contestant] = &[
    &foreword::STORE,
    &sqlite::STORE,
    &redb::STORE,
    &fjall::STORE,
    #[cfg(feature = "rocksdb")]
    &rocksdb::STORE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_the_manifest_pins() {
        let manifest = include_str!("../../Cargo.toml");
        for store in &STORES[1..] {
            let pinned = format!("\n{} = {{ version = \"={}\"", store.package, store.version());
            assert!(manifest.contains(&pinned), "{}: {:?}", store.name, store.version());
        }
        assert!(!STORES[0].version().is_empty());
    }
}
