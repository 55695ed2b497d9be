//! What an archive costs: how fast it pushes, a restore beside a plain download of the same objects,
//! and commits beside an archiver. Prints a line each; what is compared is measured in turns.
//!
//!     cargo run --release -p foreword-archive --example archive_bench -- DIR [ARCHIVE] [MIB] [PART]
//!
//! DIR: where the logs are made, and an archive (DIR/bucket) if none is named. What is made in DIR is
//! removed. MIB: how much is pushed and restored (512). PART: `restore` or `commits` alone.
#![allow(missing_docs)]

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use foreword::{Log, Lsn, Options};
use foreword_archive::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, path,
};
use foreword_archive::{Archive, Archiver, Atomicity, Keys, PushOptions, RestoreOptions, Store};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const THREADS: u64 = 8;
const ROUNDS: usize = 5;
const CELL: Duration = Duration::from_secs(4);
const DOWNLOADS: usize = 4;
/// Megabytes a second of links that are slower than this machine's loopback.
const LINKS: [u64; 2] = [125, 500];

/// Bytes that are half as long when compressed, as text and small integers are.
fn fill(record: &mut [u8], mut seed: u64) {
    for bytes in record.chunks_mut(8) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bits = (seed >> 32).to_le_bytes();
        bytes.copy_from_slice(&bits[..bytes.len()]);
    }
}

fn options() -> PushOptions {
    let mut options = PushOptions::default();
    (options.create, options.trust_store) = (true, true);
    options
}

/// As `object_store` has it, without the prefix, and the prefix.
fn inner(url: &str) -> Result<(Arc<dyn ObjectStore>, path::Path)> {
    let url = if url.contains("://") { url.to_owned() } else { format!("file://{url}") };
    let env = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let env = env.filter(|(name, _)| name.starts_with("aws_"));
    let (inner, prefix) = foreword_archive::object_store::parse_url_opts(&url.parse()?, env)?;
    Ok((inner.into(), prefix))
}

/// A store behind a link: what is read takes its time, one behind the other.
#[derive(Debug)]
struct Link {
    inner: Arc<dyn ObjectStore>,
    bytes_per_second: f64,
    free_at: Mutex<Instant>,
}

impl Link {
    /// When what takes so long is there.
    fn there(&self, takes: Duration) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + takes;
        *free_at
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} behind a link", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Link {
    async fn put_opts(&self, at: &path::Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &path::Path, options: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &path::Path, options: GetOptions) -> StoreResult<GetResult> {
        let got = self.inner.get_opts(at, options).await?;
        let takes = Duration::from_secs_f64((got.range.end - got.range.start) as f64 / self.bytes_per_second);
        tokio::time::sleep_until(self.there(takes).into()).await;
        Ok(got)
    }

    fn delete_stream(&self, at: BoxStream<'static, StoreResult<path::Path>>) -> BoxStream<'static, StoreResult<path::Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&path::Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&path::Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &path::Path, to: &path::Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Behind a link of so many megabytes a second, if it is not 0.
fn store(url: &str, link: u64) -> Result<(Store, Arc<dyn ObjectStore>)> {
    // (First: it chooses the cryptography of all clients.)
    let direct = Store::create(url)?;
    let (inner, prefix) = inner(url)?;
    let inner: Arc<dyn ObjectStore> = match prefix.as_ref() {
        "" => inner,
        _ => Arc::new(foreword_archive::object_store::prefix::PrefixStore::new(inner, prefix)),
    };
    let inner: Arc<dyn ObjectStore> = match link {
        0 => inner,
        _ => Arc::new(Link { inner, bytes_per_second: link as f64 * 1e6, free_at: Mutex::new(Instant::now()) }),
    };
    let store = match link {
        0 => direct,
        _ => Store::new(inner.clone(), url, Atomicity::Unknown("it is behind a link")),
    };
    Ok((store, inner))
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

/// The most memory that this process had so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// A process of its own does it, so that its memory is its own: seconds, and MiB.
fn apart(what: &str, dir: &Path, url: &str, link: u64) -> Result<(f64, u64)> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["--", what]).arg(dir).args([url, &link.to_string()]).output()?;
    let said = String::from_utf8(output.stdout)?;
    let (seconds, mib) = said.trim().split_once(' ').ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((seconds.parse()?, mib.parse()?))
}

