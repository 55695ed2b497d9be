//! Holds what is in the log against what was said of it.

use foreword::{Error, Lsn, Reader};

use super::script::Script;
use super::words::Word;

/// All that need be remembered: a few numbers for each kill.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    seed: u64,
    /// The last LSN that was found after each kill. What follows, the next writer wrote.
    ends: Vec<Lsn>,
    /// This record and all before it must be there.
    pub(super) acknowledged: Lsn,
    /// What said so.
    acknowledged_by: String,
    /// The log may start here at the latest, and must start here at the earliest.
    cutting: Lsn,
    cut: Lsn,
    /// What was said that cannot be right.
    wrong: Vec<String>,
}

/// What is in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: Lsn,
    pub(super) last: Lsn,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Acknowledged records that are not there, byte for byte, at their LSN.
    pub(super) lost: u64,
    /// What must not be: the first few cases, in words.
    pub(super) wrong: Vec<String>,
}

impl Found {
    pub(super) fn is_sound(&self) -> bool {
        self.lost == 0 && self.wrong.is_empty()
    }

    pub(super) fn complain(&mut self, what: String) {
        if self.wrong.len() < 10 {
            self.wrong.push(what);
        }
    }
}

impl Ledger {
    pub(super) fn new(seed: u64) -> Ledger {
        Ledger {
            seed,
            ends: Vec::new(),
            acknowledged: Lsn::ZERO,
            acknowledged_by: String::new(),
            cutting: Lsn::FIRST,
            cut: Lsn::FIRST,
            wrong: Vec::new(),
        }
    }

    /// How many writers were killed.
    pub(super) fn round(&self) -> u64 {
        self.ends.len() as u64
    }

    /// The last LSN that was there when the writer of this round was started.
    pub(super) fn end(&self) -> Lsn {
        self.ends.last().copied().unwrap_or_default()
    }

    /// A writer was killed and the log was checked: what the next one finds.
    pub(super) fn close_round(&mut self, found: &Found) {
        self.ends.push(found.last);
        self.cut = self.cut.max(found.start);
        self.cutting = self.cut;
    }

    pub(super) fn hear(&mut self, word: Word) {
        match word {
            Word::Acknowledged(lsn, by) if lsn > self.acknowledged => (self.acknowledged, self.acknowledged_by) = (lsn, by),
            Word::Acknowledged(..) => {}
            Word::Cutting(lsn) => self.cutting = self.cutting.max(lsn),
            Word::Cut(lsn) => self.cut = self.cut.max(lsn),
            Word::Ready(start, last) => {
                // Of the start, all that is between is right: a cut that was under way may have been done or not.
                if last != self.end() || !(self.cut..=self.cutting).contains(&start) {
                    let (was, end) = (self.cut, self.end());
                    self.wrong
                        .push(format!("LSN {was} to {end} were there, a writer that opened the log found {start} to {last}"));
                }
            }
            Word::Wrong(what) => self.wrong.push(what),
            Word::Full => {}
        }
    }

    /// Who wrote the record with an LSN.
    pub(super) fn script_of(&self, lsn: Lsn) -> Script {
        Script { seed: self.seed, round: self.ends.partition_point(|&end| end < lsn) as u64 }
    }

    /// There is no log.
    pub(super) fn check_none(&self) -> Found {
        let mut found = Found { start: Lsn::FIRST, wrong: self.wrong.clone(), ..Found::default() };
        self.check_end(&mut found);
        found
    }

    /// Reads the whole log from its start, which is told by who opened it.
    pub(super) fn check(&self, start: Lsn, mut reader: Reader) -> Found {
        let mut found = Found { start, last: start.prev(), wrong: self.wrong.clone(), ..Found::default() };
        if !(self.cut..=self.cutting.max(self.cut)).contains(&start) {
            let Ledger { cut, cutting, .. } = self;
            found.complain(format!("the log starts at LSN {start}; it was cut at {cut}, and was perhaps to be cut at {cutting}"));
        }
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(record)) => self.check_record(record.lsn, record.data, &mut found),
                Err(error) => {
                    found.complain(error.to_string());
                    break;
                }
            }
        }
        self.check_end(&mut found);
        self.check_units(&mut found);
        found
    }

    fn check_end(&self, found: &mut Found) {
        if self.acknowledged > found.last {
            found.lost += self.acknowledged.0 - found.last.0;
            let Ledger { acknowledged, acknowledged_by, .. } = self;
            found
                .complain(format!("LSN {acknowledged} was acknowledged ({acknowledged_by}), and the log ends at {}", found.last));
        }
    }

    fn check_record(&self, lsn: Lsn, data: &[u8], found: &mut Found) {
        if lsn != found.last.next() {
            found.complain(format!("after LSN {} comes {lsn}", found.last));
            found.lost += self.acknowledged.min(lsn.prev()).0.saturating_sub(found.last.0);
        }
        found.last = lsn;
        found.records += 1;
        found.bytes += data.len() as u64;
        if let Some(difference) = difference(&self.script_of(lsn).record(lsn), data) {
            found.lost += u64::from(lsn <= self.acknowledged);
            found.complain(format!("the record with LSN {lsn} is not the one that was written: {difference}"));
        }
    }

    /// The records of this round end where a batch does. (Those of earlier rounds were looked at then.)
    fn check_units(&self, found: &mut Found) {
        let mut first = self.end().next();
        while first <= found.last {
            let next = Lsn(first.0 + self.script_of(first).unit_len(first));
            if next.prev() > found.last {
                let (there, all) = (found.last.0 + 1 - first.0, next.0 - first.0);
                found.complain(format!("of the {all} records of the batch that begins at LSN {first} only {there} are there"));
            }
            first = next;
        }
    }
}

