//! What is measured.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};

use crate::peers::{Feature, Need, Peer};

/// Records of a batch.
pub const BATCH: usize = 100;

/// One row of the tables: what all contestants do in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Threads that each commit a record, wait until it is durable, and commit the next.
    Commit { threads: usize, size: usize },
    /// One thread with a number of commits in flight.
    Async { in_flight: usize, size: usize },
    /// Threads that each commit batches of [`BATCH`] records.
    Batch { threads: usize, size: usize },
    /// Threads that append without waiting, and sync at the end.
    Append { threads: usize, size: usize },
    /// Reopening a log of that size and reading everything, from the page cache or from the disk.
    Recover { bytes: u64, size: usize, cold: bool },
    /// Opening a log of that size, after a clean close or after the process was killed.
    Open { bytes: u64, killed: bool },
    /// A reader that follows while threads commit: how long after its acknowledgement it has a
    /// record. In the same process, or through the files as another process would.
    Tail { threads: usize, size: usize, view: bool },
    /// Threads that commit to a log of short segments, which is made to go on in the next again and
    /// again: the commits that meet it, and the others.
    Rotate { threads: usize, size: usize },
}

use Workload::*;

impl Workload {
    /// All, in the order in which they are measured.
    pub fn all() -> Vec<Workload> {
        let mut all = Vec::new();
        for size in [128, 1 << 10, 16 << 10] {
            all.extend([1, 2, 8, 64, 256].map(|threads| Commit { threads, size }));
        }
        all.extend([1, 256, 4096].map(|in_flight| Async { in_flight, size: 128 }));
        all.extend([1, 8].map(|threads| Batch { threads, size: 128 }));
        all.extend([16, 128, 1 << 10, 4 << 10, 16 << 10].map(|size| Append { threads: 1, size }));
        all.extend([2, 4, 8].map(|threads| Append { threads, size: 128 }));
        all.extend([false, true].map(|cold| Recover { bytes: 1 << 30, size: 1 << 10, cold }));
        for bytes in [256 << 20, 1 << 30, 4 << 30, 16 << 30] {
            all.extend([false, true].map(|killed| Open { bytes, killed }));
        }
        for threads in [8, 64] {
            all.extend([false, true].map(|view| Tail { threads, size: 128, view }));
        }
        all.extend([1, 8].map(|threads| Rotate { threads, size: 128 }));
        all
    }

    /// Those of the short form: the ones that the others follow from.
    pub fn short() -> Vec<Workload> {
        let commits = [1, 8, 64].map(|threads| Commit { threads, size: 128 });
        let recover = Recover { bytes: 128 << 20, size: 1 << 10, cold: false };
        let others = [Async { in_flight: 4096, size: 128 }, Append { threads: 1, size: 128 }, recover];
        commits.into_iter().chain(others).collect()
    }

