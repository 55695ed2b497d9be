//! One test for each row of the verdict table in `docs/FORMAT.md`: the case is made of real files,
//! and the library is asked for its verdict, what can be read, and what going on does.

use std::path::Path;
use std::sync::Arc;

use foreword::{Damage, DamageKind, Durability, Error, Lsn, OnDamage, Verdict, View};
use foreword_tests::*;

const NEW: &[u8] = b"a record that came after";

/// The same records; what is wrong is said without their bytes.
#[track_caller]
fn same(found: &[(u64, Vec<u8>)], expected: &[(u64, Vec<u8>)]) {
    let lsns = |records: &[(u64, Vec<u8>)]| records.iter().map(|r| r.0).collect::<Vec<_>>();
    assert_eq!(lsns(found), lsns(expected));
    assert!(found == expected, "the LSNs are right, and the bytes are not");
}

fn numbered(lsns: impl IntoIterator<Item = u64>) -> Vec<(u64, Vec<u8>)> {
    lsns.into_iter().map(|lsn| (lsn, record(lsn))).collect()
}

/// The damage, if that is the verdict.
fn damage(verdict: Option<Verdict>) -> Damage {
    match verdict {
        Some(Verdict::Corruption(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

/// The independent reader finds the same row.
#[track_caller]
fn reader_says(dir: &Path, row: u8) {
    let said = ask_reader(&[dir.to_owned()]);
    assert!(said.is_none_or(|said| said[0].row == row));
}

/// A log without damage: every way to look at it gives the same verdict and the same records (1 to
/// `last`), and it goes on from there.
fn sound(files: &Files, verdict: Verdict, last: u64) {
    let dir = files.dir();
    let report = check_dir(dir.path());
    assert_eq!(report.verdict, Some(verdict.clone()), "verify");
    assert_eq!(report.last_lsn, Lsn(last));
    let view = View::open(dir.path()).unwrap().recoverable().unwrap();
    assert_eq!(view.verdict(), Some(verdict.clone()), "view");
    let (records, error) = collect(view.iter(Lsn::ZERO));
    assert!(error.is_none(), "{error:?}");
    same(&records, &numbered(1..=last));
    assert_eq!(Files::read(dir.path()), *files, "reading changes nothing");

    let log = small().open(dir.path()).unwrap();
    assert_eq!(log.recovery().verdict, verdict, "open");
    assert_eq!(log.recovery().last_lsn, Lsn(last));
    assert_eq!(log.recovery().garbled_sectors, report.garbled_sectors);
    assert!(log.recovery().given_up.is_empty() && log.recovery().put_aside.is_empty());
    goes_on(dir.path(), log, numbered(1..=last), last + 1, &[]);
}

/// The log takes records with the next LSNs, and keeps all, through a crash and a clean close.
fn goes_on(dir: &Path, log: foreword::Log, mut records: Vec<(u64, Vec<u8>)>, next: u64, lost: &[(u64, u64)]) {
    let lost: Vec<_> = lost.iter().map(|&(a, b)| (Lsn(a), Lsn(b))).collect();
    assert_eq!(log.durable_lsn(), Lsn(next - 1));
    let (read, error) = collect(log.iter(Lsn::ZERO));
    assert!(error.is_none(), "{error:?}");
    same(&read, &records);
    for &(first, last) in &lost {
        for lsn in [first, last] {
            assert!(matches!(log.get(lsn), Err(Error::GivenUp { lsn: said, .. }) if said == lsn), "{:?}", log.get(lsn));
        }
    }
    assert_eq!(log.commit(NEW).unwrap(), Lsn(next));
    records.push((next, NEW.to_vec()));

    let crashed = Files::read(dir).dir();
    let report = check_dir(crashed.path());
    assert!(matches!(report.verdict, Some(Verdict::Unclosed)), "{:?}", report.verdict);
    assert_eq!(report.given_up, lost);
    let recovered = small().open(crashed.path()).unwrap();
    same(&collect(recovered.iter(Lsn::ZERO)).0, &records);
    let backward: Vec<_> = recovered.iter_back(Lsn::MAX).map(|r| r.unwrap().lsn.0).collect();
    assert!(backward.iter().rev().eq(records.iter().map(|(lsn, _)| lsn)), "{backward:?}");
    assert_eq!(recovered.commit(NEW).unwrap(), Lsn(next + 1));
    recovered.close().unwrap();
    assert_eq!(check_dir(crashed.path()).given_up, lost);

    log.close().unwrap();
    let report = check_dir(dir);
    assert_eq!(report.verdict, Some(Verdict::Clean));
    assert_eq!(report.given_up, lost);
    let log = small().open(dir).unwrap();
    assert_eq!(log.recovery().verdict, Verdict::Clean);
    same(&collect(log.iter(Lsn::ZERO)).0, &records);
    assert_eq!(log.commit(NEW).unwrap(), Lsn(next + 1));
}

/// What the verdict on a damaged log says.
struct Says {
    kind: DamageKind,
    row: u8,
    proven: bool,
    file: String,
    offset: usize,
    /// The first LSN that cannot be read, and the last that is known to have been durable.
    lsns: (u64, Option<u64>),
}

impl Says {
    fn check(&self, dir: &Path, damage: &Damage) {
        let said = (damage.kind, damage.row(), damage.proven, &*damage.path, damage.offset);
        let path = dir.join(&self.file);
        assert_eq!(said, (self.kind, self.row, self.proven, &*path, self.offset as u64), "{damage}");
        assert_eq!((damage.first_lsn.0, damage.last_lsn.map(|l| l.0)), self.lsns, "{damage}");
        assert!(!damage.evidence.is_empty());
    }
}

/// What is there after a damaged log was opened nevertheless.
struct After {
    lsns: Vec<u64>,
    given_up: Vec<(u64, u64)>,
    /// What is in `damaged/`.
    aside: Vec<String>,
    next: u64,
}

fn after(lsns: impl IntoIterator<Item = u64>, given_up: &[(u64, u64)], aside: &[String], next: u64) -> After {
    After { lsns: lsns.into_iter().collect(), given_up: given_up.to_vec(), aside: aside.to_vec(), next }
}

/// A damaged log: `verify`, `open` and `View` agree on the damage, and change nothing; going on
/// does what it should.
fn damaged(files: &Files, says: &Says, stop: &After, salvage: &After) {
    let dir = files.dir();
    let dir = dir.path();
    says.check(dir, &damage(check_dir(dir).verdict));
    match small().open(dir) {
        Err(Error::Corruption(damage)) => says.check(dir, &damage),
        other => panic!("{other:?}"),
    }
    let view = View::open(dir).unwrap().recoverable().unwrap();
    says.check(dir, &damage(view.verdict()));
    let (records, error) = collect(view.iter(Lsn::ZERO));
    same(&records, &numbered(1..says.lsns.0));
    match error {
        Some(Error::Corruption(damage)) => says.check(dir, &damage),
        other => panic!("{other:?}"),
    }
    assert_eq!(Files::read(dir), *files, "neither looking nor refusing changes anything");
    assert!(!dir.join("damaged").exists());

    for (action, after) in [(OnDamage::StopAtDamage, stop), (OnDamage::Salvage, salvage)] {
        let dir = files.dir();
        let dir = dir.path();
        let plan = foreword::repair_plan(dir, action).unwrap();
        says.check(dir, plan.damage.as_ref().unwrap());
        assert_eq!(Files::read(dir), *files, "a plan changes nothing");
        let log = small().on_damage(action).open(dir).unwrap();
        let report = log.recovery().clone();
        says.check(dir, &damage(Some(report.verdict)));
        let pairs = |given_up: &[(Lsn, Lsn)]| given_up.iter().map(|(a, b)| (a.0, b.0)).collect::<Vec<_>>();
        assert_eq!(pairs(&report.given_up), after.given_up, "{action:?}");
        assert_eq!(pairs(&plan.given_up), after.given_up, "{action:?}");
        assert_eq!((report.last_lsn, plan.last_lsn), (Lsn(after.next - 1), Lsn(after.next - 1)), "{action:?}");
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        assert_eq!(sorted(&report.put_aside), after.aside, "{action:?}");
        assert_eq!(sorted(&plan.put_aside), after.aside, "{action:?}");
        let kept = if after.aside.is_empty() { Files::default() } else { Files::read(&dir.join("damaged")) };
        assert_eq!(kept.0.keys().cloned().collect::<Vec<_>>(), after.aside, "{action:?}");
        for (name, bytes) in &kept.0 {
            assert!(*bytes == files.0[name], "{name} is kept as it was");
        }
        let lost = if action == OnDamage::Salvage { &after.given_up[..] } else { &[] };
        goes_on(dir, log, numbered(after.lsns.clone()), after.next, lost);
    }
}

/// Four records, each in a frame of its own at blocks 2 to 5; the log was killed.
fn four() -> Files {
    Files::crashed(|log| commit(log, 1..5))
}

/// Four segments with 7, 7, 7 and 2 records, closed or killed.
fn segments(closed: bool) -> Files {
    let work = |log: &foreword::Log| {
        let next = fill_segment(log, 1);
        let next = fill_segment(log, next);
        let next = fill_segment(log, next);
        commit(log, next..24);
    };
    let files = if closed { Files::closed(work) } else { Files::crashed(work) };
    assert_eq!(files.epochs(), [1, 2, 3, 4]);
    files
}

/// Seven records and a clean close behind which the segment has no room, so that the log went on in
/// the next with two more; then it was killed.
fn on_behind_a_clean_close() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    fill_segment(&log, 1);
    for mark in 0..4 {
        log.hold(&format!("mark {mark}"), Lsn(1)).unwrap();
    }
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 8..10);
    let files = Files::read(dir.path());
    drop(log);
    assert_eq!((files.frame(1, 13).map(|f| f.flags), files.epochs()), (Some(4), vec![1, 2]));
    files
}

#[test]
fn row_1_clean_close() {
    sound(&Files::closed(|log| commit(log, 1..5)), Verdict::Clean, 4);
    sound(&segments(true), Verdict::Clean, 23);
    sound(&Files::closed(|_| ()), Verdict::Clean, 0);
}

#[test]
fn row_2_crash_between_writes() {
    sound(&four(), Verdict::Unclosed, 4);
    sound(&segments(false), Verdict::Unclosed, 23);
    sound(&Files::crashed(|_| ()), Verdict::Unclosed, 0);
    // Written and never synced: it is there, and it stays.
    let written = Files::crashed(|log| {
        commit(log, 1..5);
        log.append_with(&record(5), Durability::Written).unwrap();
    });
    sound(&written, Verdict::Unclosed, 5);
}

/// Four committed records and one of three blocks, at blocks 6 to 8, that was on its way.
fn with_large_tail() -> Files {
    let files = Files::crashed(|log| {
        commit(log, 1..5);
        log.append_with(&[0xa5; 10_000], Durability::Written).unwrap();
    });
    assert_eq!(files.frame(1, 6).unwrap().blocks, 3);
    files
}

#[test]
fn row_3_torn_tail() {
    for sector in 49..72 {
        let mut files = with_large_tail();
        files.unwrite_sector(1, sector);
        sound(&files, Verdict::TornTail, 4);
    }
}

#[test]
fn row_4_hole() {
    // The first sector is that which is missing.
    let mut files = with_large_tail();
    files.unwrite_sector(1, 48);
    sound(&files, Verdict::TornTail, 4);
    // A whole frame is missing, and the one behind it is there.
    let mut files = Files::crashed(|log| {
        commit(log, 1..5);
        log.append_with(&record(5), Durability::Written).unwrap();
        log.append_with(&record(6), Durability::Written).unwrap();
    });
    files.unwrite(1, 6..7);
    assert_eq!(files.frame(1, 7).unwrap().promise, (1, 6));
    sound(&files, Verdict::TornTail, 4);
    // The same across a rotation.
    let mut files = Files::crashed(|log| {
        commit(log, 1..7);
        log.append_with(&record(7), Durability::Written).unwrap();
        log.append_with(&record(8), Durability::Written).unwrap();
    });
    assert_eq!(files.frame(2, 1).unwrap().promise, (1, 8));
    files.unwrite(1, 8..9);
    sound(&files, Verdict::TornTail, 6);
    // A closed log goes on: its CLOSED frame is written again, with a MARK behind it. Of the two,
    // the MARK alone got to the disk.
    let dir = Files::closed(|log| commit(log, 1..5)).dir();
    let log = small().open(dir.path()).unwrap();
    log.append_with(&record(5), Durability::Written).unwrap();
    let mut files = Files::read(dir.path());
    drop(log);
    assert_eq!((files.frame(1, 6).unwrap().flags, files.frame(1, 7).unwrap().promise), (4, (1, 6)));
    files.unwrite(1, 6..7);
    files.unwrite(1, 8..9);
    sound(&files, Verdict::TornTail, 4);
    // Of a single block, only the first sector is missing.
    let mut files = four();
    files.unwrite_sector(1, 40);
    sound(&files, Verdict::TornTail, 3);
}

#[test]
fn row_5_unfinished_unit() {
    let batch: Vec<Vec<u8>> = (5..200).map(record).collect();
    let files = Files::crashed(|log| {
        commit(log, 1..5);
        log.append_batch_with(&batch, Durability::Written).unwrap();
    });
    let newest = *files.epochs().last().unwrap();
    assert!(newest > 2, "the batch spans segments");
    sound(&files, Verdict::Unclosed, 199);
    for epoch in 2..=newest {
        // Nothing from this segment's first frame on has reached the disk.
        let mut torn = files.clone();
        torn.unwrite(epoch, 2..15);
        for later in epoch + 1..=newest {
            torn.remove(later);
        }
        // A seal would say that the next file was there.
        torn.unwrite(epoch, 15..16);
        sound(&torn, Verdict::TornTail, 4);
    }
}

#[test]
fn row_6_lost_write() {
    for (sectors, what) in [(24..32, "the whole frame"), (24..25, "its first sector"), (27..28, "an inner sector")] {
        let mut files = four();
        for sector in sectors {
            files.unwrite_sector(1, sector);
        }
        let says = Says {
            kind: DamageKind::Missing,
            row: 6,
            proven: true,
            file: segment_name(1),
            offset: 3 * BLOCK,
            lsns: (2, Some(3)),
        };
        println!("{what}");
        let stop = after(1..=1, &[(2, 4)], &[], 2);
        damaged(
            &files,
            &says,
            &After { aside: vec![segment_name(1)], ..stop },
            &after([1, 3, 4], &[(2, 2)], &[segment_name(1)], 5),
        );
    }
}

#[test]
fn row_6_all_that_was_written_after_a_clean_close() {
    let dir = Files::closed(|log| commit(log, 1..3)).dir();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 3..7);
    let mut files = Files::read(dir.path());
    drop(log);
    // What the segment's SEAL promises was there.
    assert_eq!((files.frame(1, 4).unwrap().flags, files.frame(1, 15).unwrap().promise), (4, (1, 9)));
    files.unwrite(2, 1..16);
    files.unwrite(1, 5..9);
    let says =
        Says { kind: DamageKind::Missing, row: 6, proven: true, file: segment_name(1), offset: 5 * BLOCK, lsns: (3, Some(5)) };
    // (Of the second nothing is there that could be evidence.)
    let aside = [segment_name(1)];
    damaged(&files, &says, &after(1..=2, &[(3, 5)], &aside, 3), &after(1..=2, &[(3, 5)], &aside, 6));
}

#[test]
fn row_6_stale_sectors_of_a_recycled_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..16);
    let old = Files::read(dir.path()).0[&segment_name(1)].clone();
    log.truncate_front(Lsn(15)).unwrap();
    commit(&log, 16..26);
    let mut files = Files::read(dir.path());
    drop(log);
    let recycled = files.epochs().into_iter().find(|&epoch| {
        let segment = &files.0[&segment_name(epoch)];
        u64::from_le_bytes(segment[96..104].try_into().unwrap()) == 1
    });
    let recycled = recycled.expect("segment 1 was recycled");
    let frame = files.frame(recycled, 3).unwrap();
    assert!(frame.kind == DATA && files.frame(recycled, 4).is_some());
    // The write of block 3 never came to the disk: what segment 1 had there is there still.
    files.segment(recycled)[3 * BLOCK..4 * BLOCK].copy_from_slice(&old[3 * BLOCK..4 * BLOCK]);
    let dir = files.dir();
    let damage = damage(check_dir(dir.path()).verdict);
    assert_eq!((damage.kind, damage.offset, damage.proven), (DamageKind::Missing, 3 * BLOCK as u64, true));
    assert_eq!(damage.first_lsn, Lsn(frame.first_lsn));
    let view = View::open(dir.path()).unwrap().recoverable().unwrap();
    let (records, error) = collect(view.iter(Lsn::ZERO));
    same(&records, &numbered(15..frame.first_lsn));
    assert!(matches!(error, Some(Error::Corruption(_))));
}

