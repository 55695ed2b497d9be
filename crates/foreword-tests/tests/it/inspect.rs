//! What stands in a log's files, told as it is: every byte of a segment has its place, and nothing
//! is changed by asking.
use std::fs;
use std::path::Path;

use foreword::inspect::{self, Content, Frame, SegmentState};
use foreword::{Error, Log, Lsn, Options, SyncPolicy};

fn open(dir: &Path) -> Log {
    Options::new().segment_bytes(64 << 10).sync(SyncPolicy::manual()).open(dir).unwrap()
}

/// Records of 1 to 9,000 bytes, each committed; and one that spans segments.
fn fill(log: &Log) {
    for i in 0..60u64 {
        log.commit(&vec![i as u8; (i * 977 % 9000) as usize + 1]).unwrap();
    }
    log.commit(&[7; 300_000]).unwrap();
}

fn all(dir: &Path, epoch: u64) -> Vec<Frame> {
    inspect::frames(dir, epoch).unwrap().map(Result::unwrap).collect()
}

/// Frames lie back to back and cover the file.
fn assert_covers(frames: &[Frame], bytes: u64) {
    let mut at = 0;
    for frame in frames {
        assert_eq!(frame.offset, at);
        assert!(frame.bytes > 0);
        at += frame.bytes;
    }
    assert_eq!(at, bytes);
}

#[test]
fn segments_and_frames_account_for_every_record_and_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log);
    log.hold("archiver", Lsn(3)).unwrap();
    log.close().unwrap();
    let segments = inspect::segments(dir.path()).unwrap();
    assert!(segments.len() > 5);
    let (mut expect, mut lens) = (Lsn::FIRST, Vec::new());
    for segment in &segments {
        let frames = all(dir.path(), segment.epoch);
        assert_covers(&frames, segment.file_bytes);
        assert!(segment.used_bytes <= segment.file_bytes);
        if let Some((first, last)) = segment.lsns {
            assert_eq!(first, expect);
            expect = last.next();
        }
        for frame in &frames {
            match &frame.content {
                Content::Data { records, .. } => {
                    assert!(frame.offset < segment.used_bytes);
                    for record in records {
                        lens.push(u64::from(record.bytes));
                        assert_eq!(record.lsn, Lsn(lens.len() as u64));
                    }
                }
                Content::Link { follows, first_lsn, .. } => {
                    assert_eq!(frame.offset, 4096);
                    assert_eq!(follows.is_none(), segment.epoch == 1);
                    assert!(*first_lsn <= Lsn(62));
                }
                Content::Header { epoch, segment_bytes, version, .. } => {
                    assert_eq!((*epoch, *segment_bytes, *version), (segment.epoch, 64 << 10, 2));
                }
                Content::Torn | Content::Damaged(_) => panic!("{frame:?}"),
                _ => {}
            }
        }
        let sealed = frames.iter().any(|f| matches!(f.content, Content::Seal { .. }));
        assert_eq!(sealed, segment.state == SegmentState::Sealed, "{segment:?}");
    }
    assert_eq!(expect, Lsn(62));
    assert_eq!(lens, (0..60).map(|i| i * 977 % 9000 + 1).chain([300_000]).collect::<Vec<_>>());
    let current = segments.iter().find(|s| s.state == SegmentState::Current).unwrap();
    let frames = all(dir.path(), current.epoch);
    let last = frames.iter().rfind(|f| f.content != Content::Unwritten).unwrap();
    let Content::Mark { closed: true, next_lsn, state, .. } = &last.content else { panic!("{last:?}") };
    assert_eq!((*next_lsn, state.holds["archiver"].lsn), (Lsn(62), Lsn(3)));
    assert_eq!(last.offset + last.bytes, current.used_bytes);
    assert_eq!(last.promise.unwrap().offset, last.offset, "a close promises all before itself");
}

#[test]
fn a_writer_at_work_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log);
    let segments = inspect::segments(dir.path()).unwrap();
    assert_eq!(segments.iter().filter(|s| s.state == SegmentState::Current).count(), 1);
    assert_eq!(segments.iter().filter_map(|s| s.lsns).map(|(a, b)| b.0 - a.0 + 1).sum::<u64>(), 61);
}

#[test]
fn what_was_cut_off_is_named_superseded_and_what_is_ready_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.commit(b"one").unwrap();
    let old = fs::read(dir.path().join("00000000000000000001.seg")).unwrap();
    drop(log);
    // As a crash leaves it: recovery forks, and the file it forked from comes back.
    let name = "00000000000000000001.seg";
    fs::write(dir.path().join(name), &old).unwrap();
    let log = open(dir.path());
    log.truncate_back(Lsn(1)).unwrap();
    log.close().unwrap();
    fs::write(dir.path().join(name), &old).unwrap();
    let states: Vec<_> = inspect::segments(dir.path()).unwrap().into_iter().map(|s| (s.epoch, s.state)).collect();
    assert!(states.iter().any(|(_, s)| *s == SegmentState::Current), "{states:?}");
    assert!(matches!(states[0], (1, SegmentState::Superseded | SegmentState::Sealed)), "{states:?}");
}

