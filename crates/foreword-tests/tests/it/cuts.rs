//! What a cut at the back leaves when the disk fails in any of its calls: a log that goes on as it
//! was, until the fork may be part of it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use foreword::{Error, Log, Lsn, Options, View};
use foreword_sim::{Choice, Effect, Fault, Op, OpKind, SimDisk};
use foreword_tests::*;

fn on(disk: &SimDisk) -> Options {
    small().on_error(|_| ()).disk(disk.handle())
}

/// Bytes of the record with an LSN: long enough that a few fill a segment.
fn long(lsn: u64) -> Vec<u8> {
    let (piece, len) = (record(lsn), 9000 + lsn as usize);
    let mut bytes = piece.repeat(len / piece.len().max(1) + 1);
    bytes.truncate(len);
    bytes
}

fn commit_long(log: &Log, count: u64) {
    for _ in 0..count {
        log.commit(&long(log.last_lsn().0 + 1)).unwrap();
    }
}

/// Whatever is found is what was appended there, from the first record on: the last.
#[track_caller]
fn check(log: &Log) -> u64 {
    let (records, error) = collect(log.iter(Lsn::ZERO));
    assert!(error.is_none(), "{error:?}");
    assert!((1..).zip(&records).all(|(lsn, (at, data))| *at == lsn && *data == long(lsn)));
    assert_eq!(records.len() as u64, log.last_lsn().0);
    records.len() as u64
}

/// A log before it is cut.
struct Case {
    what: &'static str,
    disk: SimDisk,
    spares: usize,
    last: u64,
    from: u64,
}

impl Case {
    /// The log is closed behind what `work` does.
    fn new(what: &'static str, spares: usize, from: u64, work: impl FnOnce(&Log)) -> Case {
        let disk = SimDisk::new(1);
        let log = on(&disk).spare_segments(spares).open("/log").unwrap();
        work(&log);
        let last = log.last_lsn().0;
        log.close().unwrap();
        Case { what, disk, spares, last, from }
    }

    fn full(self) -> Case {
        self.disk.set_free(0);
        self
    }

    fn open(&self, disk: &SimDisk, goes_on: bool) -> Log {
        let log = on(disk).spare_segments(self.spares).open("/log").unwrap();
        if goes_on {
            log.hold("nothing", Lsn(1)).unwrap(); // A closed log is continued by its first flush.
        }
        log
    }

    /// What the disk is asked during a cut that a fault strikes, and what came of it.
    fn cut(&self, disk: &SimDisk, goes_on: bool, fault: Option<Fault>) -> (Log, Vec<Op>, foreword::Result<()>) {
        let log = self.open(disk, goes_on);
        assert_eq!(check(&log), self.last);
        let before = disk.ops().len();
        fault.into_iter().for_each(|fault| disk.fault(fault));
        let cut = log.truncate_back(Lsn(self.from));
        let ops = disk.ops().split_off(before);
        disk.heal();
        (log, ops, cut)
    }
}

fn cases() -> Vec<Case> {
    let commits = |count| move |log: &Log| commit_long(log, count);
    let batch = |log: &Log| {
        commit_long(log, 1);
        let records: Vec<_> = (2..20).map(long).collect();
        log.commit_batch(&records).unwrap();
    };
    vec![
        Case::new("in the newest segment", 0, 2, commits(2)),
        Case::new("segments before, a spare behind", 1, 3, commits(12)),
        Case::new("a spare and none to copy into", 1, 12, commits(12)),
        Case::new("in a batch of several segments, most of which is copied", 0, 18, batch),
        Case::new("the same, with a spare", 1, 18, batch),
        Case::new("on a full disk", 0, 12, commits(12)).full(),
    ]
}

fn is_tip(op: &Op, tip: &Path) -> bool {
    op.kind == OpKind::DurableWrite && *op.path == *tip
}

