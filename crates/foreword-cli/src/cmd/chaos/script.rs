//! What is written where: decided by the seed, the round and the LSN, so that a check needs no memory of what was written.

use foreword::Lsn;

use crate::noise::Noise;

/// The largest record that [`foreword::Log::commit_checkpoint`] surely takes.
pub(super) const CHECKPOINT_BYTES: usize = 7000;

/// What the writer of one round writes. (What a crash took away is written anew by the next, with other bytes.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) seed: u64,
    pub(super) round: u64,
}

impl Script {
    fn noise(self, what: u64, lsn: Lsn) -> Noise {
        let round = Noise(self.seed ^ what << 62 ^ self.round).next();
        Noise(Noise(round ^ lsn.0).next())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rounds_or_lsns_have_the_same_and_all_sizes_occur() {
        let script = Script { seed: 4, round: 1 };
        let of = |script: Script| (1..5000).map(|lsn| script.record(Lsn(lsn))).collect::<Vec<_>>();
        let records = of(script);
        assert_eq!(records, of(script));
        let same = |a: &[Vec<u8>], b: &[Vec<u8>]| a.iter().zip(b).filter(|(a, b)| a.len() > 8 && a == b).count();
        for other in [of(Script { round: 2, ..script }), of(Script { seed: 5, ..script }), records[1..].to_vec()] {
            assert_eq!(same(&records, &other), 0);
        }
        for range in [0..1, 1..600, 600..9000, 9000..60_000, 60_000..700_000] {
            assert!(records.iter().any(|r| range.contains(&r.len())), "{range:?}");
        }
        let units: Vec<u64> = (1..1000).map(|lsn| script.unit_len(Lsn(lsn))).collect();
        assert!(units.contains(&1) && units.contains(&2) && units.iter().any(|&n| n > 30));
    }
}
