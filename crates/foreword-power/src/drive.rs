//! A disk as a file in user space, which records what is asked of it; and how the campaign speaks
//! with it.
//!
//! A process of its own serves a directory with three files: `disk`, which a loop device turns into
//! a disk; `notes`, where users of the disk write what they know, in the same order as their
//! writes; `control`, by which recordings are begun, kept, and turned into the disk after a power
//! failure.
//!
//! The disk answers writes late, in any order, and several at once; a flush covers what had been
//! answered when it was asked for, as the block layer's contract says. A loop device has no FUA:
//! the kernel turns it into a write and a flush.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr,
    ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request, WriteFlags,
};

use crate::image::Image;
use crate::machine::unmount;
use crate::recording::{Data, Failure, Recording};

const FILES: [&str; 3] = ["disk", "notes", "control"];
const DISK: INodeNo = INodeNo(2);
const NOTES: INodeNo = INodeNo(3);
const CONTROL: INodeNo = INodeNo(4);

/// Requests that are served at once.
const THREADS: usize = 4;
/// While it is recorded, the disk takes up to so long for a write or a flush.
const SLOWNESS: Duration = Duration::from_micros(60);
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// How many recordings can be kept: one of the work, and one of what the last check did.
const SHELVES: usize = 2;

struct Drive {
    /// What is read.
    live: Image,
    /// What was asked since it was begun.
    recording: Recording,
    kept: [Option<Recording>; SHELVES],
    slow: bool,
    answer: String,
}

struct Server {
    drive: Mutex<Drive>,
    bytes: u64,
}

/// Serves a disk of zeros in a directory until that is unmounted.
pub(crate) fn serve(dir: &Path, bytes: u64) -> Result<()> {
    let live = Image::new(bytes);
    let drive = Drive { recording: Recording::new(live.clone()), live, kept: [None, None], slow: false, answer: String::new() };
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    fuser::mount(Server { drive: Mutex::new(drive), bytes }, dir, &config)
        .with_context(|| format!("cannot serve a disk in {}", dir.display()))
}

impl Drive {
    /// Does what `control` is told.
    fn command(&mut self, command: &str) -> Result<String> {
        let (name, rest) = command.trim().split_once(' ').unwrap_or((command.trim(), ""));
        let numbers = rest.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().context("numbers")?;
        let number = |i: usize| numbers.get(i).copied().with_context(|| format!("{name} needs more numbers"));
        let shelf = number(0).unwrap_or(0) as usize % SHELVES;
        match name {
            // What is on the disk now is what is sure.
            "begin" => {
                self.recording = Recording::new(self.live.clone());
                self.slow = true;
                Ok(String::new())
            }
            "keep" => {
                let next = Recording::new(self.live.clone());
                self.kept[shelf] = Some(std::mem::replace(&mut self.recording, next));
                self.slow = false;
                Ok(String::new())
            }
            "points" => Ok(lines(self.shelf(shelf)?.pending_by_point())),
            "notes" => Ok(lines(self.shelf(shelf)?.notes().map(|(point, note)| format!("{point} {note}")))),
            "fail" => {
                let [point, lies, torn] = [number(1)? as usize, number(2)? as usize, number(3)? as usize];
                let state = self.shelf(shelf)?.state(&Failure { point, lies, torn, seed: number(4)? });
                self.recording = Recording::new(state.image.clone());
                self.live = state.image;
                Ok(state.pending.to_string())
            }
            _ => bail!("no such command: {name}"),
        }
    }

    fn shelf(&mut self, shelf: usize) -> Result<&mut Recording> {
        self.kept[shelf].as_mut().context("nothing is kept there")
    }

    fn write(&mut self, offset: u64, data: Data) -> usize {
        match &data {
            Data::Bytes(bytes) => self.live.write(offset, bytes),
            Data::Zeros(len) => self.live.zero(offset, *len),
        }
        self.recording.write(offset, data)
    }
}

fn lines<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string() + "\n").collect()
}

impl Server {
    fn drive(&self) -> MutexGuard<'_, Drive> {
        self.drive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As long as a slow disk takes.
    fn dawdle(slow: bool) {
        if slow {
            std::thread::sleep(SLOWNESS.mul_f64(fastrand::f64()));
        }
    }

