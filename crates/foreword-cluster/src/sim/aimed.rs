//! Nodes that are lost at the moments that the protocol relies on: as soon as they have voted, or
//! have appended behind a truncation. What they promise there counts between two messages only, and
//! other faults come there too rarely.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::lock;
use super::world::World;

/// A voter that has not heard from its leader for so long may vote for another: the longest time
/// until an election ([`World::start`]), and a little more.
const LEASE: Duration = Duration::from_millis(450);
/// A node that has not voted by then does not.
const LONG: Duration = Duration::from_millis(500);

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Election {
    /// The node that stands, as a place among those that do not lead.
    pub(super) candidate: u64,
    /// Why the voters may vote for it while another leads: they have just come back, or were cut
    /// off from that one.
    pub(super) back: bool,
    /// Whether they lose power, or are killed.
    pub(super) power: bool,
    /// For how long the candidate is not heard then; in milliseconds.
    pub(super) silent: u64,
}

impl World {
    /// A node stands for election while another leads. Each of the voters that it needs is lost as
    /// soon as it has voted, and comes back at once. The candidate hears of the votes, and is not
    /// heard for a while: so long the voters know of it only what they have kept, and the old
    /// leader, or another candidate, goes on.
    pub(super) async fn election(&self, election: Election) {
        let (leaders, mut others): (Vec<_>, Vec<_>) = self.up().into_iter().partition(|(_, _, log)| log.inner().leads());
        if others.is_empty() {
            return;
        }
        let first = election.candidate as usize % others.len();
        others.rotate_left(first);
        let (candidate, _, log) = others.remove(0);
        let voters: Vec<u64> = others.iter().map(|(id, ..)| *id).take(self.voters().len() / 2).collect();
        if election.back {
            for voter in &voters {
                self.stop(*voter, election.power).await;
                self.restart(*voter).await;
            }
        } else {
            let pairs = leaders.iter().flat_map(|(leader, ..)| voters.iter().map(|voter| (*leader, *voter)));
            self.cut(pairs.collect(), LEASE).await;
        }
        let votes: Vec<_> = voters.into_iter().map(|voter| (voter, self.hear_of_its_vote(voter))).collect();
        _ = log.inner().raft().trigger().elect(false).await; // It may be gone itself.
        join_all(votes.into_iter().map(async |(voter, voted)| {
            let voted = timeout(LONG, voted).await;
            lock(&self.sim().net).voted.remove(&voter);
            if voted != Ok(Ok(candidate)) {
                return;
            }
            let up: Vec<u64> = self.up().into_iter().map(|(id, ..)| id).collect();
            let pairs = up.into_iter().filter(|id| *id != candidate).map(|id| (candidate, id));
            let silence = self.cut(pairs.collect(), Duration::from_millis(election.silent));
            let lose = async {
                if self.stop(voter, election.power).await {
                    self.sim().count("voters lost as soon as they had voted");
                    self.restart(voter).await;
                }
            };
            tokio::join!(silence, lose);
        }))
        .await;
    }

    /// The next node that appends behind a truncation is lost as soon as that is durable, and comes
    /// back at once.
    pub(super) async fn truncation(&self, power: bool) {
        let (truncated, hears) = oneshot::channel();
        lock(&self.sim().truncated).replace(truncated);
        if let Ok(node) = hears.await
            && self.stop(node, power).await
        {
            self.sim().count("nodes lost behind a truncation");
            self.restart(node).await;
        }
    }

    /// For which node this one votes next.
    fn hear_of_its_vote(&self, voter: u64) -> oneshot::Receiver<u64> {
        let (voted, hears) = oneshot::channel();
        lock(&self.sim().net).voted.insert(voter, voted);
        hears
    }
}
