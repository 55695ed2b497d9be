//! Idempotent redo: replaying the log onto pages twice gives what replaying it once does, for each
//! page remembers the LSN of the last record that was applied to it. So a crash in the middle of
//! recovery harms nothing: recovery starts again.

use std::collections::BTreeMap;

use foreword::{Log, Lsn};

// ANCHOR: page
#[derive(Clone, Debug, Default, PartialEq)]
struct Page {
    /// The last record applied to this page: it is written together with the page's contents.
    lsn: Lsn,
    balance: i64,
}
// ANCHOR_END: page

/// A record: which page, and how much to add. (Adding is not idempotent; the page LSN makes it so.)
fn encode(page: u32, delta: i64) -> Vec<u8> {
    [&page.to_le_bytes()[..], &delta.to_le_bytes()[..]].concat()
}

fn decode(record: &[u8]) -> Option<(u32, i64)> {
    let (page, delta) = record.split_at_checked(4)?;
    Some((u32::from_le_bytes(page.try_into().ok()?), i64::from_le_bytes(delta.try_into().ok()?)))
}

// ANCHOR: redo
/// Replays the log; how many records were applied, and how many skipped. Stops after `crash_after`
/// records, as a crash might.
fn redo(log: &Log, pages: &mut BTreeMap<u32, Page>, crash_after: usize) -> Result<(u32, u32), Box<dyn std::error::Error>> {
    let (mut applied, mut skipped) = (0, 0);
    for record in log.iter(Lsn::ZERO).take(crash_after) {
        let record = record?;
        let (id, delta) = decode(&record.data).ok_or("not one of our records")?;
        let page = pages.entry(id).or_default();
        if record.lsn <= page.lsn {
            skipped += 1;
            continue;
        }
        page.balance += delta;
        page.lsn = record.lsn;
        applied += 1;
    }
    Ok((applied, skipped))
}
// ANCHOR_END: redo

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let log = Log::options().segment_bytes(1 << 20).open(dir.path())?;
    for i in 0..1000i64 {
        log.append(&encode((i % 7) as u32, i))?;
    }
    log.sync()?;

    let mut once = BTreeMap::new();
    println!("once:         {:?} (applied, skipped)", redo(&log, &mut once, usize::MAX)?);

    let mut again = BTreeMap::new();
    println!("a crash:      {:?}", redo(&log, &mut again, 600)?);
    println!("and again:    {:?}", redo(&log, &mut again, usize::MAX)?);
    println!("for no gain:  {:?}", redo(&log, &mut again, usize::MAX)?);
    assert_eq!(once, again);
    Ok(())
}
