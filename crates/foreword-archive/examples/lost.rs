//! A disk is lost, and a mistake is undone: a log is archived, its directory deleted, and the log
//! restored, to its end and to ten seconds before. The archive is a directory, and needs no server.
//! `cargo run -p foreword-archive --example lost`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use foreword::{Lsn, Options, View};
use foreword_archive::{Archive, Archiver, Keys, PushOptions, RestoreOptions, Store, Target};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The second in which a record was written.
fn second(n: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + n)
}

/// A record a second. Of thirty, the last ten are a mistake.
fn write(dir: &Path) -> Result<()> {
    let log = Options::new().segment_bytes(1 << 20).open(dir)?;
    for n in 1..=30 {
        let record = if n <= 20 { format!("open account {n}") } else { format!("close account {}", n - 20) };
        // (So that this program need not take half a minute, it says itself when each was written.)
        log.append_copies(Lsn(n), [(second(n), record)])?;
    }
    Ok(log.close()?)
}

// ANCHOR: push
/// Archives all that is durable in the log.
async fn push(dir: &Path, url: &str) -> Result<Lsn> {
    let mut options = PushOptions::default();
    options.create = true;
    let mut archiver = Archiver::begin(dir, Store::create(url)?, Keys::default(), options).await?;
    Ok(archiver.push_all().await?)
}
// ANCHOR_END: push

// ANCHOR: restore
/// Makes an ordinary log of what there was.
async fn restore(url: &str, dir: &Path, to: Target) -> Result<()> {
    let mut options = RestoreOptions::default();
    options.to = to;
    let mut archive = Archive::open(Store::open(url)?, Keys::default()).await?;
    archive.restore(dir, &options).await?;
    Ok(())
}
// ANCHOR_END: restore

fn say(what: &str, dir: &Path) -> Result<()> {
    let view = View::open(dir)?;
    let last = view.last_lsn()?;
    println!("{what}: records {} to {last}, the last is \"{}\"", view.start_lsn(), String::from_utf8(view.get(last)?)?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let tmp = tempfile::tempdir()?;
    let (log, before) = (tmp.path().join("log"), tmp.path().join("before"));
    let url = format!("file://{}", tmp.path().join("archive").display());

    write(&log)?;
    say("a log", &log)?;
    println!("archived up to {}", push(&log, &url).await?);

    // ANCHOR: lost
    std::fs::remove_dir_all(&log)?; // The disk is lost.
    restore(&url, &log, Target::Latest).await?;
    say("restored", &log)?;

    let micros = second(30 - 10).duration_since(SystemTime::UNIX_EPOCH)?.as_micros() as u64;
    restore(&url, &before, Target::Time(micros)).await?;
    say("ten seconds before", &before)?;
    // ANCHOR_END: lost

    // ANCHOR: goes_on
    let log = Options::new().open(&before)?;
    log.commit("open account 21")?;
    log.close()?;
    push(&before, &url).await?;
    let archive = Archive::open(Store::open(&url)?, Keys::default()).await?;
    for timeline in archive.timelines() {
        println!("timeline {}: {}, up to {}", timeline.id, timeline.reason, timeline.last);
    }
    // ANCHOR_END: goes_on
    Ok(())
}
