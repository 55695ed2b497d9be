//! Going on with a damaged log, as its owner chose.
use std::fs;

use foreword::{Error, Lsn, OnDamage, Options, Verdict};

/// The damage lies far before the end of a log that was closed well: opening it, which reads only
/// the tail, does not see it, but a repair is for the whole log.
#[test]
fn a_repair_finds_damage_before_the_tail_of_a_closed_log() {
    for action in [OnDamage::StopAtDamage, OnDamage::Salvage] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().segment_bytes(64 << 10);
        let log = options.open(dir.path()).unwrap();
        for i in 0..100u64 {
            log.commit(&i.to_le_bytes().repeat(500)).unwrap();
        }
        log.close().unwrap();
        let path = dir.path().join("00000000000000000003.seg");
        let mut bytes = fs::read(&path).unwrap();
        bytes[5 * 4096 + 700] ^= 1;
        fs::write(&path, &bytes).unwrap();

        let plan = foreword::repair_plan(dir.path(), action).unwrap();
        assert!(plan.damage.is_some() && !plan.given_up.is_empty());
        let log = options.clone().on_damage(action).open(dir.path()).unwrap();
        let report = log.recovery().clone();
        assert!(matches!(report.verdict, Verdict::Corruption(_)), "{report:?}");
        assert_eq!((&report.given_up, report.last_lsn), (&plan.given_up, plan.last_lsn), "as planned");
        assert_eq!(report.put_aside, plan.put_aside);
        let (first, last) = plan.given_up[0];
        log.close().unwrap();

        let verified = foreword::verify(dir.path()).unwrap();
        assert_eq!(verified.verdict, Some(Verdict::Clean));
        let log = options.open(dir.path()).unwrap();
        for i in 0..100u64 {
            match log.get(Lsn(i + 1)) {
                Ok(record) => assert_eq!(record, i.to_le_bytes().repeat(500)),
                Err(Error::GivenUp { lsn, .. }) => assert!(action == OnDamage::Salvage && (first..=last).contains(&lsn)),
                Err(Error::NotAppended { lsn, .. }) => assert!(action == OnDamage::StopAtDamage && lsn >= first),
                Err(other) => panic!("{other}"),
            }
        }
        assert!(fs::read(dir.path().join("damaged/00000000000000000003.seg")).unwrap() == bytes, "kept as it was");
    }
}

/// A flipped bit costs a frame: of small records that are appended in bulk, 64 KiB at most.
#[test]
fn a_flipped_bit_costs_no_more_than_a_frame() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_bytes(1 << 20).background(false);
    let log = options.open(dir.path()).unwrap();
    let record = |i: u64| i.to_le_bytes().repeat(16);
    for i in 0..20_000 {
        log.append(&record(i)).unwrap();
    }
    log.close().unwrap();
    let path = dir.path().join("00000000000000000002.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100 * 4096 + 700] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let log = options.clone().on_damage(OnDamage::Salvage).open(dir.path()).unwrap();
    let &[(first, last)] = &log.recovery().given_up[..] else { panic!("{:?}", log.recovery().given_up) };
    let lost = last.0 - first.0 + 1;
    assert!((400..=64 * 1024 / 132).contains(&lost), "{lost} records");
    let read = log.iter(Lsn::ZERO).map(|r| r.map(|r| (r.lsn.0, r.data)).unwrap());
    let kept = (1..=20_000).filter(|lsn| !(first.0..=last.0).contains(lsn)).map(|lsn| (lsn, record(lsn - 1)));
    assert!(read.eq(kept));
}
