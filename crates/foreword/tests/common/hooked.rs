//! A disk that tells a test of everything it is asked, before it does it: the test may delay it, let it fail, or panic.

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
    Open,
    Rename,
    Remove,
    SyncDir,
    Allocate,
    /// A step of zero-filling.
    Zero,
    /// So many bytes.
    Read(usize),
    Write,
    WriteDurable,
    Sync,
    Close,
}

/// Is told of an operation and its file's name (of a file that is open, the name it was opened by, without `.tmp`).
pub type Hook = Arc<dyn Fn(Op, &str) -> io::Result<()> + Send + Sync>;

/// A disk with a hook. It reserves space as a real one does.
#[derive(Clone)]
pub struct Hooked<D> {
    disk: D,
    hook: Hook,
}

pub fn hooked<D: Disk>(disk: D, hook: impl Fn(Op, &str) -> io::Result<()> + Send + Sync + 'static) -> Arc<Hooked<D>> {
    Arc::new(Hooked { disk, hook: Arc::new(hook) })
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
        Ok(Arc::new(HookedDir { dir: self.disk.open_dir(path)?, hook: self.hook.clone() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(HookedDir { dir: self.disk.create_dir(path)?, hook: self.hook.clone() }))
    }
}

struct HookedDir {
    dir: Arc<dyn DiskDir>,
    hook: Hook,
}

impl fmt::Debug for HookedDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dir.fmt(f)
    }
}

impl DiskDir for HookedDir {
    fn list(&self) -> io::Result<Vec<String>> {
        self.dir.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        (self.hook)(Op::Open, name)?;
        let file = self.dir.open(name, access)?;
        Ok(Box::new(HookedFile { file, name: in_the_end(name), hook: self.hook.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)(Op::Rename, from)?;
        self.dir.rename(from, to)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)(Op::Rename, from)?;
        self.dir.replace(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (self.hook)(Op::Remove, name)?;
        self.dir.remove(name)
    }

    fn create_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(HookedDir { dir: self.dir.create_dir(name)?, hook: self.hook.clone() }))
    }

    fn sync(&self) -> io::Result<()> {
        (self.hook)(Op::SyncDir, "")?;
        self.dir.sync()
    }

    fn sync_name(&self) -> io::Result<()> {
        self.dir.sync_name()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.dir.lock(name)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.dir.is_locked(name)
    }

    fn id(&self) -> io::Result<FileId> {
        self.dir.id()
    }

    fn id_of(&self, name: &str) -> io::Result<FileId> {
        self.dir.id_of(name)
    }
}

struct HookedFile {
    file: Box<dyn DiskFile>,
    name: String,
    hook: Hook,
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Drop for HookedFile {
    fn drop(&mut self) {
        let _ = (self.hook)(Op::Close, &self.name);
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Op::Read(buf.len()), &self.name)?;
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        (self.hook)(Op::Write, &self.name)?;
        self.file.write_at(bufs, offset)
    }

    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        (self.hook)(Op::WriteDurable, &self.name)?;
        self.file.write_durable_at(bufs, offset)
    }

    fn write_through_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        (self.hook)(Op::Zero, &self.name)?;
        self.file.write_through_at(bufs, offset)
    }

    fn sync(&self) -> io::Result<()> {
        (self.hook)(Op::Sync, &self.name)?;
        self.file.sync()
    }

    fn id(&self) -> io::Result<FileId> {
        self.file.id()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        (self.hook)(Op::Allocate, &self.name)?;
        self.file.allocate(len).map(|_| true)
    }
}

/// Holds up all that come by while it is shut.
#[derive(Default)]
pub struct Gate {
    /// Whether it is shut, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    pub fn shut(&self) {
        self.state.lock().unwrap().0 = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.0).unwrap();
        state.1 -= 1;
    }

    /// Waits until somebody is held up.
    pub fn wait_held(&self) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| state.1 == 0).unwrap();
        assert!(!waited.1.timed_out(), "nobody came to the gate");
    }
}

/// Does something that must end, and fails if it does not.
#[track_caller]
pub fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || done.send(work()).unwrap());
    match wait.recv_timeout(PATIENCE) {
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
