//! Exercise 5: evidence (chapter 7).
//!
//! A log is places, one block each. A reader has looked at all of them, and says what it found;
//! this judges. A frame's header says what was durable when the frame was made: its *promise*, the
//! number of places from the first on.
//!
//! Assumed of the disk: what a completed flush covered stays; of what was not flushed, each sector
//! is there or not, whatever becomes of the others. So a crash leaves places unwritten or torn,
//! never damaged, and never one below a promise.

/// What stands in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing was ever written here.
    Unwritten,
    /// The header of a frame is there, and some of its other sectors are not.
    Torn {
        /// What the header says was durable.
        promise: usize,
    },
    /// Something that no crash can leave: a flipped bit, say. Its header is not to be believed.
    Damaged,
    /// A whole frame.
    Frame {
        /// What it says was durable.
        promise: usize,
    },
}

/// What the evidence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log has so many frames. Nothing is missing, as far as anyone can tell.
    Complete(usize),
    /// The log has so many frames. Behind them is something that was never acknowledged.
    TornTail(usize),
    /// This place is the first that is wrong.
    Corruption {
        /// Which.
        place: usize,
        /// Whether a promise says that it was durable. If not, it may have been.
        proven: bool,
    },
}

/// Judges a log.
pub fn judge(places: &[Place]) -> Verdict {
    let end = places.iter().take_while(|place| matches!(place, Place::Frame { .. })).count();
    let promised = places.iter().filter_map(promise).max().unwrap_or(0);
    let place = places.get(end).copied().unwrap_or(Place::Unwritten);
    if promised > end {
        Verdict::Corruption { place: end, proven: true }
    } else if place == Place::Damaged {
        Verdict::Corruption { place: end, proven: false }
    } else if places[end..].iter().all(|&place| place == Place::Unwritten) {
        Verdict::Complete(end)
    } else {
        Verdict::TornTail(end)
    }
}

fn promise(place: &Place) -> Option<usize> {
    match *place {
        Place::Torn { promise } | Place::Frame { promise } => Some(promise),
        Place::Unwritten | Place::Damaged => None,
    }
}