    /// Whether a contestant takes part; if not, why.
    pub fn absent(&self, peer: &Peer) -> Option<&'static str> {
        let feature = match *self {
            Commit { .. } => Feature::Commit,
            Async { .. } => Feature::Async,
            Batch { .. } => Feature::Batch,
            Append { threads, .. } if threads > 1 && peer.lacks(Feature::Append).is_none() => Feature::Together,
            Append { .. } => Feature::Append,
            Recover { .. } => Feature::Read,
            Open { .. } if peer.is_floor() => return Some("it is no log"),
            // The largest are for logs that claim not to read everything.
            Open { bytes, killed } if peer.name != "foreword" && (bytes > 1 << 30 || killed) => {
                return Some("measured with Foreword alone");
            }
            Open { .. } => Feature::Read,
            Tail { .. } if peer.name != "foreword" => return Some("no reader that follows what is durable"),
            Rotate { .. } if peer.name != "foreword" => return Some("measured with Foreword alone"),
            Tail { .. } | Rotate { .. } => Feature::Commit,
        };
        if peer.name == "foreword-growing" && matches!(self, Recover { .. } | Open { .. }) {
            return Some("as `foreword`");
        }
        if peer.name == "floor-fdatasync" && !matches!(self, Commit { .. }) {
            return Some("as `floor`");
        }
        peer.lacks(feature)
    }

    /// What a log should be prepared for that is measured for so many seconds.
    pub fn need(&self, seconds: f64) -> Need {
        // Generous: more than any of them reaches.
        let rate = match *self {
            Commit { threads, size } | Tail { threads, size, .. } | Rotate { threads, size } => {
                (threads as f64 * 15e3).min(400e3) * size.max(256) as f64
            }
            Async { size, .. } | Batch { size, .. } => 2e6 * size as f64,
            Append { .. } => 3e9,
            Recover { bytes, .. } | Open { bytes, .. } => return Need { bytes },
        };
        Need { bytes: (rate.min(3e9) * (seconds + 0.2)) as u64 }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Commit { threads, size } => write!(f, "commit/{threads}x{size}"),
            Async { in_flight, size } => write!(f, "async/{in_flight}x{size}"),
            Batch { threads, size } => write!(f, "batch/{threads}x{size}"),
            Append { threads: 1, size } => write!(f, "append/{size}"),
            Append { threads, size } => write!(f, "append/{threads}x{size}"),
            Recover { bytes, size, cold } => write!(f, "recover/{}MiBx{size}{}", bytes >> 20, if cold { "/cold" } else { "" }),
            Open { bytes, killed } => write!(f, "open/{}MiB{}", bytes >> 20, if killed { "/killed" } else { "" }),
            Tail { threads, size, view } => write!(f, "tail/{threads}x{size}{}", if view { "/view" } else { "" }),
            Rotate { threads, size } => write!(f, "rotate/{threads}x{size}"),
        }
    }
}

impl FromStr for Workload {
    type Err = Error;

    fn from_str(s: &str) -> Result<Workload> {
        let (kind, rest) = s.split_once('/').unwrap_or((s, ""));
        let (what, flag) = rest.split_once('/').unwrap_or((rest, ""));
        let mibs = |n: &str| n.strip_suffix("MiB")?.parse::<u64>().ok()?.checked_mul(1 << 20);
        let pair = || what.split_once('x').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let parsed = match kind {
            "commit" => pair().map(|(threads, size)| Commit { threads, size }),
            "async" => pair().map(|(in_flight, size)| Async { in_flight, size }),
            "batch" => pair().map(|(threads, size)| Batch { threads, size }),
            "append" => pair().or(what.parse().ok().map(|size| (1, size))).map(|(threads, size)| Append { threads, size }),
            "recover" => what
                .split_once('x')
                .and_then(|(n, size)| Some(Recover { bytes: mibs(n)?, size: size.parse().ok()?, cold: flag == "cold" })),
            "open" => mibs(what).map(|bytes| Open { bytes, killed: flag == "killed" }),
            "tail" => pair().map(|(threads, size)| Tail { threads, size, view: flag == "view" }),
            "rotate" => pair().map(|(threads, size)| Rotate { threads, size }),
            _ => None,
        };
        match parsed {
            // (What is not understood to the letter is refused.)
            Some(workload) if workload.to_string() == s => Ok(workload),
            _ => bail!(
                "there is no workload {s:?}; there are, for example, {}, {}",
                Workload::all()[0],
                Append { threads: 1, size: 128 }
            ),
        }
    }
}

impl Serialize for Workload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Workload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Workload, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_read_back() {
        for workload in Workload::all().into_iter().chain(Workload::short()) {
            assert_eq!(workload.to_string().parse::<Workload>().unwrap(), workload);
        }
        for nonsense in ["", "commit", "commit/8", "commit/8x", "open/1MiB/dead", "append/128/view"] {
            assert!(nonsense.parse::<Workload>().is_err(), "{nonsense}");
        }
    }
}
