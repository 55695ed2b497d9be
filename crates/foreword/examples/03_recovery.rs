//! Reading with recovery: a tail that a crash has torn is cut and nothing acknowledged is lost; a
//! flipped bit does not count as a torn write.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use foreword::{Error, Log, Lsn, View};

fn edit(dir: &Path, offset: u64, change: impl FnOnce(&mut [u8])) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(dir.join("00000000000000000001.seg"))?;
    let mut sector = [0; 512];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut sector)?;
    change(&mut sector);
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&sector)
}

/// A log with three commits of 4 KiB and more, left as a power failure would leave it: not closed.
fn crashed_log(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let original = tempfile::tempdir()?;
    let log = Log::options().segment_bytes(64 << 10).background(false).open(original.path())?;
    for i in 1..=3u8 {
        log.commit(&[i; 5000])?; // each is a frame of two blocks, from byte 8192 on
    }
    for file in std::fs::read_dir(original.path())? {
        let file = file?;
        std::fs::copy(file.path(), dir.join(file.file_name()))?;
    }
    Ok(())
}

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    // ANCHOR: torn
    // The power failed while the last frame was being written: one of its sectors
    // never reached the disk.
    let torn = tempfile::tempdir()?;
    crashed_log(torn.path())?;
    edit(torn.path(), 8192 + 2 * 8192 + 4096, |sector| sector.fill(0))?;
    let view = View::open(torn.path())?.recoverable()?; // changes nothing: shows what recovery would return
    println!("torn tail: verdict {:?}, {} records readable", view.verdict(), view.last_lsn()?);
    let log = Log::open(torn.path())?; // opens by itself
    assert_eq!(log.last_lsn(), Lsn(2));
    log.commit(b"and goes on")?;
    println!("recovered: {:?}", log.iter(Lsn::ZERO).map(|r| r.map(|r| r.data.len())).collect::<Result<Vec<_>, _>>()?);
    // ANCHOR_END: torn

    // ANCHOR: rotten
    // The same place, but a flipped bit: no crash does that, and the next frame says
    // that this one was durable.
    let rotten = tempfile::tempdir()?;
    crashed_log(rotten.path())?;
    edit(rotten.path(), 8192 + 8192 + 4096, |sector| sector[100] ^= 1)?;
    match Log::open(rotten.path()) {
        Err(Error::Corruption(damage)) => println!("flipped bit: {damage}"),
        other => return Err(format!("a flipped bit went unnoticed: {other:?}").into()),
    }
    // ANCHOR_END: rotten
    Ok(())
}