#[test]
fn row_6_lost_mark_behind_a_clean_close() {
    // Nothing follows a CLOSED frame but a durable MARK; if that is lost, the log looks closed, and
    // is not.
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..3);
    log.close().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 3..5);
    let mut files = Files::read(dir.path());
    drop(log);
    assert_eq!((files.frame(1, 4).unwrap().flags, files.frame(1, 5).unwrap().kind), (4, MARK));
    files.unwrite(1, 5..6);
    let says =
        Says { kind: DamageKind::Missing, row: 6, proven: true, file: segment_name(1), offset: 5 * BLOCK, lsns: (3, Some(3)) };
    let aside = [segment_name(1)];
    damaged(&files, &says, &after(1..=2, &[(3, 4)], &aside, 3), &after(1..=4, &[], &aside, 5));
}

#[test]
fn row_6_all_that_says_that_a_closed_log_went_on() {
    // Its SEAL is gone, and so is the next LINK. The part behind that is still promised.
    let mut files = on_behind_a_clean_close();
    files.unwrite(1, 15..16);
    let says =
        Says { kind: DamageKind::Missing, row: 6, proven: true, file: segment_name(1), offset: 14 * BLOCK, lsns: (8, Some(8)) };
    let mut garbled = files.clone();
    garbled.flip(2, BLOCK + 100, 1);
    files.unwrite(2, 1..2);
    for files in [files, garbled] {
        let aside = [segment_name(1), segment_name(2)];
        damaged(&files, &says, &after(1..=7, &[(8, 9)], &aside, 8), &after(1..=9, &[], &aside[..1], 10));
    }
}

