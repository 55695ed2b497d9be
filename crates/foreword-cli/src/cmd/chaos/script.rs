//! What is written where: decided by the seed, the generation and the LSN, so that a check needs no
//! memory of what was written.

use foreword::Lsn;

use crate::noise::Noise;

/// The largest record that [`foreword::Log::commit_checkpoint`] surely takes.
pub(super) const CHECKPOINT_BYTES: usize = 7000;

/// Shorter records of two generations may be the same.
const TELLING_BYTES: usize = 8;

/// What is written in one generation. Each writer begins one, and so does each cut at the back:
/// what a crash or a cut took away is written anew with other bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) seed: u64,
    pub(super) generation: u64,
}

impl Script {
    fn noise(self, what: u64, lsn: Lsn) -> Noise {
        let generation = Noise(self.seed ^ what << 62 ^ self.generation).next();
        Noise(Noise(generation ^ lsn.0).next())
    }

    /// How many records the unit has that begins at an LSN: one, or those of a batch.
    pub(super) fn unit_len(self, first: Lsn) -> u64 {
        let mut noise = self.noise(1, first);
        match noise.below(10) {
            0 => 2 + noise.below(40),
            1 => 2 + noise.below(3),
            _ => 1,
        }
    }

    /// The record with an LSN: mostly short, now and then empty, or longer than a segment.
    pub(super) fn record(self, lsn: Lsn) -> Vec<u8> {
        let mut noise = self.noise(2, lsn);
        let len = match noise.below(1000) {
            0 => noise.below(700_000),
            1..10 => noise.below(60_000),
            10..40 => noise.below(9000),
            40..60 => 0,
            _ => noise.below(600),
        };
        noise.bytes(len as usize).take(len as usize).collect()
    }

    pub(super) fn unit(self, first: Lsn) -> Vec<Vec<u8>> {
        (0..self.unit_len(first)).map(|i| self.record(Lsn(first.0 + i))).collect()
    }
}

/// Which generation has which LSNs.
#[derive(Clone, Debug)]
pub(super) struct Eras {
    seed: u64,
    /// The generations that have LSNs, each with its first. Both numbers rise.
    standing: Vec<(Lsn, u64)>,
    /// All that have begun, in order. A reader may still show what was cut off.
    begun: Vec<(Lsn, u64)>,
}

/// Why a record that a reader got is wrong.
#[derive(Debug)]
pub(super) enum Misread {
    /// No generation that has begun has it, in words.
    Unknown(String),
    /// What the reader had read before was cut off, and it was not told.
    Untold,
}

impl Eras {
    pub(super) fn new(seed: u64, first: Lsn, generation: u64) -> Eras {
        let all = vec![(first, generation)];
        Eras { seed, standing: all.clone(), begun: all }
    }

    /// The generation that writes now, and its first LSN.
    pub(super) fn last(&self) -> (Lsn, u64) {
        self.standing.last().copied().unwrap_or_default()
    }

    /// What is written from an LSN on is of this generation.
    pub(super) fn begin(&mut self, from: Lsn, generation: u64) {
        self.standing.retain(|&(other, _)| other < from);
        self.standing.push((from, generation));
        self.begun.push((from, generation));
    }

    /// What the record with an LSN is.
    pub(super) fn script_of(&self, lsn: Lsn) -> Script {
        let era = self.standing.partition_point(|&(from, _)| from <= lsn).saturating_sub(1);
        Script { seed: self.seed, generation: self.standing[era].1 }
    }

    /// Of the records up to an LSN that one generation had: up to which they still stand.
    pub(super) fn left_of(&self, lsn: Lsn, generation: u64) -> Lsn {
        let cut = self.standing.iter().find(|(_, later)| *later > generation);
        cut.map_or(lsn, |&(from, _)| lsn.min(from.prev()))
    }

