//! What damage costs is said by all alike: opening, a view's verdict (`foreword stat`), `verify` and
//! a reader name the same first LSN that cannot be read, whatever is damaged and wherever.

use std::ops::Range;

use foreword::{Damage, Error, Log, Lsn, OnDamage, Verdict};

use foreword_tests::*;

/// What may befall a segment file; the file before, and a byte from which on it is not the same.
enum Kind {
    Cut(usize),
    Longer(usize),
    Missing,
    /// The bytes of another file.
    Replaced(Vec<u8>),
    Flipped(usize),
    Zeroed(Range<usize>),
}

impl Kind {
    /// The first byte of the segment that is not as it was.
    fn from(&self) -> usize {
        match self {
            Kind::Missing | Kind::Replaced(_) => 0,
            Kind::Cut(at) | Kind::Longer(at) | Kind::Flipped(at) | Kind::Zeroed(Range { start: at, .. }) => *at,
        }
    }

    /// Whether opening sees it wherever it is: it looks at each file's length and first two blocks.
    fn is_seen_from_outside(&self) -> bool {
        !matches!(self, Kind::Flipped(at) | Kind::Zeroed(Range { start: at, .. }) if *at >= 2 * BLOCK)
    }

    fn strike(&self, files: &mut Files, epoch: u64) {
        match self {
            Kind::Missing => drop(files.remove(epoch)),
            Kind::Replaced(bytes) => files.insert(epoch, bytes.clone()),
            Kind::Flipped(at) => files.flip(epoch, *at, 2),
            Kind::Zeroed(bytes) => files.segment(epoch)[bytes.clone()].fill(0),
            Kind::Cut(len) => files.segment(epoch).truncate(*len),
            Kind::Longer(len) => files.segment(epoch).resize(*len, 0x5a),
        }
    }
}

fn kinds(files: &Files, foreign: &Files, epoch: u64) -> Vec<Kind> {
    let newest = *files.epochs().last().unwrap();
    let another = files.0[&segment_name(if epoch == newest { 1 } else { newest })].clone();
    let mut kinds = vec![Kind::Missing, Kind::Replaced(another)];
    kinds.extend(foreign.0.get(&segment_name(epoch)).map(|bytes| Kind::Replaced(bytes.clone())));
    kinds.extend([16 * BLOCK + 1, 17 * BLOCK].map(Kind::Longer));
    kinds.extend([0, 100, BLOCK, 5000].map(Kind::Cut));
    kinds.extend((2..16).flat_map(|block| [block * BLOCK, block * BLOCK + 1712]).map(Kind::Cut));
    kinds.extend((0..16).flat_map(|block| [block * BLOCK + 10, block * BLOCK + 300]).map(Kind::Flipped));
    kinds.extend((0..16).map(|block| Kind::Zeroed(block * BLOCK..(block + 1) * BLOCK)));
    kinds
}

/// The first LSN of which something is behind a byte of a segment, by the format alone. (Each
/// record is a unit.)
fn first_behind(files: &Files, epoch: u64, byte: usize) -> Lsn {
    let (mut begun, mut unfinished) = (0, false);
    for segment in files.epochs() {
        for frame in files.frames(segment).into_iter().filter(|frame| frame.kind == DATA) {
            if !unfinished {
                begun = frame.first_lsn;
            }
            unfinished = frame.flags & 1 != 0; // CONTINUES
            if (segment, (frame.block + frame.blocks) * BLOCK) > (epoch, byte) {
                return Lsn(begun);
            }
        }
    }
    Lsn(begun + 1)
}

fn corruption(error: Option<Error>) -> Option<Damage> {
    match error {
        Some(Error::Corruption(damage)) => Some(Damage::clone(&damage)),
        None => None,
        Some(other) => panic!("{other}"),
    }
}

fn sweep(name: &str, make: &dyn Fn() -> Files) {
    let (files, foreign) = (make(), make());
    let (mut seen, mut harmless) = (0, 0);
    for epoch in files.epochs() {
        for kind in kinds(&files, &foreign, epoch) {
            let what = format!("{name}: segment {epoch} from byte {}", kind.from());
            let mut struck = files.clone();
            kind.strike(&mut struck, epoch);
            let disk = MemDisk::new(&struck);
            let verified = match disk.verify().verdict {
                Some(Verdict::Corruption(damage)) => Some(damage),
                _ => None,
            };
            let view = disk.view();
            let viewed = match view.verdict() {
                Some(Verdict::Corruption(damage)) => Some(damage),
                _ => None,
            };
            let (records, error) = collect(view.iter(Lsn::ZERO));
            let read = corruption(error);
            let opened = corruption(disk.open(OnDamage::Refuse).err());
            let next = Lsn(records.len() as u64 + 1);

            assert_eq!(opened, viewed, "{what}");
            assert_eq!(read.as_ref().map(|damage| damage.first_lsn), verified.as_ref().map(|d| d.first_lsn), "{what}");
            let Some(verified) = verified else {
                assert_eq!(opened, None, "{what}: what opening refuses is no damage to `verify`");
                harmless += 1;
                continue;
            };
            assert_eq!(next, verified.first_lsn, "{what}: {verified}");
            let bound = first_behind(&files, epoch, kind.from());
            assert!(verified.first_lsn <= bound, "{what}: {bound} is not readable, and {verified}");
            if verified.last_lsn.is_some_and(|last| last >= verified.first_lsn) {
                assert_eq!(verified.first_lsn, bound, "{what}: {verified}");
            }
            match opened {
                Some(opened) => {
                    assert_eq!(opened, verified, "{what}");
                    seen += 1;
                }
                None => assert!(!kind.is_seen_from_outside(), "{what}: opening does not see {verified}"),
            }
        }
    }
    println!("{name}: {seen} damages seen by opening, {harmless} harmless");
    assert!(seen > 80 && harmless > 0);
}

fn small_records(log: &Log) {
    let mut next = 1;
    for _ in 0..4 {
        next = fill_segment(log, next);
    }
    commit(log, next..next + 3);
}

/// Units that begin in one segment and end in another.
fn large_records(log: &Log) {
    for lsn in 1..9 {
        log.commit(vec![lsn as u8; 50_000]).unwrap();
    }
}

#[test]
fn of_a_closed_log() {
    sweep("closed", &|| Files::closed(small_records));
}

#[test]
fn of_a_log_that_was_killed() {
    sweep("killed", &|| Files::crashed(small_records));
}

#[test]
fn of_records_that_span_segments() {
    sweep("large, closed", &|| Files::closed(large_records));
    sweep("large, killed", &|| Files::crashed(large_records));
}

/// Opening finds what is damaged at the end, and names what is damaged before that.
#[test]
fn of_two_damages() {
    for file_is_cut in [false, true] {
        let mut files = Files::crashed(small_records);
        let newest = *files.epochs().last().unwrap();
        files.flip(2, 4 * BLOCK + 70, 0);
        match file_is_cut {
            true => files.segment(newest - 1).truncate(5 * BLOCK),
            false => files.flip(newest, 2 * BLOCK + 70, 0),
        }
        let dir = files.dir();
        let opened = corruption(small().open(dir.path()).err()).unwrap();
        assert_eq!(opened.first_lsn, Lsn(10), "{opened}");
        let Some(Verdict::Corruption(verified)) = check_dir(dir.path()).verdict else { panic!() };
        assert_eq!(opened, verified);
    }
}