    fn within(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.bytes)
    }

    /// Writes, and if asked flushes, before it returns.
    fn write_disk(&self, offset: u64, data: Data, durable: bool) {
        let mut drive = self.drive();
        let (number, slow) = (drive.write(offset, data), drive.slow);
        drop(drive);
        Server::dawdle(slow);
        self.drive().recording.answer(number);
        if durable {
            self.flush_disk();
        }
    }

    fn flush_disk(&self) {
        let drive = self.drive();
        let (asked, slow) = (drive.recording.len(), drive.slow);
        drop(drive);
        Server::dawdle(slow);
        self.drive().recording.flush(asked);
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let dir = ino == INodeNo::ROOT;
        let size = if ino == DISK { self.bytes } else { 0 };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if dir { FileType::Directory } else { FileType::RegularFile },
            perm: if dir { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The kernel's flags of a file or a write whose user wants it durable.
fn wants_durable(flags: OpenFlags) -> bool {
    let dsync = rustix::fs::OFlags::DSYNC.bits() as i32;
    flags.0 & dsync != 0
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match FILES.iter().position(|file| parent == INodeNo::ROOT && name == *file) {
            Some(index) => reply.entry(&FOREVER, &self.attr(INodeNo(index as u64 + 2)), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attr(ino));
    }

    /// Past the page cache: what is asked of the files is asked here.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let drive = self.drive();
        match ino {
            DISK => reply.data(&drive.live.read(offset, size as usize)),
            CONTROL => {
                let answer = drive.answer.as_bytes();
                let from = answer.len().min(offset as usize);
                reply.data(&answer[from..answer.len().min(from + size as usize)]);
            }
            _ => reply.error(Errno::EACCES),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match ino {
            DISK if self.within(offset, data.len() as u64) => {
                self.write_disk(offset, Data::Bytes(data.into()), wants_durable(flags))
            }
            DISK => return reply.error(Errno::ENOSPC),
            NOTES => String::from_utf8_lossy(data).lines().for_each(|note| self.drive().recording.note(note)),
            CONTROL => {
                let mut drive = self.drive();
                match drive.command(&String::from_utf8_lossy(data)) {
                    Ok(answer) => drive.answer = answer,
                    Err(_) => return reply.error(Errno::EINVAL),
                }
            }
            _ => return reply.error(Errno::EACCES),
        }
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if ino == DISK {
            self.flush_disk();
        }
        reply.ok();
    }

    /// Zeroing and giving blocks back: zeros either way.
    fn fallocate(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, length: u64, _: i32, reply: ReplyEmpty) {
        if ino != DISK || !self.within(offset, length) {
            return reply.error(Errno::EINVAL);
        }
        self.write_disk(offset, Data::Zeros(length as usize), false);
        reply.ok();
    }

    /// On close: the kernel then asks no more.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}

/// A disk that another process serves. Dropping it ends that.
pub(crate) struct Remote {
    dir: PathBuf,
    server: Child,
}

impl Remote {
    /// Starts to serve a disk of zeros in an empty directory.
    pub(crate) fn start(dir: &Path, bytes: u64) -> Result<Remote> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        // In a group of its own: it is to outlive Ctrl-C until nobody needs it.
        let server = command
            .arg("serve")
            .arg(dir)
            .arg(bytes.to_string())
            .process_group(0)
            .spawn()
            .context("cannot start the disk's process")?;
        let mut remote = Remote { dir: dir.to_owned(), server };
        let started = Instant::now();
        while !remote.file().exists() {
            if let Some(status) = remote.server.try_wait()? {
                bail!("the disk's process ended ({status}): is there a /dev/fuse, and is this root?");
            }
            ensure!(started.elapsed() < Duration::from_secs(10), "the disk's process does not get ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(remote)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(FILES[0])
    }

    pub(crate) fn notes(&self) -> PathBuf {
        self.dir.join(FILES[1])
    }

    fn ask(&self, command: &str) -> Result<String> {
        let path = self.dir.join(FILES[2]);
        let ask = || -> std::io::Result<String> {
            let mut control = std::fs::File::options().read(true).write(true).open(path)?;
            control.write_all(command.as_bytes())?;
            // The answer is read from its beginning, wherever the command ended.
            std::io::Seek::rewind(&mut control)?;
            let mut answer = String::new();
            control.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().with_context(|| format!("the disk does not `{command}`"))
    }

    /// From here on what is asked of the disk is recorded; what it holds now is sure.
    pub(crate) fn begin(&self) -> Result<()> {
        self.ask("begin").map(drop)
    }

    /// Ends the recording and keeps it.
    pub(crate) fn keep(&self, shelf: usize) -> Result<()> {
        self.ask(&format!("keep {shelf}")).map(drop)
    }

    /// How many sectors are pending at each point of a kept recording.
    pub(crate) fn pending_by_point(&self, shelf: usize) -> Result<Vec<usize>> {
        let answer = self.ask(&format!("points {shelf}"))?;
        Ok(answer.lines().map(str::parse).collect::<Result<_, _>>()?)
    }

    /// The notes in a kept recording, each with the first point at which it had been made.
    pub(crate) fn notes_by_point(&self, shelf: usize) -> Result<Vec<(usize, String)>> {
        let answer = self.ask(&format!("notes {shelf}"))?;
        let parse = |line: &str| {
            let (point, note) = line.split_once(' ').context("a note has a point")?;
            Ok((point.parse()?, note.to_owned()))
        };
        answer.lines().map(parse).collect()
    }

    /// The power fails at a point of a kept recording: the disk is now what that could have left,
    /// and is recorded anew. How many sectors were pending.
    pub(crate) fn fail(&self, shelf: usize, failure: &Failure) -> Result<usize> {
        let Failure { point, lies, torn, seed } = failure;
        self.ask(&format!("fail {shelf} {point} {lies} {torn} {seed}"))?.parse().context("how many sectors were pending")
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.dir) {
            eprintln!("{error:#}");
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}