/// Each call of a cut fails, once. Until the SEAL of the log's newest segment is on its way nothing
/// of the log was changed, and it goes on. From there to the last frame that belongs to the fork it
/// is not known what the disk has. Behind that it is cut.
#[test]
fn an_error_in_a_cut_leaves_the_log_as_it_was_until_the_fork_may_count() {
    let (mut went_on, mut poisoned) = (0, 0);
    for case in cases() {
        for goes_on in [true, false] {
            let disk = case.disk.copy();
            let (log, ops, cut) = case.cut(&disk, goes_on, None);
            cut.unwrap();
            assert_eq!(check(&log), case.from - 1);
            drop(log);
            let newest = *disk_epochs(&case.disk).last().unwrap();
            let tip = (0..=newest).rev().map(|epoch| Path::new("/log").join(segment_name(epoch)));
            let tip = tip.into_iter().find(|path| ops.iter().any(|op| is_tip(op, path))).unwrap();
            let seal = ops.iter().rposition(|op| is_tip(op, &tip)).unwrap();
            let link = ops.iter().rposition(|op| op.kind == OpKind::DurableWrite).unwrap();
            assert!(seal < link, "{}: {ops:#?}", case.what);
            // A closed log is first continued, with a flush.
            let reopens = ops.iter().position(|op| is_tip(op, &tip)).filter(|&at| at < seal);
            for n in 0..ops.len() {
                for kind in [OpKind::Any, OpKind::Sync] {
                    let before = ops[..n].iter().filter(|op| kind == OpKind::Any || is_sync(op)).count() as u64;
                    if kind == OpKind::Sync && !is_sync(&ops[n]) {
                        continue;
                    }
                    let what = format!("{}, {goes_on}: {kind:?} fails in call {n}: {:?}", case.what, ops[n]);
                    let disk = case.disk.copy();
                    let (log, _, cut) = case.cut(&disk, goes_on, Some(Fault::new(kind, Effect::Eio).skip(before)));
                    let next = log.commit(&long(log.last_lsn().0 + 1));
                    let is_poisoned = matches!(next, Err(Error::Poisoned(_)));
                    let unknown = (seal..=link).contains(&n) || reopens == Some(n);
                    assert_eq!(is_poisoned, unknown, "{what}: {cut:?}, then {next:?}");
                    if unknown {
                        // That the call failed so is why the log does.
                        let failure = log.failure().unwrap_or_else(|| panic!("{what}: {cut:?}"));
                        let said = cut.unwrap_err();
                        assert_eq!(said.to_string(), failure.to_string(), "{what}");
                        assert!(!said.is_retryable(), "{what}: {said:?}");
                        poisoned += 1;
                    } else {
                        assert!(cut.is_ok() || n < seal, "{what}: {cut:?}");
                        went_on += u64::from(cut.is_err());
                        let last = if cut.is_ok() { case.from - 1 } else { case.last };
                        let full = matches!(next, Err(Error::NoSpace { .. }));
                        assert_eq!(check(&log), last + u64::from(!full), "{what}: {cut:?}, then {next:?}");
                        // It can be cut now, if it was not.
                        log.truncate_back(Lsn(case.from)).unwrap_or_else(|error| panic!("{what}: then {error}"));
                        commit_long(&log, u64::from(!full));
                        assert_eq!(check(&log), case.from - 1 + u64::from(!full), "{what}");
                    }
                    let last = check(&log);
                    let after = match n % 3 {
                        0 => disk.kill(),
                        1 => disk.crash(&Choice::None),
                        _ => disk.crash(&Choice::Seed(n as u64)),
                    };
                    let found = check(&on(&after).open("/log").unwrap_or_else(|error| panic!("{what}: {error}")));
                    let either = [case.from - 1, case.last].contains(&found);
                    assert!(if unknown { either } else { found == last }, "{what}: {found} and {last}");
                }
            }
        }
    }
    assert!(went_on > 300 && poisoned > 20, "{went_on} went on, {poisoned} were poisoned");
}

fn is_sync(op: &Op) -> bool {
    matches!(op.kind, OpKind::Sync | OpKind::DurableWrite)
}

fn disk_epochs(disk: &SimDisk) -> Vec<u64> {
    let files = disk.files();
    let mut epochs: Vec<u64> =
        files.iter().filter_map(|(path, _)| path.file_name()?.to_str()?.strip_suffix(".seg")?.parse().ok()).collect();
    epochs.sort_unstable();
    epochs
}

/// A log on a disk that fails or panics in one call, once it is told to; with a hold of another
/// process that stands behind the cut.
struct Harmed {
    disk: MemDisk,
    /// The next calls: how many there were, and which is struck.
    calls: Arc<AtomicUsize>,
    strikes: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<(hooked::Op, String)>>>,
    log: Arc<Log>,
}

