//! The disk itself: what is asked of it, and what it does.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foreword::disk::{Access, Disk, DiskDir, DiskFile, FileId};

use crate::SECTOR;
use crate::content::Content;
use crate::faults::{Effect, Fault, Op, OpKind};
use crate::rng::{Rng, mix};
use crate::state::{Ino, State, Unit};

/// What a power failure leaves of what was not synced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// What the seed says.
    Seed(u64),
    /// Each write as a whole or not at all, as the seed says: a disk that does not tear.
    Writes(u64),
    /// The units that are `true`, in the order of [`SimDisk::undecided`]; what cannot be without another unit is only kept with it.
    These(Vec<bool>),
}

/// A simulated disk with a file system on it, in memory.
///
/// Clones are handles to the same disk. [`crash`](SimDisk::crash), [`kill`](SimDisk::kill) and [`copy`](SimDisk::copy) make other disks and leave this one as it is.
/// The root directory is `/`. See the [crate's documentation](crate) for what it does and does not do.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("SimDisk").field("changes", &state.changes).field("off", &state.off).finish_non_exhaustive()
    }
}

/// What becomes of an operation.
enum Turn {
    Go,
    /// It is done, perhaps, and the power fails: nobody hears of it.
    Dying,
    Struck(OpKind, Effect),
}

fn eio() -> io::Error {
    io::Error::other("simulated I/O error")
}

fn no_power() -> io::Error {
    io::Error::other("simulated power failure")
}

