//! Exercise 7: `guide/exercises/e7_undo.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use foreword::{Log, Lsn, Options, SyncPolicy};
use foreword_guide::e7_undo::{Cell, Cells, Record, recover};
use foreword_sim::SimDisk;

fn open(disk: &SimDisk) -> Log {
    let options = Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
    options.on_error(|_| ()).disk(disk.handle()).open("/log").unwrap()
}

/// Transactions that change cells, and log it, as a database does.
struct Work {
    log: Log,
    cells: Cells,
    last: [Lsn; 10],
}

impl Work {
    fn new(disk: &SimDisk) -> Work {
        Work { log: open(disk), cells: Cells::new(), last: [Lsn::ZERO; 10] }
    }

    fn set(&mut self, txn: u32, cell: u32, after: i64) {
        let (prev, before) = (self.last[txn as usize], self.cells.get(&cell).map_or(0, |cell| cell.value));
        let lsn = self.log.append(&Record::Update { txn, prev, cell, before, after }.encode()).unwrap();
        self.last[txn as usize] = lsn;
        self.cells.insert(cell, Cell { lsn, value: after });
    }

    fn commit(&mut self, txn: u32) {
        self.log.commit(&Record::Commit { txn }.encode()).unwrap();
    }
}

fn values(cells: &Cells) -> Vec<(u32, i64)> {
    cells.iter().map(|(cell, content)| (*cell, content.value)).filter(|(_, value)| *value != 0).collect()
}

/// Three transactions, of which the second commits; changes of the others come before and after.
/// All of it is in the log. The cells with everything in them, too: as if all had been stolen.
fn story(disk: &SimDisk) -> Cells {
    let mut work = Work::new(disk);
    work.set(1, 10, 5);
    work.set(2, 20, 6);
    work.set(1, 10, 7);
    work.set(3, 30, 8);
    work.set(2, 21, 1);
    work.set(1, 11, 9);
    work.set(3, 31, 2);
    work.commit(2);
    work.set(1, 10, 11);
    work.log.sync().unwrap();
    work.cells
}

const AFTER: [(u32, i64); 2] = [(20, 6), (21, 1)];

fn records(log: &Log) -> Vec<Record> {
    log.iter(Lsn::ZERO).map(|record| Record::decode(&record.unwrap().data).unwrap()).collect()
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 7: undo with compensation records")]
fn losers_are_undone_and_winners_are_not() {
    for stolen in [false, true] {
        let disk = SimDisk::new(1);
        let with_all = story(&disk);
        let mut cells = if stolen { with_all } else { Cells::new() };
        assert_eq!(recover(&open(&disk.kill()), &mut cells).unwrap(), 6);
        assert_eq!(values(&cells), AFTER, "stolen: {stolen}");
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 7: undo with compensation records")]
fn compensations_say_what_is_next_and_come_in_the_order_of_time() {
    let disk = SimDisk::new(1);
    let mut cells = story(&disk);
    let disk = disk.kill();
    let log = open(&disk);
    recover(&log, &mut cells).unwrap();
    let undone: Vec<_> = records(&log).into_iter().skip(9).filter(|record| matches!(record, Record::Undo { .. })).collect();
    let undo = |txn, next, cell, value| Record::Undo { txn, next: Lsn(next), cell, value };
    assert_eq!(
        undone,
        [undo(1, 6, 10, 7), undo(3, 4, 31, 0), undo(1, 3, 11, 0), undo(3, 0, 30, 0), undo(1, 1, 10, 5), undo(1, 0, 10, 0)]
    );
    let ended = records(&log).into_iter().filter(|record| matches!(record, Record::End { .. })).count();
    assert_eq!(ended, 2);
    assert_eq!(log.durable_lsn(), log.last_lsn(), "it is durable when recovery returns");
    for (cell, content) in &cells {
        let last = records(&log).into_iter().zip(1..).filter_map(|(record, lsn)| match record {
            Record::Update { cell: of, .. } | Record::Undo { cell: of, .. } if of == *cell => Some(lsn),
            _ => None,
        });
        assert_eq!(Some(content.lsn.0), last.max(), "cell {cell} bears the LSN of its last change");
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 7: undo with compensation records")]
fn a_second_recovery_finds_nothing_to_undo() {
    let disk = SimDisk::new(1);
    let mut cells = story(&disk);
    let disk = disk.kill();
    let log = open(&disk);
    recover(&log, &mut cells).unwrap();
    let last = log.last_lsn();
    for mut cells in [cells, Cells::new()] {
        assert_eq!(recover(&log, &mut cells).unwrap(), 0);
        assert_eq!(values(&cells), AFTER);
    }
    assert_eq!(log.last_lsn(), last);
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 7: undo with compensation records")]
fn cut_short_anywhere_it_goes_on_where_the_compensations_end() {
    let disk = SimDisk::new(1);
    let stolen = story(&disk);
    let crashed = disk.kill();
    let last = {
        let disk = crashed.copy();
        let log = open(&disk);
        recover(&log, &mut stolen.clone()).unwrap();
        log.last_lsn()
    };
    for cut in 10..=last.0 {
        // A recovery whose log was durable only up to here when the power failed. Cells may have
        // been written at any time.
        let disk = crashed.copy();
        let log = open(&disk);
        let mut cells = stolen.clone();
        recover(&log, &mut cells).unwrap();
        log.truncate_back(Lsn(cut)).unwrap();
        cells.retain(|_, cell| cell.lsn < Lsn(cut));
        let compensated = records(&log).iter().filter(|record| matches!(record, Record::Undo { .. })).count() as u64;
        assert_eq!(recover(&log, &mut cells).unwrap(), 6 - compensated, "cut at {cut}: nothing is undone twice");
        assert_eq!(values(&cells), AFTER, "cut at {cut}");
        assert_eq!(log.last_lsn(), last, "the log does not grow by it");
    }
}
