//! What callers propose, gathered into entries.

use std::sync::Arc;

use openraft::impls::ProgressResponder;
use tokio::sync::mpsc;

use super::refusal::refused;
use crate::error::{Error, Result};
use crate::raft::{Item, Outcome, Proposal};
use crate::store::Raft;

/// What is gathered into one entry, at most, beside the last that fits no more.
const ENTRY_BYTES: usize = 1 << 20;
pub(super) const ENTRY_ITEMS: usize = 1024;
/// How many entries are on their way at once: while they are, what else comes gathers.
const ENTRIES_AT_ONCE: usize = 8;

/// A proposal on its way to the group.
pub(super) struct Waiting {
    pub(super) item: Item,
    pub(super) answer: Box<dyn FnOnce(Result<Outcome>) + Send>,
}

/// Gathers what callers propose into entries, and hands out what became of them.
pub(super) async fn gather(raft: Raft, mut waiting: mpsc::Receiver<Waiting>) {
    let room = Arc::new(tokio::sync::Semaphore::new(ENTRIES_AT_ONCE));
    // How long each entry took, from here until a majority had it durable, and it was applied here.
    #[cfg(feature = "metrics")]
    let quorum = metrics::histogram!("foreword_raft_quorum_seconds", "node" => raft.node_id().to_string());
    let mut left = None;
    loop {
        let Some(first) = (match left.take() {
            Some(left) => Some(left),
            None => waiting.recv().await,
        }) else {
            return;
        };
        // While there is no room for another entry, more comes for this one.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let mut bytes = first.item.bytes();
        let (mut items, mut answers) = (vec![first.item], vec![first.answer]);
        while items.len() < ENTRY_ITEMS
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.item.bytes();
            if bytes > ENTRY_BYTES {
                left = Some(next);
                break;
            }
            items.push(next.item);
            answers.push(next.answer);
        }
        let (responder, answered) = ProgressResponder::complete_only();
        #[cfg(feature = "metrics")]
        let (quorum, proposed) = (quorum.clone(), tokio::time::Instant::now());
        let sent = raft.client_write_ff(Proposal { items }, Some(responder)).await;
        tokio::spawn(async move {
            let outcome = match sent {
                Err(fatal) => Err(Error::from(fatal)),
                Ok(()) => match answered.await {
                    Ok(Ok(written)) => {
                        #[cfg(feature = "metrics")]
                        quorum.record(proposed.elapsed());
                        Ok(written.data)
                    }
                    Ok(Err(error)) => Err(refused(&error)),
                    Err(_) => Err(Error::unknown("the node has stopped")),
                },
            };
            drop(permit);
            match outcome {
                Ok(outcomes) if outcomes.len() == answers.len() => {
                    answers.into_iter().zip(outcomes).for_each(|(answer, outcome)| answer(Ok(outcome)));
                }
                Ok(_) => answers.into_iter().for_each(|answer| answer(Err(Error::unknown("an entry without its outcome")))),
                Err(error) => answers.into_iter().for_each(|answer| answer(Err(error.clone()))),
            }
        });
    }
}
