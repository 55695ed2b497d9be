//! A small store on the log, and the test that it survives every power failure: `cargo run -p
//! foreword-sim --example store`.

use std::collections::BTreeMap;

use foreword::{Log, Lsn, Options, SyncPolicy};
use foreword_sim::SimDisk;

// ANCHOR: store
/// Counters by name. Each change is a record; opening replays them.
struct Store {
    log: Log,
    counters: BTreeMap<String, u64>,
}

impl Store {
    fn open(disk: &SimDisk) -> foreword::Result<Store> {
        let options = Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
        let log = options.on_error(|_| ()).disk(disk.handle()).open("/store")?;
        let mut counters = BTreeMap::new();
        for record in log.iter(Lsn::ZERO) {
            *counters.entry(String::from_utf8_lossy(&record?.data).into_owned()).or_default() += 1;
        }
        Ok(Store { log, counters })
    }

    /// Durable when it returns.
    fn add(&mut self, name: &str) -> foreword::Result<u64> {
        self.log.commit(name.as_bytes())?;
        let counter = self.counters.entry(name.to_owned()).or_default();
        *counter += 1;
        Ok(*counter)
    }
}
// ANCHOR_END: store

/// The work of a user. Returns the last count that was acknowledged before the power failed.
fn work(disk: &SimDisk) -> u64 {
    let mut told = 0;
    if let Ok(mut store) = Store::open(disk) {
        while told < 3
            && let Ok(count) = store.add("visits")
        {
            told = count;
        }
    }
    told
}

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    // ANCHOR: survives
    let whole = SimDisk::new(1);
    work(&whole);
    let mut states = 0;
    for change in 1..=whole.changes() {
        let disk = SimDisk::new(1);
        disk.power_off_at(change);
        let acknowledged = work(&disk);
        for after in disk.crash_states(256, 1) {
            let store = Store::open(&after)?;
            let found = store.counters.get("visits").copied().unwrap_or(0);
            assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} after {acknowledged} were acknowledged");
            states += 1;
        }
    }
    // ANCHOR_END: survives
    println!("the power failed at each of {} changes: {states} states, and no counter was lost", whole.changes());
    Ok(())
}
