//! Waiting for durability without asking for it.
use std::time::Duration;

use foreword::{Durability, Error, Lsn, Options, SyncPolicy};

#[test]
fn wait_durable_waits_for_the_policy_and_asks_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(64 << 10).sync(SyncPolicy::manual()).open(dir.path()).unwrap();
    log.append_with(b"one", Durability::Written).unwrap();
    assert!(!log.wait_durable(Lsn(1), Some(Duration::from_millis(50))).unwrap(), "nobody syncs");
    assert_eq!(log.durable_lsn(), Lsn::ZERO);
    assert!(matches!(log.wait_durable(Lsn(2), None), Err(Error::NotAppended { .. })));
    log.close().unwrap();
    let log = Options::new().sync(SyncPolicy::interval(Duration::from_millis(20))).open(dir.path()).unwrap();
    let lsn = log.append(b"two").unwrap();
    assert!(log.wait_durable(lsn, None).unwrap());
    assert!(log.durable_lsn() >= lsn);
}

/// An idle log says what is durable even where its segment has no room for the mark: the next
/// segment's LINK says it then.
#[test]
fn a_view_soon_sees_every_durable_record_wherever_in_its_segment_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(64 << 10).sync(SyncPolicy::manual()).open(dir.path()).unwrap();
    let view = foreword::View::open(dir.path()).unwrap();
    let (mut lsn, epochs) = (Lsn::ZERO, || foreword::inspect::segments(dir.path()).unwrap().len());
    // A block for the record and one for the mark, in segments with room for an odd number of them.
    while epochs() < 6 {
        lsn = log.commit(b"a record").unwrap();
        let started = std::time::Instant::now();
        while view.last_lsn().unwrap() < lsn {
            assert!(started.elapsed() < Duration::from_secs(5), "LSN {lsn} is durable and not to be seen");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    log.close().unwrap();
    assert_eq!(foreword::verify(dir.path()).unwrap().last_lsn, lsn);
}
