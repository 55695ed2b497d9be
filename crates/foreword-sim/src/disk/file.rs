//! Files of the simulated disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use foreword::disk::{DiskFile, FileId};

use super::{Outcome, SimDisk, eio, no_power, not_found};
use crate::SECTOR;
use crate::faults::{Effect, OpKind};
use crate::state::{DiskState, Ino, Inode};

/// An open file.
#[derive(Debug)]
pub(super) struct SimFile {
    disk: SimDisk,
    ino: Ino,
    path: Arc<Path>,
    holds_lock: bool,
}

impl SimFile {
    /// Opens a file. `holds_lock`: the file's lock is given up when this is dropped.
    pub(super) fn open(disk: &SimDisk, state: &mut DiskState, ino: Ino, path: Arc<Path>, holds_lock: bool) -> Box<dyn DiskFile> {
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.opens += 1;
        }
        Box::new(SimFile { disk: disk.clone(), ino, path, holds_lock })
    }
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

/// The first `most` bytes of the buffers, in one piece.
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
        let (mut state, outcome) = self.disk.begin(kind, &self.path, offset, len)?;
        if matches!(outcome, Outcome::Struck(_, Effect::Short)) {
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
        match outcome {
            Outcome::Dying => {
                inode.write(offset, &data);
                return Err(no_power());
            }
            Outcome::Struck(OpKind::Sync, Effect::Eio) => {
                inode.fail_durable(offset, &data, &mut state.rng);
                return Err(eio());
            }
            Outcome::Struck(_, Effect::Eio) => return Err(eio()),
            Outcome::Struck(_, Effect::Lie) => inode.write(offset, &data),
            Outcome::Struck(_, Effect::Lost) => inode.write_wrong(offset, &data, None),
            Outcome::Struck(_, Effect::Misdirected(sectors)) => {
                let to = offset.saturating_add_signed(i64::from(sectors) * SECTOR as i64);
                inode.write_wrong(offset, &data, Some((to, &data)));
            }
            Outcome::Struck(_, Effect::Flip) => {
                let right = data.clone();
                let bit = state.rng.below(data.len() as u64 * 8) as usize;
                data[bit / 8] ^= 1 << (bit % 8);
                inode.write_wrong(offset, &right, Some((offset, &data)));
            }
            Outcome::Done | Outcome::Struck(..) if durable => {
                inode.write_durable(offset, &data);
                return Ok(room);
            }
            Outcome::Done | Outcome::Struck(..) => inode.write(offset, &data),
        }
        // A durable write that goes wrong still syncs what it has written.
        if durable && !matches!(outcome, Outcome::Struck(_, Effect::Lie)) {
            inode.sync();
        }
        Ok(room)
    }

    fn resize(&self, len: u64, allocate: bool) -> io::Result<()> {
        let (mut state, outcome) = self.disk.begin(OpKind::SetLen, &self.path, len, 0)?;
        if matches!(outcome, Outcome::Struck(_, Effect::Eio)) {
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
        if matches!(outcome, Outcome::Dying) { Err(no_power()) } else { Ok(()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut state, outcome) = self.disk.begin(OpKind::Read, &self.path, offset, buf.len())?;
        let Some(inode) = state.inodes.get(&self.ino) else { return Err(not_found()) };
        let buf = match outcome {
            Outcome::Struck(_, Effect::Eio) => return Err(eio()),
            Outcome::Struck(_, Effect::Short) => {
                let half = buf.len().div_ceil(2);
                &mut buf[..half]
            }
            _ => buf,
        };
        let read = inode.cache.read(offset, buf);
        if matches!(outcome, Outcome::Struck(_, Effect::Flip)) && read > 0 {
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
        let (mut state, outcome) = self.disk.begin(OpKind::Sync, &self.path, 0, 0)?;
        let state = &mut *state;
        let Some(inode) = state.inodes.get_mut(&self.ino) else { return Err(not_found()) };
        match outcome {
            Outcome::Dying => return Err(no_power()),
            Outcome::Struck(_, Effect::Eio) => {
                inode.fail_sync(&mut state.rng);
                return Err(eio());
            }
            Outcome::Struck(_, Effect::Lie) => {}
            Outcome::Done | Outcome::Struck(..) => inode.sync(),
        }
        Ok(())
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(FileId::new(0, self.ino.into()))
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
        let has_all = |inode: &Inode| inode.cache.len() >= len && inode.cache.allocated() >= len;
        if self.disk.lock().inodes.get(&self.ino).is_some_and(has_all) {
            return Ok(true);
        }
        self.resize(len, true).map(|()| true)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        let (mut state, outcome) = self.disk.begin(OpKind::SetLen, &self.path, offset, len as usize)?;
        if matches!(outcome, Outcome::Struck(_, Effect::Eio)) {
            return Err(eio());
        }
        let Some(inode) = state.inodes.get_mut(&self.ino) else { return Err(not_found()) };
        inode.punch(offset, len);
        if matches!(outcome, Outcome::Dying) { Err(no_power()) } else { Ok(true) }
    }
}
