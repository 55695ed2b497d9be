//! Evidence: the same small log after seven different misfortunes, and what opening it would say of
//! each.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use foreword::inspect::{self, Content};
use foreword::{Log, Verdict, View};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

// ANCHOR: crashed
/// A log of three commits, as a power failure leaves it: not closed. Each is a frame of one block,
/// 4 KiB.
fn crashed_log(dir: &Path) -> Result<()> {
    let living = tempfile::tempdir()?;
    let log = Log::options().segment_bytes(64 << 10).background(false).open(living.path())?;
    for i in 1..=3u8 {
        log.commit(&[i; 3000])?;
    }
    // A copy of the files of a running log is what a crash would have left of it now.
    copy(living.path(), dir)
}
// ANCHOR_END: crashed

fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

fn edit(dir: &Path, offset: u64, bytes: usize, change: impl FnOnce(&mut [u8])) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(dir.join("00000000000000000001.seg"))?;
    let mut buf = vec![0; bytes];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut buf)?;
    change(&mut buf);
    file.seek(SeekFrom::Start(offset))?;
    Ok(file.write_all(&buf)?)
}

// ANCHOR: frames
/// What stands in the first segment, place by place.
fn show(dir: &Path) -> Result<()> {
    for frame in inspect::frames(dir, 1)? {
        let frame = frame?;
        let what = match frame.content {
            Content::Header { .. } => "HEADER: which log, which segment".to_owned(),
            Content::Link { .. } => "LINK: what the segment follows".to_owned(),
            Content::Data { records, .. } => format!("DATA: record {}, {} bytes", records[0].lsn, records[0].bytes),
            other => format!("{other:?}"),
        };
        let promise = frame.promise.map(|p| format!("all before {} was durable, up to {}", p.offset, p.lsn));
        println!("{:>6}  {what:<34}  {}", frame.offset, promise.unwrap_or_default());
    }
    Ok(())
}
// ANCHOR_END: frames

const BLOCK: u64 = 4096;
const SECTOR: usize = 512;
/// Where the frames of the three records begin.
const FRAME: [u64; 3] = [2 * BLOCK, 3 * BLOCK, 4 * BLOCK];

/// Something that happens to the files.
type Misfortune = fn(&Path) -> Result<()>;

// ANCHOR: misfortunes
const MISFORTUNES: [(&str, Misfortune); 7] = [
    ("none: it just was not closed", |_| Ok(())),
    ("the last frame lacks a sector", |dir| edit(dir, FRAME[2] + 1024, SECTOR, |sector| sector.fill(0))),
    ("the last frame lacks its first sector", |dir| edit(dir, FRAME[2], SECTOR, |sector| sector.fill(0))),
    ("the last frame is not there at all", |dir| edit(dir, FRAME[2], BLOCK as usize, |block| block.fill(0))),
    ("the second frame lacks a sector", |dir| edit(dir, FRAME[1] + 1024, SECTOR, |sector| sector.fill(0))),
    ("a bit of the second frame is flipped", |dir| edit(dir, FRAME[1] + 1024, SECTOR, |sector| sector[9] ^= 4)),
    ("a bit of the last frame is flipped", |dir| edit(dir, FRAME[2] + 1024, SECTOR, |sector| sector[9] ^= 4)),
];
// ANCHOR_END: misfortunes

/// Runs the example.
pub fn main() -> Result<()> {
    let crashed = tempfile::tempdir()?;
    crashed_log(crashed.path())?;
    show(crashed.path())?;
    println!();
    // ANCHOR: judge
    let mut verdicts = Vec::new();
    for (what, happen) in MISFORTUNES {
        let dir = tempfile::tempdir()?;
        copy(crashed.path(), dir.path())?;
        happen(dir.path())?;
        let view = View::open(dir.path())?.recoverable()?; // what opening would return; changes nothing
        let verdict = match view.verdict() {
            Some(Verdict::Corruption(damage)) => {
                let sure = if damage.proven { "proven" } else { "possible" };
                format!("corruption, {sure} (row {})", damage.row())
            }
            Some(other) => other.name().to_owned(),
            None => return Err("nobody has it open".into()),
        };
        println!("{what:<38}  {verdict:<28}  readable: {}", view.last_lsn()?);
        verdicts.push((verdict, view.last_lsn()?.0));
    }
    // ANCHOR_END: judge
    let expected = [
        ("unclosed", 3),
        ("torn-tail", 2),
        ("torn-tail", 2),
        ("unclosed", 2),
        ("corruption, proven (row 6)", 1),
        ("corruption, proven (row 7)", 1),
        ("corruption, possible (row 8)", 2),
    ];
    assert!(verdicts.iter().map(|(verdict, last)| (verdict.as_str(), *last)).eq(expected), "{verdicts:?}");
    Ok(())
}
