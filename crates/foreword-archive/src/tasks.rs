//! Work on the runtime, and on its threads for what blocks.

use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// Runs what blocks, on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::io("run", "a thread", std::io::Error::other(error)))
}

/// A task that ends when no one waits for it any more.
pub(crate) struct Task<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn(work: impl Future<Output = T> + Send + 'static) -> Task<T> {
        Task(tokio::spawn(work))
    }

    pub(crate) async fn end(mut self) -> Result<T> {
        (&mut self.0).await.map_err(|error| Error::io("run", "a task", std::io::Error::other(error)))
    }
}
