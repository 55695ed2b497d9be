//! A key-value store: each change is a record, a snapshot lets the log be dropped, and a restart
//! loads the one and applies the rest of the other. The test kills it again and again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foreword::{Log, Lsn};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
type Map = BTreeMap<String, String>;

/// Strings by keys.
pub struct Store {
    dir: PathBuf,
    log: Log,
    map: Mutex<Map>,
    /// One snapshot at a time.
    snapshots: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens the store in a directory, or makes one.
    pub fn open(dir: &Path) -> Result<Store> {
        let (last, mut map) = match fs::read(dir.join("snapshot")) {
            Err(error) if error.kind() == ErrorKind::NotFound => (0, Map::new()),
            snapshot => serde_json::from_slice(&snapshot?)?,
        };
        // A log that ends before its snapshot is an older copy: it is refused.
        let log = Log::options().segment_bytes(1 << 20).expect_lsn(Lsn(last)).open(dir.join("log"))?;
        for record in log.iter(Lsn(last).next()) {
            let (key, value) = serde_json::from_slice(&record?.data)?;
            map.insert(key, value);
        }
        Ok(Store { dir: dir.to_owned(), log, map: Mutex::new(map), snapshots: Mutex::default() })
    }

    /// The value of a key. A change may be seen before it is durable, and be gone after a crash.
    pub fn get(&self, key: &str) -> Option<String> {
        lock(&self.map).get(key).cloned()
    }

    /// Durable when it returns. If the log fails, the map may hold more than a restart brings back:
    /// drop the store then, and open it again.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let mut map = lock(&self.map);
        let lsn = self.log.append(serde_json::to_vec(&(key, value))?)?; // Its place in the order. If that fails, nothing has changed.
        map.insert(key.to_owned(), value.to_owned()); //                   The same order, for the lock is held.
        drop(map);
        Ok(self.log.sync_to(lsn)?) //                                      Without the lock: those who wait together share a flush.
    }

    /// Writes a snapshot, and drops the records that it makes unneeded. Other threads wait only
    /// while the map is copied.
    pub fn snapshot(&self) -> Result<()> {
        let _one = lock(&self.snapshots);
        let map = lock(&self.map);
        let (last, copy) = (self.log.last_lsn(), map.clone()); // Nothing is appended between the two.
        drop(map);
        self.log.sync_to(last)?; // Before the snapshot says that it holds them.
        let unfinished = self.dir.join("snapshot.tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(&(last.0, copy))?)?;
        file.sync_all()?; // Before it takes the place of the old one: after a crash it is the one or the other, whole.
        fs::rename(unfinished, self.dir.join("snapshot"))?;
        if cfg!(unix) {
            File::open(&self.dir)?.sync_all()?; // The name, too, before the records are dropped.
        }
        self.log.truncate_front(last.next())?;
        Ok(())
    }

    /// Everything is durable already; this makes the next opening faster.
    pub fn close(self) -> Result<()> {
        Ok(self.log.close()?)
    }
}

/// Runs the example.
pub fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path())?;
    (0..100).try_for_each(|n| store.set("a key", &n.to_string()))?;
    store.snapshot()?;
    store.set("a key", "after the snapshot")?;
    println!("100 changes and a snapshot; the log begins with record {}", store.log.start_lsn());
    store.close()?;

    let store = Store::open(dir.path())?;
    assert_eq!(store.get("a key").as_deref(), Some("after the snapshot"));
    store.close()
}
