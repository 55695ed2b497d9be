//! A basic writer: sequential appends, and the three things that "written" may mean.
//!
//! An append costs a copy into memory. Giving many of them to the operating system costs one system
//! call; making them survive the machine costs a flush of the disk, which is thousands of times
//! slower. So a log buffers, writes in batches, and says at each step how far a record has come.

use foreword::{Log, Lsn};

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let log = Log::options().background(false).open(dir.path())?; // no background sync: we want to see each step

    // ANCHOR: steps
    // 1. Appended: it has its LSN, and is in this process's memory. A crash of the process loses
    //    it.
    let lsn = log.append(b"update page 1")?;
    log.append(b"update page 2")?;
    println!("first LSN {lsn}; written up to {}, durable up to {}", log.written_lsn(), log.durable_lsn());
    assert_eq!((log.written_lsn(), log.durable_lsn()), (Lsn(0), Lsn(0)));

    // 2. Written: the operating system has it. The process may die now; the machine may not.
    log.write()?;
    assert_eq!((log.written_lsn(), log.durable_lsn()), (Lsn(2), Lsn(0)));

    // 3. Durable: the disk has it. (To sync without writing first would sync nothing: `sync` does
    //    both, in that order.)
    log.sync()?;
    assert_eq!((log.written_lsn(), log.durable_lsn()), (Lsn(2), Lsn(2)));
    // ANCHOR_END: steps

    // ANCHOR: commit
    // `commit` is all three. So is `commit_batch`, for records that must be there
    // together or not at all.
    log.commit(b"commit")?;
    log.commit_batch(&["begin", "debit", "credit", "end"])?;
    println!("durable up to {}", log.durable_lsn());

    log.close()?; // a last sync, whose error we would see here
    // ANCHOR_END: commit
    Ok(())
}
