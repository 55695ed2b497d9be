//! How the logs are opened.

#[cfg(doc)]
use crate::{Error, GroupLogs};

/// Options for opening the logs. The defaults suit most callers.
///
/// ```
/// # fn main() -> Result<(), foreword_raft::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let log = foreword::Options::new().segment_bytes(1 << 20);
/// let logs = foreword_raft::Options::new().log(log).cache_bytes(4 << 20).open(dir.path())?;
/// logs.close()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) log: foreword::Options,
    pub(crate) cache_bytes: usize,
    pub(crate) factor: u64,
    pub(crate) slack: u64,
    pub(crate) step: u64,
    pub(crate) background: bool,
    pub(crate) salvage: bool,
    pub(crate) open_damaged: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Options {
        Options {
            log: foreword::Options::new(),
            cache_bytes: 64 << 20,
            factor: 4,
            slack: 64 << 20,
            step: 1 << 20,
            background: true,
            salvage: false,
            open_damaged: false,
        }
    }

    /// Options of the underlying log. Two of them are not used:
    /// [`retain`](foreword::Options::retain), because only compaction knows what may be dropped;
    /// and [`on_damage`](foreword::Options::on_damage), see [`salvage`](Options::salvage).
    #[must_use]
    pub fn log(mut self, options: foreword::Options) -> Options {
        self.log = options;
        self
    }

    /// How many bytes of the newest entries are kept in memory, for all groups together; 64 MiB by
    /// default. Entries that are not durable are always kept.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Options {
        self.cache_bytes = bytes;
        self
    }

    /// Compaction runs when the log has more than this many times the bytes in force: 2 to
    /// 1,000,000; 4 by default. With a factor *f*, compaction writes at most 1/(*f* - 1) of the
    /// bytes that the groups write, in the long run: a third with 4.
    #[must_use]
    pub fn compact_factor(mut self, factor: u64) -> Options {
        self.factor = factor;
        self
    }

    /// The log may always have this many bytes that are not in force: 64 MiB by default. Less than
    /// a segment does not free space sooner.
    #[must_use]
    pub fn compact_slack(mut self, bytes: u64) -> Options {
        self.slack = bytes;
        self
    }

    /// After this many copied bytes, compaction makes the copies durable and drops the originals: 1
    /// MiB by default. Compaction needs this much memory, and that for one record.
    #[must_use]
    pub fn compact_step(mut self, bytes: u64) -> Options {
        self.step = bytes;
        self
    }

    /// Whether there are background threads (the default): one makes records durable that callbacks
    /// wait for, and calls them; one compacts. Without them, the calls that make records durable
    /// call the callbacks, and the caller calls [`compact`](GroupLogs::compact). This is for tests.
    /// The log's own thread is [another option](foreword::Options::background).
    #[must_use]
    pub fn background(mut self, background: bool) -> Options {
        self.background = background;
        self
    }

    /// Whether damaged parts of the log are given up ([`foreword::OnDamage::Salvage`]). By default
    /// they are not: opening fails with [`Corruption`](foreword::Error::Corruption) and changes
    /// nothing. After a salvage, opening fails with [`Error::Damaged`], unless
    /// [`open_damaged`](Options::open_damaged) is set.
    #[must_use]
    pub fn salvage(mut self, salvage: bool) -> Options {
        self.salvage = salvage;
        self
    }

    /// Whether to open logs of which a part was given up. Then each call on a group that is not
    /// proven to be whole fails with [`Error::GroupDamaged`], also on a group that is not in the
    /// log, because all its records may have been in that part. [`GroupLogs::remove`] gives up such
    /// a group. The other groups work. Such a log is not compacted, so that its evidence stays.
    #[must_use]
    pub fn open_damaged(mut self, open: bool) -> Options {
        self.open_damaged = open;
        self
    }
}
