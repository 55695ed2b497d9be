//! Commits that can be told apart in a trace.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::Result;

use crate::peers::Log;

/// Commits of each thread.
pub const COMMITS: usize = 100;
pub const SIZE: usize = 128;
/// What markers are written to.
pub const NOWHERE: &str = "/dev/null";

/// Commits such records from so many threads, and says before and after each.
pub fn commit_all(log: &dyn Log, threads: usize) -> Result<()> {
    let commit = |thread: usize| -> Result<()> {
        let mut nowhere = OpenOptions::new().write(true).open(NOWHERE)?;
        let mut writer = log.writer(thread)?;
        for i in 0..COMMITS {
            let name = name(thread, i);
            let mut record = name.clone().into_bytes();
            record.resize(SIZE, b'.');
            nowhere.write_all(format!("begin {name}").as_bytes())?;
            writer.commit(&record)?;
            nowhere.write_all(format!("acknowledged {name}").as_bytes())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let commit = &commit;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || commit(thread))).collect();
        running.into_iter().try_for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn name(thread: usize, i: usize) -> String {
    format!("<record {thread}.{i}>")
}