#[test]
fn torn_damaged_and_cut_places_are_named_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for i in 0..4 {
        log.commit(&[i; 5000]).unwrap(); // two blocks each, from 8192 on
    }
    log.close().unwrap();
    let path = dir.path().join("00000000000000000001.seg");
    let good = fs::read(&path).unwrap();
    let at = |offset: u64| all(dir.path(), 1).into_iter().find(|f| f.offset == offset).unwrap();
    assert!(matches!(&at(16384).content, Content::Data { records, .. } if records[0].lsn == Lsn(2)));

    let write = |at: usize, some: &[u8]| {
        let mut bytes = fs::read(&path).unwrap();
        bytes[at..at + some.len()].copy_from_slice(some);
        fs::write(&path, bytes).unwrap();
    };
    write(16384 + 4096, &[0; 512]);
    assert_eq!((at(16384).bytes, at(16384).content), (8192, Content::Torn));
    write(20000, &[good[20000] ^ 1]);
    assert!(matches!(at(16384), Frame { bytes: 8192, content: Content::Damaged(_) | Content::Torn, .. }));
    fs::write(&path, &good).unwrap();
    write(16384 + 20, &[good[16384 + 20] ^ 1]);
    assert!(matches!(at(16384), Frame { bytes: 8192, content: Content::Damaged(_), .. }), "up to where the next begins");
    assert!(matches!(&at(24576).content, Content::Data { records, .. } if records[0].lsn == Lsn(3)));
    assert_covers(&all(dir.path(), 1), 64 << 10);

    // A header that fails: LOG says which log it is.
    fs::write(&path, &good).unwrap();
    write(100, &[!good[100]]);
    assert!(matches!(at(0).content, Content::Damaged(_)));
    assert!(matches!(at(8192).content, Content::Data { .. }));
    assert!(matches!(inspect::segments(dir.path()).unwrap()[0].state, SegmentState::Damaged(_)));
    fs::rename(dir.path().join("LOG"), dir.path().join("GONE")).unwrap();
    assert!(matches!(inspect::frames(dir.path(), 1), Err(Error::Corruption(_))));
    fs::rename(dir.path().join("GONE"), dir.path().join("LOG")).unwrap();

    // Cut files end where they end, wherever that is.
    for len in (0..good.len()).step_by(1777) {
        fs::write(&path, &good[..len]).unwrap();
        let frames = all(dir.path(), 1);
        assert!(frames.iter().any(|f| matches!(f.content, Content::Damaged(_))), "{len}: {frames:?}");
        assert!(frames.iter().all(|f| f.offset <= len as u64), "{len}: {frames:?}");
        inspect::segments(dir.path()).unwrap();
    }
}

#[test]
fn no_log_and_no_segment_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(inspect::segments(dir.path()), Err(Error::NotFound { .. })));
    assert!(matches!(inspect::frames(dir.path(), 1), Err(Error::NotFound { .. })));
    assert!(matches!(inspect::segments(dir.path().join("none")), Err(Error::NotFound { .. })));
    drop(open(dir.path()));
    let none = inspect::frames(dir.path(), 99).map(drop).unwrap_err();
    assert!(matches!(&none, Error::Invalid { what: "epoch", why, .. } if why.contains("there are: 1")), "{none}");
}

/// It ends as soon as it is asked to, and says so, with a writer or without.
#[test]
fn a_check_says_how_far_it_is_and_can_be_ended() {
    use std::ops::ControlFlow;

    use foreword::Verify;
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(1 << 20).open(dir.path()).unwrap();
    for _ in 0..20_000 {
        log.append([7; 100]).unwrap();
    }
    log.sync().unwrap();
    let started = std::time::Instant::now();
    while foreword::View::open(dir.path()).unwrap().last_lsn().unwrap() < Lsn(20_000) {
        assert!(started.elapsed().as_secs() < 20);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for writer in [true, false] {
        if !writer {
            log.close().unwrap();
        }
        let mut told = Vec::new();
        let report = Verify::new().progress(|now| (told.push(now), ControlFlow::Continue(())).1).run(dir.path()).unwrap();
        assert_eq!(report.records, 20_000);
        assert!(told.len() >= 4 && told.is_sorted_by_key(|now| now.done), "{told:?}");
        assert!(told.iter().all(|now| now.done <= now.total), "{told:?}");
        let mut asked = 0;
        let ended = Verify::new().progress(|_| {
            asked += 1;
            if asked < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(ended.run(dir.path()), Err(Error::Canceled)));
        assert_eq!(asked, 3);
    }
}
