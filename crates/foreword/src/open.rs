//! Opening for writing: what the survey found, and what follows from it.

mod aside;
mod branch;
pub(crate) mod clear;
pub(crate) mod fork;
mod fresh;
pub(crate) mod opened;
pub(crate) mod repair;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::assemble::Assembler;
use crate::assemble::placed::Placed;
use crate::bug::bug;
use crate::error::Doing;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::files::fill::at_once;
use crate::files::names::{HOLDS_TMP, IDENTITY, LOCK, Names, STATS, segment_name};
use crate::files::prepare::Stuff;
use crate::files::segment::Found;
use crate::format::{BLOCK, Control, Count, Entry, FrameBuf, Head, LINK_BLOCK, LSN_MAX, Link, LogId, Position, Promise, SECTOR};
use crate::observe::stats::RecoveryReport;
use crate::open::branch::branch;
use crate::open::clear::{clear_begun, clear_temporary, superseded, tidy_up};
use crate::open::opened::Opened;
use crate::open::repair::{Repair, plan};
use crate::options::{Existence, OnDamage};
use crate::recovery::{self, Depth, Survey, Verdict};
use crate::{Error, Lsn, Options, Result};

/// The directory, which is made if a log may be made in it.
fn open_dir(options: &Options, path: &Path) -> Result<Dir> {
    match Dir::open(&*options.disk, path) {
        Err(Error::NotFound { dir: path }) if options.existence != Existence::MustExist => {
            expect_nothing(options, &path)?;
            let made = options.disk.create_dir(&path).doing("create the directory", &path);
            Ok(Dir::new(made?, path))
        }
        opened => opened,
    }
}

/// The log in a directory, and the directory, locked.
pub(crate) fn open(options: &Options, path: &Path) -> Result<(Dir, Opened)> {
    open_or_leave(options, path).map_err(|error| error.or_no_space(path, None))
}

fn open_or_leave(options: &Options, path: &Path) -> Result<(Dir, Opened)> {
    let started = Instant::now();
    let mut dir = open_dir(options, path)?;
    // (Where there is a whole identity there is a log, and no need to list its many names twice.)
    if options.existence == Existence::MustNotExist || !matches!(dir.read_identity(), Ok(Ok(_))) {
        look_before(options, &dir)?;
    }
    let locked_anew = dir.lock()?;
    (dir.zero_fill, dir.reserve) = (options.zero_fill, options.reserve);
    let opened = open_locked(options, &dir, started);
    if opened.is_err() && locked_anew {
        // Where no log is opened, nothing of one is left.
        dir.remove_lock();
    }
    opened.map(|opened| (dir, opened))
}

fn open_locked(options: &Options, dir: &Dir, started: Instant) -> Result<Opened> {
    // Before the names are read: where `LOCK` was removed, another writer may be at work until it
    // lets go of this one.
    let known = dir.handle.id_of(IDENTITY).is_ok();
    if known {
        dir.lock_identity()?;
    }
    // Again, now that no other process can make one: a log made meanwhile is not to be made anew
    // over it.
    let names = look_before(options, dir)?;
    if names.identity && !known {
        dir.lock_identity()?;
    }
    dir.sign_lock();
    let mut opened = find(options, dir, names)?;
    prepare_spares(options, dir, &mut opened)?;
    opened.report.took = started.elapsed();
    let report = &opened.report;
    crate::trace::info!(
        verdict = report.verdict.name(),
        last_lsn = report.last_lsn.0,
        rewritten = report.rewritten_records,
        millis = report.took.as_millis() as u64,
        "opened"
    );
    Ok(opened)
}

/// Recovers the log that is there, or makes one.
fn find(options: &Options, dir: &Dir, names: Names) -> Result<Opened> {
    // A caller that wants damage mended means all of it, not only what lies on the way to the end.
    let depth = if options.on_damage == OnDamage::Refuse { Depth::Tail } else { Depth::All };
    let found = recovery::survey(dir, names, depth, &[], &mut |_, _| Ok(()))?;
    match found {
        None if options.existence == Existence::MustExist => Err(Error::NotFound { dir: dir.path.clone() }),
        None => create(options, dir),
        Some(survey) => recover(options, dir, survey),
    }
}

