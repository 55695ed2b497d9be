//! What happens between two steps of an archiver: cuts, other archivers, lost answers, drops.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use foreword::{Log, Lsn};
use foreword_archive::object_store::memory::InMemory;
use foreword_archive::object_store::path::Path as ObjectPath;
use foreword_archive::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use foreword_archive::{Archive, Archiver, Atomicity, Error, Event, Keep, RestoreOptions, Standby, Store, Target};
use futures_util::stream::BoxStream;

use crate::support::*;

type Lose = Box<dyn FnMut(&str, &str) -> bool + Send>;
type Then = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store in memory, on which something else happens behind a manifest; or whose answer to a
/// manifest is lost.
struct Hooked {
    inner: Arc<InMemory>,
    /// Whether the answer to the creation of this object, of these contents, is lost: once.
    lose: Mutex<Option<Lose>>,
    /// What happens behind the creation of so many manifests, before its answer.
    then: Mutex<Option<(u64, Then)>>,
    /// So many chunks of a record each share a manifest: of these the first is answered last.
    share: AtomicU64,
    chunks: Mutex<HashSet<u64>>,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hooked")
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hooked")
    }
}

impl Hooked {
    /// With the store that it is, and one that is only the same memory.
    fn new() -> (Arc<Hooked>, Store, Store) {
        let inner = Arc::new(InMemory::new());
        let hooked = Arc::new(Hooked {
            inner: inner.clone(),
            lose: Mutex::default(),
            then: Mutex::default(),
            share: AtomicU64::new(1),
            chunks: Mutex::default(),
        });
        let store = |store: Arc<dyn ObjectStore>| Store::new(store, "memory", Atomicity::Known("in memory"));
        (hooked.clone(), store(hooked), store(inner))
    }

    async fn created(&self, chunk: &str) {
        let lsn = chunk.rsplit('/').next().unwrap()[..20].parse().unwrap();
        self.chunks.lock().unwrap().insert(lsn);
        let share = self.share.load(SeqCst);
        let others = lsn + 1..lsn + share;
        let until = Instant::now() + Duration::from_secs(10);
        while lsn % share == 0 && others.clone().any(|other| !self.chunks.lock().unwrap().contains(&other)) {
            assert!(Instant::now() < until, "no chunks come behind {lsn}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn then(&self, manifests: u64, what: impl Future<Output = ()> + Send + 'static) {
        *self.then.lock().unwrap() = Some((manifests, Box::pin(what)));
    }
}

#[async_trait]
impl ObjectStore for Hooked {
    async fn put_opts(&self, at: &ObjectPath, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let bytes: Vec<u8> = payload.iter().flat_map(|b| b.to_vec()).collect();
        let put = self.inner.put_opts(at, payload, options).await;
        if at.as_ref().starts_with("chunk/") {
            self.created(at.as_ref()).await;
        }
        let mut then = None;
        if at.as_ref().starts_with("manifest/") {
            let mut hook = self.then.lock().unwrap();
            if let Some((left, _)) = hook.as_mut() {
                *left -= 1;
                if *left == 0 {
                    then = hook.take();
                }
            }
        }
        if let Some((_, then)) = then {
            then.await;
        }
        let lost = self.lose.lock().unwrap().as_mut().is_some_and(|lose| lose(at.as_ref(), &String::from_utf8_lossy(&bytes)));
        if lost {
            *self.lose.lock().unwrap() = None;
            return Err(StoreError::Generic { store: "hooked", source: "answer lost".into() });
        }
        put
    }
    async fn put_multipart_opts(&self, at: &ObjectPath, options: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }
    async fn get_opts(&self, at: &ObjectPath, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(at, options).await
    }
    fn delete_stream(&self, at: BoxStream<'static, StoreResult<ObjectPath>>) -> BoxStream<'static, StoreResult<ObjectPath>> {
        self.inner.delete_stream(at)
    }
    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A log loses its records from this one on, and gets others.
fn cut_and_go_on(log: &Log, from: u64) {
    log.truncate_back(Lsn(from)).unwrap();
    for lsn in from..150 {
        log.commit(format!("behind the cut at {from}: {lsn}")).unwrap();
    }
}

#[test]
fn a_cut_between_the_beginning_and_the_reading_begins_a_timeline() {
    run(async {
        for _ in 0..8 {
            let (place, (_, store)) = (Place::new(), Faulty::new());
            let log = small().open(place.log()).unwrap();
            commit(&log, 1..100);
            push_log(&log, &store).await.unwrap();
            let mut archiver = Archiver::begin(log.dir(), store.clone(), keys(), options()).await.unwrap();
            cut_and_go_on(&log, 50);
            shown(&log).await;
            archiver.run(tokio::time::sleep(Duration::from_millis(300))).await.unwrap();
            log.close().unwrap();
            assert_eq!(archiver.timeline(), 2);
            assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        }
    });
}

#[test]
fn a_cut_while_a_timeline_is_begun_is_seen() {
    run(async {
        for _ in 0..3 {
            let (place, (hooked, store, _)) = (Place::new(), Hooked::new());
            let log = Arc::new(small().open(place.log()).unwrap());
            commit(&log, 1..100);
            let mut archiver = push_log(&log, &store).await.unwrap();
            let (first, second) = (log.clone(), log.clone());
            hooked.then(1, async move {
                cut_and_go_on(&second, 30);
                shown(&second).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            });
            let stop = async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                cut_and_go_on(&first, 50);
                tokio::time::sleep(Duration::from_millis(1500)).await;
            };
            archiver.run(stop).await.unwrap();
            log.close().unwrap();
            assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        }
    });
}

/// One that was fenced, and is used again, writes nothing more.
#[test]
fn an_archiver_that_was_fenced_stays_so() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        let mut first = push_log(&log, &store).await.unwrap();
        commit(&log, 50..60);
        shown(&log).await;
        let mut second = Archiver::begin(log.dir(), store.clone(), keys(), options()).await.unwrap();
        for _ in 0..3 {
            let fenced = first.push_all().await;
            assert!(matches!(fenced, Err(Error::Fenced { epoch: 1, by: 2, .. })), "{fenced:?}");
        }
        assert_eq!(second.push_all().await.unwrap(), Lsn(59));
        assert_eq!(open(&store).await.range(None).unwrap(), (Lsn(1), Lsn(59)));
    });
}