#[test]
fn row_7_flipped_bit_in_the_link() {
    // Of the first segment, ...
    let mut files = segments(false);
    files.flip(1, BLOCK + 100, 1);
    let says = |epoch, first| Says {
        kind: DamageKind::Garbled,
        row: 7,
        proven: true,
        file: segment_name(epoch),
        offset: BLOCK,
        lsns: (first, Some(22)),
    };
    let others = [2, 3, 4].map(segment_name);
    damaged(
        &files,
        &says(1, 1),
        &After { aside: [1, 2, 3, 4].map(segment_name).to_vec(), ..after([], &[(1, 23)], &others, 1) },
        &after(1..=23, &[], &[segment_name(1)], 24),
    );
    // ... of one in the middle, ...
    let mut files = segments(false);
    files.flip(3, BLOCK + 100, 1);
    damaged(
        &files,
        &says(3, 15),
        &after(1..=14, &[(15, 23)], &[segment_name(3), segment_name(4)], 15),
        &after(1..=23, &[], &[segment_name(3)], 24),
    );
    // ... and of the newest.
    let mut files = segments(false);
    files.flip(4, BLOCK + 100, 1);
    damaged(
        &files,
        &says(4, 22),
        &after(1..=21, &[(22, 23)], &[segment_name(4)], 22),
        &after(1..=23, &[], &[segment_name(4)], 24),
    );
}

