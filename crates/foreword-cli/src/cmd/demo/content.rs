//! Records that name the thread that wrote them, so that the check can make each again and compare.

use std::fmt;

use crate::noise::Noise;

/// The writer of a record: the round, the thread, and the record's number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) round: u64,
    pub(crate) thread: u64,
    pub(crate) counter: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {} thread {} record {}", self.round, self.thread, self.counter)
    }
}

impl Id {
    /// The one record that has this id: its id in words, then noise; 50 bytes to 700, and now and
    /// then up to 300,000.
    pub(crate) fn content(self, seed: u64) -> Vec<u8> {
        let mut noise = Noise(seed ^ (self.round << 56) ^ (self.thread << 40) ^ self.counter);
        let len = match noise.next() % 1000 {
            0 => noise.next() % 300_000,
            1..20 => noise.next() % 20_000,
            _ => noise.next() % 650,
        };
        let mut bytes = format!("{self}\n").into_bytes();
        bytes.extend(noise.bytes(len as usize));
        bytes
    }

    /// The writer that a record names.
    pub(crate) fn of(record: &[u8]) -> Option<Id> {
        let end = record.iter().take(100).position(|&b| b == b'\n')?;
        let words: Vec<&str> = std::str::from_utf8(&record[..end]).ok()?.split(' ').collect();
        match words[..] {
            ["round", round, "thread", thread, "record", counter] => {
                Some(Id { round: round.parse().ok()?, thread: thread.parse().ok()?, counter: counter.parse().ok()? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_its_writer_and_no_two_are_the_same() {
        for counter in 0..3000 {
            let id = Id { round: 2, thread: 7, counter };
            let record = id.content(5);
            assert_eq!(Id::of(&record), Some(id));
            assert_eq!(record, id.content(5));
            assert_ne!(record, id.content(6), "another seed");
        }
        for other in [&b""[..], b"\n", b"round 1 thread 2 record x\n", b"round 1 thread 2 record 3", &[0xff; 200]] {
            assert_eq!(Id::of(other), None);
        }
    }
}
