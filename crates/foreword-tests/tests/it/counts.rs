//! What frames say beside their records: when they were written, and how many bytes came before;
//! and where the log was cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use foreword::disk::OsDisk;
use foreword::{Error, Iter, Log, Lsn, OnDamage, Reader, View};
use foreword_tests::hooked::{Op, hooked};
use foreword_tests::*;

fn times(iter: Iter) -> BTreeMap<Lsn, SystemTime> {
    iter.map(|record| record.map(|r| (r.lsn, r.time)).unwrap()).collect()
}

/// Commits with a pause before each, so that no two have one time.
fn commit_slowly(log: &Log, lsns: std::ops::Range<u64>) {
    for lsn in lsns {
        std::thread::sleep(Duration::from_millis(1));
        commit(log, lsn..lsn + 1);
    }
}

/// A log of several segments, with batches, records that span frames and segments, and records of
/// no bytes.
fn long(log: &Log) {
    for i in 0..60u64 {
        match i % 6 {
            0 => _ = log.commit_batch(&[record(i), Vec::new(), record(i + 1)]).unwrap(),
            3 => _ = log.commit(&vec![i as u8; 9_000]).unwrap(),
            _ => _ = log.commit(&record(i)).unwrap(),
        }
    }
    log.commit(&vec![7; 150_000]).unwrap();
    log.commit_batch(&[vec![8; 40_000], vec![9; 50_000], Vec::new()]).unwrap();
    log.commit(b"the last").unwrap();
}

/// Each pair of LSNs, by reading all that lies between.
fn bytes_are_those_of_the_records(mut reader: Reader, records: &[(u64, Vec<u8>)], what: &str) {
    let (first, next) = (records[0].0, records.last().unwrap().0 + 1);
    let mut before = vec![0];
    records.iter().for_each(|(_, data)| before.push(before.last().unwrap() + data.len() as u64));
    for from in first..=next {
        for to in from..=next {
            let expected = before[(to - first) as usize] - before[(from - first) as usize];
            assert_eq!(reader.bytes_between(Lsn(from), Lsn(to)).unwrap(), expected, "{what}: {from} to {to}");
        }
    }
    let beyond = reader.bytes_between(Lsn(first), Lsn(next + 1));
    assert!(matches!(beyond, Err(Error::NotAppended { .. })), "{what}: {beyond:?}");
}

/// Where a view has not looked for long, it reads what is in the newest segment alone, and the LINKs
/// of those between.
#[test]
fn a_view_that_is_far_behind_reads_no_more_than_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().segment_bytes(1 << 20).open(dir.path()).unwrap();
    commit(&log, 1..4);
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let disk = hooked(OsDisk::new(), move |op, _| {
        counted.fetch_add(usize::from(matches!(op, Op::Read(_))), Ordering::Relaxed);
        Ok(())
    });
    let count = |look: &dyn Fn() -> Lsn| {
        let before = reads.load(Ordering::Relaxed);
        (look(), reads.load(Ordering::Relaxed) - before)
    };
    let view = View::open_on(disk.clone(), dir.path()).unwrap();
    for round in 1..4 {
        let next = log.last_lsn().next().0;
        commit(&log, next..next + 1500);
        log.hold(&format!("hold {round}"), Lsn(next + 7)).unwrap();
        log.truncate_front(Lsn(next)).unwrap();
        let last = log.last_lsn();
        let (new, anew) = count(&|| View::open_on(disk.clone(), dir.path()).unwrap().last_lsn().unwrap());
        let (seen, went_on) = count(&|| view.last_lsn().unwrap());
        assert_eq!((seen, new), (last, last));
        assert!(went_on <= anew + 60, "{went_on} reads, {anew} of a new view");
        assert_eq!((view.start_lsn(), view.holds().unwrap()), (log.start_lsn(), log.holds().unwrap()));
        let read = |iter: Iter| iter.map(|record| record.unwrap().lsn).collect::<Vec<_>>();
        assert_eq!(read(view.iter(Lsn::ZERO)), read(log.iter(Lsn::ZERO)));
    }
}

#[test]
fn a_record_has_the_time_of_its_first_write_for_good_to_the_second() {
    let disk = MemDisk::default();
    let before = SystemTime::now() - Duration::from_millis(1);
    let log = disk.open(OnDamage::Refuse).unwrap();
    commit_slowly(&log, 1..10);
    let written = times(log.iter(Lsn::ZERO));
    let after = SystemTime::now();
    let all: Vec<_> = written.values().copied().collect();
    assert!(all.is_sorted() && before <= all[0] && all[8] <= after, "{written:?}");
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{written:?}");
    // Killed: the next opening writes the last of them again. Then a cut does, and one more kill.
    let mut files = disk.files();
    for life in 0..3 {
        std::thread::sleep(Duration::from_millis(2));
        let disk = MemDisk::new(&files);
        let log = disk.open(OnDamage::Refuse).unwrap();
        assert!(life > 0 || log.recovery().rewritten_records > 0);
        if life == 1 {
            log.truncate_back(Lsn(8)).unwrap();
        }
        let kept = times(log.iter(Lsn::ZERO));
        assert_eq!(kept.len(), if life == 0 { 9 } else { 7 });
        let second = |time: &SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let same = |(lsn, time): (&Lsn, &SystemTime)| *time <= written[lsn] && second(time) == second(&written[lsn]);
        assert!(kept.iter().all(same), "life {life}: {kept:?}, not {written:?}");
        assert!(kept.values().is_sorted());
        files = disk.files();
    }
}