impl SimDisk {
    /// An empty disk. The seed decides what is left open elsewhere, such as the sectors that a failed sync still wrote.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from(State::new(seed))
    }

    fn from(state: State) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This disk, as [`Options::disk`](foreword::Options::disk) wants it.
    #[must_use]
    pub fn handle(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Another disk, the same in everything, locks and open files included.
    #[must_use]
    pub fn copy(&self) -> SimDisk {
        SimDisk::from(self.lock().clone())
    }

    /// The disk as it could be after a power failure now. Files are closed, locks given up, faults gone.
    #[must_use]
    pub fn crash(&self, choice: &Choice) -> SimDisk {
        let state = self.lock();
        let units = state.undecided();
        let keep = match choice {
            Choice::None => vec![false; units.len()],
            Choice::All => vec![true; units.len()],
            Choice::Seed(seed) => draw(&units, &mut Rng::new(*seed)),
            Choice::Writes(seed) => whole_writes(&units, &mut Rng::new(*seed), 500),
            Choice::These(keep) => keep.clone(),
        };
        SimDisk::from(state.crash(&units, &keep, mix(&[state.changes])).0)
    }

    /// How many units a power failure can decide on: sectors written, lengths set, and names changed, that are not synced.
    #[must_use]
    pub fn undecided(&self) -> usize {
        self.lock().undecided().len()
    }

    /// The disks that a power failure now can leave: all of them if they are at most `limit`; else so many,
    /// drawn by the seed, the ones with nothing and with everything among them.
    pub fn crash_states(&self, limit: usize, seed: u64) -> impl Iterator<Item = SimDisk> + use<> {
        let state = self.lock().clone();
        let units = state.undecided();
        let all = 1usize.checked_shl(units.len() as u32).filter(|&all| all <= limit);
        let mut rng = Rng::new(seed);
        (0..all.unwrap_or(limit)).filter_map(move |i| {
            let keep = match (all, i) {
                (Some(_), bits) => (0..units.len()).map(|unit| bits >> unit & 1 == 1).collect(),
                (None, 0) => vec![false; units.len()],
                (None, 1) => vec![true; units.len()],
                (None, _) => draw(&units, &mut rng),
            };
            let (after, faithful) = state.crash(&units, &keep, mix(&[seed, i as u64]));
            // A choice that cannot be is another one in disguise.
            (all.is_none() || faithful).then(|| SimDisk::from(after))
        })
    }

    /// The disk after all processes that used it were killed: the page cache has all that was written, the locks are free, faults are gone.
    /// What was not synced can still be lost to a later power failure.
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        SimDisk::from(self.lock().kill())
    }

    /// Drops all clean pages: what is read afterwards comes from the disk, and may be other than the page cache
    /// showed, after a failed sync.
    pub fn drop_caches(&self) {
        self.lock().inodes.values_mut().for_each(|inode| inode.drop_cache());
    }

    /// Adds a fault.
    pub fn fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// How many bytes the disk has room for in all, by pages of 4 KiB; `None` (as at first) for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// How many bytes are taken, by pages of 4 KiB that are no holes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Leaves room for so many more bytes.
    pub fn set_free(&self, bytes: u64) {
        let mut state = self.lock();
        state.capacity = Some(state.used() + bytes);
    }

    /// How many [changing](OpKind::changes) operations were asked so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// The power fails in the changing operation with this number (the first is 1): what it writes may or may not reach the disk, it and all
    /// after it fail. [`crash`](SimDisk::crash) gives the disk after the reboot; [`kill`](SimDisk::kill), as if only the process had died there.
    pub fn power_off_at(&self, change: u64) {
        self.lock().power_off_at = Some(change);
    }

    /// The power fails now: all operations fail.
    pub fn power_off(&self) {
        self.lock().off = true;
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// The operations asked so far, in order.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.lock().journal.clone()
    }

    /// The files there are, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.lock();
        let len = |ino| state.inodes.get(ino).map_or(0, |inode| inode.cache.len());
        state.names.iter().map(|(path, ino)| (path.to_path_buf(), len(ino))).collect()
    }

    /// Flips a bit of a file, on the disk and in the page cache: rot. Whether there was such a byte.
    pub fn flip(&self, path: impl AsRef<Path>, byte: u64, bit: u8) -> bool {
        let path = path.as_ref();
        let Some(old) = self.peek(path, byte, 1) else { return false };
        self.overwrite(path, byte, &[old[0] ^ 1 << (bit & 7)])
    }

    /// Overwrites a stretch of a file, on the disk and in the page cache. Whether the file has it.
    pub fn overwrite(&self, path: impl AsRef<Path>, byte: u64, data: &[u8]) -> bool {
        if self.peek(path.as_ref(), byte, data.len()).is_none() {
            return false;
        }
        self.damage(path.as_ref(), |platter| platter.write(byte, data))
    }

    /// A stretch of a file, as the page cache shows it; `None` if the file has it not.
    #[must_use]
    pub fn peek(&self, path: impl AsRef<Path>, byte: u64, len: usize) -> Option<Vec<u8>> {
        let state = self.lock();
        let inode = state.inodes.get(state.names.get(path.as_ref())?)?;
        let mut data = vec![0; len];
        (inode.cache.read(byte, &mut data) == len).then_some(data)
    }

    fn damage(&self, path: &Path, change: impl FnOnce(&mut Content)) -> bool {
        let mut state = self.lock();
        let Some(&ino) = state.names.get(path) else { return false };
        let Some(inode) = state.inodes.get_mut(&ino) else { return false };
        inode.damage(change);
        true
    }

    /// Moves a directory with all that is in it, at once and durably. Open handles on it follow; what
    /// is asked by path finds it under the new one. Whether it was there, and the new path was free.
    pub fn rename_dir(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> bool {
        self.lock().rename_dir(from.as_ref(), to.as_ref())
    }

    /// Loses a file: entry and all. Whether it was there.
    pub fn lose(&self, path: impl AsRef<Path>) -> bool {
        let mut state = self.lock();
        let Some((path, &ino)) = state.names.get_key_value(path.as_ref()) else { return false };
        let path = path.clone();
        state.unlink(&path, ino);
        if let Some(dir) = path.parent() {
            state.sync_dir(dir);
        }
        true
    }

    /// Cuts a file to a length or lengthens it, on the disk and in the page cache. Whether it was there.
    pub fn cut(&self, path: impl AsRef<Path>, len: u64) -> bool {
        self.damage(path.as_ref(), |platter| platter.set_len(len))
    }

    /// Puts a file of another disk in the place of this one's: an old copy, say. Whether both were there.
    pub fn replace(&self, path: impl AsRef<Path>, from: &SimDisk) -> bool {
        let theirs = {
            let state = from.lock();
            let inode = state.names.get(path.as_ref()).and_then(|ino| state.inodes.get(ino));
            inode.map(|inode| inode.platter().clone())
        };
        theirs.is_some_and(|theirs| self.damage(path.as_ref(), |platter| *platter = theirs))
    }

    /// Counts an operation, and says what becomes of it.
    fn begin(&self, kind: OpKind, path: &Arc<Path>, offset: u64, len: usize) -> io::Result<(MutexGuard<'_, State>, Turn)> {
        let mut state = self.lock();
        if state.off {
            return Err(no_power());
        }
        let mut dying = false;
        if kind.changes() {
            state.changes += 1;
            dying = state.power_off_at == Some(state.changes);
            state.off = dying;
        }
        // Each fault counts each operation, though only one strikes.
        let mut struck = None;
        for fault in &mut state.faults {
            if fault.strikes(kind, path) {
                struck = struck.or(Some((fault.op, fault.effect)));
            }
        }
        state.journal.push(Op { kind, path: path.clone(), offset, len, struck: dying || struck.is_some() });
        let turn = match struck {
            _ if dying => Turn::Dying,
            None => Turn::Go,
            Some((_, Effect::NoSpace)) => return Err(io::ErrorKind::StorageFull.into()),
            Some((_, Effect::Interrupted)) => return Err(io::ErrorKind::Interrupted.into()),
            Some((_, Effect::Stall(time))) => {
                drop(state);
                std::thread::sleep(time);
                state = self.lock();
                Turn::Go
            }
            Some((on, effect)) => Turn::Struck(on, effect),
        };
        Ok((state, turn))
    }

    /// As `begin`, for operations that a fault can only fail.
    fn simple(&self, kind: OpKind, path: &Arc<Path>) -> io::Result<(MutexGuard<'_, State>, io::Result<()>)> {
        match self.begin(kind, path, 0, 0)? {
            (_, Turn::Struck(_, Effect::Eio)) => Err(eio()),
            (state, Turn::Dying) => Ok((state, Err(no_power()))),
            (state, _) => Ok((state, Ok(()))),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, turn) = self.begin(OpKind::SyncDir, &arc(path), 0, 0)?;
        match turn {
            Turn::Dying => return Err(no_power()),
            Turn::Struck(_, Effect::Eio) => return Err(eio()),
            Turn::Struck(_, Effect::Lie) => return Ok(()),
            Turn::Go | Turn::Struck(..) => {}
        }
        if !state.dirs.contains_key(path) {
            return Err(not_found());
        }
        state.sync_dir(path);
        Ok(())
    }

    fn opened(&self, state: &mut State, ino: Ino, path: Arc<Path>, holds_lock: bool) -> Box<dyn DiskFile> {
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.opens += 1;
        }
        Box::new(SimFile { disk: self.clone(), ino, path, holds_lock })
    }
}

