//! The strategies compared: which calls wait for the disk, and when.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use foreword::SyncPolicy;
use serde::{Serialize, Serializer};

use foreword_command::units;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// A flush for each record, one at a time: other threads wait for their turn.
    Each,
    /// Each thread syncs after this many of its records.
    Every(u64),
    /// Each record is committed; threads that commit at the same time share a flush.
    Group,
    /// No call waits; a background sync at this interval.
    Interval(Duration),
    /// No call waits; one sync at the end.
    Buffered,
}

impl Strategy {
    /// When the log syncs in the background.
    pub(super) fn policy(self) -> SyncPolicy {
        match self {
            Strategy::Interval(time) => SyncPolicy::interval(time),
            _ => SyncPolicy::manual(),
        }
    }

    /// Whether a record is durable when the call returns.
    pub(super) fn waits(self) -> bool {
        matches!(self, Strategy::Each | Strategy::Group)
    }

    /// Its name in a picture, where it stands beside strategies that promise more or less.
    pub(super) fn label(self) -> String {
        if self.waits() { self.to_string() } else { format!("{self} (not durable)") }
    }

    /// When a record is durable.
    pub(super) fn durable(self) -> String {
        match self {
            Strategy::Each | Strategy::Group => "on return".to_owned(),
            Strategy::Every(n) => format!("after {n}"),
            Strategy::Interval(time) => format!("after {time:?}"),
            Strategy::Buffered => "at the end".to_owned(),
        }
    }

    /// How many records at most are covered by one flush that is waited for; `None` if none is
    /// waited for.
    pub(super) fn records_a_flush(self, threads: usize) -> Option<u64> {
        match self {
            Strategy::Each => Some(1),
            Strategy::Every(n) => Some(n * threads as u64),
            Strategy::Group => Some(threads as u64),
            Strategy::Interval(_) | Strategy::Buffered => None,
        }
    }

    /// What a power failure may take of what was acknowledged.
    pub(super) fn may_lose(self) -> String {
        match self {
            Strategy::Each | Strategy::Group => "nothing".to_owned(),
            Strategy::Every(n) => format!("up to {} records of each thread", n.saturating_sub(1)),
            Strategy::Interval(time) => format!("what was appended in the last {time:?}"),
            Strategy::Buffered => "everything since the last sync".to_owned(),
        }
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Strategy, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("each", None) => Ok(Strategy::Each),
            ("group", None) => Ok(Strategy::Group),
            ("buffered", None) => Ok(Strategy::Buffered),
            ("every", n) => match n.unwrap_or("100").parse() {
                Ok(n) if n > 0 => Ok(Strategy::Every(n)),
                _ => Err("every=N takes a number from 1 on".to_owned()),
            },
            ("interval", time) => match units::time(time.unwrap_or("100ms"))? {
                time if time >= Duration::from_micros(100) => Ok(Strategy::Interval(time)),
                _ => Err("interval=TIME takes at least 100us".to_owned()),
            },
            _ => Err("use each, every[=N], group, interval[=TIME] or buffered".to_owned()),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strategy::Each => f.write_str("each"),
            Strategy::Every(n) => write!(f, "every={n}"),
            Strategy::Group => f.write_str("group"),
            Strategy::Interval(time) => write!(f, "interval={time:?}"),
            Strategy::Buffered => f.write_str("buffered"),
        }
    }
}

impl Serialize for Strategy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_are_read_as_they_are_written() {
        for text in ["each", "every=100", "group", "interval=10ms", "buffered", "interval=2s"] {
            assert_eq!(text.parse::<Strategy>().unwrap().to_string(), text);
        }
        assert_eq!("every".parse(), Ok(Strategy::Every(100)));
        assert_eq!("interval".parse(), Ok(Strategy::Interval(Duration::from_millis(100))));
        for wrong in ["", "every=0", "every=x", "group=3", "interval=10", "interval=1us", "fsync"] {
            assert!(wrong.parse::<Strategy>().is_err(), "{wrong}");
        }
    }
}
