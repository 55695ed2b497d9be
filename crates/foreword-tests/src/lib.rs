//! What the tests of the log share: a log's directory as bytes, the structures in it by
//! `docs/FORMAT.md` alone (not by the library's own code), and a disk in memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, RwLock};

use foreword::disk::{Access, Disk, DiskDir, DiskFile, FileId};
use foreword::{Error, Iter, Log, Lsn, OnDamage, Options, SyncPolicy, Verify, VerifyReport, View, verify};

pub mod hooked;

pub const BLOCK: usize = 4096;
pub const SECTOR: usize = 512;
pub const HEADER: u8 = 1;
pub const LINK: u8 = 2;
pub const DATA: u8 = 3;
pub const MARK: u8 = 4;
pub const SEAL: u8 = 5;

/// The smallest segments, and nothing happens but what the test does.
pub fn small() -> Options {
    Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual())
}

/// The record with this LSN, in tests that give each its own.
pub fn record(lsn: u64) -> Vec<u8> {
    let len = (lsn * 7919 % 900) as usize;
    (0..len).map(|k| (lsn as usize + k * 31) as u8).collect()
}

pub fn commit(log: &Log, lsns: Range<u64>) {
    for lsn in lsns {
        assert_eq!(log.commit(&record(lsn)).unwrap(), Lsn(lsn));
    }
}

/// Commits single records until the next one would begin another segment. Returns the LSN of the
/// next.
pub fn fill_segment(log: &Log, from: u64) -> u64 {
    // Blocks 2 to 8 of 16 are for ordinary frames, and each commit takes one.
    commit(log, from..from + 7);
    from + 7
}

pub fn segment_name(epoch: u64) -> String {
    format!("{epoch:020}.seg")
}

/// The files of a log's directory (without the text in `LOCK`, which only names the last writer).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

/// A frame's header, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub epoch: u64,
    pub block: usize,
    pub blocks: usize,
    pub kind: u8,
    pub flags: u8,
    pub records: u32,
    pub promise: (u64, u32),
    pub promise_lsn: u64,
    pub first_lsn: u64,
}

impl Files {
    pub fn read(dir: &Path) -> Files {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_file() && name != "LOCK" {
                files.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
        Files(files)
    }

    pub fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        for (name, bytes) in &self.0 {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }

    /// The directory anew.
    pub fn dir(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        dir
    }

    /// A log made by `work` and left as a crash of the process leaves it: what was written is
    /// there.
    pub fn crashed(work: impl FnOnce(&Log)) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let log = small().open(dir.path()).unwrap();
        work(&log);
        Files::read(dir.path())
    }

    /// As `crashed`, but closed.
    pub fn closed(work: impl FnOnce(&Log)) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let log = small().open(dir.path()).unwrap();
        work(&log);
        log.close().unwrap();
        Files::read(dir.path())
    }

    pub fn epochs(&self) -> Vec<u64> {
        self.0.keys().filter_map(|name| name.strip_suffix(".seg")?.parse().ok()).collect()
    }

    pub fn segment(&mut self, epoch: u64) -> &mut Vec<u8> {
        self.0.get_mut(&segment_name(epoch)).unwrap()
    }

    pub fn remove(&mut self, epoch: u64) -> Vec<u8> {
        self.0.remove(&segment_name(epoch)).unwrap()
    }

    pub fn insert(&mut self, epoch: u64, bytes: Vec<u8>) {
        self.0.insert(segment_name(epoch), bytes);
    }

    pub fn flip(&mut self, epoch: u64, byte: usize, bit: u8) {
        self.segment(epoch)[byte] ^= 1 << bit;
    }

    /// Zeroes blocks: as if they had never been written.
    pub fn unwrite(&mut self, epoch: u64, blocks: Range<usize>) {
        self.segment(epoch)[blocks.start * BLOCK..blocks.end * BLOCK].fill(0);
    }

    pub fn unwrite_sector(&mut self, epoch: u64, sector: usize) {
        self.segment(epoch)[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
    }

    pub fn uuid(&self) -> [u8; 16] {
        let first = self.0.iter().find(|(name, _)| name.ends_with(".seg")).unwrap().1;
        first[72..88].try_into().unwrap()
    }

    fn seed(&self, epoch: u64) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.uuid()), &epoch.to_le_bytes())
    }

    /// The header of the frame that begins at a block, if one does; its body is not looked at.
    pub fn frame(&self, epoch: u64, block: usize) -> Option<Frame> {
        let bytes = self.0.get(&segment_name(epoch))?.get(block * BLOCK..)?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let crc = crc32c::crc32c_append(self.seed(epoch), &(block as u64).to_le_bytes());
        if bytes.get(..4)? != b"FWRD" || u32_at(4) != crc32c::crc32c_append(crc, &bytes[8..header_len(bytes[12])]) {
            return None;
        }
        Some(Frame {
            epoch,
            block,
            blocks: blocks_of(header_len(bytes[12]) + u32_at(16) as usize),
            kind: bytes[12],
            flags: bytes[13],
            records: u32_at(20),
            promise: (u64_at(32), u32_at(28)),
            promise_lsn: u64_at(40),
            first_lsn: u64_at(48),
        })
    }

    /// All frames that a segment has, at their blocks.
    pub fn frames(&self, epoch: u64) -> Vec<Frame> {
        let blocks = self.0[&segment_name(epoch)].len() / BLOCK;
        (0..blocks).filter_map(|block| self.frame(epoch, block)).collect()
    }

    /// Changes a frame of one block and makes its checksums right again: what a program that errs
    /// would write, not a disk that rots.
    pub fn forge(&mut self, epoch: u64, block: usize, change: impl FnOnce(&mut [u8])) {
        let seed = self.seed(epoch);
        let frame = &mut self.segment(epoch)[block * BLOCK..(block + 1) * BLOCK];
        change(frame);
        let body = crc32c::crc32c(&frame[header_len(frame[12])..]);
        frame[8..12].copy_from_slice(&body.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &(block as u64).to_le_bytes());
        let header = crc32c::crc32c_append(crc, &frame[8..header_len(frame[12])]);
        frame[4..8].copy_from_slice(&header.to_le_bytes());
    }
}

