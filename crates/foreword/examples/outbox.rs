//! An outbox: what a service commits is shipped elsewhere, each record at least once, in order. A hold keeps what was not shipped, and says where to go
//! on after a restart.

use std::time::Duration;

use foreword::{Error, Log, Lsn, Record};

/// The hold's name. It lives in the log, not in the process.
const OUTBOX: &str = "outbox";

/// What can go wrong: here, and there.
#[derive(Debug)]
pub enum Failed {
    /// The log.
    Log(Error),
    /// The other end has not said that it has them.
    Send(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Log(error)
    }
}

/// Before anything is committed or dropped: from here on, what was not shipped stays.
pub fn prepare(log: &Log) -> Result<(), Error> {
    if !log.holds().contains_key(OUTBOX) {
        log.hold(OUTBOX, log.start_lsn())?;
    }
    Ok(())
}

/// Ships what was not shipped, and what comes, until the log is closed or something fails; then it is called again. Blocks: it has a thread of its own.
pub fn ship(log: &Log, mut send: impl FnMut(&[Record]) -> Result<(), String>) -> Result<(), Failed> {
    let from = log.holds().get(OUTBOX).map_or(Lsn::ZERO, |hold| hold.lsn);
    let mut reader = log.reader_at(from);
    // Only what is durable: what a crash here takes back was never sent.
    while let Some(first) = reader.wait_next(None)? {
        let mut records = vec![Record::from(first)];
        while records.len() < 100
            && let Some(record) = reader.next()?
        {
            records.push(record.into());
        }
        send(&records).map_err(Failed::Send)?;
        // It flushes, so it is done once for many records. A crash before it sends them again: the other end tells by the LSN.
        let next = reader.position();
        log.hold(OUTBOX, next)?;
        log.truncate_front(next)?; // As far as no other hold needs them.
    }
    Ok(())
}

/// The other end: it keeps each record once.
#[derive(Debug, Default)]
pub struct Receiver {
    has: Vec<Record>,
}

impl Receiver {
    /// Takes records; those that it has already count once.
    pub fn receive(&mut self, records: &[Record]) {
        let last = self.has.last().map_or(Lsn::ZERO, |record| record.lsn);
        self.has.extend(records.iter().filter(|record| record.lsn > last).cloned());
    }
}

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let options = Log::options().segment_bytes(1 << 20);
    let mut receiver = Receiver::default();
    let (mut sent, mut failures) = (0, Vec::new());
    for run in 0..2 {
        let log = options.open(dir.path())?;
        prepare(&log)?;
        std::thread::scope(|scope| {
            let shipper = scope.spawn(|| {
                let mut send = |records: &[Record]| {
                    sent += records.len();
                    receiver.receive(records);
                    // The answer is lost, now and then.
                    if sent % 7 == 0 { Err("no answer".to_owned()) } else { Ok(()) }
                };
                loop {
                    match ship(&log, &mut send) {
                        Err(Failed::Send(why)) => failures.push(why),
                        Ok(()) | Err(Failed::Log(Error::Closed)) => return Ok(()),
                        Err(Failed::Log(error)) => return Err(error),
                    }
                }
            });
            for n in 0..1000 {
                log.commit(format!("run {run}, event {n}"))?;
            }
            std::thread::sleep(Duration::from_millis(1)); // Closed in mid-flight: the rest is shipped by the next run.
            log.close()?;
            shipper.join().map_err(|_| "the shipper panicked")??;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    println!(
        "2000 records, sent {sent} times, of which the other end has {}; it failed {} times",
        receiver.has.len(),
        failures.len()
    );
    assert!(receiver.has.iter().zip(1..).all(|(record, n)| record.lsn == Lsn(n)), "none is missing in between");
    Ok(())
}
