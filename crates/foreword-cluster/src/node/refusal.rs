//! What openraft refuses, as errors: what was not appended can be tried again elsewhere.

use openraft::errors::{ClientWriteError, ForwardToLeader};

use crate::error::Error;
use crate::raft::Types;

pub(super) fn not_leader(forward: &ForwardToLeader<Types>) -> Error {
    let leader = forward.leader_id.zip(forward.leader_node.as_ref().map(|peer| peer.address.clone()));
    Error::NotLeader { leader }
}

pub(super) fn refused(error: &ClientWriteError<Types>) -> Error {
    match error {
        // Before anything was appended.
        ClientWriteError::ForwardToLeader(forward) => not_leader(forward),
        error => Error::unknown(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Peer;

    #[test]
    fn only_what_was_never_appended_is_a_refusal() {
        let forward = ForwardToLeader {
            leader_id: Some(2),
            leader_node: Some(Peer { address: "b:1".to_owned(), instance: 2 }),
            reason: Default::default(),
        };
        let refusal = refused(&ClientWriteError::ForwardToLeader(forward.clone()));
        assert_eq!(refusal, Error::NotLeader { leader: Some((2, "b:1".to_owned())) });
        // Another leader may have committed it.
        let discarded = refused(&ClientWriteError::LogEntryDiscarded(forward));
        assert!(matches!(discarded, Error::Unknown { .. }) && !discarded.is_refusal(), "{discarded}");
    }
}
