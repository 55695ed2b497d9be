//! A directory's files, in the page cache and on the disk.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;

/// Reads every file once, so that the page cache has it.
pub fn warm(dir: &Path) -> Result<()> {
    let mut buf = vec![0; 1 << 20];
    each_file(dir, &mut |mut file| {
        while file.read(&mut buf)? > 0 {}
        Ok(())
    })
}

/// Makes the page cache forget every file.
pub fn chill(dir: &Path) -> Result<()> {
    each_file(dir, &mut |file| {
        file.sync_all()?; // It forgets only what is on the disk.
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    })
}

fn each_file(dir: &Path, what: &mut dyn FnMut(File) -> Result<()>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { each_file(&path, what)? } else { what(File::open(path)?)? }
    }
    Ok(())
}

/// Waits until the file system has written all that it has.
pub fn sync_file_system(dir: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
}
