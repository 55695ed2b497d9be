//! A disk in memory, for schedules of threads.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use foreword::disk::{Access, Disk, DiskDir, DiskFile, FileId};
use shuttle::thread;

/// Files in memory. Durable writes fail once `healthy` of them have succeeded. There are no
/// crashes: the simulated disk has those.
#[derive(Clone, Debug)]
pub struct Memory {
    files: Arc<Mutex<BTreeMap<String, File>>>,
    pub healthy: Arc<AtomicI64>,
    /// The number of segments that there is room for.
    pub room: Arc<AtomicI64>,
}

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Clone, Debug)]
struct File {
    bytes: Bytes,
    healthy: Arc<AtomicI64>,
}

impl Memory {
    pub fn new(healthy: i64) -> Memory {
        Memory { files: Arc::default(), healthy: Arc::new(AtomicI64::new(healthy)), room: Arc::new(AtomicI64::new(i64::MAX)) }
    }

    pub fn segments(&self) -> usize {
        self.files.lock().unwrap().keys().filter(|name| name.contains(".seg")).count()
    }
}

impl Disk for Memory {
    fn open_dir(&self, _: &Path) -> io::Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(self.clone()))
    }
    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        self.open_dir(path)
    }
}

/// The disk's only directory.
impl DiskDir for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }
    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        if access == Access::New && self.segments() as i64 >= self.room.load(SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut files = self.files.lock().unwrap();
        if access == Access::Create || access == Access::New {
            files.insert(name.to_owned(), File { bytes: Bytes::default(), healthy: self.healthy.clone() });
        }
        Ok(Box::new(files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.files.lock().unwrap().contains_key(to) {
            Err(io::ErrorKind::AlreadyExists.into())
        } else {
            self.replace(from, to)
        }
    }
    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        thread::yield_now();
        self.files.lock().unwrap().remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }
    fn create_dir(&self, _: &str) -> io::Result<Arc<dyn DiskDir>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_name(&self) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let there = self.files.lock().unwrap().contains_key(name);
        DiskDir::open(self, name, if there { Access::Write } else { Access::Create })
    }
    fn is_locked(&self, _: &str) -> io::Result<bool> {
        Ok(false)
    }
    fn id(&self) -> io::Result<FileId> {
        Ok(FileId::new(0, 0))
    }
    fn id_of(&self, name: &str) -> io::Result<FileId> {
        self.files.lock().unwrap().get(name).ok_or(io::ErrorKind::NotFound)?.id()
    }
}

impl DiskFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(offset as usize..).unwrap_or(&[]);
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }
    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        thread::yield_now();
        let mut bytes = self.bytes.lock().unwrap();
        let mut at = offset as usize;
        for buf in bufs {
            let len = bytes.len().max(at + buf.len());
            bytes.resize(len, 0);
            bytes[at..at + buf.len()].copy_from_slice(buf);
            at += buf.len();
        }
        Ok(at - offset as usize)
    }
    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let wrote = self.write_at(bufs, offset)?;
        self.sync()?;
        Ok(wrote)
    }
    fn sync(&self) -> io::Result<()> {
        thread::yield_now();
        if self.healthy.fetch_sub(1, SeqCst) > 0 { Ok(()) } else { Err(io::Error::other("the disk has failed")) }
    }
    fn id(&self) -> io::Result<FileId> {
        Ok(FileId::new(1, Arc::as_ptr(&self.bytes).addr() as u128))
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
}