/// The LINK of a fork is damaged that has superseded the segment behind a SEAL: it is that LINK, and
/// not the segment for which the SEAL vouches, and which is gone.
#[test]
fn row_7_flipped_bit_in_the_link_of_a_fork() {
    for closed in [false, true] {
        let dir = segments(false).dir();
        let log = small().open(dir.path()).unwrap();
        commit(&log, 24..26);
        if closed {
            log.close().unwrap();
        }
        let mut files = Files::read(dir.path());
        assert_eq!((files.frame(4, 1).is_none(), files.frame(5, 1).is_some()), (true, true));
        files.flip(5, BLOCK + 100, 1);
        let last = Some(if closed { 25 } else { 24 });
        let says =
            Says { kind: DamageKind::Garbled, row: 7, proven: true, file: segment_name(5), offset: BLOCK, lsns: (22, last) };
        reader_says(files.dir().path(), 7);
        let aside = [segment_name(5)];
        damaged(&files, &says, &after(1..=21, &[(22, 25)], &aside, 22), &after(1..=25, &[], &aside, 26));
    }
}

/// The frame of the second of four records is damaged: cutting loses all from it on, a salvage that
/// record alone.
#[track_caller]
fn second_is_damaged(files: &Files, kind: DamageKind, row: u8) {
    let says = Says { kind, row, proven: true, file: segment_name(1), offset: 3 * BLOCK, lsns: (2, Some(3)) };
    let aside = [segment_name(1)];
    damaged(files, &says, &after([1], &[(2, 4)], &aside, 2), &after([1, 3, 4], &[(2, 2)], &aside, 5));
}

#[test]
fn row_7_flipped_bit_in_acknowledged_data() {
    for (byte, what) in [(5, "header"), (30, "promise"), (70, "payload"), (507, "tag"), (4000, "padding"), (4092, "last tag")] {
        println!("{what}");
        let mut files = four();
        files.flip(1, 3 * BLOCK + byte, 3);
        second_is_damaged(&files, DamageKind::Garbled, 7);
    }
}

#[test]
fn row_7_in_a_segment_that_others_follow() {
    let mut files = segments(false);
    files.flip(4, 2 * BLOCK + 70, 0);
    let says =
        Says { kind: DamageKind::Garbled, row: 8, proven: false, file: segment_name(4), offset: 2 * BLOCK, lsns: (22, None) };
    // Its successor has the promise that says it was durable.
    let promised = files.frame(4, 3).unwrap().promise;
    assert_eq!(promised, (4, 3));
    let aside = [segment_name(4)];
    let says = Says { row: 7, proven: true, lsns: (22, Some(22)), ..says };
    damaged(&files, &says, &after(1..=21, &[(22, 23)], &aside, 22), &after((1..=21).chain([23]), &[(22, 22)], &aside, 24));
}

