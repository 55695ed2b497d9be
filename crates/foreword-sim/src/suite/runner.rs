//! Runs the steps of a workload on a simulated disk, and checks what the log returns.

use foreword::{Durability, Error, Log, Lsn, Options, View};

use super::check::check_state;
use super::followers::Follower;
use super::log::{DIR, Shape, options, read_log};
use super::model::{Checked, Model, ensure, violated};
use crate::SimDisk;

/// What a caller asks of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Appends a record of this many bytes.
    Append(u32),
    /// Appends and waits for the disk.
    Commit(u32),
    /// Appends a batch: the number of records, and the bytes of each. `true`: waits for the disk.
    Batch(u8, u32, bool),
    /// Gives everything to the operating system.
    Write,
    /// Makes everything durable.
    Sync,
    /// Commits until the log has begun another segment.
    Rotate,
    /// Drops this many thousandths of the records at the front.
    TruncateFront(u16),
    /// Cuts off this many thousandths of the records at the back.
    TruncateBack(u16),
    /// Commits a small record that the log reserves room for.
    Checkpoint,
    /// Holds records from this many thousandths of the log on.
    Hold(u8, u16),
    /// Releases a hold.
    Release(u8),
    /// Closes the log and opens it again.
    Reopen,
}

/// A log on a disk, and the model of what its caller knows.
pub(crate) struct Runner {
    pub(crate) disk: SimDisk,
    pub(crate) model: Model,
    pub(crate) log: Option<Log>,
    shape: Shape,
    /// An error has poisoned the log.
    poisoned: bool,
    /// Readers of the log. The log's own is the first.
    followers: Vec<Follower>,
}

impl Runner {
    pub(crate) fn new(disk: SimDisk, shape: Shape) -> Runner {
        Runner { disk, model: Model::new(), log: None, shape, poisoned: false, followers: Vec::new() }
    }

    /// A runner that continues a recovered log.
    pub(crate) fn resume(disk: SimDisk, model: Model, log: Log, shape: Shape) -> Runner {
        Runner { log: Some(log), model, ..Runner::new(disk, shape) }
    }

    fn options(&self) -> Options {
        options(&self.disk, self.shape)
    }

    /// Whether the log can no longer be used, and must be recovered.
    pub(crate) fn is_down(&self) -> bool {
        self.log.is_none() || self.poisoned || self.disk.is_off()
    }

    /// Opens the log. If there is one, nothing has happened to it since it was closed.
    pub(crate) fn open(&mut self) -> Checked {
        let Ok(log) = self.options().open(DIR) else { return Ok(()) };
        self.model.made = true;
        self.model.acknowledged(log.durable_lsn(), log.written_lsn());
        self.model.promised = self.model.durable;
        self.log = Some(log);
        Ok(())
    }