/// What is kept, by one of several ways in which disks lose things.
fn draw(units: &[Unit], rng: &mut Rng) -> Vec<bool> {
    let n = units.len() as u64;
    let likely = [100, 500, 900][rng.below(3) as usize];
    match rng.below(5) {
        // Each for itself.
        0 => units.iter().map(|_| rng.chance(likely)).collect(),
        // Whole writes, in any order.
        1 => whole_writes(units, rng, likely),
        // In order, up to a point; names and files each to their own.
        2 => {
            let seed = rng.next();
            let in_file = |unit: &Unit| units.iter().filter(|u| u.group().0 == unit.group().0).count() as u64;
            let mut before = std::collections::BTreeMap::<Ino, u64>::new();
            let mut keep = |unit: &Unit| {
                let file = unit.group().0;
                let index = before.entry(file).or_default();
                *index += 1;
                *index <= mix(&[seed, file]) % (in_file(unit) + 1)
            };
            units.iter().map(&mut keep).collect()
        }
        // All but one, or one alone.
        way => {
            let one = rng.below(n);
            (0..n).map(|i| (i == one) == (way == 3)).collect()
        }
    }
}

fn whole_writes(units: &[Unit], rng: &mut Rng, likely: u64) -> Vec<bool> {
    let seed = rng.next();
    let kept = |unit: &Unit| mix(&[seed, unit.group().0, unit.group().1 as u64]) % 1000 < likely;
    units.iter().map(kept).collect()
}