#[test]
fn row_7_in_a_segment_before_the_last_promise() {
    // Opening reads from the last promise on; what lies before is checked when it is read, and by
    // `verify`.
    for closed in [false, true] {
        let mut files = segments(closed);
        files.flip(2, 4 * BLOCK + 70, 0);
        let dir = files.dir();
        let damage = damage(check_dir(dir.path()).verdict);
        assert_eq!((damage.kind, damage.proven, damage.offset), (DamageKind::Garbled, true, 4 * BLOCK as u64));
        assert_eq!((damage.first_lsn, damage.last_lsn), (Lsn(10), Some(Lsn(if closed { 23 } else { 22 }))));
        let (records, error) = collect(View::open(dir.path()).unwrap().recoverable().unwrap().iter(Lsn::ZERO));
        same(&records, &numbered(1..10));
        assert!(
            matches!(error, Some(Error::Corruption(damage)) if damage.first_lsn == Lsn(10) && damage.kind == DamageKind::Garbled)
        );
        let log = small().open(dir.path()).unwrap();
        assert_eq!(log.get(Lsn(11)).unwrap(), record(11));
        let (records, error) = collect(log.iter(Lsn::ZERO));
        same(&records, &numbered(1..10));
        assert!(matches!(error, Some(Error::Corruption(damage)) if damage.first_lsn == Lsn(10)));
    }
}

#[test]
fn row_8_flipped_bit_in_the_last_flush() {
    let mut files = four();
    files.flip(1, 5 * BLOCK + 90, 3);
    let says =
        Says { kind: DamageKind::Garbled, row: 8, proven: false, file: segment_name(1), offset: 5 * BLOCK, lsns: (4, None) };
    let aside = [segment_name(1)];
    // The frame's header still says which record it was: salvage does not give its LSN to another.
    damaged(&files, &says, &after(1..=3, &[(4, 4)], &aside, 4), &after(1..=3, &[(4, 4)], &aside, 5));
    let mut files = four();
    files.flip(1, 5 * BLOCK + 50, 3);
    damaged(&files, &says, &after(1..=3, &[], &aside, 4), &after(1..=3, &[], &aside, 4));
}

#[test]
fn row_8_with_a_frame_behind_that_no_promise_covers() {
    let mut files = Files::crashed(|log| {
        commit(log, 1..4);
        for lsn in 4..7 {
            log.append_with(&record(lsn), Durability::Written).unwrap();
        }
    });
    files.flip(1, 6 * BLOCK + 90, 3);
    let says =
        Says { kind: DamageKind::Garbled, row: 8, proven: false, file: segment_name(1), offset: 6 * BLOCK, lsns: (5, None) };
    let aside = [segment_name(1)];
    damaged(&files, &says, &after(1..=4, &[(5, 6)], &aside, 5), &after([1, 2, 3, 4, 6], &[(5, 5)], &aside, 7));
}

#[test]
fn row_8_garbled_link_behind_a_clean_close() {
    // Nothing behind that LINK promises anything, and by its tags no sector of it is written: but
    // the log had left the segment in which it was closed.
    let mut files = on_behind_a_clean_close();
    files.unwrite(2, 2..16);
    for sector in 0..8 {
        files.flip(2, BLOCK + sector * 512 + 510, 1); // Its tag.
    }
    let says = Says { kind: DamageKind::Garbled, row: 8, proven: false, file: segment_name(2), offset: BLOCK, lsns: (8, None) };
    let aside = [segment_name(2)];
    damaged(&files, &says, &after(1..=7, &[], &aside, 8), &after(1..=7, &[], &aside, 8));
}

/// A clean close is trusted: opening reads no record, not even the newest.
#[test]
fn row_7_in_the_newest_record_of_a_closed_log() {
    let mut files = Files::closed(|log| commit(log, 1..5));
    files.flip(1, 5 * BLOCK + 70, 0);
    let dir = files.dir();
    let found = damage(check_dir(dir.path()).verdict);
    assert_eq!((found.kind, found.proven, found.first_lsn), (DamageKind::Garbled, true, Lsn(4)));
    assert_eq!(View::open(dir.path()).unwrap().verdict(), Some(Verdict::Clean));
    let log = small().open(dir.path()).unwrap();
    assert_eq!(log.commit(b"five").unwrap(), Lsn(5));
    assert!(matches!(log.get(Lsn(4)), Err(Error::Corruption(damage)) if damage.first_lsn == Lsn(4)));
    assert_eq!(log.get(Lsn(5)).unwrap(), b"five");
}

#[test]
fn row_9_header() {
    for (byte, what) in [(5, "header"), (64, "version"), (80, "uuid"), (300, "padding"), (510, "tag")] {
        println!("{what}");
        let mut files = segments(false);
        files.flip(3, byte, 3);
        let says = |epoch, first| Says {
            kind: DamageKind::Header,
            row: 9,
            proven: true,
            file: segment_name(epoch),
            offset: 0,
            lsns: (first, Some(22)),
        };
        let (third, fourth) = (segment_name(3), segment_name(4));
        damaged(
            &files,
            &says(3, 15),
            &after(1..=14, &[(15, 23)], &[third.clone(), fourth], 15),
            &after((1..=14).chain([22, 23]), &[(15, 21)], std::slice::from_ref(&third), 24),
        );
    }
    let mut files = segments(false);
    files.segment(4)[..BLOCK].fill(0);
    let says = Says { kind: DamageKind::Header, row: 9, proven: true, file: segment_name(4), offset: 0, lsns: (22, None) };
    let aside = [segment_name(4)];
    damaged(&files, &says, &after(1..=21, &[], &aside, 22), &after(1..=21, &[], &aside, 22));
}

#[test]
fn row_10_lost_segment() {
    let mut files = segments(false);
    files.remove(2);
    let says =
        Says { kind: DamageKind::LostSegment, row: 10, proven: true, file: segment_name(2), offset: 0, lsns: (8, Some(22)) };
    let aside = [segment_name(3), segment_name(4)];
    damaged(&files, &says, &after(1..=7, &[(8, 23)], &aside, 8), &after((1..=7).chain(15..=23), &[(8, 14)], &[], 24));
}