#[test]
fn a_place_is_found_by_its_time() {
    let disk = MemDisk::default();
    let log = disk.open(OnDamage::Refuse).unwrap();
    for lsn in 1..120 {
        std::thread::sleep(Duration::from_micros(200));
        commit(&log, lsn..lsn + 1);
    }
    assert!(disk.files().epochs().len() > 4);
    log.hold("a promise", Lsn(1)).unwrap();
    let view = disk.view();
    let written = times(log.iter(Lsn::ZERO));
    let (first, last) = (written[&Lsn(1)], written[&Lsn(119)]);
    for (&lsn, &time) in &written {
        for (at, expected) in [(time, lsn), (time + Duration::from_micros(1), lsn.next())] {
            assert_eq!(log.lsn_at(at).unwrap(), expected);
            assert_eq!(view.lsn_at(at).unwrap(), expected);
        }
        let mut reader = log.reader();
        reader.seek_to_time(time).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().lsn, lsn);
    }
    assert_eq!(log.lsn_at(first - Duration::from_secs(1)).unwrap(), Lsn(1));
    assert_eq!(log.lsn_at(SystemTime::UNIX_EPOCH).unwrap(), Lsn(1));
    assert_eq!(log.lsn_at(last + Duration::from_secs(1)).unwrap(), Lsn(120));
    // What was dropped is not found.
    log.release("a promise").unwrap();
    let start = log.truncate_front(Lsn(70)).unwrap();
    assert_eq!((log.lsn_at(first).unwrap(), start), (Lsn(70), Lsn(70)));
}

/// One of the places at which the log passes a time; never an error, and never a place outside of
/// the log.
#[test]
fn a_clock_that_was_set_back_makes_times_repeat() {
    let mut files = Files::crashed(|log| commit(log, 1..200));
    let clock = |lsn: u64| match lsn {
        0..60 => 1_000 + lsn,
        60..120 => 940 + lsn, // Set back by a minute.
        _ => 5_000 + lsn,
    };
    for epoch in files.epochs() {
        for frame in files.frames(epoch).into_iter().filter(|frame| [LINK, DATA, MARK].contains(&frame.kind)) {
            let time = clock(frame.first_lsn) * 1_000_000;
            files.forge(epoch, frame.block, |frame| frame[64..72].copy_from_slice(&time.to_le_bytes()));
        }
    }
    let disk = MemDisk::new(&files);
    let log = disk.open(OnDamage::Refuse).unwrap();
    assert_eq!(log.last_lsn(), Lsn(199));
    let second = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
    let written = times(log.iter(Lsn::ZERO));
    for s in 990..1_070 {
        let found = log.lsn_at(second(s)).unwrap();
        let passes = found == Lsn(1) || written[&found.prev()] < second(s) && second(s) <= written[&found];
        assert!(passes, "at {s}: {found}");
    }
    assert_eq!(log.lsn_at(second(5_150)).unwrap(), Lsn(150));
}

#[test]
fn bytes_between_two_records_are_counted_without_reading_them() {
    let disk = MemDisk::default();
    let log = disk.open(OnDamage::Refuse).unwrap();
    long(&log);
    let records = collect(log.iter(Lsn::ZERO)).0;
    bytes_are_those_of_the_records(log.reader(), &records, "as written");
    let files = disk.files();
    drop(log);
    bytes_are_those_of_the_records(disk.view().reader_at(Lsn::ZERO), &records, "closed");
    let log = disk.open(OnDamage::Refuse).unwrap();
    log.commit(b"one more").unwrap();
    bytes_are_those_of_the_records(log.reader(), &collect(log.iter(Lsn::ZERO)).0, "closed and opened");

    let disk = MemDisk::new(&files);
    let log = disk.open(OnDamage::Refuse).unwrap();
    log.commit(b"one more").unwrap();
    bytes_are_those_of_the_records(log.reader(), &collect(log.iter(Lsn::ZERO)).0, "killed and opened");
    for cut in [80, 61, 30] {
        log.truncate_back(Lsn(cut)).unwrap();
        log.commit(b"instead").unwrap();
        bytes_are_those_of_the_records(log.reader(), &collect(log.iter(Lsn::ZERO)).0, &format!("cut at {cut}"));
    }
    log.truncate_front(Lsn(20)).unwrap();
    bytes_are_those_of_the_records(log.reader(), &collect(log.iter(Lsn::ZERO)).0, "cut in front");
    let dropped = log.bytes_between(Lsn(5), Lsn(30));
    assert!(matches!(dropped, Err(Error::Dropped { lsn: Lsn(5), start: Lsn(20), .. })), "{dropped:?}");
}

