//! A key-value store: each change is a record, a snapshot lets the log be dropped, and a restart loads the one and applies the rest of the other.
//! The test kills it again and again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
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

impl Store {
    /// Opens the store in a directory, or makes one.
    pub fn open(dir: &Path) -> Result<Store> {
        fs::create_dir_all(dir)?;
        let (last, mut map) = load(&dir.join("snapshot"))?;
        // A log that ends before its snapshot is an older copy: it is refused.
        let log = Log::options().segment_bytes(1 << 20).expect_lsn(last).open(dir.join("log"))?;
        for record in log.iter(last.next()) {
            apply(&mut map, &record?.data)?;
        }
        Ok(Store { dir: dir.to_owned(), log, map: Mutex::new(map), snapshots: Mutex::default() })
    }

    /// The value of a key. A change may be seen before it is durable, and be gone after a crash.
    pub fn get(&self, key: &str) -> Option<String> {
        lock(&self.map).get(key).cloned()
    }

    /// Durable when it returns. If the log fails, the map may hold more than a restart brings back: drop the store then, and open it again.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let record = serde_json::to_vec(&(key, value))?;
        let mut map = lock(&self.map);
        let lsn = self.log.append(&record)?; // Its place in the order. If that fails, nothing has changed.
        apply(&mut map, &record)?; //           The same order, for the lock is held.
        drop(map);
        Ok(self.log.sync_to(lsn)?) //           Without the lock: those who wait together share a flush.
    }

    /// Writes a snapshot, and drops the records that it makes unneeded. Other threads wait only while the map is copied.
    pub fn snapshot(&self) -> Result<()> {
        let _one = lock(&self.snapshots);
        let map = lock(&self.map);
        let (last, copy) = (self.log.last_lsn(), map.clone()); // Nothing is appended between the two.
        drop(map);
        self.log.sync_to(last)?; // Before the snapshot says that it holds them.
        save(&self.dir, last, &copy)?; // Before they are dropped.
        self.log.truncate_front(last.next())?;
        Ok(())
    }

    /// Everything is durable already; this makes the next opening faster.
    pub fn close(self) -> Result<()> {
        Ok(self.log.close()?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn apply(map: &mut Map, record: &[u8]) -> Result<()> {
    let (key, value) = serde_json::from_slice(record)?;
    map.insert(key, value);
    Ok(())
}

/// The snapshot, and the last LSN that is in it.
fn load(path: &Path) -> Result<(Lsn, Map)> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Lsn::ZERO, Map::new())),
        opened => opened?,
    };
    let (last, map) = serde_json::from_reader::<_, (u64, Map)>(BufReader::new(file))?;
    Ok((Lsn(last), map))
}

/// Replaces the snapshot: after a crash it is the old one or the new one, whole.
fn save(dir: &Path, last: Lsn, map: &Map) -> Result<()> {
    let unfinished = dir.join("snapshot.tmp");
    let mut file = BufWriter::new(File::create(&unfinished)?);
    serde_json::to_writer(&mut file, &(last.0, map))?;
    file.flush()?;
    file.get_ref().sync_all()?;
    fs::rename(&unfinished, dir.join("snapshot"))?;
    if cfg!(unix) {
        File::open(dir)?.sync_all()?; // The name, too.
    }
    Ok(())
}

/// Runs the example.
pub fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path())?;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || (0..100).try_for_each(|n| store.set(&format!("thread {thread}"), &n.to_string())));
        }
    });
    store.snapshot()?;
    store.set("thread 0", "after the snapshot")?;
    println!(
        "400 changes and a snapshot; the log begins with record {}, {} flushes",
        store.log.start_lsn(),
        store.log.stats().flushes
    );
    store.close()?;

    let store = Store::open(dir.path())?;
    assert_eq!(store.get("thread 0").as_deref(), Some("after the snapshot"));
    assert_eq!(store.get("thread 3").as_deref(), Some("99"));
    store.close()
}