/// An archiver begins behind each manifest that a promotion writes: one of the two is fenced, and
/// the archive can be read.
#[test]
fn an_archiver_that_begins_while_a_standby_is_promoted_leaves_an_archive() {
    run(async {
        let mut fenced = 0;
        for at in 1..4 {
            let (place, (hooked, store, plain)) = (Place::new(), Hooked::new());
            let log = small().open(place.log()).unwrap();
            commit(&log, 1..50);
            push_log(&log, &plain).await.unwrap();
            let mut options = RestoreOptions::default();
            options.segment_bytes = 64 << 10;
            let standby = Standby::open(open(&store).await, place.path("standby"), options).await.unwrap();
            let (dir, around) = (place.log(), plain.clone());
            hooked.then(at, async move {
                // (Refused where the log was retired.)
                _ = Archiver::begin(&dir, around, keys(), crate::support::options()).await;
            });
            let promoted = standby.promote().await;
            fenced += u32::from(matches!(promoted, Err(Error::Fenced { .. })));
            assert!(matches!(promoted, Ok(Lsn(49)) | Err(Error::Fenced { .. })), "{promoted:?}");
            assert_eq!(open(&plain).await.range(None).unwrap(), (Lsn(1), Lsn(49)), "manifest {at}");
        }
        assert!(fenced > 0);
    });
}

/// What the archive still has is less than what is compared elsewhere.
#[test]
fn a_copy_that_went_on_differently_is_refused_behind_an_expiry() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..100);
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        copy(&place.log(), &place.path("copy"));
        let log = small().open(place.log()).unwrap();
        commit(&log, 100..110);
        let mut archiver = push_log(&log, &store).await.unwrap();
        let mut keep = Keep::default();
        keep.chunks = Some(1);
        assert!(open(&store).await.expire(keep).await.unwrap().chunks > 0);
        let other = small().open(place.path("copy")).unwrap();
        commit_each(&other, 500..530, 5);
        other.close().unwrap();
        let refused = push(&place.path("copy"), &store).await.map(drop);
        assert!(matches!(refused, Err(Error::Diverged { .. })), "{refused:?}");
        commit(&log, 110..120);
        shown(&log).await;
        assert_eq!(archiver.push_all().await.unwrap(), Lsn(119));
    });
}

#[test]
fn a_manifest_with_an_index_whose_answer_is_lost_is_ones_own() {
    run(async {
        let (place, (hooked, store, _)) = (Place::new(), Hooked::new());
        let log = small().open(place.log()).unwrap();
        hooked.share.store(4, SeqCst);
        *hooked.lose.lock().unwrap() = Some(Box::new(|at, text| {
            at.starts_with("manifest/") && text.contains("{\"index\":") && text.matches("{\"add\":").count() > 1
        }));
        let mut often = options();
        (often.chunk_age, often.uploads, often.patience) = (Duration::ZERO, 16, Some(Duration::from_secs(30)));
        let mut archiver = Archiver::begin(log.dir(), store.clone(), keys(), often).await.unwrap();
        commit_each(&log, 1..400, 100);
        shown(&log).await;
        assert_eq!(archiver.push_all().await.unwrap(), Lsn(399));
        assert!(hooked.lose.lock().unwrap().is_none(), "no answer was lost");
        log.close().unwrap();
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
    });
}

