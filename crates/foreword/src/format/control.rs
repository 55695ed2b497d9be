//! The log's state that is not records, as MARK and LINK have it.

use crate::Lsn;
use crate::bug::bug;
use crate::format::position::Position;
use crate::format::{LINK_BLOCK, u16_at, u32_at, u64_at};
use crate::limit::{Hold, Holds, Limit};

pub(crate) const WAIVERS_MAX: usize = 32;
/// A field behind the control part: the limits of holds.
const HOLD_LIMITS: u16 = 1;
/// A hold's place among them, blocks, seconds.
const LIMIT_BYTES: usize = 9;

/// Whether one generation comes after another: they count on from 0.
pub(crate) fn is_later(generation: u32, than: u32) -> bool {
    (generation.wrapping_sub(than) as i32) > 0
}

/// A stretch of the log that its owner gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiver {
    pub(crate) from: Position,
    pub(crate) to: Position,
    pub(crate) first_lost: Lsn,
    pub(crate) last_lost: Lsn,
}

/// All of the log's state that is not records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) start: Lsn,
    /// How often LSNs were cut off at the back, after which one may stand for another record.
    /// Counts on from 0 behind the highest.
    pub(crate) generation: u32,
    pub(crate) holds: Holds,
    pub(crate) waivers: Vec<Waiver>,
}

impl Default for Control {
    fn default() -> Self {
        Control { start: Lsn::FIRST, generation: 0, holds: Holds::new(), waivers: Vec::new() }
    }
}

impl Control {
    /// The state behind one more cut. Each hold behind it moves to it: its owner, when it comes
    /// back, must not go on from records that are gone.
    pub(crate) fn cut(&mut self, at: Lsn) {
        self.holds.values_mut().for_each(|hold| hold.lsn = hold.lsn.min(at));
        bug!(ForgetCut, return);
        self.generation = self.generation.wrapping_add(1);
    }

    /// LSNs that were given up: first and last of each stretch.
    pub(crate) fn lost(&self) -> Vec<(Lsn, Lsn)> {
        self.waivers.iter().map(|w| (w.first_lost, w.last_lost)).filter(|(first, last)| last >= first).collect()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.start.0.to_le_bytes());
        out.extend((self.holds.len() as u16).to_le_bytes());
        out.extend((self.waivers.len() as u16).to_le_bytes());
        out.extend(self.generation.to_le_bytes());
        for (name, hold) in &self.holds {
            out.extend(hold.lsn.0.to_le_bytes());
            out.push(name.len() as u8);
            out.extend(name.as_bytes());
        }
        for w in &self.waivers {
            out.extend(w.from.epoch.to_le_bytes());
            out.extend(w.to.epoch.to_le_bytes());
            out.extend(w.from.block.to_le_bytes());
            out.extend(w.to.block.to_le_bytes());
            out.extend(w.first_lost.0.to_le_bytes());
            out.extend(w.last_lost.0.to_le_bytes());
        }
        let limited = self.holds.values().enumerate().filter(|(_, hold)| !hold.limit.is_none());
        let limits: Vec<u8> = limited.flat_map(|(i, hold)| encode_limit(i, &hold.limit)).collect();
        if !limits.is_empty() {
            out.extend(HOLD_LIMITS.to_le_bytes());
            out.extend((limits.len() as u16).to_le_bytes());
            out.extend(limits);
        }
    }

    pub(crate) fn decode(mut at: &[u8]) -> Option<Control> {
        let mut take = |n: usize| {
            let (head, tail) = at.split_at_checked(n)?;
            at = tail;
            Some(head)
        };
        let fixed = take(16)?;
        let (holds, waivers) = (u16_at(fixed, 8), u16_at(fixed, 10));
        let (start, generation) = (Lsn(u64_at(fixed, 0)), u32_at(fixed, 12));
        let mut control = Control { start, generation, ..Control::default() };
        if control.start < Lsn::FIRST {
            return None;
        }
        for _ in 0..holds {
            let lsn = u64_at(take(8)?, 0);
            let len = take(1)?[0];
            let name = std::str::from_utf8(take(usize::from(len))?).ok()?;
            control.holds.insert(name.to_owned(), Hold::new(Lsn(lsn), Limit::NONE));
        }
        for _ in 0..waivers {
            let w = take(40)?;
            let waiver = Waiver {
                from: Position::new(u64_at(w, 0), u32_at(w, 16)),
                to: Position::new(u64_at(w, 8), u32_at(w, 20)),
                first_lost: Lsn(u64_at(w, 24)),
                last_lost: Lsn(u64_at(w, 32)),
            };
            // One that led backward would lead a reader round in circles.
            if waiver.to <= waiver.from {
                return None;
            }
            control.waivers.push(waiver);
        }
        // What follows need not be known, nor be there.
        while let Some(field) = take(4) {
            let Some(bytes) = take(u16_at(field, 2).into()) else { break };
            if u16_at(field, 0) == HOLD_LIMITS {
                control.limit_holds(bytes);
            }
        }
        Some(control)
    }

    fn limit_holds(&mut self, limits: &[u8]) {
        bug!(ForgetLimit, return);
        for limit in limits.chunks_exact(LIMIT_BYTES) {
            if let Some(hold) = self.holds.values_mut().nth(limit[0].into()) {
                hold.limit = Limit::from_units(u32_at(limit, 1), u32_at(limit, 5));
            }
        }
    }
}

