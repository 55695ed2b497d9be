//! The thread that takes checkpoints.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::WriteBack;
use crate::engine::Engine;
use crate::sync::thread::{Builder, JoinHandle};
use crate::{Error, Result};

/// A running background thread. Dropping this stops the thread and waits for it.
#[derive(Debug)]
pub(crate) struct Background {
    engine: Arc<Engine>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(engine: &Arc<Engine>, interval: Option<Duration>) -> Result<Background> {
        let its = engine.clone();
        let thread = Builder::new().name("foreword-pages".into()).spawn(move || run(&its, interval));
        let thread = thread.map_err(Error::io("start a thread", engine.pool.file.path()))?;
        Ok(Background { engine: engine.clone(), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.engine.checkpoints.stop();
        if let Some(thread) = self.thread.take() {
            // A forked child has no such thread to wait for.
            match self.engine.pool.file.is_forked() {
                true => std::mem::forget(thread),
                false => _ = thread.join(),
            }
        }
    }
}

fn run(engine: &Arc<Engine>, interval: Option<Duration>) {
    while let Some(is_due) = engine.checkpoints.wait(interval) {
        // `Stats` shows an error; the next attempt may succeed. A disk that panics has said so.
        if is_due && catch_unwind(AssertUnwindSafe(|| engine.checkpoint(WriteBack::Old))).is_err() {
            let panicked = io::Error::other("it panicked");
            engine.checkpoints.note(Some(Error::io("take a checkpoint", engine.pool.file.path())(panicked)));
        }
    }
}
