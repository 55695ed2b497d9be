//! Where the entries of a group are in the log: for each index, the LSN and the length of its
//! record. **No I/O.**

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use foreword::Lsn;

const CHUNK: u64 = 128;

/// Where an entry is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lsn: Lsn,
    /// The length of its record; never 0.
    pub(crate) bytes: u32,
}

/// 12 bytes: an array of them has no padding.
#[derive(Clone, Copy)]
struct Packed([u32; 3]);

impl Packed {
    const MISSING: Packed = Packed([0; 3]);

    fn new(place: Place) -> Packed {
        Packed([place.lsn.0 as u32, (place.lsn.0 >> 32) as u32, place.bytes])
    }

    fn place(self) -> Option<Place> {
        let [low, high, bytes] = self.0;
        (bytes > 0).then_some(Place { lsn: Lsn(u64::from(low) | u64::from(high) << 32), bytes })
    }
}

/// The entries with indices from `CHUNK * number + skip` on. The first and the last are not
/// missing.
struct Chunk {
    skip: usize,
    places: Vec<Packed>,
}

/// The places of a group's entries. In a whole group none is missing between others. While a log is
/// replayed some may be, because compaction moves entries behind those that followed them.
#[derive(Default)]
pub(crate) struct Index {
    chunks: BTreeMap<u64, Chunk>,
    bytes: u64,
}

impl Index {
    pub(crate) fn get(&self, index: u64) -> Option<Place> {
        let chunk = self.chunks.get(&(index / CHUNK))?;
        let at = ((index % CHUNK) as usize).checked_sub(chunk.skip)?;
        chunk.places.get(at)?.place()
    }

    pub(crate) fn set(&mut self, index: u64, place: Place) {
        let at = (index % CHUNK) as usize;
        let chunk = self.chunks.entry(index / CHUNK).or_insert(Chunk { skip: at, places: Vec::new() });
        if at < chunk.skip {
            chunk.places.splice(0..0, std::iter::repeat_n(Packed::MISSING, chunk.skip - at));
            chunk.skip = at;
        }
        let at = at - chunk.skip;
        if at >= chunk.places.len() {
            chunk.places.resize(at + 1, Packed::MISSING);
        }
        let before = std::mem::replace(&mut chunk.places[at], Packed::new(place));
        self.bytes = self.bytes + u64::from(place.bytes) - u64::from(before.0[2]);
    }

    /// Removes the entries from an index on.
    pub(crate) fn cut_from(&mut self, index: u64) {
        let behind = self.chunks.split_off(&(index / CHUNK));
        for (number, mut chunk) in behind {
            let keep = index.saturating_sub(number * CHUNK + chunk.skip as u64).min(chunk.places.len() as u64) as usize;
            let gone = chunk.places.split_off(keep);
            self.forget(&gone);
            self.put_back(number, chunk);
        }
    }

    /// Removes the entries up to an index.
    pub(crate) fn cut_to(&mut self, index: u64) {
        while let Some(mut first) = self.chunks.first_entry()
            && *first.key() * CHUNK <= index
        {
            let (number, chunk) = (*first.key(), first.get_mut());
            let begins = number * CHUNK + chunk.skip as u64;
            let drop = (index + 1).saturating_sub(begins).min(chunk.places.len() as u64) as usize;
            let chunk = Chunk { skip: chunk.skip + drop, places: chunk.places.split_off(drop) };
            let gone = first.remove().places;
            self.forget(&gone);
            if !self.put_back(number, chunk) {
                continue;
            }
            break;
        }
    }

    fn forget(&mut self, gone: &[Packed]) {
        self.bytes -= gone.iter().map(|place| u64::from(place.0[2])).sum::<u64>();
    }

    /// Puts back what is left of a chunk. Returns whether anything is.
    fn put_back(&mut self, number: u64, mut chunk: Chunk) -> bool {
        let missing = |place: &&Packed| place.place().is_none();
        let (front, back) =
            (chunk.places.iter().take_while(missing).count(), chunk.places.iter().rev().take_while(missing).count());
        if front == chunk.places.len() {
            return false;
        }
        chunk.places.truncate(chunk.places.len() - back);
        chunk.places.drain(..front);
        chunk.places.shrink_to_fit();
        chunk.skip += front;
        self.chunks.insert(number, chunk);
        true
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.chunks.first_key_value().map(|(number, chunk)| number * CHUNK + chunk.skip as u64)
    }

    pub(crate) fn last(&self) -> Option<u64> {
        self.chunks.last_key_value().map(|(number, chunk)| number * CHUNK + (chunk.skip + chunk.places.len()) as u64 - 1)
    }

    /// The bytes of all records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The smallest LSN. Reads all entries, about a nanosecond each.
    pub(crate) fn first_lsn(&self) -> Option<Lsn> {
        self.places().map(|(_, place)| place.lsn).min()
    }

    fn places(&self) -> impl Iterator<Item = (u64, Place)> {
        self.chunks.iter().flat_map(|(number, chunk)| {
            let first = number * CHUNK + chunk.skip as u64;
            (first..).zip(&chunk.places).filter_map(|(index, place)| Some((index, place.place()?)))
        })
    }

    /// The ranges of indices, from an index on, that are missing before the last entry.
    pub(crate) fn holes(&self, from: u64) -> Vec<RangeInclusive<u64>> {
        let mut holes = Vec::new();
        let mut next = from;
        for (index, _) in self.places() {
            if index > next {
                holes.push(next..=index - 1);
            }
            next = index + 1;
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain map, with holes and in any order.
    #[test]
    fn it_is_a_map() {
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        };
        for _ in 0..60 {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            let (from, spread) = (next(1000), 1 + next(600));
            for _ in 0..100 {
                let at = from + next(spread);
                match next(12) {
                    0 => {
                        index.cut_from(at);
                        model.retain(|&i, _| i < at);
                    }
                    1 => {
                        index.cut_to(at);
                        model.retain(|&i, _| i > at);
                    }
                    _ => {
                        let place = Place { lsn: Lsn(1 + (next(1 << 30) << 10)), bytes: 1 + next(1 << 20) as u32 };
                        index.set(at, place);
                        model.insert(at, place);
                    }
                }
                assert_eq!(index.first(), model.keys().next().copied());
                assert_eq!(index.last(), model.keys().next_back().copied());
                assert_eq!(index.bytes(), model.values().map(|p| u64::from(p.bytes)).sum::<u64>());
                assert_eq!(index.first_lsn(), model.values().map(|p| p.lsn).min());
                assert!(index.places().eq(model.iter().map(|(&i, &p)| (i, p))));
                let holes: Vec<u64> = index.holes(from).into_iter().flatten().collect();
                let last = model.keys().next_back().copied().unwrap_or(from);
                assert_eq!(holes, (from..last).filter(|i| !model.contains_key(i)).collect::<Vec<_>>());
                assert_eq!(index.get(at), model.get(&at).copied());
            }
        }
    }
}