/// How long a frame's header is: that of a HEADER has neither time nor bytes.
pub fn header_len(kind: u8) -> usize {
    if kind == HEADER { 64 } else { 80 }
}

/// The number of blocks of a frame whose header and payload have `content` bytes.
fn blocks_of(content: usize) -> usize {
    let table = content.next_multiple_of(8);
    let mut at = table;
    for _ in 0..table / SECTOR {
        at += if at % SECTOR == SECTOR - 8 { 16 } else { 8 };
    }
    at.div_ceil(BLOCK)
}

/// What a reader got: the records, and the error it ended with.
pub fn collect(iter: Iter) -> (Vec<(u64, Vec<u8>)>, Option<Error>) {
    let mut records = Vec::new();
    for item in iter {
        match item {
            Ok(record) => records.push((record.lsn.0, record.data)),
            Err(error) => return (records, Some(error)),
        }
    }
    (records, None)
}

pub fn check_dir(dir: &Path) -> VerifyReport {
    verify(dir).unwrap()
}

/// Runs the independent reader on directories: its records, verdict name and row for each. `None`
/// (and a loud word) without Python.
pub fn ask_reader(dirs: &[PathBuf]) -> Option<Vec<ReaderSays>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py");
    let required = std::env::var_os("FOREWORD_REQUIRE_PYTHON").is_some_and(|v| v == "1");
    let output = match Command::new("python3").arg(&script).args(dirs).output() {
        Ok(output) => output,
        Err(e) if !required => {
            eprintln!("SKIPPED: python3 cannot be run ({e}), so the independent reader was NOT asked");
            return None;
        }
        Err(e) => panic!("FOREWORD_REQUIRE_PYTHON=1, and python3 cannot be run: {e}"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{dirs:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    // The verdict is the last line of each.
    let (mut said, mut one) = (Vec::new(), String::new());
    for line in text.split_inclusive('\n') {
        one += line;
        if line.starts_with("verdict: ") {
            said.push(ReaderSays::parse(&std::mem::take(&mut one)));
        }
    }
    assert_eq!(said.len(), dirs.len());
    Some(said)
}

/// What the independent reader prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderSays {
    pub records: Vec<(u64, Vec<u8>)>,
    /// Of each record its time, in microseconds since 1970, and how many bytes those before it
    /// have.
    pub counts: Vec<(u64, u64)>,
    pub verdict: String,
    pub row: u8,
}

impl ReaderSays {
    pub fn parse(text: &str) -> ReaderSays {
        let (mut records, mut counts, mut verdict, mut row) = (Vec::new(), Vec::new(), String::new(), 0);
        for line in text.lines() {
            if let Some(says) = line.strip_prefix("verdict: ") {
                let mut words = says.split(' ');
                verdict = words.next().unwrap().to_owned();
                row = words.next().unwrap().strip_prefix("row=").unwrap().parse().unwrap();
            } else {
                let [lsn, micros, bytes, hex] = *line.split(' ').collect::<Vec<_>>() else { panic!("no record: {line}") };
                counts.push((micros.parse().unwrap(), bytes.parse().unwrap()));
                let hex = if hex == "-" { "" } else { hex };
                let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
                records.push((lsn.parse().unwrap(), (0..hex.len()).step_by(2).map(byte).collect()));
            }
        }
        assert!(!verdict.is_empty(), "no verdict: {text}");
        ReaderSays { records, counts, verdict, row }
    }
}

/// A file system in memory: to read and write a log without real files.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<Tree>>);

type Bytes = Arc<RwLock<Vec<u8>>>;

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<PathBuf, Bytes>,
    dirs: BTreeSet<PathBuf>,
    locked: Arc<Mutex<HashSet<FileId>>>,
    /// Each time a file is asked for, it is another: how often it was.
    unstable: Option<u64>,
}

/// Where a [`MemDisk`] made from files has them.
pub const MEM: &str = "/log";

