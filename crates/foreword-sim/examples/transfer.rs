//! Why a log: money is moved between two accounts in a file, and the power fails at every change of
//! the disk. First the file is changed in place, then a log is written first. `cargo run -p
//! foreword-sim --example transfer`.

use std::io::{self, IoSlice};
use std::path::Path;

use foreword::disk::{Access, Disk};
use foreword::{Log, Lsn, Options, SyncPolicy};
use foreword_sim::{Choice, SECTOR, SimDisk};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Balances = [u64; 2];

const ACCOUNTS: &str = "accounts";
const BEFORE: Balances = [100, 100];
const AFTER: Balances = [70, 130];

/// Each account has a sector of the file.
fn read(disk: &dyn Disk) -> io::Result<Balances> {
    let file = disk.open_dir(Path::new("/"))?.open(ACCOUNTS, Access::Read)?;
    let mut balances = [0; 2];
    for (i, balance) in balances.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        file.read_at(&mut bytes, (i * SECTOR) as u64)?;
        *balance = u64::from_le_bytes(bytes);
    }
    Ok(balances)
}

// ANCHOR: in_place
/// Changes the file in place: account by account, then a sync.
fn write(disk: &dyn Disk, balances: Balances) -> io::Result<()> {
    let file = disk.open_dir(Path::new("/"))?.open(ACCOUNTS, Access::Write)?;
    for (i, balance) in balances.iter().enumerate() {
        file.write_at(&[IoSlice::new(&balance.to_le_bytes())], (i * SECTOR) as u64)?;
    }
    file.sync()
}
// ANCHOR_END: in_place

// ANCHOR: logged
/// Logs the new balances, durably, and changes the file after that.
fn write_logged(disk: &SimDisk, balances: Balances) -> Result<()> {
    let log = log(disk)?;
    log.commit(&balances.map(u64::to_le_bytes).concat())?;
    Ok(write(&*disk.handle(), balances)?)
}

/// Writes the balances that the log has, whether they were written before or not.
fn recover(disk: &SimDisk) -> Result<()> {
    for record in log(disk)?.iter(Lsn::ZERO) {
        let record = record?.data;
        let balance = |at: usize| record[at..at + 8].try_into().map(u64::from_le_bytes);
        write(&*disk.handle(), [balance(0)?, balance(8)?])?;
    }
    Ok(())
}
// ANCHOR_END: logged

fn log(disk: &SimDisk) -> foreword::Result<Log> {
    let options = Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
    options.on_error(|_| ()).disk(disk.handle()).open("/log")
}

/// A disk with the accounts and an empty log, all durable.
fn fresh() -> Result<SimDisk> {
    let disk = SimDisk::new(1);
    let root = disk.handle().open_dir(Path::new("/"))?;
    root.open(ACCOUNTS, Access::Create)?.set_len(2 * SECTOR as u64)?;
    write(&*disk.handle(), BEFORE)?;
    root.sync()?;
    log(&disk)?.close()?;
    Ok(disk.crash(&Choice::All))
}

// ANCHOR: survey
/// Lets the power fail at each change that `work` makes to the disk, and recovers each state that
/// the disk can be left in. Returns the number of states, and of those in which money was made or
/// lost.
fn survey(work: fn(&SimDisk) -> Result<()>, recover: fn(&SimDisk) -> Result<()>) -> Result<(u64, u64)> {
    let before = fresh()?;
    let whole = before.copy();
    work(&whole)?;
    let (mut states, mut wrong) = (0, 0);
    for change in before.changes() + 1..=whole.changes() {
        let disk = before.copy();
        disk.power_off_at(change);
        let _ = work(&disk); // fails, at that change
        for after in disk.crash_states(256, 1) {
            recover(&after)?;
            states += 1;
            let found = read(&*after.handle())?;
            if found != BEFORE && found != AFTER {
                wrong += 1;
            }
        }
    }
    Ok((states, wrong))
}
// ANCHOR_END: survey

/// Runs the example.
pub fn main() -> Result<()> {
    let (states, wrong) = survey(|disk| Ok(write(&*disk.handle(), AFTER)?), |_| Ok(()))?;
    println!("in place:   {wrong} of {states} states have {} or {} instead of 200", 70 + 100, 100 + 130);
    assert!(wrong > 0);
    let (states, wrong) = survey(|disk| write_logged(disk, AFTER), recover)?;
    println!("log first:  {wrong} of {states}");
    assert_eq!(wrong, 0);
    Ok(())
}
