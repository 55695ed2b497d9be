//! Where it happens: a new directory, and in it, if asked for, a file system of its own that is
//! nearly full. Nothing else is touched.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::exit::Failure;
use crate::noise::Noise;

/// Large enough for the log, small enough to be filled in no time.
const DISK_BYTES: u64 = 32 << 20;

/// Removed when it goes, unless it is to be kept.
pub(super) struct Place {
    dir: PathBuf,
    disk: Option<PathBuf>,
    kept: bool,
}

impl Place {
    /// Makes a directory in another; if asked for, with a file system in it.
    pub(super) fn make(parent: &Path, seed: u64, full_disk: bool) -> Result<Place, Failure> {
        let dir = parent.join(format!("foreword-chaos-{}-{seed}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|e| Failure::Wrong(format!("cannot make the directory {}: {e}", dir.display())))?;
        let mut place = Place { dir, disk: None, kept: false };
        if full_disk {
            place.mount()?;
        }
        Ok(place)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the log is.
    pub(super) fn log(&self) -> PathBuf {
        self.disk.as_ref().unwrap_or(&self.dir).join("log")
    }

    /// Where the writer goes that has opened the log by a relative path: a directory in which there
    /// is an empty one of the log's name.
    pub(super) fn elsewhere(&self) -> Result<PathBuf, Failure> {
        let elsewhere = self.dir.join("elsewhere");
        let made = std::fs::create_dir_all(elsewhere.join("log")).and_then(|()| elsewhere.canonicalize());
        made.map_err(Failure::io("make another directory"))
    }

    /// Where a copy of the log is put before anything may change it.
    pub(super) fn copy(&self) -> PathBuf {
        self.dir.join("log-as-killed")
    }

    /// What else fills the disk.
    pub(super) fn ballast(&self, seed: u64) -> Option<Ballast> {
        let path = self.disk.as_ref()?.join("ballast");
        Some(Ballast { path, noise: Noise(seed), next: Instant::now() })
    }

    /// Leaves all as it is: evidence.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    fn mount(&mut self) -> Result<(), Failure> {
        let (image, disk) = (self.dir.join("disk.img"), self.dir.join("disk"));
        let made = File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).and_then(|()| std::fs::create_dir(&disk));
        made.map_err(Failure::io("make the file for a file system"))?;
        // No share of the room is kept for root, which this process runs as.
        tool("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-m".as_ref(), "0".as_ref(), &image])?;
        tool("mount", &["-o".as_ref(), "loop".as_ref(), &image, &disk])?;
        self.disk = Some(disk);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // (The loop device goes with the mount.)
        if let Some(disk) = self.disk.take()
            && let Err(failure) = tool("umount", &[&disk])
        {
            crate::output::note(format_args!("{} is still mounted: {failure}", disk.display()));
            return;
        }
        if !self.kept
            && let Err(e) = std::fs::remove_dir_all(&self.dir)
        {
            crate::output::note(format_args!("cannot remove {}: {e}", self.dir.display()));
        }
    }
}

/// Runs a program of the system that only root can make do its work.
fn tool(name: &str, args: &[&Path]) -> Result<(), Failure> {
    const NEEDS: &str =
        "--full-disk mounts a small file system: it needs Linux, root, mkfs.ext4 (e2fsprogs), mount, and a loop device";
    let why = match Command::new(name).args(args).output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")),
        Err(e) => format!("{name} cannot be run: {e}"),
    };
    Err(Failure::Wrong(format!("{NEEDS}. Here, {why}")))
}

/// The name that a log's directory has while it is renamed.
pub(super) fn aside(log: &Path) -> PathBuf {
    log.with_file_name("log-renamed")
}

/// Copies the plain files of one directory to another, which is made anew.
pub(super) fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(to) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => std::fs::create_dir(to)?,
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// A file that grows until the disk is full, and shrinks, as its moments come.
pub(super) struct Ballast {
    path: PathBuf,
    noise: Noise,
    next: Instant,
}

impl Ballast {
    /// Fills the disk or makes some room, if it is time to.
    pub(super) fn stir(&mut self) -> Result<(), Failure> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + Duration::from_millis(self.noise.below(60));
        match self.noise.below(2) {
            0 => self.fill(),
            _ => {
                let room = self.noise.below(2 << 20);
                self.free(room)
            }
        }
    }

    /// Takes all room there is.
    pub(super) fn fill(&mut self) -> Result<(), Failure> {
        let mut file = File::options().create(true).append(true).open(&self.path).map_err(Failure::io("open the ballast"))?;
        for size in [1 << 20, 4096] {
            let zeros = vec![0; size];
            loop {
                match file.write(&zeros) {
                    Ok(n) if n > 0 => {}
                    Ok(_) => break,
                    Err(e) if e.kind() == ErrorKind::StorageFull => break,
                    Err(e) => return Err(Failure::io("fill the disk")(e)),
                }
            }
        }
        Ok(())
    }

    /// Frees this much space.
    pub(super) fn free(&mut self, bytes: u64) -> Result<(), Failure> {
        let file = match File::options().write(true).open(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(Failure::io("open the ballast"))?,
        };
        let shrunk = file.metadata().and_then(|m| file.set_len(m.len().saturating_sub(bytes)));
        shrunk.map_err(Failure::io("shrink the ballast"))
    }
}
