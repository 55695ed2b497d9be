//! Loop devices, file systems, mounts: what needs root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount as unmount_call};

/// A file system of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    /// A small disk that it still takes.
    pub(crate) fn disk_bytes(self) -> u64 {
        let mebibytes = match self {
            Kind::Ext4 => 128,
            Kind::Xfs => 320,
            Kind::Btrfs => 256,
        };
        mebibytes << 20
    }

    /// Makes one on a device, all of it at once and nothing lazily.
    pub(crate) fn make(self, device: &Path) -> Result<()> {
        let options: &[&str] = match self {
            Kind::Ext4 => &["-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
            Kind::Xfs | Kind::Btrfs => &["-q", "-f", "-K"],
        };
        run(Command::new(format!("mkfs.{}", self.name())).args(options).arg(device)).map(drop)
    }
}

/// Runs a command: what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}): {}", output.status, told.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A loop device on a file. Dropping it detaches it.
pub(crate) struct Loop {
    pub(crate) device: PathBuf,
}

impl Loop {
    /// Direct: several requests at once.
    pub(crate) fn attach(file: &Path) -> Result<Loop> {
        let device = run(Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(file))?;
        Ok(Loop { device: device.into() })
    }

    /// Forgets what the page cache holds of the device: the file has changed.
    pub(crate) fn forget(&self) -> Result<()> {
        run(Command::new("blockdev").arg("--flushbufs").arg(&self.device)).map(drop)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("losetup").arg("--detach").arg(&self.device)) {
            eprintln!("{error:#}");
        }
    }
}

/// A mounted file system. Dropping it unmounts it.
pub(crate) struct Mount {
    /// `None` once it is unmounted.
    dir: Option<PathBuf>,
}

impl Mount {
    /// Mounts a device: the kernel replays its journal.
    pub(crate) fn new(kind: Kind, device: &Path, dir: &Path) -> std::io::Result<Mount> {
        std::fs::create_dir_all(dir)?;
        mount(device, dir, kind.name(), MountFlags::NOATIME, None)?;
        Ok(Mount { dir: Some(dir.to_owned()) })
    }

    pub(crate) fn end(mut self) -> Result<()> {
        unmount(&self.dir.take().context("it is mounted")?)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take()
            && let Err(error) = unmount(&dir)
        {
            eprintln!("{error:#}");
        }
    }
}

/// Unmounts a directory; waits a while if it is still used.
pub(crate) fn unmount(dir: &Path) -> Result<()> {
    let started = Instant::now();
    loop {
        match unmount_call(dir, UnmountFlags::empty()) {
            Err(Errno::BUSY) if started.elapsed() < Duration::from_secs(10) => std::thread::sleep(Duration::from_millis(2)),
            done => return done.with_context(|| format!("cannot unmount {}", dir.display())),
        }
    }
}
