//! The evidence: all that a verdict depends on, as plain values.

use std::path::PathBuf;

use crate::Lsn;
use crate::error::Damage;
use crate::format::{Position, Promise};

/// All that a verdict depends on.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    /// The directory's path: damage names files.
    pub(super) path: PathBuf,

    /// `LOG` is there, and no segment.
    pub(super) no_segment: bool,
    /// What is wrong with `LOG`.
    pub(super) identity: Option<&'static str>,
    pub(super) unusable: Option<Unusable>,
    pub(super) front: Front,
    /// The log's first LINK, if the chain has no segment at all: then it is not sound.
    pub(super) first_link: (u64, LinkFound),
    /// The file that the seal of the chain's newest segment vouches for, and that is not there.
    pub(super) gone: Option<u64>,

    /// X, and the chain's newest segment.
    pub(super) at: Position,
    pub(super) tip: u64,
    pub(super) place: Place,
    pub(super) last: Last,
    /// A waiver gave up the LINK of the chain's newest segment, and the log was read along it.
    pub(super) link_given_up: bool,
    /// The LSN after the last whole unit's.
    pub(super) next_lsn: Lsn,
    /// X's file has not the length that its header says.
    pub(super) length: Option<Damage>,

    /// The highest promise behind X.
    pub(super) promise: Promise,
    /// Whether a sector is written behind X.
    pub(super) written: bool,

    /// The LINK behind the tip, if the tip's seal says that the log had left it, and its epoch.
    pub(super) next_link: (u64, LinkFound),
    /// The last damaged seal, from X's segment on.
    pub(super) seal: Option<DamagedSeal>,
}

impl Evidence {
    /// Of a log in which nothing is missing, and that was not closed.
    pub(super) fn of_nothing_wrong(path: PathBuf) -> Evidence {
        Evidence {
            path,
            no_segment: false,
            identity: None,
            unusable: None,
            front: Front::Sound,
            first_link: (0, LinkFound::Sound),
            gone: None,
            at: Position::default(),
            tip: 0,
            place: Place::Unwritten,
            last: Last::Whole,
            link_given_up: false,
            next_lsn: Lsn::FIRST,
            length: None,
            promise: Promise::default(),
            written: false,
            next_link: (0, LinkFound::Sound),
            seal: None,
        }
    }
}

/// A file of which not even the header can be used.
#[derive(Clone, Debug)]
pub(super) struct Unusable {
    pub(super) damage: Damage,
    /// It may have been the chain's: its epoch is higher than that of the chain's newest segment.
    pub(super) behind_tip: bool,
}

/// Where the chain begins; `last` is the LSN before its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// Where the log does, or there is no chain.
    Sound,
    /// Behind the start LSN: the segment before, `epoch`, is not there.
    Lost { epoch: u64, last: Lsn },
    /// Behind the start LSN, with a LINK that has no predecessor.
    Late { epoch: u64, last: Lsn },
}

/// What there is against a LINK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkFound {
    /// Nothing.
    Sound,
    Absent,
    Broken(&'static str),
}

/// What is at X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Unwritten,
    Torn,
    Damaged(&'static str),
    /// A valid frame that cannot stand there.
    Structure(&'static str),
}

/// What the last frame before X leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// Whole units.
    Whole,
    /// A unit without its end.
    InUnit,
    /// A closed log: it is a MARK with CLOSED.
    Closed,
}

/// A seal that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DamagedSeal {
    pub(super) at: Position,
    /// A newer segment is active.
    pub(super) inner: bool,
}
