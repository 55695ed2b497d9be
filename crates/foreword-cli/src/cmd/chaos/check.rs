//! Checks the log's contents against what was acknowledged.

use std::time::{Duration, Instant};

use foreword::{Error, Lsn, Reader};

use super::script::{Eras, Misread, difference};
use super::words::Word;

/// All that need be remembered: a few numbers for each kill.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    /// The writers, and what each wrote.
    pub(super) eras: Eras,
    /// The last generation that is spoken of.
    generation: u64,
    /// The last LSN that was found after the last kill. What follows, the next writer wrote.
    end: Lsn,
    /// This record and all before it must be there.
    pub(super) acknowledged: Lsn,
    /// How many were acknowledged, of those that were cut off later, too.
    pub(super) acknowledgements: u64,
    /// What said so.
    acknowledged_by: String,
    /// The log may start here at the latest, and must start here at the earliest.
    cutting: Lsn,
    cut: Lsn,
    /// A cut at the back that is under way: it may be done or not. The record at which it is, and
    /// the generation that follows.
    cutting_back: Option<(Lsn, u64)>,
    /// Cuts at the front, and at the back.
    pub(super) cuts: (u64, u64),
    /// Contradictory messages of the process.
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
            eras: Eras::new(seed, Lsn::FIRST, 0),
            generation: 0,
            end: Lsn::ZERO,
            acknowledged: Lsn::ZERO,
            acknowledgements: 0,
            acknowledged_by: String::new(),
            cutting: Lsn::FIRST,
            cut: Lsn::FIRST,
            cutting_back: None,
            cuts: (0, 0),
            wrong: Vec::new(),
        }
    }

    /// The generation with which this round's writer begins.
    pub(super) fn generation(&self) -> u64 {
        self.eras.last().1
    }

    /// The last LSN that was there when the writer of this round was started.
    pub(super) fn end(&self) -> Lsn {
        self.end
    }

    /// A writer was killed and the log was checked: what the next one finds.
    pub(super) fn close_round(&mut self, found: &Found) {
        // A cut that was under way when it was killed is done, or is not.
        self.cutting_back = None;
        self.acknowledged = self.acknowledged.min(found.last);
        self.end = found.last;
        self.generation += 1;
        self.eras.begin(found.last.next(), self.generation);
        self.cut = self.cut.max(found.start);
        self.cutting = self.cut;
    }

    pub(super) fn hear(&mut self, word: Word) {
        match word {
            Word::Acknowledged(lsn, generation, by) => {
                let left = self.eras.left_of(lsn, generation);
                if left > self.acknowledged {
                    self.acknowledgements += left.0 - self.acknowledged.0;
                    (self.acknowledged, self.acknowledged_by) = (left, by);
                }
            }
            Word::Cutting(lsn) => self.cutting = self.cutting.max(lsn),
            Word::Cut(lsn) => {
                self.cuts.0 += u64::from(lsn > self.cut);
                self.cut = self.cut.max(lsn);
            }
            Word::CuttingBack(from, generation) => {
                self.cutting_back = Some((from, generation));
                self.generation = self.generation.max(generation);
            }
            Word::CutBack => {
                if let Some((from, generation)) = self.cutting_back.take() {
                    self.cuts.1 += 1;
                    self.eras.begin(from, generation);
                    self.acknowledged = self.acknowledged.min(from.prev());
                }
            }
            Word::Uncut => self.cutting_back = None,
            Word::Ready(start, last) => {
                // Of the start, all that is between is right: a cut that was under way may have
                // been done or not.
                if last != self.end() || !(self.cut..=self.cutting).contains(&start) {
                    let (was, end) = (self.cut, self.end());
                    self.wrong
                        .push(format!("LSN {was} to {end} were there, a writer that opened the log found {start} to {last}"));
                }
            }
            Word::Wrong(what) => self.wrong.push(what),
            Word::Full | Word::LockLost => {}
        }
    }

    /// There is no log.
    pub(super) fn check_none(&self) -> Found {
        let mut found = Found { start: Lsn::FIRST, wrong: self.wrong.clone(), ..Found::default() };
        self.check_end(&mut found);
        found
    }

    /// Reads the whole log from its start, which the process that opened it reported.
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
        let cut_here = self.was_cut_at(found.last.next());
        if self.acknowledged > found.last && !cut_here {
            found.lost += self.acknowledged.0 - found.last.0;
            let Ledger { acknowledged, acknowledged_by, .. } = self;
            found
                .complain(format!("LSN {acknowledged} was acknowledged ({acknowledged_by}), and the log ends at {}", found.last));
        }
    }

    /// Whether a cut at the back was under way that, if it is done, was here.
    fn was_cut_at(&self, lsn: Lsn) -> bool {
        self.cutting_back.is_some_and(|(from, _)| from == lsn)
    }

    fn check_record(&self, lsn: Lsn, data: &[u8], found: &mut Found) {
        if lsn != found.last.next() {
            found.complain(format!("after LSN {} comes {lsn}", found.last));
            found.lost += self.acknowledged.min(lsn.prev()).0.saturating_sub(found.last.0);
        }
        found.last = lsn;
        found.records += 1;
        found.bytes += data.len() as u64;
        if let Some(difference) = difference(&self.eras.script_of(lsn).record(lsn), data) {
            found.lost += u64::from(lsn <= self.acknowledged);
            found.complain(format!("the record with LSN {lsn} is not the one that was written: {difference}"));
        }
    }

    /// The records of the last generation end where a batch does, or a cut. (Those of earlier ones
    /// were looked at then, or end with a cut.)
    fn check_units(&self, found: &mut Found) {
        let (mut first, _) = self.eras.last();
        while first <= found.last && !self.was_cut_at(found.last.next()) {
            let next = Lsn(first.0 + self.eras.script_of(first).unit_len(first));
            if next.prev() > found.last {
                let (there, all) = (found.last.0 + 1 - first.0, next.0 - first.0);
                found.complain(format!("of the {all} records of the batch that begins at LSN {first} only {there} are there"));
            }
            first = next;
        }
    }
}