async fn do_apart(what: &str, dir: &str, url: &str, link: u64) -> Result<()> {
    let (store, inner) = store(url, link)?;
    let objects: Vec<path::Path> = match what {
        "push" => Vec::new(),
        _ => {
            let archive = Archive::open(store.clone(), Keys::default()).await?;
            archive.timelines().flat_map(|timeline| &timeline.chunks).map(|chunk| chunk.name.as_str().into()).collect()
        }
    };
    let began = Instant::now();
    match what {
        "push" => {
            let mut archiver = Archiver::begin(dir, store, Keys::default(), options()).await?;
            archiver.push_all().await?;
        }
        "download" => {
            let download = stream::iter(objects).map(async |path| inner.get(&path).await?.bytes().await);
            let bytes: u64 = download.buffered(DOWNLOADS).map_ok(|b| b.len() as u64).try_fold(0, async |a, b| Ok(a + b)).await?;
            assert!(bytes > 0);
        }
        _ => {
            let mut options = RestoreOptions::default();
            options.downloads = DOWNLOADS;
            Archive::open(store, Keys::default()).await?.restore(dir, &options).await?;
        }
    }
    println!("{} {}", began.elapsed().as_secs_f64(), peak());
    Ok(())
}

/// As many bytes, written to a file and synced: what the disk alone takes for a log of them.
fn written(file: &Path, mib: u64) -> Result<f64> {
    use std::io::Write;
    let mut block = vec![0; 1 << 20];
    fill(&mut block, 1);
    let began = Instant::now();
    let mut to = std::fs::File::create(file)?;
    for _ in 0..mib {
        to.write_all(&block)?;
    }
    to.sync_data()?;
    let took = began.elapsed().as_secs_f64();
    std::fs::remove_file(file)?;
    Ok(took)
}

fn there_and_back(dir: &Path, url: &str, mib: u64) -> Result<()> {
    let (log, url) = (dir.join("pushed"), format!("{url}/pushed-{}", std::process::id()));
    let opened = Options::new().open(&log)?;
    let mut record = [0; 1024];
    let began = Instant::now();
    for n in 0..mib * 1024 {
        fill(&mut record, n);
        opened.append(record)?;
    }
    assert_eq!(opened.sync()?, Lsn(mib * 1024));
    opened.close()?;
    let appended = began.elapsed().as_secs_f64();
    let (pushed, memory) = apart("push", &log, &url, 0)?;
    let rate = |seconds: f64| mib as f64 / seconds;
    println!("pushed {mib} MiB: {:.0} MiB/s; memory {memory} MiB (a log alone appended {:.0})", rate(pushed), rate(appended));
    for link in [0].into_iter().chain(LINKS) {
        let (mut restores, mut ratios, mut disks, mut most) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for round in 0..ROUNDS {
            let (plain, _) = apart("download", dir, &url, link)?;
            let disk = written(&dir.join("written"), mib)?;
            let to = dir.join(format!("restored{round}"));
            let (restore, memory) = apart("restore", &to, &url, link)?;
            std::fs::remove_dir_all(to)?;
            restores.push(rate(restore));
            ratios.push(plain / restore);
            disks.push(plain.max(disk) / restore);
            most = most.max(memory);
        }
        let link = if link == 0 { "no link".to_owned() } else { format!("a link of {link} MB/s") };
        println!(
            "{link}: restored at {} MiB/s; memory {most} MiB; a plain download's time / a restore's: {}; \
             that of the slower of download and disk / a restore's: {}",
            spread(restores),
            spread(ratios),
            spread(disks)
        );
    }
    Ok(())
}

