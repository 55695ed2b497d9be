//! Makes inputs to begin with, in `fuzz/found`: of the golden logs, and of a log whose records span
//! segments.

use std::fs;
use std::io;
use std::path::Path;

use foreword::{Error, Log, Options, SyncPolicy};
use foreword_fuzz::forge::{BLOCK, Files, epoch_of};
use foreword_fuzz::{oracle::DIR, recipe};
use foreword_sim::SimDisk;

/// Larger ones hold a fuzzer up.
const BYTES_MAX: usize = 8 << 10;

fn main() -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let keep = |target: &str, name: &str, input: &[u8]| {
        let dir = fuzz.join("found").join(target);
        fs::create_dir_all(&dir)?;
        if input.len() <= BYTES_MAX { fs::write(dir.join(name), input) } else { Ok(()) }
    };
    for entry in fs::read_dir(fuzz.join("../crates/foreword-tests/tests/golden"))? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))?;
        if path.is_dir() {
            let files = read(&path)?;
            keep_log(&files, &name, &keep)?;
        }
    }
    keep_log(&spanning().map_err(io::Error::other)?, "spanning-zeros", &keep)?;
    for (i, text) in [
        "one\n\ntwo",
        "00ff\n\nab",
        "\"a\\n\\u00e9\"\n{\"data\":\"x\"}\n{\"hex\":\"00ff\"}",
        "\x02\0\0\0ab\0\0\0\0",
        "64KiB",
        "1.5s",
    ]
    .iter()
    .enumerate()
    {
        for format in 0..4 {
            keep("input", &format!("{i}-{format}"), &[&[format, 200, 3], text.as_bytes()].concat())?;
        }
    }
    (0..8u8).try_for_each(|i| keep("options", &format!("pattern-{i}"), &[i, 0, 0, 1, i].repeat(30)))
}

/// Keeps an input of a target under a name.
type Keep<'a> = dyn Fn(&str, &str, &[u8]) -> io::Result<()> + 'a;

/// The log as it is, opened for each kind of work; and each of its segments.
fn keep_log(files: &Files, name: &str, keep: &Keep<'_>) -> io::Result<()> {
    for work in [0, 7, 15] {
        for action in 0..3 {
            keep("directory", &format!("{name}-{action}-{work}"), &[vec![action << 4 | work], recipe::of(files)].concat())?;
        }
    }
    for segment in files.keys().filter(|name| epoch_of(name).is_some()) {
        let mut alone = files.clone();
        alone.retain(|name, _| name == segment || epoch_of(name).is_none());
        let whole = recipe::of(&alone);
        keep("segment", &format!("{name}-{segment}"), &whole)?;
        // Damage behind the sealing, where the first records are.
        let damaged = [&whole[..], &recipe::bytes_at(2 * BLOCK + 72, b"damaged!")].concat();
        keep("segment", &format!("{name}-{segment}-damaged"), &damaged)?;
    }
    Ok(())
}

fn read(dir: &Path) -> io::Result<Files> {
    fs::read_dir(dir)?
        .map(|entry| entry.and_then(|e| Ok((e.file_name().to_string_lossy().into_owned(), fs::read(e.path())?))))
        .collect()
}

/// Records of zeros, which take no room in an input.
fn spanning() -> Result<Files, Error> {
    let disk = SimDisk::new(1);
    let log: Log =
        Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual()).disk(disk.handle()).open(DIR)?;
    log.commit(&[0; 100_000])?;
    log.commit_batch(&[vec![0; 30_000], vec![], vec![0; 50_000]])?;
    log.close()?;
    let contents = disk.files().into_iter().filter_map(|(path, len)| {
        let name = path.strip_prefix(DIR).ok()?.to_str()?.to_owned();
        Some((name, disk.peek(&path, 0, len as usize)?))
    });
    Ok(contents.collect())
}