    /// Adds readers that follow the log: its own, and views.
    pub(crate) fn watch(&mut self) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        self.followers.insert(0, Follower::of_log(log));
        if self.followers.iter().any(Follower::lags) {
            return Ok(()); // There are views already.
        }
        match View::open_on(self.disk.handle(), DIR) {
            Ok(view) => {
                let lazy = Follower::lazy(&view);
                self.followers.extend([Follower::of_view(view), lazy]);
                Ok(())
            }
            Err(Error::Io { .. }) => Ok(()),
            Err(error) => violated("a view opens beside a writer", error.to_string()),
        }
    }

    /// Lets all followers read on, and checks what they know then.
    pub(crate) fn follow(&mut self) -> Checked {
        if self.disk.is_off() {
            return Ok(());
        }
        for follower in &mut self.followers {
            follower.follow()?;
            // The outcome of a cut that failed is not known yet.
            self.model.cut_in_doubt().into_iter().for_each(|from| follower.forget_from(from));
            follower.check(&self.model)?;
        }
        Ok(())
    }

    /// The last LSN that a follower has shown. The record is there after any crash, unless it is
    /// cut.
    pub(crate) fn shown(&self) -> u64 {
        let current = self.followers.iter().filter(|follower| follower.is_current(&self.model));
        current.map(|follower| follower.shown(self.model.cut_in_doubt())).max().unwrap_or(0)
    }

    /// Runs a step, and checks what can be checked at once.
    pub(crate) fn step(&mut self, step: &Step) -> Checked {
        let was_durable = self.model.durable;
        let changes = self.disk.changes();
        let done = self.ask(step);
        let Some(log) = &self.log else { return done };
        self.model.acknowledged(log.durable_lsn(), log.written_lsn());
        done?;
        if self.is_down() {
            return self.check_poison();
        }
        // Every flush after a record was durable promises that record.
        if self.disk.changes() > changes && self.model.durable > was_durable {
            self.model.promised = self.model.promised.max(was_durable);
        }
        Ok(())
    }

    fn ask(&mut self, step: &Step) -> Checked {
        let (start, last) = (self.model.start(), self.model.last());
        let part = |thousandths: u16| (last + 1 - start) * u64::from(thousandths.min(1000)) / 1000;
        match *step {
            Step::Append(len) => self.append(&[len], Durability::Buffered),
            Step::Commit(len) => self.append(&[len], Durability::Synced),
            Step::Batch(count, len, durable) => {
                let durability = if durable { Durability::Synced } else { Durability::Buffered };
                self.append(&vec![len; usize::from(count.max(1))], durability)
            }
            Step::Checkpoint => self.checkpoint(),
            Step::Write => self.simple(|log| log.write().map(drop)),
            Step::Sync => self.simple(|log| log.sync().map(drop)),
            Step::Rotate => self.rotate(),
            Step::TruncateFront(thousandths) => self.truncate_front(start + part(thousandths)),
            Step::TruncateBack(thousandths) => self.truncate_back(last + 1 - part(thousandths)),
            Step::Hold(name, thousandths) => {
                let (name, lsn) = (format!("hold {name}"), Lsn(start + part(thousandths)));
                self.model.change_holds(&name, Some(lsn));
                self.hold_or_release(|log| log.hold(&name, lsn))
            }
            Step::Release(name) => {
                let name = format!("hold {name}");
                self.model.change_holds(&name, None);
                self.hold_or_release(|log| log.release(&name).map(drop))
            }
            Step::Reopen => self.reopen(),
        }
    }

    /// Notes an error. Returns whether the log is down.
    fn failed(&mut self, error: &Error) -> bool {
        let Some(log) = &self.log else { return true };
        if matches!(error, Error::NoSpace { .. }) {
            return false;
        }
        self.poisoned |= matches!(log.failure(), Some(Error::Poisoned(_)));
        self.poisoned
    }

    fn append(&mut self, lens: &[u32], durability: Durability) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        let (first, bytes) = self.model.append(lens);
        let appended = log.append_batch_with(&bytes, durability);
        self.appended(first, lens.len() as u64, appended, durability)
    }

    fn checkpoint(&mut self) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        let (first, bytes) = self.model.append(&[100]);
        let appended = log.commit_checkpoint(&bytes[0]);
        self.appended(first, 1, appended, Durability::Synced)
    }

    fn appended(&mut self, first: u64, count: u64, appended: Result<Lsn, Error>, durability: Durability) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        match appended {
            Ok(lsn) => {
                ensure(lsn.0 == first, "LSNs are dense", || format!("{lsn} was given where {first} comes next"))?;
                let reached = durability < Durability::Synced || log.durable_lsn().0 >= first + count - 1;
                ensure(reached, "commit returns when it is durable", || format!("{lsn}, with {} durable", log.durable_lsn()))
            }
            Err(error) => {
                if log.last_lsn().0 < first {
                    self.model.not_appended(first);
                }
                self.failed(&error);
                Ok(())
            }
        }
    }

    fn simple(&mut self, call: impl FnOnce(&Log) -> Result<(), Error>) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        if let Err(error) = call(log) {
            self.failed(&error);
        }
        Ok(())
    }

    fn rotate(&mut self) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        let before = log.stats().rotations;
        while let Some(log) = &self.log
            && log.stats().rotations == before
            && !self.poisoned
        {
            let (durable, last) = (self.model.durable, self.model.last());
            self.append(&[(self.shape.segment_bytes / 6) as u32], Durability::Synced)?;
            if self.model.last() == last {
                return Ok(()); // The disk is full.
            }
            if let Some(log) = &self.log {
                self.model.acknowledged(log.durable_lsn(), log.written_lsn());
            }
            if self.model.durable > durable {
                self.model.promised = self.model.promised.max(durable);
            }
        }
        Ok(())
    }

    fn truncate_front(&mut self, before: u64) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        let held = self.model.holds().values().map(|lsn| lsn.0).fold(before, u64::min).max(self.model.start());
        self.model.truncate_front(held);
        match log.truncate_front(Lsn(before)) {
            Ok(start) => {
                self.model.front_truncated(true);
                ensure(start.0 == held, "front truncation stops at a hold", || format!("{start} for {held}"))
            }
            Err(error) => {
                // The call may have failed after its mark, when it recycled files.
                let done = log.start_lsn().0 == held;
                if done || !self.failed(&error) {
                    self.model.front_truncated(done);
                    self.model.nothing_done();
                }
                Ok(())
            }
        }
    }

    fn truncate_back(&mut self, from: u64) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        if from > self.model.last() {
            return self.simple(|log| log.truncate_back(Lsn(from)));
        }
        self.model.truncate_back(from);
        match log.truncate_back(Lsn(from)) {
            Ok(()) => {
                self.model.back_truncated();
                self.model.acknowledged(log.durable_lsn(), log.written_lsn());
                ensure(log.last_lsn().0 == from - 1, "a cut ends the log", || format!("at {} for {}", log.last_lsn(), from - 1))
            }
            Err(error) => {
                if log.last_lsn().0 + 1 == from {
                    self.model.back_truncated(); // The cut is done. The removal of files failed.
                    self.failed(&error);
                } else if !self.failed(&error) {
                    self.model.nothing_done();
                }
                Ok(())
            }
        }
    }

    fn hold_or_release(&mut self, call: impl FnOnce(&Log) -> Result<(), Error>) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        match call(log) {
            Ok(()) => self.model.holds_changed(),
            Err(error) if !self.failed(&error) => self.model.nothing_done(),
            Err(_) => {}
        }
        Ok(())
    }

    fn reopen(&mut self) -> Checked {
        let Some(log) = self.log.take() else { return Ok(()) };
        let last = log.last_lsn();
        match log.close() {
            Ok(()) => {
                self.model.acknowledged(last, last);
                self.model.promised = last.0;
            }
            Err(_) => return Ok(()),
        }
        let open = self.options().open(DIR);
        let Ok(log) = open else { return Ok(()) };
        let found = read_log(&log);
        self.log = Some(log);
        match found {
            Ok(found) => {
                self.model.check(&found, last.0)?;
                self.model.adopt(&found);
                if self.followers.is_empty() {
                    return Ok(());
                }
                self.followers.remove(0); // The closed log's reader. The views continue.
                self.watch()
            }
            Err(_) => Ok(()), // A fault struck the reading. Recovery checks the log.
        }
    }

    /// A poisoned log returns an error to every call, and acknowledges nothing more.
    fn check_poison(&mut self) -> Checked {
        let Some(log) = self.log.as_ref().filter(|_| self.poisoned) else { return Ok(()) };
        let durable = log.durable_lsn();
        let answers = [log.append(b"x").err(), log.commit(b"x").err(), log.sync().err(), log.truncate_front(Lsn(1)).err()];
        let stays = answers.iter().all(|answer| matches!(answer, Some(Error::Poisoned(_))));
        ensure(stays, "a poisoned log stays poisoned", || format!("{answers:?}"))?;
        ensure(log.durable_lsn() == durable, "nothing is acknowledged after a failed flush", || {
            format!("{} after {durable}", log.durable_lsn())
        })
    }

    /// Checks what readers of the open log see.
    pub(crate) fn check_live(&self) -> Checked {
        let Some(log) = &self.log else { return Ok(()) };
        match read_log(log) {
            Ok(found) => self.model.check_live(&found),
            Err(error) => violated("what is durable can be read", error.to_string()),
        }
    }

    /// Recovers the log on the disk that a crash left, checks it, and continues it.
    pub(crate) fn go_on(&mut self, disk: SimDisk, floor: u64, seed: u64) -> Checked {
        let floor = floor.max(self.shown());
        self.disk.power_off();
        self.log = None;
        self.poisoned = false;
        let before = Follower::before_recovery(&disk)?;
        let (log, found) = check_state(&disk, &self.model, floor, self.shape, seed)?;
        self.model.adopt(&found);
        self.log = Some(log);
        self.disk = disk;
        self.followers = Vec::from_iter(before);
        self.watch()?;
        self.follow()
    }
}