/// Commits by all threads for a while, each one when it is due, or as fast as they can: how many.
fn commits(log: &Arc<Log>, each: Option<Duration>) -> u64 {
    let (count, until) = (AtomicU64::new(0), Instant::now() + CELL);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, count) = (log.clone(), &count);
            scope.spawn(move || {
                let (mut record, mut due) = ([0; 1024], Instant::now());
                while Instant::now() < until {
                    if let Some(each) = each {
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        due += each * THREADS as u32;
                    }
                    let n = count.fetch_add(1, Ordering::Relaxed);
                    fill(&mut record, n ^ thread << 56);
                    if log.commit(record).is_err() {
                        return;
                    }
                }
            });
        }
    });
    count.into_inner()
}

/// Seconds of the processors, of this process and of the whole machine.
fn busy() -> (f64, f64) {
    let ticks = |path: &str, skip: usize, take: usize, after: char| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let words = line.rsplit(after).next().unwrap_or_default().split_whitespace().skip(skip).take(take);
        words.filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / 100.0
    };
    (ticks("/proc/self/stat", 11, 2, ')'), ticks("/proc/stat", 1, 3, '\n') + ticks("/proc/stat", 6, 2, '\n'))
}

async fn beside(dir: &Path, url: &str) -> Result<()> {
    let log = Arc::new(Options::new().open(dir.join("beside"))?);
    log.commit("the first")?;
    let measure = async |each: Option<Duration>| {
        let log = log.clone();
        tokio::task::spawn_blocking(move || commits(&log, each)).await
    };
    let all = measure(None).await?;
    let each = CELL * 2 / all as u32;
    let (store, _) = store(&format!("{url}/beside-{}", std::process::id()), 0)?;
    let (mut ratios, mut cost) = (Vec::new(), [(0.0, 0.0); 2]);
    for _ in 0..ROUNDS {
        let mut counts = [0; 2];
        for archived in [false, true] {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let archiving = match archived {
                false => None,
                true => {
                    // What has gathered meanwhile is not what is measured.
                    let mut archiver = Archiver::begin(dir.join("beside"), store.clone(), Keys::default(), options()).await?;
                    archiver.push_all().await?;
                    Some(tokio::spawn(async move {
                        let stopped = async {
                            while !stopped.load(Ordering::Relaxed) {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                        };
                        archiver.run(stopped).await
                    }))
                }
            };
            let before = busy();
            counts[usize::from(archived)] = measure(Some(each)).await?;
            let (mine, machine) = busy();
            let cost = &mut cost[usize::from(archived)];
            *cost = (cost.0 + mine - before.0, cost.1 + machine - before.1);
            stop.store(true, Ordering::Relaxed);
            if let Some(archiving) = archiving {
                archiving.await??;
            }
        }
        ratios.push(counts[1] as f64 / counts[0] as f64);
    }
    let rate = all as f64 / CELL.as_secs_f64();
    println!(
        "commits of 1 KiB, {THREADS} threads: {rate:.0}/s at most; at half of that, beside an archiver / alone: {}",
        spread(ratios)
    );
    let share = |seconds: f64| seconds / (ROUNDS as f64 * CELL.as_secs_f64());
    let [alone, with] = cost;
    println!(
        "processors busy: {:.2} of this process and {:.2} in all, alone; {:.2} and {:.2} beside an archiver",
        share(alone.0),
        share(alone.1),
        share(with.0),
        share(with.1)
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let word = |n: usize| args.get(n).map(String::as_str);
    if let (Some("--"), Some(what), Some(dir), Some(url), Some(link)) = (word(0), word(1), word(2), word(3), word(4)) {
        return do_apart(what, dir, url, link.parse()?).await;
    }
    let base = PathBuf::from(word(0).ok_or("where are the logs to be made?")?);
    let dir = base.join(format!("archive-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let url = word(1).map_or_else(|| dir.join("bucket").to_string_lossy().into_owned(), str::to_owned);
    let mib = word(2).map_or(Ok(512), str::parse)?;
    let measured = async {
        if word(3) != Some("commits") {
            there_and_back(&dir, &url, mib)?;
        }
        if word(3) != Some("restore") {
            beside(&dir, &url).await?;
        }
        Ok(())
    };
    let measured = measured.await;
    std::fs::remove_dir_all(&dir)?;
    measured
}