/// What a salvage gives up counts as nothing between; behind it the count is what it was.
#[test]
fn bytes_behind_what_was_given_up() {
    let mut files = Files::crashed(|log| commit(log, 1..30));
    let whole = collect(MemDisk::new(&files).open(OnDamage::Refuse).unwrap().iter(Lsn::ZERO)).0;
    files.flip(1, 6 * BLOCK + 100, 3);
    let disk = MemDisk::new(&files);
    let log = disk.open(OnDamage::Salvage).unwrap();
    let lost = log.recovery().given_up.clone();
    assert_eq!(lost.len(), 1);
    let bytes = |from: u64, to: u64| whole.iter().filter(|r| (from..to).contains(&r.0)).map(|r| r.1.len() as u64).sum::<u64>();
    let (first, behind) = (lost[0].0, lost[0].1.next());
    assert_eq!(log.bytes_between(Lsn(1), first).unwrap(), bytes(1, first.0));
    assert_eq!(log.bytes_between(behind, Lsn(30)).unwrap(), bytes(behind.0, 30));
    assert_eq!(log.bytes_between(Lsn(1), Lsn(30)).unwrap(), bytes(1, 30));
}

/// A fork may write again much that lies before the cut; its LINK says where that was, and those
/// that follow from another process are told exactly that.
#[test]
fn a_cut_is_told_where_it_was() {
    let disk = MemDisk::default();
    let log = disk.open(OnDamage::Refuse).unwrap();
    commit(&log, 1..4);
    let told = |reader: &mut Reader| match reader.wait_next(Some(Duration::from_secs(10))) {
        Err(Error::Cut { at, .. }) => at,
        other => panic!("{other:?}"),
    };
    // (A mark promises all before it, so that a view shows that.)
    log.hold("a promise", Lsn(1)).unwrap();
    let mut readers: Vec<_> = (0..2).map(|_| disk.view().reader_at(Lsn::ZERO)).collect();
    for reader in &mut readers {
        while reader.next().unwrap().is_some() {}
    }
    log.truncate_back(Lsn(3)).unwrap();
    commit(&log, 3..5);
    assert_eq!(told(&mut readers[0]), Lsn(3));
    log.hold("a promise", Lsn(2)).unwrap();
    while readers[0].next().unwrap().is_some() {}
    // A second cut, behind the first and in the same stretch: its fork supersedes the other's.
    // A reader that knows of neither is told of the earlier one.
    log.truncate_back(Lsn(4)).unwrap();
    commit(&log, 4..6);
    assert_eq!(told(&mut readers[1]), Lsn(3));
    assert_eq!(told(&mut readers[0]), Lsn(3));
    // A kill, and a recovery that writes all of it again, take nothing from that.
    let mut late = disk.view().reader_at(Lsn::ZERO);
    while late.next().unwrap().is_some() {}
    log.truncate_back(Lsn(5)).unwrap();
    let files = disk.files();
    let recovered = MemDisk::new(&files);
    drop(recovered.open(OnDamage::Refuse).unwrap());
    assert_eq!(recovered.view().get(Lsn(4)).unwrap(), record(4));
    assert!(recovered.view().get(Lsn(5)).is_err());
}

#[test]
fn records_are_counted_without_those_that_are_gone() {
    let mut files = Files::closed(|log| commit(log, 1..40));
    files.flip(2, 4 * BLOCK + 100, 1);
    let dir = files.dir();
    let log = small().on_damage(OnDamage::Salvage).open(dir.path()).unwrap();
    let lost = log.recovery().given_up.clone();
    assert!(!lost.is_empty());
    log.truncate_front(Lsn(3)).unwrap();
    log.close().unwrap();
    let view = View::open(dir.path()).unwrap();
    let lsns: Vec<u64> = view.iter(Lsn::ZERO).map(|record| record.unwrap().lsn.0).collect();
    assert!(lsns.first() == Some(&3) && !lsns.contains(&lost[0].0.0), "{lsns:?}");
    for from in 0..45 {
        for to in 0..45 {
            let expected = lsns.iter().filter(|lsn| (from..to).contains(*lsn)).count() as u64;
            assert_eq!(view.records_between(Lsn(from), Lsn(to)), expected, "{from} to {to}");
        }
    }
    assert_eq!(view.records_between(Lsn::ZERO, Lsn::MAX), lsns.len() as u64);
    assert_eq!(check_dir(dir.path()).records, lsns.len() as u64);
}
