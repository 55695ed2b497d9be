//! Waiting for durability without asking for it.
#![allow(clippy::unwrap_used, clippy::expect_used)]
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