/// As many spares as the options ask for, and the disk has room for.
fn prepare_spares(options: &Options, dir: &Dir, opened: &mut Opened) -> Result<()> {
    while opened.spares.len() < options.spare_segments && !dir.reserve_is_short() {
        let epoch = opened.assembler.next_epoch(&opened.spares);
        match dir.prepare(opened.log, epoch, options.segment_blocks(), Stuff::Nothing, &at_once) {
            Ok(spare) => opened.spares.push_back(spare),
            Err(Error::NoSpace { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is in the directory; refuses before anything is made where none should be.
fn look_before(options: &Options, dir: &Dir) -> Result<Names> {
    let names = dir.names().or_else(|error| match error {
        // (Whatever else is there, the records are not.)
        Error::NotALog { .. } => expect_nothing(options, &dir.path).and(Err(error)),
        error => Err(error),
    })?;
    let exists = names.identity || !names.epochs.is_empty();
    match options.existence {
        Existence::MustExist if !exists => return Err(Error::NotFound { dir: dir.path.clone() }),
        Existence::MustNotExist if exists => return Err(Error::AlreadyExists { dir: dir.path.clone() }),
        _ => {}
    }
    if exists {
        return Ok(names);
    }
    expect_nothing(options, &dir.path)?;
    // (Where no log ever was, `STATS` is another's, and so are `HOLDS` and its like.)
    let stats = names.temporary.iter().filter(|name| *name == STATS);
    let others = names.others.iter().chain(stats).chain(&names.later).map(String::as_str);
    let lock = names.lock && !dir.lock_is_a_logs();
    let mut strange = others.chain(names.holds_begun.then_some(HOLDS_TMP)).chain(lock.then_some(LOCK));
    if let Some(other) = strange.find(|name| *name != "lost+found") {
        let why = format!("it holds other files ({other}), and no log: give it a directory of its own");
        return Err(Error::NotALog { dir: dir.path.clone(), why });
    }
    Ok(names)
}

/// Refuses to make a log where the caller knows of records, or of a log that is there.
fn expect_nothing(options: &Options, dir: &Path) -> Result<()> {
    match (options.expect_lsn, options.expect_id) {
        (Lsn::ZERO, None) => Ok(()),
        (Lsn::ZERO, Some(expected)) => {
            let why = format!("there is no log, and {expected} is expected: check the path, and that its disk is mounted");
            Err(Error::NotALog { dir: dir.to_owned(), why })
        }
        (expected, _) => Err(Error::RolledBack { dir: dir.to_owned(), expected, found: Lsn::ZERO }),
    }
}

fn create(options: &Options, dir: &Dir) -> Result<Opened> {
    expect_nothing(options, &dir.path)?;
    // The process that made the directory may not have made its name durable.
    dir.handle.sync_name().doing("sync the name of the directory", &dir.path)?;
    // What an earlier attempt left: nothing in it was ever active.
    let names = dir.names()?;
    clear::clear_away(dir, names.temporary.iter().cloned());
    clear::remove(dir, names.epochs.into_iter().map(segment_name))?;
    let random = LogId::random().map_err(|e| io::Error::other(e.to_string()));
    let log = random.doing("get random bytes for the log's identity", &dir.path)?;
    let first = dir.prepare(log, 1, options.segment_blocks(), Stuff::Nothing, &at_once)?;
    let control = Control { start: options.first_lsn, ..Control::default() };
    let link = Link { pred: Position::default(), cut: None, control: control.clone() };
    let mut assembler = Assembler::link(first, options.segment_blocks(), Count { lsn: options.first_lsn, bytes: 0 }, &link);
    let mut link = assembler.take();
    link.iter_mut().try_for_each(|placed| placed.write(Promise::default(), true))?;
    dir.write_identity(log, false)?;
    dir.keep_reserve(options.segment_blocks(), Vec::new());
    let entries = link.iter().map(|link| Entry::new(1, &link.header)).collect();
    let durable = assembler.end();
    let report = RecoveryReport::new(Verdict::Created, options.first_lsn, options.first_lsn.prev());
    Ok(Opened { log, assembler, spares: VecDeque::new(), entries, control, durable, report })
}

fn recover(options: &Options, dir: &Dir, found: Survey) -> Result<Opened> {
    let verdict = found.verdict.clone();
    let (mut survey, repair) = match &verdict {
        Verdict::Corruption(damage) => match options.on_damage {
            OnDamage::Refuse => return Err(Error::Corruption(Arc::new(damage.clone()))),
            action => plan(dir, action, found)?,
        },
        _ => (found, Repair::default()),
    };
    if let Some(expected) = options.expect_id.filter(|&id| id != survey.log) {
        return Err(Error::Replaced { dir: dir.path.clone(), expected, found: survey.log });
    }
    let last_lsn = repair.next_lsn.unwrap_or(survey.next_lsn).prev();
    if last_lsn < options.expect_lsn {
        return Err(Error::RolledBack { dir: dir.path.clone(), expected: options.expect_lsn, found: last_lsn });
    }
    if last_lsn.0 > LSN_MAX.0 / 2 {
        // What was appended would be acknowledged, and not be read again beyond the last LSN that
        // there may be.
        let why = format!("it is at LSN {last_lsn}, which no log reaches, and leaves too few to go on: restore a copy");
        return Err(Error::Invalid { what: "log", why });
    }
    if !matches!(verdict, Verdict::Corruption(_)) && remove_unfinished(dir, &survey) {
        return find(options, dir, dir.names()?);
    }
    let mut report = RecoveryReport::new(verdict, survey.control.start, last_lsn);
    report.scanned_bytes = survey.scanned;
    report.garbled_sectors = survey.garbled_behind;
    report.given_up.clone_from(&repair.given_up);
    report.unknown_from = repair.unknown_from;
    report.put_aside = repair.copied.iter().chain(&repair.moved).cloned().collect();
    // Before anything is moved, and until the log has gone on: a hold that is placed meanwhile
    // would stand behind what is given up.
    let mut outside = match &report.verdict {
        Verdict::Corruption(_) => dir.outside_if_possible(survey.log)?,
        _ => None,
    };
    // First: on a full disk it is room.
    clear_temporary(dir, &survey.names);
    clear_begun(dir, &mut survey, &repair.begun);
    for name in &repair.copied {
        aside::copy_aside(dir, name)?;
    }
    if !survey.names.identity {
        // `LOG` and `LOCK` may have been removed under a writer, which finds that out only when
        // what it writes now is done. (It may be only the want of room that this fails for, and
        // then such a writer is the smaller danger.)
        let proven = survey.promise.position.epoch;
        let moved = |epoch: &u64| repair.moved.contains(&segment_name(*epoch));
        let written = survey.names.epochs.iter().copied().filter(|epoch| *epoch >= proven && !moved(epoch));
        match aside::replace_by_copies(dir, written) {
            Err(error) if !error.is_no_space() => return Err(error),
            _ => {}
        }
    }
    if let Some(epoch) = survey.unproven_link {
        rewrite_link(dir, survey.log, epoch)?;
    }
    // What is put aside is moved when the fork has joined the log: until then it is evidence, of the
    // start LSN too, and a repair that is killed is to find again what this one found.
    let puts_aside = survey.names.damaged || !repair.moved.is_empty();
    if puts_aside {
        // (Of a repair whose fork had joined. They are not to be the stuff of another.)
        let superseded = superseded(dir, &survey)?;
        aside::move_aside(dir, |epoch| superseded.contains(&epoch))?;
    }
    if puts_aside && matches!(report.verdict, Verdict::Corruption(_)) {
        aside::keep_places(dir, &repair.moved, &survey.chain)?;
        bug!(MoveFirst, aside::move_aside(dir, |_| true)?);
    }
    if !survey.names.identity || dir.read_identity()?.as_ref() != Ok(&survey.log) {
        dir.write_identity(survey.log, survey.names.identity)?;
    }
    // (Garbled sectors ahead would stand in the way of a later frame. Of what a closed log went on
    // with, a crash may have kept the SEAL alone: it vouches for the next file, whatever size that
    // has.)
    let mut in_place = report.verdict == Verdict::Clean && report.garbled_sectors == 0;
    let mut left = survey.left;
    bug!(ResumeSealed, left = false);
    in_place &= !left;
    bug!(AppendAfterTear, in_place |= matches!(report.verdict, Verdict::Unclosed | Verdict::TornTail));
    let mut opened = if in_place {
        resume(options, dir, &survey, report)?
    } else {
        branch(options, dir, &survey, &repair, outside.as_mut(), report)?
    };
    if puts_aside {
        aside::move_aside(dir, |epoch| !opened.has(epoch))?;
    }
    drop(outside);
    tidy_up(options, dir, &mut opened, &survey.names);
    Ok(opened)
}

/// Removes what an unfinished fork of several segments has left behind the log's end, and returns
/// whether anything was. It would stand in the way of the next, which would leave as much again if
/// it does not come to its end either. (Of one of a single segment the next fork takes the name.)
/// What cannot be removed is no reason to refuse.
fn remove_unfinished(dir: &Dir, survey: &Survey) -> bool {
    let Some(tip) = survey.chain.last().map(|entry| entry.epoch).filter(|&tip| survey.newest > tip + 1) else { return false };
    // (A SEAL vouches for the first, which has no LINK.)
    clear::remove_begun(dir, survey.log, tip + 1)
}

/// The page cache may show a LINK that the disk never got, and no frame behind it proves more: the
/// same bytes are written again, before anything is built on it.
fn rewrite_link(dir: &Dir, log: LogId, epoch: u64) -> Result<()> {
    bug!(TrustLink, return Ok(()));
    let Ok((segment, _)) = dir.open_segment(Some(log), epoch, Access::Write)? else { return Ok(()) };
    let Found::Frame(header) = segment.frame(LINK_BLOCK, segment.data_end(), &mut Vec::new())? else { return Ok(()) };
    let mut link = FrameBuf::zeroed(header.frame_len());
    segment.read(LINK_BLOCK, &mut link)?; // As it lies on the disk, tags and all.
    segment.write(LINK_BLOCK, &mut [io::IoSlice::new(&link)], true)
}

/// After a clean close: the log goes on where it ended, once something is appended. Until then
/// nothing is written.
fn resume(options: &Options, dir: &Dir, survey: &Survey, report: RecoveryReport) -> Result<Opened> {
    let (epoch, block) = (survey.end.epoch, survey.end.block);
    let segment = match dir.open_segment(Some(survey.log), epoch, Access::Write)? {
        Ok((segment, _)) => Arc::new(segment),
        Err(damage) => return Err(Error::Corruption(Arc::new(damage))),
    };
    // A copy may lack it, and the disk be full: the log can be read, and goes on when there is some.
    let has_space = match segment.reserve_space().map_err(|error| error.or_no_space(&dir.path, None)) {
        Err(Error::NoSpace { .. }) => false,
        reserved => reserved.map(|()| true)?,
    };
    // Spares that the last writer had prepared are what they were; but only the next epochs in a
    // row are of use. (A cut may have begun in them where there was no room for the MARK that says
    // so first.)
    let mut spares = VecDeque::new();
    for next in survey.newest + 1.. {
        if !survey.names.epochs.contains(&next) || block >= segment.data_end() {
            break;
        }
        match dir.open_segment(Some(survey.log), next, Access::Write)? {
            // Nothing can have been written to it, but for an attempt at something that failed.
            Ok((spare, None))
                if spare.blocks == options.segment_blocks() && spare.is_unused()? && spare.reserve_space().is_ok() =>
            {
                spares.push_back(Arc::new(spare))
            }
            _ => break,
        }
    }
    if !spares.is_empty() {
        dir.sync()?; // Their names may be only in memory, if the last writer was killed after its CLOSED mark.
    }
    // The MARK behind CLOSED promises what that does (no frame before it promises more, or the log
    // would not be clean), and not that frame: a crash may leave a hole in its place.
    let mut buf = FrameBuf::zeroed(BLOCK);
    segment.read(block - 1, &mut buf)?;
    let Head::Frame(header) = segment.binding.head(block - 1, &buf[..SECTOR]) else {
        return Err(io::Error::other("what was read a moment ago is not there")).doing("read the segment", &segment.path);
    };
    let closed = Placed { segment: segment.clone(), block: block - 1, header, buf, again: true, copying: None };
    let assembler = Assembler::behind_closed(segment, options.segment_blocks(), closed, has_space);
    let (entries, control) = (survey.chain.clone(), survey.control.clone());
    let durable = Promise { position: survey.promise.position, lsn: survey.last_lsn() };
    Ok(Opened { log: survey.log, assembler, spares, entries, control, durable, report })
}

impl RecoveryReport {
    fn new(verdict: Verdict, start_lsn: Lsn, last_lsn: Lsn) -> RecoveryReport {
        RecoveryReport {
            verdict,
            start_lsn,
            last_lsn,
            scanned_bytes: 0,
            rewritten_records: 0,
            given_up: Vec::new(),
            unknown_from: None,
            put_aside: Vec::new(),
            garbled_sectors: 0,
            took: std::time::Duration::ZERO,
        }
    }
}
