//! A stream of calls to a node, from the caller's side: as many are under way as its window holds,
//! and each gets its answer when that is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::network::Target;
use super::{Answered, Asked, Call, Reply, WINDOW, decode_next};
use crate::error::{Error, Result};

/// A stream. It ends with the last handle.
///
/// It takes no more calls once it has broken, or once a caller has not waited for its answer: the
/// node may be at that call for as long as it likes. What is under way goes on; others take a new
/// stream. When the last of its callers is gone, the node hears that nobody waits.
pub(super) struct Calls {
    asked: mpsc::UnboundedSender<Asked>,
    waiting: Arc<Waiting>,
    receives: AbortHandle,
}

struct Waiting {
    /// Room for calls under way. Closed when no more are taken.
    window: Semaphore,
    callers: Mutex<Callers>,
}

#[derive(Default)]
struct Callers {
    /// The number of the last call.
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Reply>>,
    /// Why there are no more answers.
    ended: Option<Error>,
}

impl Waiting {
    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes calls of a node until the stream ends: why it has.
    async fn receive(&self, target: &Target, requests: mpsc::UnboundedReceiver<Asked>) -> Error {
        let mut answers = match target.calls(requests).await {
            Ok(answers) => answers,
            Err(error) => return error,
        };
        while let Some(message) = answers.next().await {
            if let Err(error) = message.map_err(|status| target.error(status)).and_then(|message| self.answer(&message)) {
                return error;
            }
        }
        Error::unknown("the stream of calls ended")
    }

    /// Hands out the answers of a message.
    fn answer(&self, mut message: &[u8]) -> Result<()> {
        while let Some((number, reply)) = decode_next::<Answered>(&mut message).map_err(Error::unknown)? {
            if number == 0 {
                return reply.map(drop);
            }
            let caller = self.callers().answers.remove(&number);
            caller.map(|caller| caller.send(reply));
        }
        Ok(())
    }

    /// Those that still wait hear why in vain.
    fn end(&self, why: Error) {
        self.window.close();
        let mut callers = self.callers();
        callers.ended = Some(why);
        let unanswered = std::mem::take(&mut callers.answers);
        drop(callers);
        drop(unanswered);
    }
}

impl Calls {
    /// Begins a stream. Whether there is a node shows when calls are made.
    pub(super) fn begin(target: Arc<Target>) -> Arc<Calls> {
        let (asked, requests) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting { window: Semaphore::new(WINDOW as usize), callers: Mutex::default() });
        let waits = waiting.clone();
        let receives = tokio::spawn(async move { waits.end(waits.receive(&target, requests).await) });
        Arc::new(Calls { asked, waiting, receives: receives.abort_handle() })
    }

    pub(super) fn takes_more(&self) -> bool {
        !self.waiting.window.is_closed()
    }

    /// Waits until there is room for a call of this cost. `None` if the stream takes no more.
    pub(super) async fn place(&self, cost: u32) -> Option<Place<'_>> {
        let room = self.waiting.window.acquire_many(cost).await.ok()?;
        let (sender, answer) = oneshot::channel();
        let mut callers = self.waiting.callers();
        if !self.takes_more() {
            return None;
        }
        callers.last += 1;
        let number = callers.last;
        callers.answers.insert(number, sender);
        Some(Place { calls: self, number, answer, _room: room })
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.receives.abort(); // Nobody waits any more.
    }
}

/// The place of one call among those under way.
pub(super) struct Place<'a> {
    calls: &'a Calls,
    number: u64,
    answer: oneshot::Receiver<Reply>,
    _room: SemaphorePermit<'a>,
}

impl Place<'_> {
    /// Makes the call: what the node answers, or why it does not.
    pub(super) async fn call(mut self, call: Call, pass_on: Option<Duration>) -> Result<Reply> {
        // If nobody receives it, the stream has ended, or does.
        _ = self.calls.asked.send(Asked { number: self.number, pass_on, call });
        match (&mut self.answer).await {
            Ok(reply) => Ok(reply),
            Err(_) => Err(self.calls.waiting.callers().ended.clone().unwrap_or(Error::Closed)),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.calls.waiting.callers().answers.remove(&self.number).is_some() {
            self.calls.waiting.window.close();
        }
    }
}