/// The hold's limit is passed while what it kept is uploaded: nothing was missed.
#[test]
fn a_hold_that_is_lost_behind_what_is_archived_misses_nothing() {
    run(async {
        for skip_missed in [false, true] {
            let (place, (faulty, store)) = (Place::new(), Faulty::new());
            let log = small().open(place.log()).unwrap();
            commit(&log, 1..50);
            let mut limited = options();
            (limited.chunk_bytes, limited.skip_missed) = (8 << 20, skip_missed);
            limited.hold_limit = foreword::Limit::bytes(128 << 10);
            let mut archiver = Archiver::begin(log.dir(), store.clone(), keys(), limited.clone()).await.unwrap();
            push_on(&mut archiver, &log).await.unwrap();
            commit_each(&log, 50..300, 2_000);
            shown(&log).await;
            let gate = faulty.gate.lock().await;
            let pushing = tokio::spawn(async move { archiver.push_all().await });
            tokio::time::sleep(Duration::from_millis(500)).await;
            for _ in 0..3 {
                let _ = log.truncate_front(Lsn(280));
            }
            assert!(log.start_lsn() > Lsn(50));
            drop(gate);
            assert_eq!(pushing.await.unwrap().unwrap(), Lsn(299));
            assert_eq!(open(&store).await.range(None).unwrap(), (Lsn(1), Lsn(299)));
            let again = Archiver::begin(log.dir(), store.clone(), keys(), limited.clone()).await.unwrap();
            assert_eq!(again.archived(), Lsn(299));
        }
    });
}

/// Runs and pushes that are dropped leave no thread and no upload.
#[cfg(target_os = "linux")]
#[test]
fn nothing_goes_on_when_an_archiver_is_dropped() {
    let threads = || {
        let all = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("comm"));
        all.filter_map(|task| name(task).ok()).filter(|name| name.starts_with("foreword-archiv")).count()
    };
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        push_log(&log, &store).await.unwrap();
        for _ in 0..20 {
            let mut archiver = Archiver::begin(log.dir(), store.clone(), keys(), options()).await.unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(50), archiver.run(std::future::pending())).await;
        }
        let retries = Arc::new(AtomicU64::new(0));
        let (mut patient, counted) = (options(), retries.clone());
        patient.patience = None;
        patient.on_event = Some(Arc::new(move |event| {
            counted.fetch_add(u64::from(matches!(event, Event::Retrying { .. })), SeqCst);
        }));
        let mut archiver = Archiver::begin(log.dir(), store.clone(), keys(), patient).await.unwrap();
        commit_each(&log, 50..300, 2_000);
        shown(&log).await;
        faulty.set(Fault::DeadBefore(0));
        let _ = tokio::time::timeout(Duration::from_millis(300), archiver.push_all()).await;
        drop(archiver);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let then = retries.load(SeqCst);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(then > 0 && retries.load(SeqCst) == then, "{then}, {retries:?}");
        // (Those of tests beside this one come and go.)
        assert!(threads() < 20, "{}", threads());
    });
}

/// A directory is moved away, and an empty one is in its place or none: nothing is written there, and
/// what comes is archived when it is back.
#[cfg(unix)]
#[test]
fn a_directory_that_goes_away_is_waited_for_and_not_made_anew() {
    run(async {
        for in_its_place in [false, true] {
            let place = Place::new();
            let (bucket, away) = (place.path("bucket"), place.path("away"));
            let log = small().open(place.log()).unwrap();
            commit(&log, 1..50);
            let store = Store::create(bucket.to_str().unwrap()).unwrap();
            let mut archiver = push_log(&log, &store).await.unwrap();
            std::fs::rename(&bucket, &away).unwrap();
            if in_its_place {
                std::fs::create_dir(&bucket).unwrap();
            }
            commit(&log, 50..60);
            shown(&log).await;
            let waits = tokio::time::timeout(Duration::from_millis(1500), archiver.push_all()).await;
            assert!(waits.is_err() || waits.is_ok_and(|pushed| pushed.is_err_and(|error| error.is_retryable())));
            let said = Archive::open(store.clone(), keys()).await.unwrap_err();
            assert!(matches!(said, Error::Store { .. }), "{said}");
            if in_its_place {
                assert_eq!(std::fs::read_dir(&bucket).unwrap().count(), 0);
                std::fs::remove_dir(&bucket).unwrap();
            }
            assert!(!bucket.exists());
            std::fs::rename(&away, &bucket).unwrap();
            assert_eq!(archiver.push_all().await.unwrap(), Lsn(59));
            log.close().unwrap();
            assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        }
    });
}
