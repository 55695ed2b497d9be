//! A log with a part that was given up: which groups are refused, and which work.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{options, read};
use foreword::Lsn;
use foreword_raft::{Damage, Error, GroupLogs};
use foreword_sim::SimDisk;

/// Group 1 has entries before the gap, in it and behind it. Group 2 has its vote in the gap. Group
/// 3 wrote only before the gap. Group 4 wrote before it and behind it. Group 5 began behind it,
/// group 6 in it; group 7 was removed in it, and is begun anew behind it.
fn damaged() -> (SimDisk, Damage) {
    let disk = SimDisk::new(1);
    let logs = options(&disk).open("/log").unwrap();
    let vote = |id: u64, vote: u8| logs.group(id).save_vote([vote]).unwrap();
    let append = |id: u64, from: u64, to: u64| logs.group(id).append((from..=to).map(|i| (i, [i as u8; 50])), |_| ()).unwrap();
    append(1, 1, 4);
    for id in [2, 3, 4, 7] {
        vote(id, 1);
    }
    // Each sync ends a frame; so the next frame has exactly the records to lose.
    logs.sync().unwrap();
    let first = logs.stats().log.appended_lsn.next();
    append(1, 5, 8);
    append(6, 1, 3);
    logs.remove(7).unwrap();
    logs.group(2).save_vote(b"the vote that is lost").unwrap();
    let last = logs.stats().log.appended_lsn;
    append(1, 9, 10);
    vote(4, 2);
    append(5, 1, 2);
    vote(7, 2);
    vote(2, 3);
    logs.close().unwrap();
    let hit = b"the vote that is lost";
    let (path, at) = disk
        .files()
        .into_iter()
        .find_map(|(path, len)| {
            let bytes = disk.peek(&path, 0, len as usize)?;
            // (Each sector has a tag, which may lie within the text.)
            let is_of_it = |window: &[u8]| hit.windows(8).any(|of_it| of_it == window);
            Some((path, bytes.windows(8).position(is_of_it)?))
        })
        .unwrap();
    assert!(disk.flip(path, at as u64, 3));
    let refused = options(&disk).open("/log").unwrap_err();
    assert!(matches!(refused, Error::Log(foreword::Error::Corruption(_))), "{refused}");
    let Err(Error::Damaged(damage)) = options(&disk).salvage(true).open("/log") else { panic!("it opens") };
    assert_eq!(damage.lost, [(first, last)]);
    (disk, (*damage).clone())
}

fn is_refused(logs: &GroupLogs, id: u64) -> bool {
    let group = logs.group(id);
    let damaged = |result: Result<(), Error>| matches!(result, Err(Error::GroupDamaged(of)) if of.group == id);
    let refused = [
        damaged(group.vote().map(drop)),
        damaged(group.entries(.., 100).map(drop)),
        damaged(group.last().map(drop)),
        damaged(group.save_vote("x")),
        damaged(group.append([(1, "x")], |_| ())),
        damaged(group.truncate_after(1)),
        damaged(group.purge(1, "")),
        damaged(group.sync()),
    ];
    assert!(refused.iter().all(|&r| r == refused[0]), "{id}: {refused:?}");
    refused[0]
}

#[test]
fn groups_with_a_hole_are_named_and_refused() {
    let (disk, damage) = damaged();
    let named: Vec<_> = damage.groups.iter().map(|g| (g.group, g.missing.clone(), g.proven)).collect();
    assert_eq!(named, [(1, vec![5..=8], true), (2, vec![], true), (3, vec![], false)]);
    let text = Error::Damaged(damage.into()).to_string();
    assert!(
        text.contains("group 1 has lost records, entries 5 to 8;") && text.contains("group 3 may have lost records;"),
        "{text}"
    );

    // Not only after the salvage, but each time the logs are opened.
    for _ in 0..2 {
        assert!(matches!(options(&disk).open("/log"), Err(Error::Damaged(_))));
        let logs = options(&disk).open_damaged(true).open("/log").unwrap();
        assert_eq!(logs.damage().unwrap().groups.len(), 3);
        // Group 6 was only in the gap; group 8 never existed, but that cannot be known.
        for id in [1, 2, 3, 6, 8] {
            assert!(is_refused(&logs, id), "{id}");
        }
        assert_eq!(logs.group(4).vote().unwrap().unwrap(), [2]);
        assert_eq!(logs.group(5).last().unwrap(), Some(2));
        assert_eq!(logs.group(7).vote().unwrap().unwrap(), [2]);
        logs.group(4).save_vote([2]).unwrap();
        // The evidence of the damage is kept.
        let start = logs.stats().log.start_lsn;
        logs.compact().unwrap();
        assert_eq!((start, logs.stats().log.start_lsn), (Lsn(1), Lsn(1)));
        logs.close().unwrap();
    }
}

#[test]
fn a_damaged_group_is_removed_and_begun_anew() {
    let (disk, _) = damaged();
    let open = || options(&disk).open_damaged(true).open("/log").unwrap();
    let logs = open();
    for id in [1, 2, 6, 8] {
        logs.remove(id).unwrap();
    }
    logs.group(1).append([(1, "anew")], |_| ()).unwrap();
    logs.sync().unwrap();
    let check = |logs: GroupLogs| {
        let logs = &logs;
        assert_eq!(logs.group(1).entries(.., 100).unwrap().len(), 1);
        assert_eq!(logs.group(6).last().unwrap(), None);
        assert!(is_refused(logs, 3) && is_refused(logs, 9) && !logs.groups().contains(&2));
        logs.close().unwrap();
    };
    check(logs);
    check(open());
    let logs = open();
    logs.group(6).save_vote([6]).unwrap();
    logs.group(2).save_vote([6]).unwrap();
    assert_eq!(logs.damage().unwrap().groups.iter().map(|g| g.group).collect::<Vec<_>>(), [3]);
    logs.remove(3).unwrap();
    let model = read(&logs);
    logs.close().unwrap();
    assert_eq!(read(&open()), model);
}