fn arc(path: &Path) -> Arc<Path> {
    Arc::from(path)
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        let (state, done) = self.simple(OpKind::Open, &arc(path))?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let id = *state.dirs.get(path).ok_or_else(not_found)?;
        done.map(|()| Arc::new(SimDir { disk: self.clone(), id }) as Arc<dyn DiskDir>)
    }

    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        let (mut state, done) = self.simple(OpKind::CreateDir, &arc(path))?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.create_dir(path);
        done.map(|()| Arc::new(SimDir { disk: self.clone(), id }) as Arc<dyn DiskDir>)
    }
}

/// A directory, whatever its path is by now.
#[derive(Debug)]
struct SimDir {
    disk: SimDisk,
    id: u64,
}

impl SimDir {
    /// The directory's path.
    fn path(&self) -> io::Result<Arc<Path>> {
        let state = self.disk.lock();
        let found = state.dirs.iter().find(|(_, id)| **id == self.id);
        found.map(|(path, _)| arc(path)).ok_or_else(not_found)
    }

    fn file(&self, name: &str) -> io::Result<Arc<Path>> {
        Ok(arc(&self.path()?.join(name)))
    }

    /// Renames a file; what has the new name is replaced, or not.
    fn rename_over(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let (from, to) = (self.file(from)?, self.file(to)?);
        let (mut state, done) = self.disk.simple(OpKind::Rename, &from)?;
        let ino = *state.names.get(&from).ok_or_else(not_found)?;
        if !to.parent().is_some_and(|dir| state.dirs.contains_key(dir)) {
            return Err(not_found());
        }
        if state.dirs.contains_key(&*to) {
            return Err(if replace { io::ErrorKind::IsADirectory.into() } else { io::ErrorKind::AlreadyExists.into() });
        }
        if !replace && state.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if from != to {
            state.rename(&from, &to, ino);
        }
        done
    }
}

