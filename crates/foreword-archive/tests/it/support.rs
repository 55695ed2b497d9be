//! A log and its archive, and a store that fails.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use foreword::{Log, Lsn, Options, View};
use foreword_archive::object_store::memory::InMemory;
use foreword_archive::object_store::path::Path as ObjectPath;
use foreword_archive::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use foreword_archive::{Archive, Archiver, Atomicity, Key, Keys, PushOptions, RestoreOptions, Store, Target};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

pub fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// Small segments; other processes see a record at once.
pub fn small() -> Options {
    Options::new().segment_bytes(64 << 10).idle_mark(Some(Duration::from_millis(1)))
}

pub fn keys() -> Keys {
    Keys(vec![Key::new([7; 32])])
}

/// A directory for a test: the log, and what is restored.
pub struct Place {
    pub tmp: tempfile::TempDir,
}

impl Place {
    /// In memory, where there is such a directory: nothing here is about the disk.
    pub fn new() -> Place {
        let memory = Path::new("/dev/shm");
        let tmp = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Place { tmp: tmp.unwrap() }
    }

    pub fn log(&self) -> PathBuf {
        self.path("log")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }
}

/// A record that says its LSN, and is of that length, more or less.
pub fn record(lsn: u64, len: usize) -> Vec<u8> {
    let mut record = format!("record {lsn} ").into_bytes();
    record.resize(record.len() + len, lsn as u8);
    record
}

/// One that no compression makes smaller.
pub fn dense_record(lsn: u64, len: usize) -> Vec<u8> {
    let mut seed = lsn | 1 << 40;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(len / 8).flatten().collect()
}

/// The records of a log, as they can be recovered.
pub fn records(dir: &Path) -> BTreeMap<u64, Vec<u8>> {
    let view = View::open(dir).unwrap().recoverable().unwrap();
    view.iter(Lsn::ZERO).map(|record| record.map(|record| (record.lsn.0, record.data)).unwrap()).collect()
}

pub fn commit(log: &Log, lsns: std::ops::Range<u64>) {
    let batch: Vec<_> = lsns.map(|lsn| record(lsn, 40)).collect();
    log.commit_batch(&batch).unwrap();
}

/// Each by itself.
pub fn commit_each(log: &Log, lsns: std::ops::Range<u64>, len: usize) {
    for lsn in lsns {
        log.commit(record(lsn, len)).unwrap();
    }
}

pub fn options() -> PushOptions {
    let mut options = PushOptions::default();
    options.create = true;
    options.chunk_bytes = 64 << 10;
    options.patience = Some(Duration::ZERO);
    options
}

/// Archives all that there is.
pub async fn push(dir: &Path, store: &Store) -> foreword_archive::Result<Archiver> {
    let mut archiver = Archiver::begin(dir, store.clone(), keys(), options()).await?;
    archiver.push_all().await?;
    Ok(archiver)
}

/// Archives all that is durable in a log that is open.
pub async fn push_log(log: &Log, store: &Store) -> foreword_archive::Result<Archiver> {
    let mut archiver = Archiver::begin(log.dir(), store.clone(), keys(), options()).await?;
    push_on(&mut archiver, log).await?;
    Ok(archiver)
}

/// The same. (Other processes see a record that is durable a little later.)
pub async fn push_on(archiver: &mut Archiver, log: &Log) -> foreword_archive::Result<()> {
    while archiver.push_all().await? < log.durable_lsn() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until other processes see what is durable.
pub async fn shown(log: &Log) {
    while View::open(log.dir()).unwrap().last_lsn().unwrap() < log.durable_lsn() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn open(store: &Store) -> Archive {
    Archive::open(store.clone(), keys()).await.unwrap()
}

/// What is restored, to an LSN or to the end.
pub async fn restored(
    store: &Store,
    place: &Place,
    to: Target,
    timeline: Option<u32>,
) -> foreword_archive::Result<BTreeMap<u64, Vec<u8>>> {
    let dir = place.path("restored");
    let mut options = RestoreOptions::default();
    (options.to, options.timeline, options.segment_bytes) = (to, timeline, 64 << 10);
    let result = Archive::open(store.clone(), keys()).await?.restore(&dir, &options).await;
    let there = result.map(|_| {
        foreword::verify(&dir).unwrap();
        records(&dir)
    });
    let _ = std::fs::remove_dir_all(&dir);
    let _ = std::fs::remove_dir_all(place.path("restored.restoring"));
    there
}

/// Archives what comes, in so many manifests that those of the first era are old: each record by
/// itself.
pub async fn push_an_era(log: &Log, store: &Store, keys: &Keys) -> Archiver {
    let mut options = options();
    (options.chunk_age, options.uploads) = (Duration::ZERO, 1);
    let mut archiver = Archiver::begin(log.dir(), store.clone(), keys.clone(), options).await.unwrap();
    while archiver.archive().manifests() < 1_024 + 64 {
        let next = log.last_lsn().0 + 1;
        commit_each(log, next..next + 100, 10);
        push_on(&mut archiver, log).await.unwrap();
    }
    archiver
}

/// Copies a directory that has no folders.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What a store is to do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// From this call on nothing is done, and each call fails.
    DeadBefore(u64),
    /// The call is done, and its answer is lost; then all fail.
    DeadBehind(u64),
    /// Each call that writes is done, its answer lost, and made again, as a client does.
    AnswersLost,
    /// One call of three fails, in no order that a retry could fall in step with.
    Flaky,
    /// As a server that does not know `If-None-Match`.
    Overwrites,
    /// This call is done, and its answer is lost.
    LostOnce(u64),
}

/// A store in memory that fails.
#[derive(Debug, Default)]
pub struct Faulty {
    pub inner: Arc<InMemory>,
    pub calls: AtomicU64,
    pub fault: Mutex<Fault>,
    /// Names of what was read, in order.
    pub read: Mutex<Vec<String>>,
    /// Objects that are created wait until this is unlocked.
    pub gate: tokio::sync::Mutex<()>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty store")
    }
}