#[test]
fn row_11_lost_first_segment() {
    let mut files = segments(false);
    files.remove(1);
    let says =
        Says { kind: DamageKind::LostSegment, row: 10, proven: true, file: segment_name(1), offset: 0, lsns: (1, Some(22)) };
    let aside = [segment_name(2), segment_name(3), segment_name(4)];
    damaged(&files, &says, &after([], &[(1, 23)], &aside, 1), &after(8..=23, &[(1, 7)], &[], 24));
}

#[test]
fn row_12_lost_newest_segment() {
    for closed in [false, true] {
        let mut files = segments(closed);
        files.remove(4);
        let says =
            Says { kind: DamageKind::LostNewest, row: 12, proven: true, file: segment_name(4), offset: 0, lsns: (22, None) };
        damaged(&files, &says, &after(1..=21, &[], &[], 22), &after(1..=21, &[], &[], 22));
    }
}

#[test]
fn row_13_all_segments_lost() {
    let mut files = segments(true);
    for epoch in 1..=4 {
        files.remove(epoch);
    }
    let says = Says { kind: DamageKind::LostAll, row: 13, proven: true, file: "LOG".into(), offset: 0, lsns: (1, None) };
    damaged(&files, &says, &after([], &[], &["LOG".into()], 1), &after([], &[], &["LOG".into()], 1));
}

#[test]
fn row_14_foreign_segment() {
    let mut files = segments(false);
    let foreign = segments(false).remove(3);
    files.insert(3, foreign);
    let says = Says { kind: DamageKind::Foreign, row: 14, proven: true, file: segment_name(3), offset: 0, lsns: (15, Some(22)) };
    let (third, fourth) = (segment_name(3), segment_name(4));
    damaged(
        &files,
        &says,
        &after(1..=14, &[(15, 23)], &[third.clone(), fourth], 15),
        &after((1..=14).chain([22, 23]), &[(15, 21)], &[third], 24),
    );
    // Without LOG, the newest segment says which log it is.
    files.0.remove("LOG");
    let damage = damage(check_dir(files.dir().path()).verdict);
    assert_eq!((damage.kind, damage.first_lsn), (DamageKind::Foreign, Lsn(15)));
}

#[test]
fn row_15_copy_of_another_segment() {
    let mut files = segments(false);
    let copy = files.0[&segment_name(2)].clone();
    files.insert(3, copy);
    let says =
        Says { kind: DamageKind::Misplaced, row: 15, proven: true, file: segment_name(3), offset: 0, lsns: (15, Some(22)) };
    let (third, fourth) = (segment_name(3), segment_name(4));
    damaged(
        &files,
        &says,
        &after(1..=14, &[(15, 23)], &[third.clone(), fourth], 15),
        &after((1..=14).chain([22, 23]), &[(15, 21)], &[third], 24),
    );
}

#[test]
fn row_16_older_copy_of_a_sealed_segment() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..4);
    let old = Files::read(dir.path()).remove(1);
    commit(&log, 4..11);
    let mut files = Files::read(dir.path());
    files.insert(1, old);
    let damage = damage(check_dir(files.dir().path()).verdict);
    assert_eq!((damage.row(), damage.offset), (6, 5 * BLOCK as u64));
    assert_eq!((damage.first_lsn, damage.last_lsn), (Lsn(4), Some(Lsn(9))));
    // While the LINK of the newest says what is durable, opening trusts what is before, and reading
    // tells.
    let dir = files.dir();
    let view = View::open(dir.path()).unwrap().recoverable().unwrap();
    let (records, error) = collect(view.iter(Lsn::ZERO));
    same(&records, &numbered(1..4));
    assert!(matches!(error, Some(Error::Corruption(damage)) if damage.first_lsn == Lsn(4) && damage.kind == DamageKind::Missing));
}

#[test]
fn row_17_truncated_or_longer_file() {
    // The newest: whatever is cut off, the file has not its length.
    for len in [16 * BLOCK - 1, 16 * BLOCK + 1, 10 * BLOCK, 6 * BLOCK] {
        let mut files = four();
        files.segment(1).resize(len, 0);
        let says = Says { kind: DamageKind::Size, row: 17, proven: true, file: segment_name(1), offset: len, lsns: (5, None) };
        let aside = [segment_name(1)];
        damaged(&files, &says, &after(1..=4, &[], &aside, 5), &after(1..=4, &[], &aside, 5));
    }
    // Nothing of the log is behind its last block: nothing is unknown for it. Of what was cut off
    // nobody knows.
    let unknown =
        |files: &Files, action| foreword::repair_plan_on(Arc::new(MemDisk::new(files)), MEM, action).unwrap().unknown_from;
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        for (len, expected) in
            [(16 * BLOCK + 1, None), (20 * BLOCK, None), (16 * BLOCK - 1, Some(Lsn(5))), (6 * BLOCK, Some(Lsn(5)))]
        {
            let mut files = four();
            files.segment(1).resize(len, 0);
            assert_eq!(unknown(&files, action), expected, "{action:?}, {len}");
        }
        // What else is damaged in it is planned for.
        let mut files = four();
        files.flip(1, 3 * BLOCK + 100, 1);
        let plan = |files: &Files| foreword::repair_plan_on(Arc::new(MemDisk::new(files)), MEM, action).unwrap();
        let expected = plan(&files);
        files.segment(1).push(0);
        let found = plan(&files);
        assert_eq!((found.given_up, found.unknown_from), (expected.given_up, expected.unknown_from), "{action:?}");
        assert_eq!((found.last_lsn, found.put_aside), (expected.last_lsn, expected.put_aside), "{action:?}");
    }
    // Within its records.
    let mut files = four();
    files.segment(1).truncate(4 * BLOCK + 100);
    let says =
        Says { kind: DamageKind::Size, row: 17, proven: true, file: segment_name(1), offset: 4 * BLOCK + 100, lsns: (3, None) };
    let aside = [segment_name(1)];
    damaged(&files, &says, &after(1..=2, &[], &aside, 3), &after(1..=2, &[], &aside, 3));
    // An inner segment, within its records: its successors say what is missing.
    let mut files = segments(false);
    files.segment(2).truncate(5 * BLOCK);
    let says =
        Says { kind: DamageKind::Size, row: 17, proven: true, file: segment_name(2), offset: 5 * BLOCK, lsns: (11, Some(22)) };
    let dir = files.dir();
    says.check(dir.path(), &damage(check_dir(dir.path()).verdict));
    assert!(matches!(small().open(dir.path()), Err(Error::Corruption(damage)) if damage.kind == DamageKind::Size));
    // ... and behind the end that its successor names, where nothing of the log is.
    let mut files = segments(false);
    files.segment(2).truncate(9 * BLOCK);
    sound(&files, Verdict::Unclosed, 23);
    let mut files = segments(false);
    files.segment(2).resize(17 * BLOCK, 0x5a);
    sound(&files, Verdict::Unclosed, 23);
}

