//! What a call writes as one batch: after a crash all of it is there, or nothing.

// Without an adapter, it is entries.
#![cfg_attr(not(any(feature = "openraft", feature = "openraft-09", feature = "raft-rs")), allow(dead_code))]

use std::sync::Arc;

use crate::record::Body;
use crate::state::GroupState;
use crate::{Error, Result};

/// Which entries go before others come.
#[derive(Clone, Copy, Default)]
pub(crate) enum Cut<'a> {
    #[default]
    None,
    /// Those behind the index; without one, all.
    After(Option<u64>),
    /// All, for a snapshot stands for what is up to the index: the next entry follows it. With the
    /// note of a purge.
    Snapshot(u64, &'a [u8]),
}

/// The records of a batch, in this order: so in each prefix of it, too, a vote and a committed
/// index stand behind the entries that they speak of.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    pub(crate) cut: Cut<'a>,
    pub(crate) entries: Vec<(u64, Arc<[u8]>)>,
    pub(crate) committed: Option<(u64, &'a [u8])>,
    pub(crate) vote: Option<&'a [u8]>,
}

impl Batch<'_> {
    /// The bodies of the records, as the state of the group wants them.
    pub(crate) fn bodies(&self, group: u64, state: &GroupState) -> Result<Vec<Body<'_>>> {
        let mut bodies = Vec::with_capacity(self.entries.len() + 3);
        let (mut last, purged) = (state.last(), state.purged_to());
        match self.cut {
            Cut::None => {}
            Cut::After(index) => {
                if let Some(purged) = purged
                    && index.is_none_or(|index| index < purged)
                {
                    return Err(Error::Purged { group, index: index.unwrap_or(0), purged });
                }
                if state.entries.last().is_some_and(|last| index.is_none_or(|index| index < last)) {
                    bodies.push(Body::TruncateAfter(index));
                    last = index.filter(|&index| state.entries.get(index).is_some()).or(purged);
                }
            }
            Cut::Snapshot(index, note) => {
                if let Some(purged) = purged
                    && index <= purged
                {
                    return Err(Error::Purged { group, index, purged });
                }
                if state.entries.last().is_some_and(|last| last > index) {
                    bodies.push(Body::TruncateAfter(purged));
                }
                bodies.push(Body::Purge(index, note));
                last = Some(index);
            }
        }
        let mut expected = match (last, self.entries.first()) {
            (Some(last), _) => last + 1,
            (None, Some((0, _))) => 0,
            (None, _) => 1,
        };
        for (index, data) in &self.entries {
            if *index != u64::MAX && *index != expected {
                return Err(Error::NotNext { group, index: *index, expected });
            }
            bodies.push(Body::Append(*index, data));
            expected = index.saturating_add(1);
        }
        bodies.extend(self.committed.map(|(index, note)| Body::Committed(index, note)));
        bodies.extend(self.vote.map(Body::Vote));
        let too_large =
            |body: &Body<'_>| matches!(body, Body::Append(u64::MAX, _) | Body::Purge(u64::MAX, _) | Body::Committed(u64::MAX, _));
        if bodies.iter().any(too_large) { Err(too_large_an_index()) } else { Ok(bodies) }
    }
}

pub(crate) fn too_large_an_index() -> Error {
    Error::Invalid { what: "index", why: "u64::MAX is not one: no entry could follow it".to_owned() }
}