/// In words, how a record differs from what was expected.
pub(super) fn difference(expected: &[u8], data: &[u8]) -> Option<String> {
    if expected == data {
        return None;
    }
    let at = expected.iter().zip(data).take_while(|(a, b)| a == b).count();
    Some(format!("{} bytes, not {}, and other ones from byte {at} on", data.len(), expected.len()))
}

/// Reads along while the log grows, until it is told to stop; `who` reads. What a reader shows is durable: so it counts as acknowledged. (Where it stands says
/// nothing: that may be beyond what is durable.)
pub(super) fn follow<E: From<Error>>(
    who: &str,
    mut reader: Reader,
    script_of: impl Fn(Lsn) -> Script,
    mut say: impl FnMut(Word) -> Result<(), E>,
    go_on: impl Fn() -> bool,
) -> Result<(), E> {
    const OFTEN: u64 = 32;
    const A_WHILE: std::time::Duration = std::time::Duration::from_millis(20);
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(2);
    let (mut seen, mut said) = (Lsn::ZERO, Lsn::ZERO);
    while go_on() {
        let expected = reader.position();
        let read = match reader.wait_next(Some(A_WHILE)) {
            Ok(Some(record)) => {
                if record.lsn != expected {
                    say(Word::Wrong(format!("a reader that stood before LSN {expected} got {}", record.lsn)))?;
                }
                if let Some(difference) = difference(&script_of(record.lsn).record(record.lsn), record.data) {
                    say(Word::Wrong(format!("a reader got a wrong record with LSN {}: {difference}", record.lsn)))?;
                }
                Some(record.lsn)
            }
            Ok(None) => {
                // (Of a log that was closed it says so at once.)
                std::thread::sleep(PAUSE);
                None
            }
            // Truncation has overtaken it.
            Err(Error::Dropped { start, .. }) => {
                reader.seek(start);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        seen = read.unwrap_or(seen);
        if seen > said && (read.is_none() || seen.0 >= said.0 + OFTEN) {
            say(Word::Acknowledged(seen, who.to_owned()))?;
            said = seen;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use foreword::{Log, Options, View};

    use super::*;

    const SEED: u64 = 11;

    fn open(dir: &std::path::Path) -> Log {
        Options::new().segment_bytes(1 << 20).open(dir).unwrap()
    }

    /// What one writer writes: whole units, until there are so many records at least. All are acknowledged.
    fn write(log: &Log, ledger: &mut Ledger, records: u64) {
        let first = log.last_lsn().next();
        while log.last_lsn().0 < first.0 + records {
            let next = log.last_lsn().next();
            log.commit_batch(&ledger.script_of(next).unit(next)).unwrap();
        }
        ledger.hear(Word::Acknowledged(log.last_lsn(), "commit_batch".to_owned()));
    }

    fn check(dir: &std::path::Path, ledger: &Ledger) -> Found {
        let view = View::open(dir).unwrap().recoverable().unwrap();
        ledger.check(view.start_lsn(), view.reader_at(Lsn::ZERO))
    }

    /// The log of two writers, after something was done to a copy of it; what a check of the copy finds.
    fn found(harm: impl Fn(&Log, &mut Ledger)) -> Found {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(SEED);
        let log = open(dir.path());
        write(&log, &mut ledger, 100);
        log.close().unwrap();
        let sound = check(dir.path(), &ledger);
        assert!(sound.is_sound() && sound.records >= 100, "{sound:?}");
        ledger.close_round(&sound);
        let log = open(dir.path());
        ledger.hear(Word::Ready(log.start_lsn(), log.last_lsn()));
        write(&log, &mut ledger, 100);
        harm(&log, &mut ledger);
        log.close().unwrap();
        check(dir.path(), &ledger)
    }

    /// The first LSN of a batch of the second writer, and how many records it has.
    fn batch(log: &Log, ledger: &Ledger) -> (Lsn, u64) {
        let script = ledger.script_of(ledger.end().next());
        let mut first = ledger.end().next();
        while script.unit_len(first) < 3 {
            first = Lsn(first.0 + script.unit_len(first));
            assert!(first <= log.last_lsn(), "there is one with this seed");
        }
        (first, script.unit_len(first))
    }

    #[test]
    fn a_sound_log_is_sound_wherever_it_was_cut_and_whatever_else_was_written() {
        assert!(found(|_, _| {}).is_sound());
        let cut = found(|log, ledger| {
            ledger.hear(Word::Cutting(Lsn(150)));
            ledger.hear(Word::Cut(log.truncate_front(Lsn(140)).unwrap()));
        });
        assert!(cut.is_sound() && cut.start == Lsn(140), "{cut:?}");
        let unacknowledged = found(|log, ledger| {
            let (acknowledged, ends) = (ledger.acknowledged, ledger.ends.clone());
            write(log, ledger, 10);
            (ledger.acknowledged, ledger.ends) = (acknowledged, ends);
        });
        assert!(unacknowledged.is_sound(), "{unacknowledged:?}");
    }

    #[test]
    fn an_acknowledged_record_that_was_deleted_is_missed() {
        let one = found(|log, _| log.truncate_back(log.last_lsn()).unwrap());
        assert_eq!(one.lost, 1, "{one:?}");
        assert!(one.wrong[0].contains("was acknowledged (commit_batch), and the log ends at"), "{one:?}");
        let all = found(|log, _| log.truncate_back(Lsn(1)).unwrap());
        assert!(all.lost >= 200, "{all:?}");
        let front = found(|log, _| _ = log.truncate_front(Lsn(120)).unwrap());
        assert!(front.wrong[0].contains("starts at LSN 120"), "{front:?}");
    }

    #[test]
    fn a_cut_that_was_acknowledged_and_is_undone_is_found() {
        let undone = found(|_, ledger| {
            ledger.hear(Word::Cutting(Lsn(150)));
            ledger.hear(Word::Cut(Lsn(150)));
        });
        assert!(undone.wrong[0].contains("it was cut at 150"), "{undone:?}");
    }

    #[test]
    fn records_that_nobody_wrote_there_and_halves_of_batches_are_found() {
        let phantom = found(|log, _| _ = log.commit(b"nobody wrote this").unwrap());
        assert!(phantom.lost == 0 && !phantom.wrong.is_empty(), "{phantom:?}");
        let of_an_earlier_writer = found(|log, ledger| {
            let next = log.last_lsn().next();
            let script = Script { round: 0, ..ledger.script_of(next) };
            log.commit_batch(&script.unit(next)).unwrap();
        });
        assert!(!of_an_earlier_writer.wrong.is_empty(), "{of_an_earlier_writer:?}");
        let changed = found(|log, ledger| {
            let lsn = log.last_lsn();
            log.truncate_back(lsn).unwrap();
            let mut record = ledger.script_of(lsn).record(lsn);
            record.push(0);
            log.commit(&record).unwrap();
        });
        assert_eq!((changed.lost, changed.wrong.len()), (1, 1), "{changed:?}");
        let half = found(|log, ledger| {
            let (first, records) = batch(log, ledger);
            log.truncate_back(Lsn(first.0 + records - 1)).unwrap();
            ledger.acknowledged = first.prev();
        });
        assert!(half.lost == 0 && half.wrong[0].contains("only"), "{half:?}");
    }

    #[test]
    fn a_writer_that_finds_another_log_than_the_check_is_found() {
        for (start, last) in [(1, 99), (2, 100)] {
            let mut ledger = Ledger::new(SEED);
            ledger.close_round(&Found { start: Lsn(1), last: Lsn(100), ..Found::default() });
            ledger.hear(Word::Ready(Lsn(1), Lsn(100)));
            assert!(ledger.wrong.is_empty());
            ledger.hear(Word::Ready(Lsn(start), Lsn(last)));
            assert!(ledger.wrong[0].contains("LSN 1 to 100 were there"), "{ledger:?}");
        }
    }

    #[test]
    fn a_reader_at_the_tail_checks_what_it_gets_and_counts_it_as_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let mut ledger = Ledger::new(SEED);
        write(&log, &mut ledger, 50);
        let said = |from: Lsn, script: Script| {
            let mut said = Vec::new();
            let turns = std::cell::Cell::new(0);
            let go_on = || turns.replace(turns.get() + 1) < log.last_lsn().0 + 3;
            let say = |word| {
                said.push(word);
                Ok::<(), Error>(())
            };
            follow("a reader", log.reader_at(from), |_| script, say, go_on).unwrap();
            said
        };
        let script = ledger.script_of(Lsn(1));
        let right = said(Lsn(1), script);
        assert_eq!(right.last(), Some(&Word::Acknowledged(log.last_lsn(), "a reader".to_owned())));
        assert!(!right.iter().any(|word| matches!(word, Word::Wrong(_))), "{right:?}");
        let wrong = said(Lsn(1), Script { round: 9, ..script });
        assert!(wrong.iter().any(|word| matches!(word, Word::Wrong(_))), "{wrong:?}");
        assert_eq!(said(log.last_lsn().next().next(), script), [], "it stands behind a record that is not there");
    }
}
