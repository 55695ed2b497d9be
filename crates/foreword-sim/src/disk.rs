//! The simulated disk: its handles, its faults and its power.

mod choice;
mod dir;
mod file;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foreword::disk::Disk;

use crate::content::Content;
use crate::faults::{Effect, Fault, Op, OpKind};
use crate::rng::{Rng, mix};
use crate::state::DiskState;

pub use choice::Choice;
use choice::draw;

/// A simulated disk with a file system on it, in memory.
///
/// Clones are handles to the same disk. [`crash`](SimDisk::crash), [`kill`](SimDisk::kill) and
/// [`copy`](SimDisk::copy) make other disks and leave this one as it is. The root directory is `/`.
/// The [crate's documentation](crate) says what the disk does and does not do.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<DiskState>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("SimDisk").field("changes", &state.changes).field("off", &state.off).finish_non_exhaustive()
    }
}

/// What becomes of an operation.
enum Outcome {
    /// The operation is done.
    Done,
    /// The operation may be done, and the power fails: the caller gets an error.
    Dying,
    /// A fault on this kind of operation strikes it.
    Struck(OpKind, Effect),
}

fn eio() -> io::Error {
    io::Error::other("simulated I/O error")
}

fn no_power() -> io::Error {
    io::Error::other("simulated power failure")
}