    /// The generation of a record that a reader shows, if it is long enough to tell; `before` is
    /// that of the record that it showed before this.
    pub(super) fn judge(&self, lsn: Lsn, data: &[u8], before: Option<u64>) -> Result<Option<u64>, Misread> {
        let script = |generation| Script { seed: self.seed, generation };
        let mut of = self.begun.iter().rev().filter(|(from, _)| *from <= lsn).map(|&(_, generation)| generation);
        let Some(found) = of.find(|&generation| script(generation).record(lsn) == data) else {
            let expected = self.script_of(lsn).record(lsn);
            return Err(Misread::Unknown(difference(&expected, data).unwrap_or_default()));
        };
        let cut_before = |before| self.begun.iter().any(|&(from, later)| later > before && later <= found && from < lsn);
        match before {
            _ if data.len() < TELLING_BYTES => Ok(None),
            Some(before) if found < before || cut_before(before) => Err(Misread::Untold),
            _ => Ok(Some(found)),
        }
    }
}

/// In words, how a record differs from what was expected.
pub(super) fn difference(expected: &[u8], data: &[u8]) -> Option<String> {
    if expected == data {
        return None;
    }
    let at = expected.iter().zip(data).take_while(|(a, b)| a == b).count();
    Some(format!("{} bytes, not {}, and other ones from byte {at} on", data.len(), expected.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_lsn_has_the_generation_that_wrote_it_last() {
        let mut eras = Eras::new(1, Lsn(1), 0);
        eras.begin(Lsn(100), 1);
        eras.begin(Lsn(60), 2);
        eras.begin(Lsn(80), 3);
        let of = |lsn| eras.script_of(Lsn(lsn)).generation;
        assert_eq!([1, 59, 60, 79, 80, 500].map(of), [0, 0, 2, 2, 3, 3]);
        let left = |lsn, generation| eras.left_of(Lsn(lsn), generation).0;
        assert_eq!([left(120, 1), left(50, 0), left(90, 2), left(90, 3)], [59, 50, 79, 90]);
        let record = |lsn, generation| Script { seed: 1, generation }.record(Lsn(lsn));
        let telling = |lsn| (0..4).all(|generation| record(lsn, generation).len() >= TELLING_BYTES);
        let judge = |at: u64, generation, before| {
            // The first there that tells.
            let lsn = (at..).find(|&lsn| telling(lsn)).unwrap();
            assert!(lsn < at + 10);
            eras.judge(Lsn(lsn), &record(lsn, generation), before)
        };
        assert!(matches!(judge(65, 0, Some(0)), Ok(Some(0))) && matches!(judge(61, 2, None), Ok(Some(2))));
        assert!(matches!(judge(61, 2, Some(0)), Err(Misread::Untold)) && matches!(judge(90, 2, Some(3)), Err(Misread::Untold)));
        assert!(matches!(judge(65, 3, None), Err(Misread::Unknown(_))));
        assert!(matches!(eras.judge(Lsn(60), &record(60, 2), Some(0)), Ok(Some(2) | None)), "it had read nothing that was cut");
        let empty = (1..2000).find(|&lsn| record(lsn, 0).is_empty()).unwrap();
        assert!(matches!(eras.judge(Lsn(empty), b"", Some(9)), Ok(None)));
    }

    #[test]
    fn no_two_generations_or_lsns_have_the_same_and_all_sizes_occur() {
        let script = Script { seed: 4, generation: 1 };
        let of = |script: Script| (1..5000).map(|lsn| script.record(Lsn(lsn))).collect::<Vec<_>>();
        let records = of(script);
        assert_eq!(records, of(script));
        let same = |a: &[Vec<u8>], b: &[Vec<u8>]| a.iter().zip(b).filter(|(a, b)| a.len() > 8 && a == b).count();
        for other in [of(Script { generation: 2, ..script }), of(Script { seed: 5, ..script }), records[1..].to_vec()] {
            assert_eq!(same(&records, &other), 0);
        }
        for range in [0..1, 1..600, 600..9000, 9000..60_000, 60_000..700_000] {
            assert!(records.iter().any(|r| range.contains(&r.len())), "{range:?}");
        }
        let units: Vec<u64> = (1..1000).map(|lsn| script.unit_len(Lsn(lsn))).collect();
        assert!(units.contains(&1) && units.contains(&2) && units.iter().any(|&n| n > 30));
    }
}
