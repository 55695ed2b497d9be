//! An outbox: what a service commits is shipped elsewhere, each record at least once, in order. A
//! hold keeps what was not shipped, and says where to go on after a restart.

use foreword::{Log, Lsn, Record};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The hold's name. It lives in the log, not in the process.
const OUTBOX: &str = "outbox";

/// Ships what was not shipped, and what comes, until the log is closed or something fails; then it
/// is called again. Blocks: it has a thread of its own.
pub fn ship(log: &Log, mut send: impl FnMut(&[Record]) -> Result<()>) -> Result<()> {
    let from = log.holds()?.get(OUTBOX).map_or(log.start_lsn(), |hold| hold.lsn);
    log.hold(OUTBOX, from)?; // What was not shipped stays.
    let mut reader = log.reader_at(from);
    // Only what is durable: what a crash here takes back was never sent.
    while let Some(first) = reader.wait_next(None)? {
        let mut records = vec![Record::from(first)];
        while records.len() < 100
            && let Some(record) = reader.next()?
        {
            records.push(record.into());
        }
        send(&records)?;
        // It flushes, so it is done once for many records. A crash before it sends them again: the
        // other end tells by the LSN.
        log.hold(OUTBOX, reader.position())?;
        log.truncate_front(reader.position())?; // As far as no other hold needs them.
    }
    Ok(())
}

/// Runs the example.
pub fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut sent, mut failed, mut received) = (0, 0, Vec::<Record>::new());
    // The other end keeps each record once. Its answer is lost, now and then.
    let mut send = |records: &[Record]| {
        let last = received.last().map_or(Lsn::ZERO, |record| record.lsn);
        received.extend(records.iter().filter(|record| record.lsn > last).cloned());
        sent += records.len();
        if sent % 7 == 0 { Err("no answer".into()) } else { Ok(()) }
    };
    for run in 0..2 {
        let log = Log::options().segment_bytes(1 << 20).open(dir.path())?;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while log.failure().is_none() {
                    failed += u32::from(ship(&log, &mut send).is_err());
                }
            });
            (0..1000).try_for_each(|n| log.commit(format!("run {run}, event {n}")).map(drop))?;
            log.close() // In mid-flight: the rest is shipped by the next run.
        })?;
    }
    println!("2000 records, sent {sent} times, of which the other end has {}; it failed {failed} times", received.len());
    assert!(
        !received.is_empty() && received.iter().zip(1..).all(|(record, n)| record.lsn == Lsn(n)),
        "none is missing in between"
    );
    Ok(())
}
