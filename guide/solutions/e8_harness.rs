//! Exercise 8: a crash harness (chapter 10).
//!
//! A program works on a disk, and tells its user what is done. The harness lets the power fail at
//! each change that the program makes to the disk, looks at states in which that can leave it, lets
//! the program recover on each, and asks whether what it had told is true there. That recovery is
//! interrupted as well, at each of its changes. The first lie is returned.

use foreword_sim::SimDisk;

/// What is put to the test.
pub trait Program {
    /// What the user was told before the power failed.
    type Told;

    /// Works on an empty disk, until it is done or the disk fails.
    fn run(&self, disk: &SimDisk) -> Self::Told;

    /// Recovers after a crash and checks what it finds. When the power fails in it, what it returns
    /// is worth nothing.
    ///
    /// # Errors
    /// What is not as it was told, in words.
    fn check(&self, disk: &SimDisk, told: &Self::Told) -> Result<(), String>;
}

/// How a program was found to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The change of [`Program::run`] at which the power failed.
    pub change: u64,
    /// The change of [`Program::check`] at which it failed again, if it did.
    pub again: Option<u64>,
    /// What was not as it was told.
    pub why: String,
}

/// Tests a program: how many states of the disk were looked at. Of each moment at most `limit`
/// states (two at least: with nothing of what was not synced, and with all).
///
/// # Errors
/// The first failure.
pub fn survives<P: Program>(program: &P, limit: usize) -> Result<u64, Failure> {
    let whole = SimDisk::new(1);
    program.run(&whole);
    let mut states = 0;
    // Behind the last change the power fails, too.
    for change in 1..=whole.changes() + 1 {
        let disk = SimDisk::new(1);
        disk.power_off_at(change);
        let told = program.run(&disk);
        for after in disk.crash_states(limit, change) {
            states += recovers(program, &after, &told, limit).map_err(|(again, why)| Failure { change, again, why })?;
        }
    }
    Ok(states)
}

/// Recovery from one state, undisturbed and disturbed: how many states that makes.
fn recovers<P: Program>(program: &P, crashed: &SimDisk, told: &P::Told, limit: usize) -> Result<u64, (Option<u64>, String)> {
    let whole = crashed.copy();
    program.check(&whole, told).map_err(|why| (None, why))?;
    let mut states = 1;
    for change in crashed.changes() + 1..=whole.changes() {
        let disk = crashed.copy();
        disk.power_off_at(change);
        let _ = program.check(&disk, told);
        for after in disk.crash_states(limit, change) {
            program.check(&after, told).map_err(|why| (Some(change - crashed.changes()), why))?;
            states += 1;
        }
    }
    Ok(states)
}
