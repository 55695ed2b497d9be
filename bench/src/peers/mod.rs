//! The contestants: each peer behind one small interface, in its best honest configuration.
//!
//! Honest: a commit returns when its record is synced, and not before. Best: what its documentation
//! and source offer to make that fast is used (preallocation, recycling, large segments), and said
//! in [`Peer::setting`].

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

pub mod floor;
mod foreword;
#[cfg(feature = "peers")]
mod others;
mod peer;

use peer::WALRUS_DIR;
pub use peer::{Feature, Log, Need, Peer, Writer};

/// All of them: the floor, Foreword, and the others by name.
#[cfg(feature = "peers")]
pub use others::PEERS;

/// Without the others, whose building takes minutes: what the log's own choices, and the disk, are
/// measured with.
#[cfg(not(feature = "peers"))]
pub const PEERS: &[&Peer] = &[&floor::DIRECT, &floor::FDATASYNC, &foreword::PEER, &foreword::GROWING];

/// Says to a process that is to be started where walrus has its log, and that it is not to print a
/// line for each write.
pub fn tell_walrus(process: &mut Command, dir: &Path) {
    process.env(WALRUS_DIR, dir).env("WALRUS_QUIET", "1");
}

/// The contestant of that name; what follows a colon is for itself.
pub fn find(name: &str) -> Result<&'static Peer> {
    let name = name.split(':').next().unwrap_or(name);
    match PEERS.iter().find(|peer| peer.name == name) {
        Some(peer) => Ok(peer),
        None => bail!("there is no contestant {name:?}; there are {}", names().join(", ")),
    }
}

/// The logs among them, each once: what it acknowledges and gives back is the same in every
/// setting.
pub fn logs() -> impl Iterator<Item = &'static Peer> {
    PEERS.iter().copied().filter(|peer| !peer.is_floor() && peer.name != foreword::GROWING.name)
}

/// Their names.
pub fn names() -> Vec<&'static str> {
    PEERS.iter().map(|peer| peer.name).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::window::Window;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// What one wrote through an adapter is read back through it: every record, in its bytes, and
    /// nothing else.
    fn round_trip(peer: &Peer, feature: Feature, write: impl FnOnce(&mut dyn Writer)) {
        if peer.lacks(feature).is_some() || peer.lacks(Feature::Read).is_some() {
            return;
        }
        let dir = tempfile::tempdir_in(".").unwrap();
        let log = (peer.open)(dir.path(), Need { bytes: 1 << 20 }).unwrap();
        write(log.writer(0).unwrap().as_mut());
        log.close().unwrap();
        let mut left: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for i in 0..300 {
            *left.entry(record(i).to_vec()).or_default() += 1;
        }
        let left = Arc::new(Mutex::new(left));
        let taken = left.clone();
        let take = move |record: &[u8]| *taken.lock().unwrap().get_mut(record).expect("a record that was not written") -= 1;
        (peer.read)(dir.path(), Box::new(take)).unwrap();
        assert!(left.lock().unwrap().values().all(|&n| n == 0), "{}: records are missing, or there twice", peer.name);
    }

    fn record(i: usize) -> &'static [u8] {
        crate::payload::record(128, i)
    }

    fn each(feature: Feature, write: fn(&mut dyn Writer)) {
        // (walrus knows its directory from the environment alone, which is one for the whole
        // process.)
        for peer in PEERS.iter().filter(|peer| peer.name != "walrus" && !peer.is_floor()) {
            println!("{}", peer.name);
            round_trip(peer, feature, write);
        }
    }

    #[test]
    fn commits_are_read_back() {
        each(Feature::Commit, |w| (0..300).for_each(|i| w.commit(record(i)).unwrap()));
    }

    #[test]
    fn batches_are_read_back() {
        each(Feature::Batch, |w| {
            for i in 0..3 {
                let batch: Vec<&[u8]> = (i * 100..i * 100 + 100).map(record).collect();
                w.commit_batch(&batch).unwrap();
            }
        });
    }

    #[test]
    fn appends_are_read_back() {
        each(Feature::Append, |w| {
            let mut records = (0..300).map(record);
            w.append_all(&mut || records.next()).unwrap();
        });
    }

    #[test]
    fn windows_are_read_back() {
        for peer in PEERS.iter().filter(|peer| peer.lacks(Feature::Async).is_none()) {
            let dir = tempfile::tempdir_in(".").unwrap();
            let log = (peer.open)(dir.path(), Need { bytes: 1 << 20 }).unwrap();
            let mut window = Window::new(16, 128, Duration::from_millis(500));
            log.writer(0).unwrap().commit_window(&mut window).unwrap();
            log.close().unwrap();
            let read = Arc::new(AtomicU64::new(0));
            let count = read.clone();
            let take = move |_: &[u8]| {
                count.fetch_add(1, Ordering::Relaxed);
            };
            (peer.read)(dir.path(), Box::new(take)).unwrap();
            assert!(window.latencies.count() > 16, "{}", peer.name);
            assert_eq!(read.load(Ordering::Relaxed), window.latencies.count(), "{}", peer.name);
        }
    }

    #[test]
    fn versions_are_known() {
        for peer in PEERS.iter().filter(|peer| !peer.is_floor()) {
            assert!(peer.version().starts_with(|c: char| c.is_ascii_digit()), "{}: {:?}", peer.name, peer.version());
        }
    }
}
