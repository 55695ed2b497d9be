//! A stream of calls to a node, from the caller's side: as many are under way as its window holds,
//! and each gets its answer when that is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::target::Target;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tempfile::TempDir;

    use super::super::network::Connection;
    use super::super::{Answer, Asked};
    use super::*;
    use crate::raft::Item;
    use crate::{Options, ReplicatedLog};

    const LONG: Duration = Duration::from_secs(60);

    /// A leader without a majority, so that what is to be appended waits, since its lease is long; a
    /// learner; and a connection to the first.
    async fn alone() -> (TempDir, ReplicatedLog, ReplicatedLog, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let timing = (Duration::from_millis(300), LONG);
        let node = |id| Options::new().node(id).listen("127.0.0.1:0").timing(Duration::from_millis(100), timing).patience(LONG);
        let log = node(1).open(dir.path().join("1")).await.unwrap();
        let other = node(2).join([log.address()]).open(dir.path().join("2")).await.unwrap();
        let learner = node(3).join([log.address()]).open(dir.path().join("3")).await.unwrap();
        log.promote(2).await.unwrap();
        other.halt().await.unwrap();
        let connection = Connection::new(log.address(), None).unwrap();
        (dir, log, learner, connection)
    }

    fn append(bytes: usize) -> Call {
        Call::Propose(Item::Append { records: vec![Bytes::from(vec![7; bytes])] })
    }

    fn begin(connection: &Connection, call: Call) -> tokio::task::JoinHandle<Result<Reply>> {
        let connection = connection.clone();
        tokio::spawn(async move { connection.call(call, None, LONG).await })
    }

    async fn wait_for(what: &str, check: impl Fn() -> bool) {
        for _ in 0..2000 {
            if check() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within 20 s: {what}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_that_waits_delays_no_other() {
        let (_dir, log, _learner, connection) = alone().await;
        let slow = [append(10), Call::Promote { node: 9 }].map(|call| begin(&connection, call));
        let stream = connection.calls();
        wait_for("two calls are under way", || stream.waiting.callers().answers.len() == 2).await;
        for _ in 0..100 {
            assert!(matches!(connection.call(Call::Status, None, LONG).await, Ok(Ok(Answer::Status(_)))));
        }
        assert!(slow.iter().all(|slow| !slow.is_finished()));
        assert!(Arc::ptr_eq(&stream, &connection.calls()), "they were not on one stream");
        // When the node stops, what is under way is answered, and what it will not read is refused.
        log.halt().await.unwrap();
        for slow in slow {
            assert!(matches!(slow.await.unwrap(), Ok(Err(_))));
        }
        wait_for("the stream ends", || stream.waiting.callers().ended.is_some()).await;
        assert_eq!(stream.waiting.callers().ended, Some(Error::Closed));
        assert!(!stream.takes_more());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_caller_that_goes_away_leaves_nothing_behind() {
        let (_dir, log, _learner, connection) = alone().await;
        let before = Arc::strong_count(log.inner());
        let stream = connection.calls();
        let [goes, stays] = [(); 2].map(|()| begin(&connection, Call::Promote { node: 9 }));
        wait_for("two calls are under way", || stream.waiting.callers().answers.len() == 2).await;
        wait_for("the node is at them", || Arc::strong_count(log.inner()) >= before + 4).await;
        goes.abort();
        wait_for("the caller is gone", || stream.waiting.callers().answers.len() == 1).await;
        // The other goes on, and what comes then takes another stream.
        assert!(!Arc::ptr_eq(&stream, &connection.calls()));
        assert!(matches!(connection.call(Call::Status, None, LONG).await, Ok(Ok(Answer::Status(_)))));
        assert!(!stays.is_finished());
        stays.abort();
        let gone = Arc::downgrade(&stream);
        drop(stream);
        wait_for("the stream is gone", || gone.upgrade().is_none()).await;
        // So it is at the node, and with the connection all that it had.
        drop(connection);
        wait_for("the node is at nothing", || Arc::strong_count(log.inner()) <= before).await;
        log.halt().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn calls_wait_while_the_window_is_full() {
        let (_dir, log, _learner, connection) = alone().await;
        let stream = connection.calls();
        let fit = (WINDOW / append(60 << 10).cost()) as usize;
        let calls: Vec<_> = (0..fit + 10).map(|_| begin(&connection, append(60 << 10))).collect();
        let under_way = |stream: &Calls| stream.waiting.callers().answers.len();
        wait_for("the window is full", || under_way(&stream) == fit).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(under_way(&stream), fit);
        // Those that wait for room do not wait for one that nobody waits for.
        calls[0].abort();
        wait_for("the others are under way", || under_way(&stream) + under_way(&connection.calls()) >= fit + 9).await;
        log.halt().await.unwrap();
        for call in calls.into_iter().skip(1) {
            assert!(!matches!(call.await.unwrap(), Ok(Ok(_))));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_reads_no_more_than_its_window_holds() {
        let (_dir, log, _learner, connection) = alone().await;
        for (bytes, reads_on) in [(1000, true), (WINDOW as usize, false)] {
            let (asked, requests) = mpsc::unbounded_channel();
            for (number, call) in [(1, append(bytes)), (2, Call::Status)] {
                asked.send(Asked { number, pass_on: None, call }).unwrap();
            }
            let mut answers = connection.target().calls(requests).await.unwrap();
            let patience = if reads_on { LONG } else { Duration::from_millis(500) };
            assert_eq!(tokio::time::timeout(patience, answers.next()).await.is_ok(), reads_on, "{bytes} bytes");
        }
        log.halt().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_passes_on_what_it_is_told_to_and_for_as_long_as_the_caller_waits() {
        let (_dir, log, learner, connection) = alone().await;
        wait_for("the learner knows the leader", || learner.status().leader == Some(1)).await;
        let to_learner = Connection::new(learner.address(), None).unwrap();
        let refused = to_learner.call(append(10), None, LONG).await.unwrap();
        assert_eq!(refused.unwrap_err(), Error::NotLeader { leader: Some((1, log.address().to_owned())) });
        // It asks the leader, which cannot carry it out now.
        let passed = to_learner.call(append(10), Some(Duration::from_millis(300)), LONG).await.unwrap();
        assert!(matches!(passed, Err(Error::Unknown { .. })), "{passed:?}");
        // What any node does, and what the leader itself is asked, is not passed on.
        for (connection, node) in [(to_learner, 3), (connection, 1)] {
            let own = connection.call(Call::Status, Some(LONG), LONG).await.unwrap();
            assert!(matches!(own, Ok(Answer::Status(status)) if status.node == node));
        }
        log.halt().await.unwrap();
        learner.halt().await.unwrap();
    }
}
