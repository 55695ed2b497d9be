//! What an archive costs: commits beside an archiver, how fast it pushes, and a restore beside a plain
//! download of the same objects. Prints a table; each pair is measured in turns.
//!
//! cargo run --release -p foreword-archive --example archive_bench -- DIR [ARCHIVE] [MIB]
//!
//! DIR: where the logs are made, and an archive (DIR/bucket) if none is named. What is made is
//! removed. MIB: how much is pushed and restored (512).
#![allow(missing_docs)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foreword::{Log, Lsn, Options};
use foreword_archive::object_store::ObjectStoreExt;
use foreword_archive::{Archive, Archiver, Keys, PushOptions, RestoreOptions, Store};
use futures_util::{StreamExt, TryStreamExt, stream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const THREADS: u64 = 8;
const ROUNDS: usize = 6;
const CELL: Duration = Duration::from_secs(3);

/// Bytes that are half as long when compressed, as text and small integers are.
fn fill(record: &mut [u8], mut seed: u64) {
    for bytes in record.chunks_mut(8) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bits = (seed >> 32).to_le_bytes();
        bytes.copy_from_slice(&bits[..bytes.len()]);
    }
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

fn options() -> PushOptions {
    let mut options = PushOptions::default();
    (options.create, options.trust_store) = (true, true);
    options
}

fn store(url: &str, name: &str) -> Result<Store> {
    Ok(Store::create(&format!("{url}/{name}-{}", std::process::id()))?)
}

async fn beside(dir: &Path, url: &str) -> Result<()> {
    let log = Arc::new(Options::new().open(dir.join("beside"))?);
    log.commit("the first")?;
    let all = {
        let log = log.clone();
        tokio::task::spawn_blocking(move || commits(&log, None)).await?
    };
    let each = CELL * 2 / all as u32;
    let store = store(url, "beside")?;
    let (mut alone, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for archived in [false, true] {
            let stop = Arc::new(AtomicBool::new(false));
            let archiving = archived.then(|| {
                let (dir, store, stop) = (dir.join("beside"), store.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut archiver = Archiver::begin(dir, store, Keys::default(), options()).await?;
                    let stopped = async {
                        while !stop.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    };
                    archiver.run(stopped).await
                })
            });
            let log = log.clone();
            let done = tokio::task::spawn_blocking(move || commits(&log, Some(each))).await?;
            if archived {
                with.push(done)
            } else {
                alone.push(done)
            }
            stop.store(true, Ordering::Relaxed);
            if let Some(archiving) = archiving {
                archiving.await??;
            }
        }
    }
    let ratios: Vec<_> = with.iter().zip(&alone).map(|(with, alone)| *with as f64 / *alone as f64).collect();
    let rate = all as f64 / CELL.as_secs_f64();
    println!(
        "commits of 1 KiB, {THREADS} threads: {rate:.0}/s at most; at half of that, beside an archiver / alone: {}",
        spread(ratios)
    );
    Ok(())
}

fn spread(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1])
}

/// The most memory that this process had so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

async fn there_and_back(dir: &Path, url: &str, mib: u64) -> Result<()> {
    let log = Options::new().open(dir.join("pushed"))?;
    let mut record = [0; 1024];
    let began = Instant::now();
    for n in 0..mib * 1024 {
        fill(&mut record, n);
        log.append(record)?;
    }
    log.close()?;
    let appended = began.elapsed();
    let before = peak();
    let store = store(url, "pushed")?;
    let mut archiver = Archiver::begin(dir.join("pushed"), store.clone(), Keys::default(), options()).await?;
    let began = Instant::now();
    let last = archiver.push_all().await?;
    let rate = |took: Duration| mib as f64 / took.as_secs_f64();
    println!(
        "pushed {mib} MiB: {:.0} MiB/s (appended at {:.0}); memory {} MiB, {before} before",
        rate(began.elapsed()),
        rate(appended),
        peak()
    );
    assert_eq!(last, Lsn(mib * 1024));
    let mut archive = Archive::open(store, Keys::default()).await?;
    let objects = objects(url, &archive).await?;
    let mut ratios = Vec::new();
    for round in 0..3 {
        let began = Instant::now();
        let download = stream::iter(objects.0.clone()).map(async |path| objects.1.get(&path).await?.bytes().await);
        let bytes: u64 = download.buffered(4).map_ok(|bytes| bytes.len() as u64).try_fold(0, async |sum, n| Ok(sum + n)).await?;
        let plain = began.elapsed();
        let to = dir.join(format!("restored{round}"));
        let began = Instant::now();
        archive.restore(&to, &RestoreOptions::default()).await?;
        ratios.push(plain.as_secs_f64() / began.elapsed().as_secs_f64());
        if round == 0 {
            println!(
                "restored at {:.0} MiB/s; a plain download of its {} MiB took {plain:.1?}",
                rate(began.elapsed()),
                bytes >> 20
            );
        }
        std::fs::remove_dir_all(to)?;
    }
    println!("a plain download's time / a restore's: {}; memory {} MiB", spread(ratios), peak());
    Ok(())
}

type Objects = (Vec<foreword_archive::object_store::path::Path>, Arc<dyn foreword_archive::object_store::ObjectStore>);

/// The chunks, and the store as `object_store` has it.
async fn objects(url: &str, archive: &Archive) -> Result<Objects> {
    let url = if url.contains("://") { url.to_owned() } else { format!("file://{url}") };
    let env = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let env = env.filter(|(name, _)| name.starts_with("aws_"));
    let (inner, prefix) = foreword_archive::object_store::parse_url_opts(&url.parse()?, env)?;
    let of = format!("pushed-{}", std::process::id());
    let chunks = archive.timelines().flat_map(|timeline| &timeline.chunks);
    let path = |name: &str| format!("{prefix}/{of}/{name}").into();
    Ok((chunks.map(|chunk| path(&chunk.name)).collect(), inner.into()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let base = PathBuf::from(args.next().ok_or("where are the logs to be made?")?);
    let dir = base.join(format!("archive-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let url = args.next().unwrap_or_else(|| dir.join("bucket").to_string_lossy().into_owned());
    let mib = args.next().map_or(Ok(512), |mib| mib.parse())?;
    let measured = async {
        there_and_back(&dir, &url, mib).await?;
        beside(&dir, &url).await
    };
    let measured = measured.await;
    std::fs::remove_dir_all(&dir)?;
    measured
}