impl MemDisk {
    pub fn new(files: &Files) -> MemDisk {
        let disk = MemDisk::default();
        let mut tree = disk.0.lock().unwrap();
        tree.dirs.insert(MEM.into());
        for (name, bytes) in &files.0 {
            tree.files.insert(Path::new(MEM).join(name), Arc::new(RwLock::new(bytes.clone())));
        }
        drop(tree);
        disk
    }

    pub fn files(&self) -> Files {
        let tree = self.0.lock().unwrap();
        let in_log = tree.files.iter().filter(|(path, _)| path.parent() == Some(Path::new(MEM)));
        let named = in_log.map(|(path, bytes)| (path.file_name().unwrap().to_str().unwrap().to_owned(), bytes));
        Files(named.filter(|(name, _)| name != "LOCK").map(|(name, bytes)| (name, bytes.read().unwrap().clone())).collect())
    }

    /// The bytes of a file, to be changed in place.
    pub fn bytes(&self, name: &str) -> Arc<RwLock<Vec<u8>>> {
        self.0.lock().unwrap().files[&Path::new(MEM).join(name)].clone()
    }

    /// From here on, no file can be told from others.
    pub fn make_unstable(&self) {
        self.0.lock().unwrap().unstable = Some(0);
    }

    pub fn verify(&self) -> VerifyReport {
        Verify::new().disk(Arc::new(self.clone())).run(MEM).unwrap()
    }

    /// As recovery would have it.
    pub fn view(&self) -> View {
        View::open_on(Arc::new(self.clone()), MEM).unwrap().recoverable().unwrap()
    }

    pub fn open(&self, action: OnDamage) -> Result<Log, Error> {
        small().on_damage(action).disk(Arc::new(self.clone())).open(MEM)
    }
}

fn not_found<T>(found: Option<T>) -> io::Result<T> {
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Disk for MemDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        not_found(self.0.lock().unwrap().dirs.get(path))?;
        Ok(Arc::new(MemDir { tree: self.0.clone(), path: path.to_owned() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        self.0.lock().unwrap().dirs.insert(path.to_owned());
        self.open_dir(path)
    }
}

/// (Its directories are never moved.)
#[derive(Debug)]
struct MemDir {
    tree: Arc<Mutex<Tree>>,
    path: PathBuf,
}

impl DiskDir for MemDir {
    fn list(&self) -> io::Result<Vec<String>> {
        let tree = self.tree.lock().unwrap();
        let inside = tree.files.keys().chain(&tree.dirs).filter(|p| p.parent() == Some(&self.path));
        Ok(inside.map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let path = self.path.join(name);
        let mut tree = self.tree.lock().unwrap();
        if access == Access::New && tree.files.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if matches!(access, Access::Create | Access::New) {
            tree.files.insert(path.clone(), Bytes::default());
        }
        Ok(Box::new(MemFile { bytes: not_found(tree.files.get(&path).cloned())?, lock: None }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.tree.lock().unwrap().files.contains_key(&self.path.join(to)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.replace(from, to)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let mut tree = self.tree.lock().unwrap();
        let file = not_found(tree.files.remove(&self.path.join(from)))?;
        tree.files.insert(self.path.join(to), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        not_found(self.tree.lock().unwrap().files.remove(&self.path.join(name))).map(drop)
    }

    fn create_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        Disk::create_dir(&MemDisk(self.tree.clone()), &self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_name(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut tree = self.tree.lock().unwrap();
        let bytes = tree.files.entry(self.path.join(name)).or_default().clone();
        let id = bytes_id(&bytes);
        if !tree.locked.lock().unwrap().insert(id) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let lock = Some((tree.locked.clone(), id));
        Ok(Box::new(MemFile { bytes, lock }))
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let tree = self.tree.lock().unwrap();
        let bytes = tree.files.get(&self.path.join(name));
        Ok(bytes.is_some_and(|bytes| tree.locked.lock().unwrap().contains(&bytes_id(bytes))))
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(FileId::new(0, 0))
    }

    fn id_of(&self, name: &str) -> io::Result<FileId> {
        let mut tree = self.tree.lock().unwrap();
        let id = bytes_id(not_found(tree.files.get(&self.path.join(name)))?);
        Ok(tree.unstable.as_mut().map_or(id, |asked| {
            *asked += 1;
            FileId::new(2, (*asked).into())
        }))
    }
}

fn bytes_id(bytes: &Bytes) -> FileId {
    FileId::new(1, Arc::as_ptr(bytes).addr() as u128)
}

#[derive(Debug)]
struct MemFile {
    bytes: Bytes,
    lock: Option<(Arc<Mutex<HashSet<FileId>>>, FileId)>,
}

impl Drop for MemFile {
    fn drop(&mut self) {
        if let Some((locked, id)) = &self.lock {
            locked.lock().unwrap().remove(id);
        }
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.read().unwrap();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes = self.bytes.write().unwrap();
        let mut at = offset as usize;
        for buf in bufs {
            let end = at + buf.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(buf);
            at = end;
        }
        Ok(at - offset as usize)
    }

    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.write_at(bufs, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(bytes_id(&self.bytes))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.read().unwrap().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.write().unwrap().resize(len as usize, 0);
        Ok(())
    }
}
