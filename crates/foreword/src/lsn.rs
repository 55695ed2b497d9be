//! Log sequence numbers.

use std::fmt;

/// A log sequence number: the place of a record in the log.
///
/// LSNs are dense and start at 1: the first record has `Lsn(1)`, the next `Lsn(2)`. [`Lsn::ZERO`]
/// is the LSN of no record; it stands for "nothing yet", as in
/// [`durable_lsn`](crate::Log::durable_lsn) of an empty log.
///
/// ```
/// use foreword::Lsn;
/// assert_eq!(Lsn::ZERO.next(), Lsn::FIRST);
/// assert!(Lsn(7) < Lsn(8));
/// assert_eq!(Lsn(7).to_string(), "7");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The LSN of no record.
    pub const ZERO: Lsn = Lsn(0);
    /// The LSN of the first record of a log.
    pub const FIRST: Lsn = Lsn(1);
    /// Beyond every record.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The LSN that follows this one ([`Lsn::MAX`] is its own successor).
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }

    /// The LSN before this one ([`Lsn::ZERO`] is its own predecessor).
    #[must_use]
    pub const fn prev(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Lsn {
    fn from(lsn: u64) -> Self {
        Lsn(lsn)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> Self {
        lsn.0
    }
}