fn failed() -> StoreError {
    StoreError::Generic { store: "faulty", source: "as it was told".into() }
}

impl Faulty {
    pub fn new() -> (Arc<Faulty>, Store) {
        let faulty = Arc::new(Faulty::default());
        let store = Store::new(faulty.clone(), "memory", Atomicity::Known("in memory"));
        (faulty, store)
    }

    /// Another with the same objects.
    pub fn fork(&self) -> (Arc<Faulty>, Store) {
        let faulty = Arc::new(Faulty { inner: Arc::new(self.inner.fork()), ..Faulty::default() });
        let store = Store::new(faulty.clone(), "memory", Atomicity::Known("in memory"));
        (faulty, store)
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
        self.calls.store(0, Ordering::SeqCst);
    }

    /// Whether a call is done, and whether its answer comes.
    fn next(&self) -> (bool, bool) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match *self.fault.lock().unwrap() {
            Fault::None | Fault::AnswersLost | Fault::Overwrites => (true, true),
            Fault::DeadBefore(at) => (call < at, call < at),
            Fault::DeadBehind(at) => (call <= at, call < at),
            Fault::Flaky => {
                let done = (call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 3 != 2;
                (done, done)
            }
            Fault::LostOnce(at) => (true, call != at),
        }
    }

    /// All objects, by name.
    pub async fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let list: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for meta in list {
            let bytes = self.inner.get(&meta.location).await.unwrap().bytes().await.unwrap();
            objects.insert(meta.location.to_string(), bytes.to_vec());
        }
        objects
    }

    pub async fn write(&self, name: &str, bytes: Vec<u8>) {
        self.inner.put(&ObjectPath::from(name), bytes.into()).await.unwrap();
    }

    pub async fn remove(&self, name: &str) {
        self.inner.delete(&ObjectPath::from(name)).await.unwrap();
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &ObjectPath, payload: PutPayload, mut options: PutOptions) -> StoreResult<PutResult> {
        let (done, answered) = self.next();
        if !done {
            return Err(failed());
        }
        drop(self.gate.lock().await);
        if *self.fault.lock().unwrap() == Fault::Overwrites {
            options.mode = PutMode::Overwrite;
        }
        if *self.fault.lock().unwrap() == Fault::AnswersLost {
            let _ = self.inner.put_opts(at, payload.clone(), options.clone()).await;
        }
        let put = self.inner.put_opts(at, payload, options).await;
        if answered { put } else { Err(failed()) }
    }

    async fn put_multipart_opts(&self, at: &ObjectPath, options: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &ObjectPath, options: GetOptions) -> StoreResult<GetResult> {
        self.read.lock().unwrap().push(at.to_string());
        if self.next() == (true, true) { self.inner.get_opts(at, options).await } else { Err(failed()) }
    }

    fn delete_stream(&self, at: BoxStream<'static, StoreResult<ObjectPath>>) -> BoxStream<'static, StoreResult<ObjectPath>> {
        match self.next() {
            (true, true) => self.inner.delete_stream(at),
            (done, _) => {
                let deleted = done.then(|| self.inner.delete_stream(at));
                let drained = async move {
                    if let Some(deleted) = deleted {
                        let _: Vec<_> = deleted.collect().await;
                    }
                    Err(failed())
                };
                futures_util::stream::once(drained).boxed()
            }
        }
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.next() {
            (true, true) => self.inner.list(prefix),
            _ => futures_util::stream::iter([Err(failed())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