impl DiskDir for SimDir {
    fn list(&self) -> io::Result<Vec<String>> {
        let path = self.path()?;
        let (state, done) = self.disk.simple(OpKind::List, &path)?;
        let all = state.names.keys().map(|name| &**name).chain(state.dirs.keys().map(PathBuf::as_path));
        let within = all.filter(|entry| entry.parent() == Some(&path));
        let names = within.filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned())).collect();
        done.map(|()| names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let path = self.file(name)?;
        let create = matches!(access, Access::Create | Access::New);
        let (mut state, done) = self.disk.simple(if create { OpKind::Create } else { OpKind::Open }, &path)?;
        if state.dirs.contains_key(&*path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let ino = match (state.names.get(&path).copied(), path.parent()) {
            (Some(_), _) if access == Access::New => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(ino), _) => ino,
            (None, Some(dir)) if create && state.dirs.contains_key(dir) => state.link(&path),
            _ => return Err(not_found()),
        };
        if create && let Some(inode) = state.inodes.get_mut(&ino) {
            inode.set_len(0);
        }
        done.map(|()| self.disk.opened(&mut state, ino, path, false))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_over(from, to, false)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_over(from, to, true)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.file(name)?;
        if !self.disk.lock().names.contains_key(&path) && !self.disk.is_off() {
            return Err(not_found()); // No fault strikes what there is not to remove.
        }
        let (mut state, done) = self.disk.simple(OpKind::Remove, &path)?;
        let ino = *state.names.get(&path).ok_or_else(not_found)?;
        state.unlink(&path, ino);
        done
    }

    fn create_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        Disk::create_dir(&self.disk, &self.file(name)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.path()?)
    }

    fn sync_name(&self) -> io::Result<()> {
        let path = self.path()?;
        self.disk.sync_dir(path.parent().unwrap_or(&path))
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.file(name)?;
        let (mut state, done) = self.disk.simple(OpKind::Lock, &path)?;
        let ino = match (state.names.get(&path).copied(), path.parent()) {
            (Some(ino), _) => ino,
            (None, Some(dir)) if state.dirs.contains_key(dir) => state.link(&path),
            _ => return Err(not_found()),
        };
        done?;
        if !state.locked.insert(ino) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(self.disk.opened(&mut state, ino, path, true))
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let path = self.file(name)?;
        let (state, done) = self.disk.simple(OpKind::Lock, &path)?;
        done.map(|()| state.names.get(&path).is_some_and(|ino| state.locked.contains(ino)))
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(FileId(1, self.id))
    }

    fn id_of(&self, name: &str) -> io::Result<FileId> {
        let path = self.file(name)?;
        let state = self.disk.lock();
        if state.off {
            return Err(no_power());
        }
        let file = state.names.get(&path).map(|&ino| FileId(0, ino));
        file.or_else(|| state.dirs.get(&*path).map(|&id| FileId(1, id))).ok_or_else(not_found)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    ino: Ino,
    path: Arc<Path>,
    holds_lock: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if let Some(inode) = state.inodes.get_mut(&self.ino) {
            inode.opens = inode.opens.saturating_sub(1);
        }
        if self.holds_lock {
            state.locked.remove(&self.ino);
        }
    }
}

