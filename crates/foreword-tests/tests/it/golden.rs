//! Logs on disk, as version 2 of the format has them: the library must read them as it did when
//! they were made, and the independent reader (`reader.py`, written from `docs/FORMAT.md` alone)
//! must agree with it, on them and on what is left of them after mutations.
//!
//! A golden directory `tests/golden/NAME` has beside it `NAME.txt`: the verdict and its row, then
//! each record: its LSN, its time in microseconds, how many bytes those before it have from the
//! first on, and its own in hex. `cargo test --test it make_golden_logs -- --ignored` makes those
//! that are not there.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use foreword::{DamageKind, Durability, Error, Limit, Log, Lsn, OnDamage, Verdict};
use foreword_tests::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(golden())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".txt").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// What the library says of a log, as the reader prints it.
fn library_says(disk: &MemDisk) -> ReaderSays {
    let report = disk.verify();
    let view = disk.view();
    let (mut records, mut times) = (Vec::new(), Vec::new());
    let mut reader = view.reader_at(Lsn::ZERO);
    let error: Option<Error> = loop {
        match reader.next() {
            // (Of a batch that is damaged in its middle, a view may show the beginning before it
            // comes to the damage.)
            Ok(Some(record)) if record.lsn > report.last_lsn => {}
            Ok(Some(record)) => {
                times.push(record.time().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64);
                records.push((record.lsn.0, record.data.to_vec()));
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let mut before = |lsn: u64| reader.bytes_between(Lsn(records[0].0), Lsn(lsn)).unwrap();
    let counts = records.iter().zip(times).map(|(record, time)| (time, before(record.0))).collect();
    let verdict = report.verdict.unwrap();
    let row = match &verdict {
        Verdict::Corruption(damage) => damage.row(),
        Verdict::Clean => 1,
        Verdict::Unclosed => 2,
        _ => 4,
    };
    if !matches!(verdict, Verdict::Corruption(_)) {
        assert!(error.is_none(), "{error:?}");
    }
    ReaderSays { records, counts, verdict: verdict.name().to_owned(), row }
}

/// Both say the same, up to the rows that fit a torn tail together.
fn agree(reader: &ReaderSays, library: &ReaderSays, what: &str) {
    let lsns = |says: &ReaderSays| says.records.iter().map(|r| r.0).collect::<Vec<_>>();
    assert_eq!(reader.verdict, library.verdict, "{what}: row {} and row {}", reader.row, library.row);
    assert_eq!(lsns(reader), lsns(library), "{what}");
    assert!(reader.records == library.records, "{what}: not the same bytes");
}

/// Both have the same times and, from the first record on, the same count of bytes.
fn agree_on_counts(reader: &ReaderSays, library: &ReaderSays, what: &str) {
    let from_the_first = |says: &ReaderSays| {
        let first = says.counts.first().map_or(0, |count| count.1);
        says.counts.iter().map(|(time, bytes)| (*time, bytes - first)).collect::<Vec<_>>()
    };
    assert_eq!(from_the_first(reader), from_the_first(library), "{what}");
}

fn text(says: &ReaderSays) -> String {
    let mut text = format!("verdict: {} row={} at=\n", says.verdict, says.row);
    for ((lsn, data), (micros, bytes)) in says.records.iter().zip(&says.counts) {
        write!(text, "{lsn} {micros} {bytes} ").unwrap();
        data.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push_str(if data.is_empty() { "-\n" } else { "\n" });
    }
    text
}

#[test]
fn the_library_reads_the_golden_logs() {
    assert!(names().len() >= 12, "{:?}", names());
    for name in names() {
        let expected = ReaderSays::parse(&std::fs::read_to_string(golden().join(format!("{name}.txt"))).unwrap());
        let files = Files::read(&golden().join(&name));
        let said = library_says(&MemDisk::new(&files));
        agree(&said, &expected, &name);
        agree_on_counts(&said, &expected, &name);
        assert_eq!(said.row, expected.row, "{name}");
        let opened = MemDisk::new(&files).open(OnDamage::Refuse);
        assert_eq!(opened.is_ok(), expected.verdict != "corruption", "{name}: {opened:?}");
        if let Ok(log) = opened {
            assert!(collect(log.iter(Lsn::ZERO)).0 == expected.records, "{name}");
        }
    }
}

#[test]
fn the_independent_reader_agrees_on_the_golden_logs() {
    let dirs: Vec<PathBuf> = names().iter().map(|name| golden().join(name)).collect();
    let Some(said) = ask_reader(&dirs) else { return };
    for (name, said) in names().iter().zip(said) {
        let expected = ReaderSays::parse(&std::fs::read_to_string(golden().join(format!("{name}.txt"))).unwrap());
        agree(&said, &expected, name);
        agree_on_counts(&said, &expected, name);
        // Counted by the records themselves, from the log's beginning: what a frame says of the
        // bytes before it is exact.
        let all_there = said.records.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0);
        let mut before = said.counts.first().map_or(0, |count| count.1);
        assert!(said.records.first().is_none_or(|record| record.0 > 1) || before == 0, "{name}");
        for ((lsn, data), (_, bytes)) in said.records.iter().zip(&said.counts).filter(|_| all_there) {
            assert_eq!(*bytes, before, "{name}: {lsn}");
            before += data.len() as u64;
        }
        let torn = |row| (2..=5).contains(&row);
        let lost = |row| (10..=11).contains(&row);
        let same = said.row == expected.row || torn(said.row) && torn(expected.row) || lost(said.row) && lost(expected.row);
        assert!(same, "{name}: row {} and row {}", said.row, expected.row);
    }
}

/// What a later writer may put into a log of this version, and what it may not: frames that are
/// whole, and say more than this version knows.
#[test]
fn the_independent_reader_agrees_on_what_is_not_known() {
    let golden = Files::read(&golden().join("segments"));
    let field = [9, 0, 4, 0, 1, 2, 3, 4];
    let behind = |frame: &mut [u8]| {
        let end = header_len(frame[12]) + usize::from(frame[16]);
        frame[16] += field.len() as u8;
        frame[end..end + field.len()].copy_from_slice(&field);
    };
    type Change<'a> = &'a dyn Fn(&mut [u8]);
    let cases: [(&str, u8, Change<'_>, u8); 15] = [
        ("a later version", HEADER, &|frame| frame[64] = 3, 0),
        ("the version before", HEADER, &|frame| frame[64] = 1, 0),
        ("a feature that a reader must know", HEADER, &|frame| frame[64 + 40] = 1, 0),
        ("the last of those", HEADER, &|frame| frame[64 + 43] = 0x80, 0),
        ("a feature that it need not know", HEADER, &|frame| frame[64 + 44] = 1, 1),
        ("more behind a HEADER", HEADER, &behind, 1),
        ("more behind a LINK", LINK, &behind, 1),
        ("more behind a MARK", MARK, &behind, 1),
        ("more behind a SEAL", SEAL, &behind, 1),
        ("the upper bit of a record's length", DATA, &|frame| frame[83] |= 0x80, 22),
        ("the bit below", DATA, &|frame| frame[83] |= 0x40, 22),
        ("a fourth flag", DATA, &|frame| frame[13] |= 8, 22),
        ("a ninth flag", MARK, &|frame| frame[14] |= 1, 22),
        ("the last flag", DATA, &|frame| frame[15] |= 0x80, 22),
        ("more bytes than any log has", DATA, &|frame| frame[79] |= 0x80, 7),
    ];
    let root = tempfile::tempdir().unwrap();
    let mut changed = Vec::new();
    for (i, (what, kind, change, row)) in cases.into_iter().enumerate() {
        let mut files = golden.clone();
        let epoch = *files.epochs().iter().rfind(|&&epoch| files.frames(epoch).iter().any(|frame| frame.kind == kind)).unwrap();
        let frame = *files.frames(epoch).iter().find(|frame| frame.kind == kind).unwrap();
        files.forge(epoch, frame.block, change);
        let dir = root.path().join(i.to_string());
        files.write(&dir);
        let disk = MemDisk::new(&files);
        if row == 0 {
            let error = disk.open(OnDamage::Refuse).unwrap_err();
            let unsupported = matches!(error, Error::UnsupportedVersion { .. } | Error::UnsupportedFeatures { .. });
            assert!(unsupported, "{what}: {error:?}");
        } else {
            assert_eq!(library_says(&disk).row, row, "{what}");
        }
        changed.push((what, row, files, dir));
    }
    let dirs: Vec<PathBuf> = changed.iter().map(|(.., dir)| dir.clone()).collect();
    let Some(said) = ask_reader(&dirs) else { return };
    for (said, (what, row, files, _)) in said.iter().zip(changed) {
        assert_eq!(said.row, row, "{what}");
        if row == 0 {
            assert_eq!(said.verdict, "unsupported", "{what}");
        } else {
            agree(said, &library_says(&MemDisk::new(&files)), what);
        }
    }
}

/// A small generator of numbers, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Does one thing to a log that a disk, a crash or a person might.
fn mutate(files: &mut Files, random: &mut Random) -> String {
    let epochs = files.epochs();
    let epoch = epochs[random.below(epochs.len())];
    let frames = files.frames(epoch);
    let frame = frames[random.below(frames.len())];
    let within = random.below(frame.blocks * BLOCK);
    let byte = frame.block * BLOCK + within;
    match random.below(8) {
        0..=2 => {
            let bit = random.below(8) as u8;
            files.flip(epoch, byte, bit);
            format!("bit {bit} of byte {byte} of segment {epoch} flipped")
        }
        3 => {
            let len = random.below(files.segment(epoch).len());
            files.segment(epoch).truncate(len);
            format!("segment {epoch} cut to {len}")
        }
        4 => {
            files.unwrite_sector(epoch, byte / SECTOR);
            format!("sector {} of segment {epoch} zeroed", byte / SECTOR)
        }
        5 => {
            files.unwrite(epoch, frame.block..frame.block + frame.blocks);
            format!("frame at block {} of segment {epoch} zeroed", frame.block)
        }
        6 => {
            let byte = random.below(files.segment(epoch).len());
            files.flip(epoch, byte, 0);
            format!("byte {byte} of segment {epoch} flipped, wherever it is")
        }
        _ => {
            files.remove(epoch);
            format!("segment {epoch} removed")
        }
    }
}

#[test]
fn the_independent_reader_agrees_on_mutated_logs() {
    let rounds: usize = std::env::var("FOREWORD_MUTATIONS").map_or(8, |n| n.parse().unwrap());
    let mut random = Random(1);
    let root = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    for name in names() {
        let golden = Files::read(&golden().join(&name));
        for round in 0..rounds {
            let mut files = golden.clone();
            if files.epochs().is_empty() {
                continue;
            }
            let what = format!("{name}: {}", mutate(&mut files, &mut random));
            let library = library_says(&MemDisk::new(&files));
            let dir = root.path().join(format!("{name}-{round}"));
            files.write(&dir);
            cases.push((dir, library, what));
        }
    }
    let halves: Vec<_> = cases.chunks(cases.len().div_ceil(2)).collect();
    std::thread::scope(|s| {
        for half in halves {
            s.spawn(move || {
                let dirs: Vec<PathBuf> = half.iter().map(|(dir, ..)| dir.clone()).collect();
                let Some(said) = ask_reader(&dirs) else { return };
                for (said, (_, library, what)) in said.iter().zip(half) {
                    agree(said, library, what);
                    agree_on_counts(said, library, what);
                }
            });
        }
    });
}

/// The least time that passes in the log `times`, three times.
const GAP: Duration = Duration::from_millis(300);

/// Makes the golden logs; each is a state of a log's directory, closed, or as a crash left it.
fn make() -> Vec<(&'static str, Files)> {
    let three = |log: &Log| {
        let next = fill_segment(log, 1);
        let next = fill_segment(log, next);
        commit(log, next..next + 3);
    };
    let reopened = |files: &Files, action: OnDamage, work: &dyn Fn(&Log)| {
        let dir = files.dir();
        let log = small().on_damage(action).open(dir.path()).unwrap();
        work(&log);
        Files::read(dir.path())
    };
    let mut logs = vec![
        ("empty", Files::crashed(|_| ())),
        ("empty-closed", Files::closed(|_| ())),
        ("closed", Files::closed(|log| commit(log, 1..6))),
        ("unclosed", Files::crashed(|log| commit(log, 1..6))),
        ("segments", Files::closed(three)),
    ];
    logs.push((
        "spanning",
        Files::closed(|log| {
            log.commit(b"before").unwrap();
            log.commit(&(0..70_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<_>>()).unwrap();
            log.commit(b"").unwrap();
        }),
    ));
    logs.push((
        "batches",
        Files::closed(|log| {
            log.commit_batch(&[&b"one"[..], b"", b"three"]).unwrap();
            log.commit_batch(&(4..40).map(record).collect::<Vec<_>>()).unwrap();
            log.commit_batch(&(40..140).map(record).collect::<Vec<_>>()).unwrap();
        }),
    ));
    let mut torn = Files::crashed(|log| {
        commit(log, 1..5);
        log.append_with(&[0xa5; 10_000], Durability::Written).unwrap();
    });
    torn.unwrite_sector(1, 60);
    logs.push(("recovered", reopened(&torn, OnDamage::Refuse, &|log| commit(log, 5..8))));
    logs.push(("torn-tail", torn));
    logs.push((
        "front-truncated",
        Files::crashed(|log| {
            three(log);
            log.truncate_front(Lsn(16)).unwrap();
            commit(log, 18..27);
        }),
    ));
    logs.push((
        "back-truncated",
        Files::closed(|log| {
            three(log);
            log.truncate_back(Lsn(11)).unwrap();
            log.commit(b"another eleventh").unwrap();
        }),
    ));
    logs.push((
        "times",
        Files::closed(|log| {
            commit(log, 1..4);
            std::thread::sleep(GAP);
            let next = fill_segment(log, 4);
            log.commit_batch(&(next..next + 3).map(record).collect::<Vec<_>>()).unwrap();
            std::thread::sleep(GAP);
            let next = fill_segment(log, next + 3);
            log.truncate_back(Lsn(next - 2)).unwrap();
            std::thread::sleep(GAP);
            let next = fill_segment(log, next - 2);
            commit(log, next..next + 2);
        }),
    ));
    logs.push((
        "holds",
        Files::closed(|log| {
            three(log);
            log.hold("an archiver", Lsn(9)).unwrap();
            log.hold("ein Replikat \u{2014} weit weg", Lsn(12)).unwrap();
            log.truncate_front(Lsn(14)).unwrap();
        }),
    ));
    logs.push((
        "limits",
        Files::closed(|log| {
            log.hold_up_to("overtaken", Lsn(1), Limit::bytes(4096)).unwrap();
            log.hold_up_to("of two kinds", Lsn(1), Limit::bytes(1 << 20).or_age(Duration::from_secs(86_400))).unwrap();
            log.hold("without end", Lsn(1)).unwrap();
            three(log);
            log.hold("of two kinds", Lsn(12)).unwrap();
            log.hold("without end", Lsn(15)).unwrap();
            log.truncate_front(Lsn(14)).unwrap();
        }),
    ));
    let mut corrupt = Files::crashed(three);
    corrupt.unwrite(3, 3..4);
    logs.push(("salvaged", reopened(&corrupt, OnDamage::Salvage, &|log| commit(log, 18..20))));
    logs.push(("corrupt", corrupt));
    let mut lost = Files::closed(three);
    lost.remove(3);
    logs.push(("lost-newest", lost));
    // What is in the room for a full disk means nothing, and nothing is asked for in HOLDS.
    logs.iter_mut().for_each(|(_, files)| files.0.retain(|name, _| !name.starts_with("RESERVE") && name != "HOLDS"));
    logs
}

#[test]
#[ignore = "writes golden logs"]
fn make_golden_logs() {
    let there = names();
    for (name, files) in make().into_iter().filter(|(name, _)| !there.iter().any(|there| there == name)) {
        files.write(&golden().join(name));
        let says = library_says(&MemDisk::new(&files));
        std::fs::write(golden().join(format!("{name}.txt")), text(&says)).unwrap();
    }
}

#[test]
fn golden_logs_made_now_have_the_verdicts_of_those_made_then() {
    for (name, files) in make() {
        let expected = ReaderSays::parse(&std::fs::read_to_string(golden().join(format!("{name}.txt"))).unwrap());
        let said = library_says(&MemDisk::new(&files));
        assert_eq!(said.row, expected.row, "{name}");
        agree(&said, &expected, name);
    }
    // What the others have by accident, if at all: gaps in the times, and a cut that a LINK tells
    // of, in several segments.
    let mut files = Files::read(&golden().join("times"));
    let said = library_says(&MemDisk::new(&files));
    let gaps = said.counts.windows(2).filter(|pair| pair[1].0 - pair[0].0 >= GAP.as_micros() as u64).count();
    assert_eq!(gaps, 3, "{:?}", said.counts);
    let cuts = files.epochs().into_iter().map(|epoch| {
        let link = &files.segment(epoch)[BLOCK + header_len(LINK)..];
        u64::from_le_bytes(link[16..24].try_into().unwrap())
    });
    assert_eq!(cuts.filter(|&cut| cut > 0).collect::<Vec<_>>(), [19]);
    assert!(files.epochs().len() >= 4, "{:?}", files.epochs());
    let view = MemDisk::new(&Files::read(&golden().join("limits"))).view();
    let holds: Vec<_> = view.holds().unwrap().into_iter().map(|(name, hold)| (name, hold.lsn, hold.limit, hold.lost)).collect();
    let both = Limit::bytes(1 << 20).or_age(Duration::from_secs(86_400));
    assert_eq!(
        holds,
        [
            ("of two kinds".to_owned(), Lsn(12), both, false),
            ("overtaken".to_owned(), Lsn(1), Limit::bytes(4096), true),
            ("without end".to_owned(), Lsn(15), Limit::NONE, false),
        ]
    );
    let damage = MemDisk::new(&Files::read(&golden().join("salvaged"))).verify();
    assert_eq!(damage.given_up, [(Lsn(16), Lsn(16))]);
    let says = MemDisk::new(&Files::read(&golden().join("corrupt"))).verify();
    assert!(matches!(says.verdict, Some(Verdict::Corruption(damage)) if damage.kind == DamageKind::Missing));
}

/// A log of this version whose `LOG` is damaged behind its first line, and none of whose segments
/// can be read, is damaged: it is of no other version.
#[test]
fn a_damaged_identity_that_names_this_version_is_damage() {
    let mut files = Files::read(&golden().join("closed"));
    let mut log = files.0["LOG"].clone();
    log[30] = b'?';
    files.0.insert("LOG".into(), log);
    let alone = Files([("LOG".to_owned(), files.0["LOG"].clone())].into());
    files.flip(1, 100, 0);
    for files in [files, alone] {
        let opened = MemDisk::new(&files).open(OnDamage::Refuse).map(drop);
        assert!(matches!(opened, Err(Error::Corruption(_))), "{opened:?}");
    }
}
