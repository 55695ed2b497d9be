//! A disk that tells a test of everything it is asked, before it does it: the test may delay it,
//! let it fail, or panic.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use foreword::disk::{Access, Disk, DiskDir, DiskFile, FileId};

/// How long anything may take that must end, on however slow a machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a disk is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Open(Access),
    Rename,
    Remove,
    SyncDir,
    Lock,
    /// Whether a file is locked.
    IsLocked,
    /// So many bytes.
    Allocate(u64),
    SetLen,
    /// A step of zero-filling.
    Zero,
    /// So many bytes.
    Read(usize),
    Write,
    WriteDurable,
    Sync,
    Punch,
    Close,
    List,
    /// Which file it is, or has a name.
    Id,
}

impl Op {
    /// Whether it writes to a file, in any way.
    pub fn writes(self) -> bool {
        matches!(self, Op::Zero | Op::Write | Op::WriteDurable)
    }
}

/// Is told of an operation and its file's name (of a file that is open, the name it was opened by,
/// without `.tmp`).
pub type Hook = Arc<dyn Fn(Op, &str) -> io::Result<()> + Send + Sync>;

/// A disk with a hook.
#[derive(Clone)]
pub struct Hooked<D> {
    disk: D,
    told: Told,
}

/// What each part of it has: the hook, and whether it reserves space.
#[derive(Clone)]
struct Told {
    hook: Hook,
    reserves: bool,
}

impl Told {
    fn of(&self, op: Op, name: &str) -> io::Result<()> {
        (self.hook)(op, name)
    }

    fn dir(&self, dir: Arc<dyn DiskDir>) -> Arc<dyn DiskDir> {
        Arc::new(HookedDir { dir, told: self.clone() })
    }
}

/// It reserves space as a real one does.
pub fn hooked<D: Disk>(disk: D, hook: impl Fn(Op, &str) -> io::Result<()> + Send + Sync + 'static) -> Arc<Hooked<D>> {
    Arc::new(Hooked { disk, told: Told { hook: Arc::new(hook), reserves: true } })
}

/// It cannot reserve space: only zeros take it.
pub fn hooked_unreserving<D: Disk>(disk: D, hook: impl Fn(Op, &str) -> io::Result<()> + Send + Sync + 'static) -> Arc<Hooked<D>> {
    Arc::new(Hooked { disk, told: Told { hook: Arc::new(hook), reserves: false } })
}

/// Under which name a file ends up that is made now.
fn in_the_end(name: &str) -> String {
    name.trim_end_matches(".tmp").to_owned()
}

impl<D: fmt::Debug> fmt::Debug for Hooked<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl<D: Disk> Disk for Hooked<D> {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        Ok(self.told.dir(self.disk.open_dir(path)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        Ok(self.told.dir(self.disk.create_dir(path)?))
    }
}

struct HookedDir {
    dir: Arc<dyn DiskDir>,
    told: Told,
}

impl fmt::Debug for HookedDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dir.fmt(f)
    }
}

impl DiskDir for HookedDir {
    fn list(&self) -> io::Result<Vec<String>> {
        self.told.of(Op::List, "")?;
        self.dir.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.told.of(Op::Open(access), name)?;
        let file = self.dir.open(name, access)?;
        Ok(Box::new(HookedFile { file, name: in_the_end(name), told: self.told.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.told.of(Op::Rename, from)?;
        self.dir.rename(from, to)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        self.told.of(Op::Rename, from)?;
        self.dir.replace(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.told.of(Op::Remove, name)?;
        self.dir.remove(name)
    }

    fn create_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        Ok(self.told.dir(self.dir.create_dir(name)?))
    }

    fn sync(&self) -> io::Result<()> {
        self.told.of(Op::SyncDir, "")?;
        self.dir.sync()
    }

    fn sync_name(&self) -> io::Result<()> {
        self.dir.sync_name()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.told.of(Op::Lock, name)?;
        let file = self.dir.lock(name)?;
        Ok(Box::new(HookedFile { file, name: in_the_end(name), told: self.told.clone() }))
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.told.of(Op::IsLocked, name)?;
        self.dir.is_locked(name)
    }

    fn id(&self) -> io::Result<FileId> {
        self.dir.id()
    }

    fn id_of(&self, name: &str) -> io::Result<FileId> {
        self.told.of(Op::Id, name)?;
        self.dir.id_of(name)
    }
}

struct HookedFile {
    file: Box<dyn DiskFile>,
    name: String,
    told: Told,
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Drop for HookedFile {
    fn drop(&mut self) {
        let _ = self.told.of(Op::Close, &self.name);
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.told.of(Op::Read(buf.len()), &self.name)?;
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.told.of(Op::Write, &self.name)?;
        self.file.write_at(bufs, offset)
    }

    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.told.of(Op::WriteDurable, &self.name)?;
        self.file.write_durable_at(bufs, offset)
    }

    fn write_through_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.told.of(Op::Zero, &self.name)?;
        self.file.write_through_at(bufs, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.told.of(Op::Sync, &self.name)?;
        self.file.sync()
    }

    fn id(&self) -> io::Result<FileId> {
        self.told.of(Op::Id, &self.name)?;
        self.file.id()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.told.of(Op::SetLen, &self.name)?;
        self.file.set_len(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.told.of(Op::Punch, &self.name)?;
        self.file.punch(offset, len)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.told.of(Op::Allocate(len), &self.name)?;
        if self.told.reserves { self.file.allocate(len).map(|_| true) } else { self.file.set_len(len).map(|()| false) }
    }
}

/// A gate: holds up as many threads as it was told to, until it is opened.
#[derive(Default)]
pub struct Gate {
    /// How many it is still to hold, and how many it holds.
    counts: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Gate {
    /// Holds up this many threads, and lets later ones pass.
    pub fn hold(&self, next: usize) {
        *self.counts.lock().unwrap() = (next, 0);
    }

    pub fn shut(&self) {
        self.hold(usize::MAX);
    }

    pub fn open(&self) {
        self.hold(0);
        self.changed.notify_all();
    }

    pub fn pass(&self) {
        let mut counts = self.counts.lock().unwrap();
        if counts.0 > 0 {
            *counts = (counts.0 - 1, counts.1 + 1);
            self.changed.notify_all();
            drop(self.changed.wait_while(counts, |counts| counts.1 > 0).unwrap());
        }
    }

    /// Whether a thread is held up.
    pub fn is_holding(&self) -> bool {
        self.counts.lock().unwrap().1 > 0
    }

    /// Waits until a thread is held up.
    pub fn wait_held(&self) {
        let counts = self.counts.lock().unwrap();
        let waited = self.changed.wait_timeout_while(counts, PATIENCE, |counts| counts.1 == 0).unwrap();
        assert!(!waited.1.timed_out(), "nobody came to the gate");
    }
}

/// Does something that must end, and fails if it does not.
#[track_caller]
pub fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    within_time(PATIENCE, work)
}

/// The same, of what may take longer.
#[track_caller]
pub fn within_time<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || done.send(work()).unwrap());
    match wait.recv_timeout(patience) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(worker.join().unwrap_err()),
    }
}

#[track_caller]
pub fn until(what: &str, reached: impl Fn() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < PATIENCE, "waited for this in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