/// As much of the buffers as is said, in one piece.
fn gather(bufs: &[io::IoSlice<'_>], most: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(most);
    for buf in bufs {
        data.extend_from_slice(&buf[..buf.len().min(most - data.len())]);
    }
    data
}

impl SimFile {
    fn write(&self, bufs: &[io::IoSlice<'_>], offset: u64, durable: bool) -> io::Result<usize> {
        let kind = if durable { OpKind::DurableWrite } else { OpKind::Write };
        let mut len = bufs.iter().map(|buf| buf.len()).sum();
        let (mut state, turn) = self.disk.begin(kind, &self.path, offset, len)?;
        if matches!(turn, Turn::Struck(_, Effect::Short)) {
            // File systems stop between pages or blocks, never within a sector.
            let stop = (offset + len.div_ceil(2) as u64).next_multiple_of(SECTOR as u64);
            len = len.min((stop - offset) as usize);
        }
        let room = state.room_for(self.ino, offset, len);
        if room == 0 && len > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut data = gather(bufs, room);
        let state = &mut *state;
        let Some(inode) = state.inodes.get_mut(&self.ino) else { return Err(not_found()) };
        match turn {
            Turn::Dying => {
                inode.write(offset, &data);
                return Err(no_power());
            }
            Turn::Struck(OpKind::Sync, Effect::Eio) => {
                inode.fail_durable(offset, &data, &mut state.rng);
                return Err(eio());
            }
            Turn::Struck(_, Effect::Eio) => return Err(eio()),
            Turn::Struck(_, Effect::Lie) => inode.write(offset, &data),
            Turn::Struck(_, Effect::Lost) => inode.write_wrong(offset, &data, None),
            Turn::Struck(_, Effect::Misdirected(sectors)) => {
                let to = offset.saturating_add_signed(i64::from(sectors) * SECTOR as i64);
                inode.write_wrong(offset, &data, Some((to, &data)));
            }
            Turn::Struck(_, Effect::Flip) => {
                let right = data.clone();
                let bit = state.rng.below(data.len() as u64 * 8) as usize;
                data[bit / 8] ^= 1 << (bit % 8);
                inode.write_wrong(offset, &right, Some((offset, &data)));
            }
            Turn::Go | Turn::Struck(..) if durable => {
                inode.write_durable(offset, &data);
                return Ok(room);
            }
            Turn::Go | Turn::Struck(..) => inode.write(offset, &data),
        }
        // A durable write gone wrong is none the less synced, as far as it was written at all.
        if durable && !matches!(turn, Turn::Struck(_, Effect::Lie)) {
            inode.sync();
        }
        Ok(room)
    }
}

impl SimFile {
    fn resize(&self, len: u64, allocate: bool) -> io::Result<()> {
        let (mut state, turn) = self.disk.begin(OpKind::SetLen, &self.path, len, 0)?;
        if matches!(turn, Turn::Struck(_, Effect::Eio)) {
            return Err(eio());
        }
        if allocate && state.room_for(self.ino, 0, len as usize) < len as usize {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let Some(inode) = state.inodes.get_mut(&self.ino) else { return Err(not_found()) };
        inode.set_len(len);
        if allocate {
            inode.cache.allocate();
        }
        if matches!(turn, Turn::Dying) { Err(no_power()) } else { Ok(()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut state, turn) = self.disk.begin(OpKind::Read, &self.path, offset, buf.len())?;
        let Some(inode) = state.inodes.get(&self.ino) else { return Err(not_found()) };
        let buf = match turn {
            Turn::Struck(_, Effect::Eio) => return Err(eio()),
            Turn::Struck(_, Effect::Short) => {
                let half = buf.len().div_ceil(2);
                &mut buf[..half]
            }
            _ => buf,
        };
        let read = inode.cache.read(offset, buf);
        if matches!(turn, Turn::Struck(_, Effect::Flip)) && read > 0 {
            let bit = state.rng.below(read as u64 * 8) as usize;
            buf[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(read)
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.write(bufs, offset, false)
    }

    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.write(bufs, offset, true)
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, turn) = self.disk.begin(OpKind::Sync, &self.path, 0, 0)?;
        let state = &mut *state;
        let Some(inode) = state.inodes.get_mut(&self.ino) else { return Err(not_found()) };
        match turn {
            Turn::Dying => return Err(no_power()),
            Turn::Struck(_, Effect::Eio) => {
                inode.fail_sync(&mut state.rng);
                return Err(eio());
            }
            Turn::Struck(_, Effect::Lie) => {}
            Turn::Go | Turn::Struck(..) => inode.sync(),
        }
        Ok(())
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(FileId(0, self.ino))
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        if state.off {
            return Err(no_power());
        }
        state.inodes.get(&self.ino).map(|inode| inode.cache.len()).ok_or_else(not_found)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len, false)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        let has_all = |inode: &crate::state::Inode| inode.cache.len() >= len && inode.cache.allocated() >= len;
        if self.disk.lock().inodes.get(&self.ino).is_some_and(has_all) {
            return Ok(true);
        }
        self.resize(len, true).map(|()| true)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        let (mut state, turn) = self.disk.begin(OpKind::SetLen, &self.path, offset, len as usize)?;
        if matches!(turn, Turn::Struck(_, Effect::Eio)) {
            return Err(eio());
        }
        let Some(inode) = state.inodes.get_mut(&self.ino) else { return Err(not_found()) };
        inode.punch(offset, len);
        if matches!(turn, Turn::Dying) { Err(no_power()) } else { Ok(true) }
    }
}