/// Reads along while the log grows, until it is told to stop; `who` reads. What a reader shows is
/// durable: so it counts as acknowledged. (Where it stands says nothing: that may be beyond what is
/// durable.) `judge` knows the generation of each record, as [`Eras::judge`] does.
pub(super) fn follow<E: From<Error>>(
    who: &str,
    mut reader: Reader,
    judge: impl Fn(Lsn, &[u8], Option<u64>) -> Result<Option<u64>, Misread>,
    mut say: impl FnMut(Word) -> Result<(), E>,
    go_on: impl Fn() -> bool,
) -> Result<(), E> {
    const OFTEN: u64 = 32;
    const A_WHILE: Duration = Duration::from_millis(20);
    const PAUSE: Duration = Duration::from_millis(2);
    // The last record that it showed and that can be told, with its generation; and up to where
    // that was said.
    let (mut seen, mut said) = ((Lsn::ZERO, 0), Lsn::ZERO);
    // The generation of the record that it showed just before.
    let mut before = None;
    while go_on() {
        let expected = reader.position();
        let read = match reader.wait_next(Some(A_WHILE)) {
            Ok(Some(record)) => {
                if record.lsn != expected {
                    say(Word::Wrong(format!("a reader that stood before LSN {expected} got {}", record.lsn)))?;
                }
                before = match judge_in_time(&judge, record.lsn, record.data, before) {
                    Ok(generation) => generation,
                    Err(misread) => {
                        let why = match misread {
                            Misread::Unknown(difference) => difference,
                            Misread::Untold => "what it had read before was cut off, and it was not told".to_owned(),
                        };
                        say(Word::Wrong(format!("a reader got a wrong record with LSN {}: {why}", record.lsn)))?;
                        None
                    }
                };
                if let Some(generation) = before {
                    seen = (record.lsn, generation);
                }
                true
            }
            Ok(None) => {
                // (Of a log that was closed it says so at once.)
                std::thread::sleep(PAUSE);
                false
            }
            // What it had read was cut off: it reads on from there.
            Err(Error::Cut { .. }) => {
                ((seen, said), before) = (((Lsn::ZERO, 0), Lsn::ZERO), None);
                continue;
            }
            // Truncation has overtaken it.
            Err(Error::Dropped { start, .. }) => {
                reader.seek(start);
                before = None;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let (lsn, generation) = seen;
        if lsn > said && (!read || lsn.0 >= said.0 + OFTEN) {
            say(Word::Acknowledged(lsn, generation, who.to_owned()))?;
            said = lsn;
        }
    }
    Ok(())
}

/// A reader in another process may be faster than the word of what the writer does.
fn judge_in_time(
    judge: &impl Fn(Lsn, &[u8], Option<u64>) -> Result<Option<u64>, Misread>,
    lsn: Lsn,
    data: &[u8],
    before: Option<u64>,
) -> Result<Option<u64>, Misread> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let started = Instant::now();
    loop {
        match judge(lsn, data, before) {
            Err(Misread::Unknown(_)) if started.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            judged => return judged,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use foreword::{Log, Options, View};

    use super::super::script::Script;
    use super::*;

    const SEED: u64 = 11;

    fn open(dir: &std::path::Path) -> Log {
        Options::new().segment_bytes(1 << 20).open(dir).unwrap()
    }

    /// What one writer writes: whole units, until it has at least this many records. All are
    /// acknowledged.
    fn write(log: &Log, ledger: &mut Ledger, records: u64) {
        let first = log.last_lsn().next();
        while log.last_lsn().0 < first.0 + records {
            let next = log.last_lsn().next();
            log.commit_batch(&ledger.eras.script_of(next).unit(next)).unwrap();
        }
        ledger.hear(Word::Acknowledged(log.last_lsn(), ledger.generation, "commit_batch".to_owned()));
    }

    /// A cut at the back by this round's writer, which says so.
    fn cut_back(log: &Log, ledger: &mut Ledger, from: Lsn) {
        ledger.hear(Word::CuttingBack(from, ledger.generation + 1));
        log.truncate_back(from).unwrap();
        ledger.hear(Word::CutBack);
    }

    fn check(dir: &std::path::Path, ledger: &Ledger) -> Found {
        let view = View::open(dir).unwrap().recoverable().unwrap();
        ledger.check(view.start_lsn(), view.reader_at(Lsn::ZERO))
    }

    /// The log of two writers, after something was done to a copy of it; what a check of the copy
    /// finds.
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
        let script = ledger.eras.script_of(ledger.end().next());
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
            let acknowledged = ledger.acknowledged;
            write(log, ledger, 10);
            ledger.acknowledged = acknowledged;
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
    fn what_was_cut_at_the_back_is_not_missed_and_must_not_come_back() {
        let cut = found(|log, ledger| {
            let (first, _) = batch(log, ledger);
            cut_back(log, ledger, first.next());
            write(log, ledger, 30);
        });
        assert!(cut.is_sound(), "{cut:?}");
        for done in [true, false] {
            // Killed in the middle.
            let under_way = found(|log, ledger| {
                let from = Lsn(log.last_lsn().0 - 7);
                ledger.hear(Word::CuttingBack(from, 9));
                if done {
                    log.truncate_back(from).unwrap();
                }
            });
            assert!(under_way.is_sound(), "{done}: {under_way:?}");
        }
        let elsewhere = found(|log, ledger| {
            ledger.hear(Word::CuttingBack(Lsn(log.last_lsn().0 - 7), 9));
            log.truncate_back(Lsn(log.last_lsn().0 - 8)).unwrap();
        });
        assert_eq!(elsewhere.lost, 9, "{elsewhere:?}");
        let undone = found(|log, ledger| {
            let from = Lsn(log.last_lsn().0 - 7);
            ledger.hear(Word::CuttingBack(from, ledger.generation + 1));
            ledger.hear(Word::CutBack);
        });
        assert!(!undone.is_sound(), "what was cut off is there: {undone:?}");
        let late = found(|log, ledger| {
            let (last, generation) = (log.last_lsn(), ledger.generation);
            cut_back(log, ledger, Lsn(last.0 - 7));
            // Of what it acknowledges, that is cut off by now.
            ledger.hear(Word::Acknowledged(last, generation, "sync_to".to_owned()));
        });
        assert!(late.is_sound(), "{late:?}");
    }

    #[test]
    fn records_that_nobody_wrote_there_and_halves_of_batches_are_found() {
        let phantom = found(|log, _| _ = log.commit(b"nobody wrote this").unwrap());
        assert!(phantom.lost == 0 && !phantom.wrong.is_empty(), "{phantom:?}");
        let of_an_earlier_writer = found(|log, ledger| {
            let next = log.last_lsn().next();
            let script = Script { generation: 0, ..ledger.eras.script_of(next) };
            log.commit_batch(&script.unit(next)).unwrap();
        });
        assert!(!of_an_earlier_writer.wrong.is_empty(), "{of_an_earlier_writer:?}");
        let changed = found(|log, ledger| {
            let lsn = log.last_lsn();
            log.truncate_back(lsn).unwrap();
            let mut record = ledger.eras.script_of(lsn).record(lsn);
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
        let said = |from: Lsn, eras: &Eras| {
            let mut said = Vec::new();
            let turns = std::cell::Cell::new(0);
            let go_on = || turns.replace(turns.get() + 1) < log.last_lsn().0 + 3;
            let say = |word| {
                said.push(word);
                Ok::<(), Error>(())
            };
            // (Without its patience with what is not known.)
            let judge = |lsn, data: &[u8], before| match eras.judge(lsn, data, before) {
                Err(Misread::Unknown(_)) => Err(Misread::Untold),
                judged => judged,
            };
            follow("a reader", log.reader_at(from), judge, say, go_on).unwrap();
            said
        };
        let right = said(Lsn(1), &ledger.eras);
        assert!(matches!(right.last(), Some(Word::Acknowledged(lsn, 0, _)) if lsn.0 + 3 > log.last_lsn().0), "{right:?}");
        assert!(!right.iter().any(|word| matches!(word, Word::Wrong(_))), "{right:?}");
        let wrong = said(Lsn(1), &Eras::new(SEED, Lsn(1), 9));
        assert!(wrong.iter().any(|word| matches!(word, Word::Wrong(_))), "{wrong:?}");
        assert_eq!(said(log.last_lsn().next().next(), &ledger.eras), [], "it stands behind a record that is not there");
    }
}