#[test]
fn row_18_garbled_sectors_behind_the_end() {
    for (files, verdict, last) in [
        (four(), Verdict::Unclosed, 4),
        (Files::closed(|log| commit(log, 1..5)), Verdict::Clean, 4),
        (
            {
                let mut files = with_large_tail();
                files.unwrite_sector(1, 50);
                files
            },
            Verdict::TornTail,
            4,
        ),
    ] {
        let mut garbled = files.clone();
        garbled.segment(1)[10 * BLOCK..10 * BLOCK + SECTOR].fill(0x5a);
        garbled.segment(1)[11 * BLOCK + 3 * SECTOR] = 1;
        assert_eq!(check_dir(garbled.dir().path()).garbled_sectors, 2);
        if verdict == Verdict::Clean {
            // Opening trusts a clean close as soon as it sees one: but not with something standing
            // right behind it.
            let dir = garbled.dir();
            let log = small().open(dir.path()).unwrap();
            same(&collect(log.iter(Lsn::ZERO)).0, &numbered(1..=last));
        }
        sound(&garbled, verdict, last);
    }
}

#[test]
fn row_18_a_clean_close_is_trusted_with_64_unwritten_blocks_behind_it() {
    // In a segment with room for more blocks behind the end, and in one that ends before.
    for (blocks, looked_at) in [(128, 64), (16, 15 - 5)] {
        let options = small().segment_bytes(blocks * BLOCK as u64);
        let dir = tempfile::tempdir().unwrap();
        let log = options.clone().open(dir.path()).unwrap();
        commit(&log, 1..3);
        log.close().unwrap();
        let closed = Files::read(dir.path());
        assert_eq!((closed.frame(1, 4).unwrap().flags, closed.frame(1, 4).unwrap().kind), (4, MARK));
        let sectors = looked_at * (BLOCK / SECTOR);
        // (In the first one a frame should begin: that is row 8.)
        for sector in (1..sectors).step_by(7).chain([sectors - 1]) {
            let mut garbled = closed.clone();
            garbled.segment(1)[5 * BLOCK + sector * SECTOR + 500] = 1;
            let dir = garbled.dir();
            let log = options.clone().open(dir.path()).unwrap();
            assert_eq!(log.recovery().garbled_sectors, 1, "sector {sector} of {blocks} blocks");
            same(&collect(log.iter(Lsn::ZERO)).0, &numbered(1..=2));
        }
    }
}

#[test]
fn row_19_torn_rotation() {
    // The seal was written, and then nothing: the next file is prepared.
    let mut files = Files::crashed(|log| commit(log, 1..9));
    files.unwrite(2, 1..16);
    assert_eq!(files.frame(1, 15).unwrap().kind, SEAL);
    sound(&files, Verdict::Unclosed, 7);
    // The record's frame came to the disk before the LINK.
    let mut files = Files::crashed(|log| commit(log, 1..9));
    files.unwrite(2, 1..2);
    sound(&files, Verdict::TornTail, 7);
    // Before the seal.
    let mut files = Files::crashed(|log| commit(log, 1..8));
    let mut prepared = Files::crashed(|_| ());
    prepared.remove(1);
    let next = Files::crashed(|log| commit(log, 1..9));
    assert!(next.frame(2, 0).is_some());
    files.unwrite(1, 15..16);
    sound(&files, Verdict::Unclosed, 7);
}

#[test]
fn row_20_damaged_seal() {
    // The newest: the seal of a rotation that came no farther.
    let mut files = Files::crashed(|log| commit(log, 1..9));
    files.unwrite(2, 1..16);
    files.flip(1, 15 * BLOCK + 70, 2);
    let says =
        Says { kind: DamageKind::Seal, row: 20, proven: false, file: segment_name(1), offset: 15 * BLOCK, lsns: (8, None) };
    // (Of the second nothing is there that could be evidence.)
    let aside = [segment_name(1)];
    damaged(&files, &says, &after(1..=7, &[], &aside, 8), &after(1..=7, &[], &aside, 8));
    // An inner one: its successor is there, so that it was whole before.
    let mut files = Files::crashed(|log| {
        commit(log, 1..7);
        log.append_with(&record(7), Durability::Written).unwrap();
        log.append_with(&record(8), Durability::Written).unwrap();
    });
    files.unwrite(1, 8..9);
    files.flip(1, 15 * BLOCK + 70, 2);
    let damage = damage(check_dir(files.dir().path()).verdict);
    assert_eq!((damage.kind, damage.proven, damage.first_lsn), (DamageKind::Seal, true, Lsn(7)));
}

