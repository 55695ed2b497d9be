//! Pure redo: the caller's pages, and the caller's records.

use std::collections::BTreeMap;

use foreword::{Lsn, Options};
use foreword_pages::{PageId, Pages, replay};

/// Pages that records append bytes to. They stop after a number of changes, as a crash would.
#[derive(Clone, Debug, Default, PartialEq)]
struct Texts {
    pages: BTreeMap<PageId, (Lsn, Vec<u8>)>,
    left: u64,
}

#[derive(Debug)]
enum Stop {
    Crash,
    Log,
}

impl From<foreword::Error> for Stop {
    fn from(_: foreword::Error) -> Stop {
        Stop::Log
    }
}

impl Pages for Texts {
    type Error = Stop;

    fn page_of(&self, record: &[u8]) -> Result<Option<PageId>, Stop> {
        Ok((record[0] != 0).then(|| PageId(u64::from(record[0]))))
    }

    fn page_lsn(&mut self, page: PageId) -> Result<Lsn, Stop> {
        Ok(self.pages.get(&page).map_or(Lsn::ZERO, |p| p.0))
    }

    fn apply(&mut self, page: PageId, lsn: Lsn, record: &[u8]) -> Result<(), Stop> {
        self.left = self.left.checked_sub(1).ok_or(Stop::Crash)?;
        let (page_lsn, text) = self.pages.entry(page).or_default();
        *page_lsn = lsn;
        text.extend_from_slice(&record[1..]);
        Ok(())
    }
}

#[test]
fn replay_cut_short_anywhere_and_repeated_is_replay() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(64 << 10).open(dir.path()).unwrap();
    for i in 0..200u8 {
        log.append(&[i % 7, i]).unwrap();
    }
    log.sync().unwrap();
    let mut whole = Texts { left: u64::MAX, ..Texts::default() };
    let done = replay(&mut log.reader(), &mut whole).unwrap();
    assert_eq!((done.records, done.last, done.skipped), (200, Lsn(200), 0));
    assert_eq!(done.applied, (0..200).filter(|i| i % 7 != 0).count() as u64, "records about something else are passed over");
    for cut in 0..done.applied {
        let mut texts = Texts { left: cut, ..Texts::default() };
        assert!(matches!(replay(&mut log.reader(), &mut texts), Err(Stop::Crash)));
        // The pages that were written before the crash, each with its state at some time; some were
        // not.
        texts.pages.retain(|page, _| (page.0 + cut) % 3 != 0);
        texts.left = u64::MAX;
        let again = replay(&mut log.reader(), &mut texts).unwrap();
        assert_eq!(texts.pages, whole.pages, "cut after {cut}");
        assert_eq!(again.applied + again.skipped, done.applied);
        assert_eq!(replay(&mut log.reader_at(Lsn(50)), &mut texts).unwrap().applied, 0);
    }
    log.truncate_front(Lsn(1)).unwrap();
}
