//! One handle for both ways to the disk: past the page cache for durable writes, through it for all
//! else.
//!
//! The handle's `O_DIRECT` is set and cleared as calls need it. A call that another thread's switch
//! overtakes goes the other way, or is refused for its buffers, with nothing done: then it is made
//! again. So a switch decides how fast a write is, and never whether it is durable. (A second
//! handle for each segment is what this saves.)

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::sync::ProcessLock;

/// What direct I/O wants of memory, offsets and lengths, on any disk of today.
const ALIGN: usize = 4096;

const CACHED: u32 = 0;
const DIRECT: u32 = 1;
/// Cached, for good.
const NEVER: u32 = 2;
/// One switch more.
const SWITCH: u32 = 4;

/// A forked process has the same handle, and does not see how its parent switches it: so often a
/// read there takes it back. (The parent's next write may go through the page cache, and is as
/// durable.)
const FORKED_TRIES: u32 = 100;

/// Which way a file's handle goes.
#[derive(Debug)]
pub(super) struct Way {
    /// The way, and how often it was switched: so a call can tell whether another thread did
    /// meanwhile.
    now: AtomicU32,
    /// Taken to switch, and never over I/O.
    switching: ProcessLock<()>,
}

impl Way {
    pub(super) fn new(buffered: bool) -> Way {
        Way { now: AtomicU32::new(if buffered { NEVER } else { CACHED }), switching: ProcessLock::default() }
    }

    fn now(&self) -> u32 {
        self.now.load(Ordering::Acquire)
    }

    fn is(&self, way: u32) -> bool {
        self.now() % SWITCH == way
    }

    /// Fails only where direct I/O is to end, and the system refuses that.
    fn switch(&self, file: &File, to: u32) -> io::Result<()> {
        let _switching = self.switching.lock();
        if self.is(to) || self.is(NEVER) {
            return Ok(());
        }
        let flags = |flags: OFlags| if to == DIRECT { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
        let switched = fcntl_getfl(file).and_then(|now| fcntl_setfl(file, flags(now)));
        let to = match switched {
            Ok(()) => to,
            Err(_) if to == DIRECT => NEVER, // The file system has no such thing.
            Err(refused) => return Err(refused.into()),
        };
        let now = self.now();
        self.now.store((now - now % SWITCH + to).wrapping_add(SWITCH), Ordering::Release);
        Ok(())
    }

    /// Whether the way was switched since then, also if a switch is under way that a call may have
    /// met already.
    fn was_switched_since(&self, way: u32) -> bool {
        let _switching = self.switching.lock();
        self.now() != way
    }

    /// Has the file written past the page cache, if it can be, and these buffers can.
    ///
    /// The kernel keeps the page cache true to direct writes (readers use it), as long as nobody
    /// maps the file; no block is ever written both ways at once: its zeros, its frame, and what
    /// opening writes again come one after the other.
    pub(super) fn go_direct(&self, file: &File, bufs: &[io::IoSlice<'_>], offset: u64) -> bool {
        let aligned = |b: &io::IoSlice<'_>| (b.as_ptr() as usize).is_multiple_of(ALIGN) && b.len().is_multiple_of(ALIGN);
        if self.is(NEVER) || !offset.is_multiple_of(ALIGN as u64) || !bufs.iter().all(aligned) {
            return false;
        }
        self.is(DIRECT) || (self.switch(file, DIRECT).is_ok() && self.is(DIRECT))
    }

    /// The file system has its own idea of alignment: its files are not written past the page cache
    /// any more.
    pub(super) fn give_up(&self, file: &File) -> io::Result<()> {
        self.switch(file, NEVER)
    }

    /// Does something through the page cache.
    pub(super) fn cached<T>(&self, file: &File, mut io: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut forked = FORKED_TRIES;
        loop {
            let way = self.now();
            if way % SWITCH == DIRECT {
                self.switch(file, CACHED)?;
                continue;
            }
            match io() {
                Err(e) if Errno::from_io_error(&e) != Some(Errno::INVAL) => return Err(e),
                Err(_) if self.was_switched_since(way) => {}
                Err(_) if forked > 0 && self.switching.is_forked() => {
                    forked -= 1;
                    fcntl_getfl(file).and_then(|now| fcntl_setfl(file, now - OFlags::DIRECT))?;
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::files::disk::{Access, Disk, OsDisk};
    use crate::format::FrameBuf;
    use crate::sync::fork::Child;

    fn handles(dir: &std::path::Path) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        open.filter(|file| file.starts_with(dir)).count()
    }

    #[test]
    fn calls_that_want_the_handle_in_different_ways_do_not_harm_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk::new().open_dir(dir.path()).unwrap().open("file", Access::New).unwrap();
        file.allocate(64 * 4096).unwrap();
        let file = &*file;
        let block = |n: u8| {
            let mut block = FrameBuf::zeroed(4096);
            block.fill(n);
            block
        };
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                scope.spawn(move || {
                    for n in 1..100u8 {
                        let (at, block) = (thread * 4096, block(n));
                        match thread {
                            0 => assert_eq!(file.write_durable_at(&[IoSlice::new(&block)], at).unwrap(), 4096),
                            1 => assert_eq!(file.write_through_at(&[IoSlice::new(&block)], at).unwrap(), 4096),
                            // Neither the memory, nor the length, nor the place is aligned.
                            _ => assert_eq!(file.write_at(&[IoSlice::new(&block[1..778])], at + 5).unwrap(), 777),
                        }
                        let mut read = [0; 778];
                        assert_eq!(file.read_at(&mut read[1..], at + 5).unwrap(), 777);
                        assert!(read[1..].iter().all(|&byte| byte == n), "thread {thread}");
                    }
                });
            }
        });
        assert_eq!(handles(dir.path()), 1);
    }

    /// The child has the same handle, and cannot see in its memory what its parent does with it.
    #[test]
    fn a_forked_process_reads_whichever_way_its_parent_switches_the_handle() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("file")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 8192], 0).unwrap();
        file.sync_all().unwrap();
        let way = Way::new(false);
        let is_direct = || fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT);
        way.switch(&file, DIRECT).unwrap();
        if way.is(NEVER) {
            return; // There is only one way here.
        }
        way.switch(&file, CACHED).unwrap();
        let child = Child::fork(|| {
            while !is_direct() {
                std::thread::yield_now();
            }
            let read = way.cached(&file, || std::os::unix::fs::FileExt::read_at(&file, &mut [0; 3], 5));
            matches!(read, Ok(3))
        });
        way.switch(&file, DIRECT).unwrap();
        assert_eq!(child.status(), 0, "it cannot read");
    }

    #[test]
    fn what_a_switch_makes_the_kernel_refuse_is_done_again_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("file")).unwrap();
        for back in [false, true] {
            let (way, mut calls) = (Way::new(false), 0);
            let done = way.cached(&file, || {
                calls += 1;
                if calls > 1 {
                    return Ok(());
                }
                way.switch(&file, DIRECT).unwrap();
                let refused = way.is(DIRECT);
                if back {
                    way.switch(&file, CACHED).unwrap();
                }
                if refused { Err(Errno::INVAL.into()) } else { Ok(()) }
            });
            assert!(done.is_ok(), "{done:?}");
            assert_eq!(calls, if way.is(NEVER) { 1 } else { 2 });
            assert!(!way.is(DIRECT));
            calls = 0;
            let refused: io::Result<()> = way.cached(&file, || {
                calls += 1;
                Err(Errno::INVAL.into())
            });
            assert!(refused.is_err() && calls == 1);
        }
    }
}