impl SimDisk {
    /// An empty disk. The seed decides what nothing else does, such as the sectors that a failed
    /// sync still wrote.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from(DiskState::new(seed))
    }

    fn from(state: DiskState) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This disk, for [`Options::disk`](foreword::Options::disk).
    #[must_use]
    pub fn handle(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// A copy of this disk with everything on it, locks and open files included.
    #[must_use]
    pub fn copy(&self) -> SimDisk {
        SimDisk::from(self.lock().clone())
    }

    /// A disk that a power failure now can leave. Files are closed, locks are free, and faults are
    /// gone.
    #[must_use]
    pub fn crash(&self, choice: &Choice) -> SimDisk {
        let state = self.lock();
        let units = state.undecided();
        SimDisk::from(state.crash(&units, &choice.keep(&units), mix(&[state.changes])).0)
    }

    /// The number of units that a power failure can keep or lose: sectors written, lengths set, and
    /// names changed, that are not synced.
    #[must_use]
    pub fn undecided(&self) -> usize {
        self.lock().undecided().len()
    }

    /// The disks that a power failure now can leave: all of them, if they are at most `limit`; else
    /// this many chosen by the seed, among them the disk with nothing and the disk with everything.
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
            // A choice that cannot be kept as it is leaves the same disk as another choice.
            (all.is_none() || faithful).then(|| SimDisk::from(after))
        })
    }

    /// The disk after all processes that used it were killed: the page cache has all that was
    /// written, the locks are free, and the faults are gone. A later power failure can still lose
    /// what was not synced.
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        SimDisk::from(self.lock().kill())
    }

    /// Drops all clean pages of the page cache. Reads get what is on the disk, which after a failed
    /// sync may differ from what the page cache showed.
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

    /// Sets the bytes that the disk has room for, in pages of 4 KiB. `None`, as at first: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// The bytes that are taken, in pages of 4 KiB that are no holes. A directory takes a page.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Sets the limit so that this many bytes are free.
    pub fn set_free(&self, bytes: u64) {
        let mut state = self.lock();
        state.capacity = Some(state.used() + bytes);
    }

    /// The number of [changing](OpKind::changes) operations so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Lets the power fail in the changing operation with this number (the first is 1). What that
    /// operation writes may or may not reach the disk. The operation fails, and so do all after it.
    /// [`crash`](SimDisk::crash) gives the disk after the reboot; [`kill`](SimDisk::kill), the disk
    /// as if only the process had died.
    pub fn power_off_at(&self, change: u64) {
        self.lock().power_off_at = Some(change);
    }

    /// Lets the power fail now: all operations fail from here on.
    pub fn power_off(&self) {
        self.lock().off = true;
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// The operations so far, in order.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.lock().journal.clone()
    }

    /// All files, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.lock();
        let len = |ino| state.inodes.get(ino).map_or(0, |inode| inode.cache.len());
        state.names.iter().map(|(path, ino)| (path.to_path_buf(), len(ino))).collect()
    }

    /// Flips a bit of a file, on the disk and in the page cache: rot. `false`: the file has no such
    /// byte.
    pub fn flip(&self, path: impl AsRef<Path>, byte: u64, bit: u8) -> bool {
        let path = path.as_ref();
        let Some(old) = self.peek(path, byte, 1) else { return false };
        self.overwrite(path, byte, &[old[0] ^ 1 << (bit & 7)])
    }

    /// Overwrites a stretch of a file, on the disk and in the page cache. `false`: the file has no
    /// such stretch.
    pub fn overwrite(&self, path: impl AsRef<Path>, byte: u64, data: &[u8]) -> bool {
        if self.peek(path.as_ref(), byte, data.len()).is_none() {
            return false;
        }
        self.damage(path.as_ref(), |platter| platter.write(byte, data))
    }

    /// A stretch of a file, as the page cache shows it. `None`: the file has no such stretch.
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

    /// Moves a directory with all that is in it, at once and durably. Open handles on the directory
    /// follow; paths find it under the new name. `false`: the directory is not there, or the new
    /// path is taken.
    pub fn rename_dir(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> bool {
        self.lock().rename_dir(from.as_ref(), to.as_ref())
    }

    /// Removes a file with its name, at once and durably. `false`: the file is not there.
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

    /// Cuts a file to a length or lengthens it, on the disk and in the page cache. `false`: the
    /// file is not there.
    pub fn cut(&self, path: impl AsRef<Path>, len: u64) -> bool {
        self.damage(path.as_ref(), |platter| platter.set_len(len))
    }

    /// Puts a file of another disk in the place of this disk's: an old copy, for example. `false`:
    /// one of the two is not there.
    pub fn replace(&self, path: impl AsRef<Path>, from: &SimDisk) -> bool {
        let theirs = {
            let state = from.lock();
            let inode = state.names.get(path.as_ref()).and_then(|ino| state.inodes.get(ino));
            inode.map(|inode| inode.platter().clone())
        };
        theirs.is_some_and(|theirs| self.damage(path.as_ref(), |platter| *platter = theirs))
    }

    /// Counts an operation, and decides what becomes of it.
    fn begin(&self, kind: OpKind, path: &Arc<Path>, offset: u64, len: usize) -> io::Result<(MutexGuard<'_, DiskState>, Outcome)> {
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
        // Each fault counts each operation, also if another fault strikes it.
        let mut struck = None;
        for fault in &mut state.faults {
            if fault.strikes(kind, path) {
                struck = struck.or(Some((fault.op, fault.effect)));
            }
        }
        state.journal.push(Op { kind, path: path.clone(), offset, len, struck: dying || struck.is_some() });
        let outcome = match struck {
            _ if dying => Outcome::Dying,
            None => Outcome::Done,
            Some((_, Effect::NoSpace)) => return Err(io::ErrorKind::StorageFull.into()),
            Some((_, Effect::Interrupted)) => return Err(io::ErrorKind::Interrupted.into()),
            Some((_, Effect::Stall(time))) => {
                drop(state);
                std::thread::sleep(time);
                state = self.lock();
                Outcome::Done
            }
            Some((on, effect)) => Outcome::Struck(on, effect),
        };
        Ok((state, outcome))
    }

    /// As `begin`, for operations that a fault can only let fail.
    fn simple(&self, kind: OpKind, path: &Arc<Path>) -> io::Result<(MutexGuard<'_, DiskState>, io::Result<()>)> {
        match self.begin(kind, path, 0, 0)? {
            (_, Outcome::Struck(_, Effect::Eio)) => Err(eio()),
            (state, Outcome::Dying) => Ok((state, Err(no_power()))),
            (state, _) => Ok((state, Ok(()))),
        }
    }
}

fn arc(path: &Path) -> Arc<Path> {
    Arc::from(path)
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}