fn encode_limit(hold: usize, limit: &Limit) -> [u8; LIMIT_BYTES] {
    let (blocks, seconds) = limit.to_units();
    let mut out = [hold as u8; LIMIT_BYTES];
    out[1..5].copy_from_slice(&blocks.to_le_bytes());
    out[5..].copy_from_slice(&seconds.to_le_bytes());
    out
}

/// The first LSN that may stand for another record than it did in a generation, or in a later one
/// before this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) since: u32,
    pub(crate) at: Lsn,
}

impl Cut {
    /// The two as one: the LINK that told of the earlier is superseded.
    pub(crate) fn and_later(self, later: Option<Cut>) -> Cut {
        Cut { since: self.since, at: later.map_or(self.at, |later| self.at.min(later.at)) }
    }
}

/// The contents of a LINK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where the predecessor ended; epoch 0 if there is none.
    pub(crate) pred: Position,
    /// What was cut since the generation of the predecessor, if that is another.
    pub(crate) cut: Option<Cut>,
    pub(crate) control: Control,
}

impl Link {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend(self.pred.epoch.to_le_bytes());
        out.extend(self.pred.block.to_le_bytes());
        out.extend(self.cut.map_or(0, |cut| cut.since).to_le_bytes());
        out.extend(self.cut.map_or(0, |cut| cut.at.0).to_le_bytes());
        self.control.encode(&mut out);
        out
    }

    pub(crate) fn decode(at: &[u8]) -> Option<Link> {
        let (fixed, control) = at.split_at_checked(24)?;
        let pred = Position::new(u64_at(fixed, 0), u32_at(fixed, 8));
        let cut = Cut { since: u32_at(fixed, 12), at: Lsn(u64_at(fixed, 16)) };
        Some(Link { pred, cut: Some(cut).filter(|cut| cut.at > Lsn::ZERO), control: Control::decode(control)? })
    }

    /// Whether a segment of this epoch can follow what the LINK says: nothing, or an older segment,
    /// from behind its HEADER.
    pub(crate) fn follows(&self, epoch: u64) -> bool {
        self.pred.epoch < epoch && (self.pred.epoch == 0 || self.pred.block >= LINK_BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::format::{LSN_MAX, payload_max};
    use crate::limit::{HOLD_NAME_MAX, HOLDS_MAX};

    #[test]
    fn control_and_link_come_back_and_nothing_else_panics() {
        let link = Link {
            pred: Position::new(4, 77),
            cut: Some(Cut { since: 6, at: Lsn(11) }),
            control: Control {
                start: Lsn(12),
                generation: 7,
                holds: [
                    ("archiver".to_owned(), Hold::new(Lsn(3), Limit::bytes(8192).or_age(Duration::from_secs(7)))),
                    ("x".to_owned(), Hold::new(Lsn(9), Limit::NONE)),
                    ("y".to_owned(), Hold::new(Lsn(12), Limit::age(Duration::from_secs(1)))),
                ]
                .into(),
                waivers: vec![Waiver {
                    from: Position::new(1, 2),
                    to: Position::new(1, 4),
                    first_lost: Lsn(2),
                    last_lost: Lsn(5),
                }],
            },
        };
        let bytes = link.encode();
        assert_eq!(Link::decode(&bytes), Some(link.clone()));
        let limits = 4 + 2 * LIMIT_BYTES;
        for cut in 0..bytes.len() - limits {
            assert_eq!(Link::decode(&bytes[..cut]), None);
        }
        // What is not known is passed over, and what is not whole is not there.
        let mut unlimited = link.clone();
        unlimited.control.holds.values_mut().for_each(|hold| hold.limit = Limit::NONE);
        for cut in bytes.len() - limits..bytes.len() {
            assert_eq!(Link::decode(&bytes[..cut]), Some(unlimited.clone()));
        }
        let strange = [&[0xff, 0xff, 3, 0, 1, 2, 3], &bytes[bytes.len() - limits..]].concat();
        assert_eq!(Link::decode(&[&bytes[..bytes.len() - limits], &strange].concat()), Some(link));
    }

    #[test]
    fn the_largest_control_part_fits_a_block() {
        let limit = Limit::bytes(u64::MAX).or_age(Duration::MAX);
        let holds = (0..HOLDS_MAX).map(|i| (format!("{i:0HOLD_NAME_MAX$}"), Hold::new(LSN_MAX, limit))).collect();
        let (from, to) = (Position::new(1, 1), Position::new(2, 2));
        let waivers = vec![Waiver { from, to, first_lost: LSN_MAX, last_lost: LSN_MAX }; WAIVERS_MAX];
        let link = Link { pred: from, cut: None, control: Control { holds, waivers, ..Control::default() } };
        assert!(link.encode().len() <= payload_max(1), "{} of {}", link.encode().len(), payload_max(1));
        let stored = Link::decode(&link.encode()).unwrap().control.holds.into_values().map(|hold| hold.limit);
        assert!(stored.eq([Limit::from_units(u32::MAX, u32::MAX); HOLDS_MAX]));
    }
}