impl Harmed {
    fn new(panics: bool) -> Harmed {
        let disk = MemDisk::default();
        let (calls, strikes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (counts, strike, tells) = (calls.clone(), strikes.clone(), asked.clone());
        let harms = hooked::hooked(disk.clone(), move |op, name| {
            tells.lock().unwrap_or_else(PoisonError::into_inner).push((op, name.to_owned()));
            match counts.fetch_add(1, SeqCst) == strike.load(SeqCst) {
                true if panics => panic!("the disk panics"),
                true => Err(std::io::Error::other("the disk fails")),
                false => Ok(()),
            }
        });
        let options = small().background(false).spare_segments(1).on_error(|_| ()).disk(harms);
        let log = Arc::new(options.open(MEM).unwrap());
        commit_long(&log, 12);
        View::open_on(Arc::new(disk.clone()), MEM).unwrap().hold("outside", Lsn(11)).unwrap();
        Harmed { disk, calls, strikes, asked, log }
    }

    /// Cuts while the call with a number is struck.
    fn cut(&self, strikes: usize) -> foreword::Result<()> {
        self.asked.lock().unwrap().clear();
        self.strikes.store(strikes, SeqCst);
        self.calls.store(0, SeqCst);
        let log = self.log.clone();
        let cut = hooked::within(move || log.truncate_back(Lsn(CUT)));
        self.strikes.store(usize::MAX, SeqCst);
        cut
    }
}

const CUT: u64 = 5;

/// Whichever call of a cut fails or panics, the caller is told what is so, and nothing hangs: from
/// the last frame on that makes it count, the cut is made, and what is left to be done is no reason
/// to say otherwise.
#[test]
fn a_disk_that_fails_or_panics_in_a_cut_or_behind_it_gets_the_caller_the_truth() {
    for panics in [false, true] {
        let harmed = Harmed::new(panics);
        harmed.cut(usize::MAX).unwrap();
        let asked = harmed.asked.lock().unwrap().clone();
        drop(harmed);
        let clears = asked.iter().rposition(|(op, name)| *op == hooked::Op::Write && name == "HOLDS").unwrap();
        assert!(asked[clears..].iter().any(|(op, _)| *op == hooked::Op::Remove || *op == hooked::Op::Rename), "{asked:#?}");
        let (mut made, mut poisoned) = (0, 0);
        for (n, call) in asked.iter().enumerate() {
            let what = format!("panics: {panics}, call {n}: {call:?}");
            let harmed = Harmed::new(panics);
            let cut = harmed.cut(n);
            let log = harmed.log.clone();
            let next = hooked::within(move || log.commit(&long(log.last_lsn().0 + 1)));
            let retryable = cut.as_ref().is_err_and(Error::is_retryable);
            assert!(!(retryable && harmed.log.failure().is_some()), "{what}: {cut:?}, but it can never succeed");
            let expected = match (&cut, &next) {
                (Ok(()), _) => CUT,
                (Err(_), Err(Error::Poisoned(_))) => 0,
                (Err(_), _) => 13,
            };
            made += u64::from(cut.is_ok());
            assert!(cut.is_ok() || n < clears, "{what}: {cut:?}");
            if expected > 0 {
                assert_eq!(*next.as_ref().unwrap_or_else(|e| panic!("{what}: {cut:?}, then {e}")), Lsn(expected), "{what}");
                assert_eq!(check(&harmed.log), expected, "{what}");
                // (Where it was moved, and the cut did not come about, it stays lower.)
                let held = harmed.log.holds().unwrap()["outside"].lsn;
                assert!(held == Lsn(CUT) || (cut.is_err() && held == Lsn(11)), "{what}: {held}");
            } else {
                poisoned += 1;
            }
            let Harmed { disk, log, .. } = harmed;
            hooked::within(move || drop(log));
            let found = small().disk(Arc::new(disk)).open(MEM).unwrap_or_else(|error| panic!("{what}: {error}"));
            let last = check(&found);
            assert!(if expected > 0 { last == expected } else { [CUT - 1, 12].contains(&last) }, "{what}: {last}");
            let held = found.holds().unwrap()["outside"].lsn;
            assert!(held <= Lsn(last + 1), "{what}: {held} in a log up to {last}");
        }
        // The SEAL, the LINK, and the look whether the log is this process's still.
        assert!(made > 3 && poisoned >= 3, "{made} were made, {poisoned} poisoned, of {}", asked.len());
    }
}

/// A cut writes again what little precedes it in its segment, so that cuts do not fill the
/// directory: but not where that cannot be read, for it need not.
#[test]
fn a_cut_behind_damage_leaves_that_as_it_is() {
    for spares in [0, 1] {
        let files = MemDisk::default();
        let options = small().segment_bytes(1 << 20).spare_segments(spares).disk(Arc::new(files.clone()));
        let log = options.open(MEM).unwrap();
        commit_long(&log, 60);
        let damaged = {
            let name = segment_name(1);
            let bytes = files.bytes(&name);
            bytes.write().unwrap()[30 * BLOCK + 100] ^= 1;
            bytes.read().unwrap().clone()
        };
        let broken = |log: &Log| match collect(log.iter(Lsn::ZERO)) {
            (before, Some(Error::Corruption(_))) => before.len() as u64,
            other => panic!("{other:?}"),
        };
        let before = broken(&log);
        log.truncate_back(Lsn(before + 10)).unwrap();
        assert_eq!(log.last_lsn(), Lsn(before + 9));
        assert_eq!(log.commit(&long(before + 10)).unwrap(), Lsn(before + 10));
        // What was readable is; the damage is where it was, and is found there.
        assert_eq!(broken(&log), before);
        for lsn in (1..=before).chain(before + 2..=before + 10) {
            assert_eq!(log.get(Lsn(lsn)).unwrap(), long(lsn), "{lsn}");
        }
        assert!(files.bytes(&segment_name(1)).read().unwrap()[..40 * BLOCK] == damaged[..40 * BLOCK]);
        log.close().unwrap();
        drop(log);
        let log = options.open(MEM).unwrap();
        assert_eq!(broken(&log), before);
        // Where the damage begins, nothing of it has to be read.
        log.truncate_back(Lsn(before + 1)).unwrap();
        assert_eq!(check(&log), before);
    }
}
