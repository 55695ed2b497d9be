//! Pure redo, without transactions: a caller's log of changes to the caller's pages, replayed by
//! page LSN.

use foreword::{Lsn, Reader};

use crate::PageId;

/// The caller's pages, as [`replay`] needs them. The records are the caller's, too.
pub trait Pages {
    /// What can go wrong with them.
    type Error: From<foreword::Error>;

    /// The page that a record changes. `None`: the record is about something else, and replay
    /// passes over it.
    ///
    /// # Errors
    /// What is wrong with the record: replay stops there.
    fn page_of(&self, record: &[u8]) -> Result<Option<PageId>, Self::Error>;

    /// The LSN that was given to [`apply`](Pages::apply) when the page was changed last;
    /// [`Lsn::ZERO`] if it never was.
    ///
    /// # Errors
    /// Why the page cannot be read: replay stops there.
    fn page_lsn(&mut self, page: PageId) -> Result<Lsn, Self::Error>;

    /// Makes the change and sets the page's LSN to `lsn`, both at once: after a crash the page has
    /// both or neither.
    ///
    /// # Errors
    /// Why the change cannot be made: replay stops there.
    fn apply(&mut self, page: PageId, lsn: Lsn, record: &[u8]) -> Result<(), Self::Error>;
}

/// What [`replay`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Records read.
    pub records: u64,
    /// Changes made.
    pub applied: u64,
    /// Changes that the pages had already.
    pub skipped: u64,
    /// The last record read; [`Lsn::ZERO`] if there was none.
    pub last: Lsn,
}

/// Reads a log from the reader's position to the end of what is durable, and makes each change that
/// its page does not have yet. Repeating it, also after it was cut short, changes nothing.
///
/// The caller keeps the rules: append the record before changing the page; write a page only after
/// [`Log::sync_to`](foreword::Log::sync_to) its LSN; and drop no record that a page on disk lacks.
///
/// ```
/// use foreword::{Log, Lsn};
/// use foreword_pages::{PageId, Pages, replay};
/// use std::collections::BTreeMap;
///
/// /// Counters: a record says which one goes up.
/// #[derive(Default)]
/// struct Counters(BTreeMap<PageId, (Lsn, u64)>);
///
/// impl Pages for Counters {
///     type Error = foreword::Error;
///     fn page_of(&self, record: &[u8]) -> Result<Option<PageId>, Self::Error> {
///         Ok(record.first().map(|&page| PageId(u64::from(page))))
///     }
///     fn page_lsn(&mut self, page: PageId) -> Result<Lsn, Self::Error> {
///         Ok(self.0.get(&page).map_or(Lsn::ZERO, |counter| counter.0))
///     }
///     fn apply(&mut self, page: PageId, lsn: Lsn, _record: &[u8]) -> Result<(), Self::Error> {
///         let counter = self.0.entry(page).or_default();
///         *counter = (lsn, counter.1 + 1);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
/// for page in [1, 2, 1, 1] {
///     log.append(&[page])?;
/// }
/// log.sync()?;
/// let mut counters = Counters::default();
/// assert_eq!(replay(&mut log.reader(), &mut counters)?.applied, 4);
/// assert_eq!(replay(&mut log.reader(), &mut counters)?.skipped, 4);
/// assert_eq!(counters.0[&PageId(1)], (Lsn(4), 3));
/// # Ok(()) }
/// ```
///
/// # Errors
/// The log's errors ([`Reader::next`]), and those of the pages.
pub fn replay<P: Pages + ?Sized>(reader: &mut Reader, pages: &mut P) -> Result<Replayed, P::Error> {
    let mut done = Replayed::default();
    while let Some(record) = reader.next()? {
        done.records += 1;
        done.last = record.lsn;
        let Some(page) = pages.page_of(record.data)? else { continue };
        if record.lsn > pages.page_lsn(page)? {
            pages.apply(page, record.lsn, record.data)?;
            done.applied += 1;
        } else {
            done.skipped += 1;
        }
    }
    Ok(done)
}
