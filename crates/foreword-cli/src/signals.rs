//! SIGINT and SIGTERM for a command that reads standard input: the first signal ends the input, and
//! the command ends as at the end of the input. The second signal ends the process at once.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::exit::Status;

pub(crate) struct Signals {
    /// The one that came last; 0 if none did.
    came: Arc<AtomicUsize>,
    /// Readable when one came.
    wakes: UnixStream,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Signals> {
        let (wakes, woken) = UnixStream::pair()?;
        let (came, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for (signal, status) in [(SIGINT, Status::Interrupted), (SIGTERM, Status::Terminated)] {
            // In this order, so that only the second finds the flag set.
            flag::register_conditional_shutdown(signal, status as i32, again.clone())?;
            flag::register(signal, again.clone())?;
            flag::register_usize(signal, came.clone(), signal as usize)?;
            low_level::pipe::register(signal, woken.try_clone()?)?;
        }
        Ok(Signals { came, wakes })
    }

    /// With what status the command is to end, if a signal came.
    pub(crate) fn status(&self) -> Option<Status> {
        match self.came.load(Ordering::Relaxed) as i32 {
            SIGINT => Some(Status::Interrupted),
            SIGTERM => Some(Status::Terminated),
            _ => None,
        }
    }

    /// Waits until there is something to read, or its end: `false` if a signal came instead.
    pub(crate) fn wait_for(&self, input: &impl AsFd) -> io::Result<bool> {
        while self.status().is_none() {
            let mut both = [PollFd::new(input, PollFlags::IN), PollFd::new(&self.wakes, PollFlags::IN)];
            match poll(&mut both, None) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            // (A flag is set before the pipe is written to.)
            if both[1].revents().is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