#[test]
fn row_20_a_seal_that_a_successor_makes_needless() {
    // Nothing of the log is missing: what the seal would say, the successor's LINK does.
    for closed in [false, true] {
        let mut files = segments(closed);
        files.flip(2, 15 * BLOCK + 70, 2);
        sound(&files, if closed { Verdict::Clean } else { Verdict::Unclosed }, 23);
    }
}

#[test]
fn row_21_damaged_identity() {
    let good = segments(false);
    let text = String::from_utf8(good.0["LOG"].clone()).unwrap();
    let other = Files::crashed(|_| ()).0["LOG"].clone();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("zeros", vec![0; text.len()]),
        ("another version", text.replace("format 2", "format 3").into_bytes()),
        ("cut", text.as_bytes()[..text.len() - 1].to_vec()),
        ("longer", format!("{text}\n").into_bytes()),
        ("a flipped bit", text.replacen("uuid", "uuie", 1).into_bytes()),
        ("upper case", text.to_uppercase().into_bytes()),
        ("another log's", other),
        ("not text", vec![0xff; 300]),
    ];
    for (what, bytes) in cases {
        println!("{what}");
        let mut files = good.clone();
        files.0.insert("LOG".into(), bytes);
        let says = Says { kind: DamageKind::Identity, row: 21, proven: true, file: "LOG".into(), offset: 0, lsns: (24, None) };
        let aside = ["LOG".to_owned()];
        damaged(&files, &says, &after(1..=23, &[], &aside, 24), &after(1..=23, &[], &aside, 24));
    }
    // What else is damaged is judged after it, also where the LINKs alone would tell.
    let mut files = good.clone();
    files.segment(2).truncate(8 * BLOCK);
    files.0.insert("LOG".into(), Vec::new());
    let dir = files.dir();
    let verified = damage(check_dir(dir.path()).verdict);
    match small().open(dir.path()) {
        Err(Error::Corruption(refused)) => assert_eq!((refused.kind, &*refused), (DamageKind::Identity, &verified)),
        other => panic!("{other:?}"),
    }
    // That it is missing is what a crash in creation leaves, and no damage: the segments say what
    // it said.
    let mut files = good.clone();
    files.0.remove("LOG");
    let dir = files.dir();
    assert_eq!(check_dir(dir.path()).verdict, Some(Verdict::Unclosed));
    drop(small().open(dir.path()).unwrap());
    assert_eq!(std::fs::read(dir.path().join("LOG")).unwrap(), good.0["LOG"]);
}

#[test]
fn row_22_wrong_structure() {
    type Change = fn(&mut [u8]);
    let structures: [(&str, Change); 9] = [
        ("an LSN that does not follow", |frame| frame[48] += 1),
        ("a continuation of nothing", |frame| frame[13] = 2),
        ("a head of nothing", |frame| frame[24] = 4),
        ("a count that is not that of the records", |frame| frame[20] += 1),
        ("a record longer than its frame", |frame| frame[82] = 1),
        ("a length with a bit that is kept for later", |frame| frame[83] = 0x40),
        ("a flag that no frame has yet", |frame| frame[15] = 1),
        ("a flag of another kind of frame", |frame| frame[13] = 4),
        ("a SEAL among the records", |frame| frame[12] = 5),
    ];
    for (what, change) in structures {
        println!("{what}");
        let mut files = four();
        files.forge(1, 3, change);
        second_is_damaged(&files, DamageKind::Structure, 22);
    }
}

#[test]
fn row_7_before_the_mark_that_says_what_was_dropped() {
    // That the front was dropped is said by a MARK behind the damage: its segments are not lost.
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..18);
    log.truncate_front(Lsn(10)).unwrap();
    commit(&log, 18..20);
    let mut files = Files::read(dir.path());
    drop(log);
    assert!(files.frame(1, 1).is_none(), "segment 1 is gone");
    files.flip(3, 2 * BLOCK + 70, 0);
    let dir = files.dir();
    let damage = damage(check_dir(dir.path()).verdict);
    assert_eq!((damage.kind, damage.first_lsn, damage.last_lsn), (DamageKind::Garbled, Lsn(15), Some(Lsn(18))));
    let log = small().on_damage(OnDamage::Salvage).open(dir.path()).unwrap();
    assert_eq!(log.recovery().given_up, [(Lsn(15), Lsn(15))]);
    goes_on(dir.path(), log, numbered((10..15).chain(16..20)), 20, &[(15, 15)]);
}

/// A record and the MARK that says what was dropped were flushed at once, and the record is gone. It
/// is no torn tail: the segments that were dropped are gone, so the MARK was durable, and the record
/// before it.
#[test]
fn row_6_before_the_mark_that_says_what_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..18);
    log.append(record(18)).unwrap();
    log.truncate_front(Lsn(10)).unwrap();
    let mut files = Files::read(dir.path());
    drop(log);
    assert!(files.frame(1, 1).is_none(), "segment 1 is gone");
    let (data, mark) = (files.frame(3, 5).unwrap(), files.frame(3, 6).unwrap());
    assert_eq!((data.first_lsn, mark.promise), (18, (3, 5)));
    files.segment(3)[5 * BLOCK..6 * BLOCK].fill(0);
    let dir = files.dir();
    reader_says(dir.path(), 6);
    let damage = damage(check_dir(dir.path()).verdict);
    assert_eq!((damage.kind, damage.first_lsn, damage.last_lsn), (DamageKind::Missing, Lsn(18), Some(Lsn(18))));
    let log = small().on_damage(OnDamage::Salvage).open(dir.path()).unwrap();
    assert_eq!(log.recovery().given_up, [(Lsn(18), Lsn(18))]);
    goes_on(dir.path(), log, numbered(10..18), 19, &[(18, 18)]);
}
