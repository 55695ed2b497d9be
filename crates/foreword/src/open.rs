//! Opening for writing: what the survey found, and what follows from it.

pub(crate) mod fork;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::bug::{self, Bug};
use crate::error::{Damage, DamageKind, Doing};
use crate::files::disk::{Access, Disk, OsDisk};
use crate::files::segment::{Dir, Found, IDENTITY, Names, STATS, Segment, Stuff, at_once, segment_name, within_reach};
use crate::format::{
    BLOCK, Control, Count, Cut, FRAME_MAX, FrameBuf, HEADER, Head, Kind, LINK_BLOCK, LSN_MAX, Link, LogId, Position, Promise,
    SECTOR, WAIVERS_MAX, Waiver,
};
use crate::observe::stats::RecoveryReport;
use crate::open::fork::{Branch, Place};
use crate::options::{Existence, OnDamage};
use crate::read::chain::{Chain, Snapshot};
use crate::recovery::{self, Depth, Entry, Survey, Verdict};
use crate::write::assemble::Assembler;
use crate::write::placed::Placed;
use crate::write::room::copy_room;
use crate::write::rotate::SPARES_KEPT;
use crate::{Error, Lsn, Options, Result};

/// A log, ready for its first append.
pub(crate) struct Opened {
    pub(crate) log: LogId,
    pub(crate) assembler: Assembler,
    pub(crate) spares: VecDeque<Arc<Segment>>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) control: Control,
    pub(crate) durable: Promise,
    pub(crate) report: RecoveryReport,
}

/// The directory, which is made if a log may be made in it.
fn open_dir(options: &Options, path: &Path) -> Result<Dir> {
    match Dir::open(&*options.disk, path) {
        Err(Error::NotFound { dir: path }) if options.existence != Existence::MustExist => {
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
    // (Where there is an identity there is a log, and no need to list its many names twice.)
    if options.existence == Existence::MustNotExist || dir.handle.open(IDENTITY, Access::Read).is_err() {
        look_before(options, &dir)?;
    }
    dir.lock()?;
    (dir.zero_fill, dir.reserve) = (options.zero_fill, options.reserve);
    let dir = dir;
    // Before the names are read: where `LOCK` was removed, another writer may be at work until it lets go of this one.
    let known = dir.handle.id_of(IDENTITY).is_ok();
    if known {
        dir.lock_identity()?;
    }
    // Again, now that nobody else can make one: a log made meanwhile is not to be made anew over it.
    let names = look_before(options, &dir)?;
    if names.identity && !known {
        dir.lock_identity()?;
    }
    dir.sign_lock();
    let mut opened = find(options, &dir, names)?;
    prepare_spares(options, &dir, &mut opened)?;
    opened.report.took = started.elapsed();
    let report = &opened.report;
    crate::trace::info!(
        verdict = report.verdict.name(),
        last_lsn = report.last_lsn.0,
        rewritten = report.rewritten_records,
        millis = report.took.as_millis() as u64,
        "opened"
    );
    Ok((dir, opened))
}

/// Recovers the log that is there, or makes one.
fn find(options: &Options, dir: &Dir, names: Names) -> Result<Opened> {
    // Who wants damage mended means all of it, not only what lies on the way to the end.
    let depth = if options.on_damage == OnDamage::Refuse { Depth::Tail } else { Depth::All };
    let found = recovery::survey(dir, names, depth, &[], &mut |_, _| {})?;
    match found {
        None if options.existence == Existence::MustExist => Err(Error::NotFound { dir: dir.path.clone() }),
        None => create(options, dir),
        Some(survey) => recover(options, dir, survey),
    }
}

/// As many spares as the options ask for, and the disk has room for.
fn prepare_spares(options: &Options, dir: &Dir, opened: &mut Opened) -> Result<()> {
    while opened.spares.len() < options.spare_segments {
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
    let names = dir.names()?;
    let exists = names.identity || !names.epochs.is_empty();
    match options.existence {
        Existence::MustExist if !exists => return Err(Error::NotFound { dir: dir.path.clone() }),
        Existence::MustNotExist if exists => return Err(Error::AlreadyExists { dir: dir.path.clone() }),
        _ => {}
    }
    // (Where no log ever was, `STATS` is another's.)
    let strange = names.others.iter().chain(names.temporary.iter().filter(|name| *name == STATS));
    if let Some(other) = strange.into_iter().find(|name| *name != "lost+found")
        && !exists
    {
        let why = format!("it holds other files ({other}), and no log: give it a directory of its own");
        return Err(Error::NotALog { dir: dir.path.clone(), why });
    }
    Ok(names)
}

fn create(options: &Options, dir: &Dir) -> Result<Opened> {
    if options.expect_lsn > Lsn::ZERO {
        return Err(Error::RolledBack { dir: dir.path.clone(), expected: options.expect_lsn, found: Lsn::ZERO });
    }
    // Whoever made the directory may not have made its name durable.
    dir.handle.sync_name().doing("sync the name of the directory", &dir.path)?;
    // What an earlier attempt left: nothing in it was ever active.
    let names = dir.names()?;
    fork::clear_away(dir, names.temporary.iter().cloned());
    fork::remove(dir, names.epochs.into_iter().map(segment_name))?;
    let random = LogId::random().map_err(|e| io::Error::other(e.to_string()));
    let log = random.doing("get random bytes for the log's identity", &dir.path)?;
    let first = dir.prepare(log, 1, options.segment_blocks(), Stuff::Nothing, &at_once)?;
    let control = Control::default();
    let link = Link { pred: Position::default(), cut: None, control: control.clone() };
    let mut assembler = Assembler::link(first, options.segment_blocks(), Count::START, &link);
    let mut link = assembler.take();
    link.iter_mut().try_for_each(|placed| placed.write(Promise::default(), true))?;
    dir.write_identity(log, false)?;
    dir.keep_reserve(options.segment_blocks(), Vec::new());
    let entries = link.iter().map(|link| Entry::new(1, &link.header)).collect();
    let durable = assembler.end();
    let report = RecoveryReport::new(Verdict::Created, Lsn::FIRST, Lsn::ZERO);
    Ok(Opened { log, assembler, spares: VecDeque::new(), entries, control, durable, report })
}

/// What is given up, and what is done with the files, when a damaged log is opened all the same.
#[derive(Debug, Default)]
struct Repair {
    waivers: Vec<Waiver>,
    given_up: Vec<(Lsn, Lsn)>,
    /// Files of which a copy is kept, and files that are moved.
    copied: Vec<String>,
    moved: Vec<String>,
    /// The LSN to go on with.
    next_lsn: Option<Lsn>,
}

impl Repair {
    /// A segment that is of no use (not even of this log, or of this place) does not stay under its name.
    fn move_what_is_off(&mut self, chain: &[Entry]) {
        let on_chain = |name: &String| chain.iter().any(|e| segment_name(e.epoch) == *name);
        let (copied, off) = std::mem::take(&mut self.copied).into_iter().partition(on_chain);
        self.copied = copied;
        let new: Vec<_> = off.into_iter().filter(|name| !self.moved.contains(name)).collect();
        self.moved.extend(new);
    }
}

fn recover(options: &Options, dir: &Dir, found: Survey) -> Result<Opened> {
    let verdict = found.verdict.clone();
    let (survey, repair) = match &verdict {
        Verdict::Corruption(damage) => match options.on_damage {
            OnDamage::Refuse => return Err(Error::Corruption(Arc::new(damage.clone()))),
            action => plan(dir, action)?,
        },
        _ => (found, Repair::default()),
    };
    if let Some(expected) = options.expect_id.filter(|&id| id != survey.log) {
        let why = format!("it is log {}, not {expected}", survey.log);
        return Err(Error::NotALog { dir: dir.path.clone(), why });
    }
    let last_lsn = repair.next_lsn.unwrap_or(survey.next_lsn).prev();
    if last_lsn < options.expect_lsn {
        return Err(Error::RolledBack { dir: dir.path.clone(), expected: options.expect_lsn, found: last_lsn });
    }
    if last_lsn.0 > LSN_MAX.0 / 2 {
        // What was appended would be acknowledged, and not be read again beyond the last LSN that there may be.
        let why = format!("it is at LSN {last_lsn}, which no log reaches, and leaves too few to go on: restore a copy");
        return Err(Error::Invalid { what: "log", why });
    }
    let mut report = RecoveryReport::new(verdict, survey.control.start, last_lsn);
    report.scanned_bytes = survey.scanned;
    report.garbled_sectors = survey.garbled_behind;
    report.given_up.clone_from(&repair.given_up);
    report.put_aside = repair.copied.iter().chain(&repair.moved).cloned().collect();
    // First: on a full disk it is room.
    fork::clear_away(dir, survey.names.temporary.iter().cloned());
    for name in &repair.copied {
        fork::put_aside(dir, name, true)?;
    }
    for name in &repair.moved {
        fork::put_aside(dir, name, false)?;
    }
    if !survey.names.identity {
        // `LOG` and `LOCK` may have been removed under a writer, which finds that out only when what it writes now has landed. (It may be only
        // the want of room that this fails for, and then such a writer is the smaller danger.)
        let proven = survey.promise.position.epoch;
        let moved = |epoch: &u64| repair.moved.contains(&segment_name(*epoch));
        let written = survey.names.epochs.iter().copied().filter(|epoch| *epoch >= proven && !moved(epoch));
        match fork::replace_by_copies(dir, written) {
            Err(error) if !error.is_no_space() => return Err(error),
            _ => {}
        }
    }
    if let Some(epoch) = survey.unproven_link.filter(|_| !bug::is(Bug::TrustLink)) {
        rewrite_link(dir, survey.log, epoch)?;
    }
    if !survey.names.identity || dir.read_identity()?.as_ref() != Ok(&survey.log) {
        dir.write_identity(survey.log, survey.names.identity)?;
    }
    let in_place = bug::is(Bug::AppendAfterTear) && matches!(report.verdict, Verdict::Unclosed | Verdict::TornTail);
    // (Garbled sectors ahead would stand in the way of a later frame.)
    let mut opened = if (report.verdict == Verdict::Clean && report.garbled_sectors == 0) || in_place {
        resume(options, dir, &survey, report)?
    } else {
        branch(options, dir, &survey, &repair, report)?
    };
    tidy_up(options, dir, &mut opened, &survey.names);
    Ok(opened)
}

/// Makes use of the files that are not of the log any more: as its reserve, and of one (or as many as there are to be spares) as the next
/// segment. The others go, and spares beyond what a log keeps. None of this can fail the opening: the log has gone on.
fn tidy_up(options: &Options, dir: &Dir, opened: &mut Opened, names: &Names) {
    opened.spares.truncate(SPARES_KEPT.max(options.spare_segments));
    let of_log = |opened: &Opened, epoch: u64| {
        opened.entries.binary_search_by_key(&epoch, |e| e.epoch).is_ok() || opened.spares.iter().any(|s| s.epoch() == epoch)
    };
    let superseded = names.epochs.iter().copied().filter(|&epoch| !of_log(opened, epoch));
    let (small, others) = dir.fit_for_reserve(options.segment_blocks(), superseded);
    let use_or_remove = |opened: &mut Opened, epochs: Vec<u64>| {
        let mut unneeded = Vec::new();
        for epoch in epochs {
            let next = opened.assembler.next_epoch(&opened.spares);
            let wanted = opened.spares.len() < options.spare_segments.max(1) && epoch < next && !of_log(opened, epoch);
            if wanted && dir.has_blocks(epoch, options.segment_blocks()) {
                let recycled = dir.prepare(opened.log, next, options.segment_blocks(), Stuff::Segment(epoch), &at_once);
                opened.spares.extend(recycled);
            } else {
                unneeded.push(epoch);
            }
        }
        fork::clear_away(dir, unneeded.into_iter().filter(|&epoch| !of_log(opened, epoch)).map(segment_name));
    };
    // First those that cannot be the reserve: what they leave may be room for it.
    use_or_remove(opened, others);
    let (left, _) = dir.keep_reserve(options.segment_blocks(), small);
    use_or_remove(opened, left);
}

/// The page cache may show a LINK that the disk never got (hazard 11), and no frame behind it proves more: the same bytes are written
/// again, before anything is built on it.
fn rewrite_link(dir: &Dir, log: LogId, epoch: u64) -> Result<()> {
    let Ok((segment, _)) = dir.open_segment(Some(log), epoch, Access::Write)? else { return Ok(()) };
    let Found::Frame(header) = segment.frame(LINK_BLOCK, segment.data_end(), &mut Vec::new())? else { return Ok(()) };
    let mut link = FrameBuf::zeroed(header.frame_len());
    segment.read(LINK_BLOCK, &mut link)?; // As it lies on the disk, tags and all.
    segment.write(LINK_BLOCK, &mut [io::IoSlice::new(&link)], true)
}

/// After a clean close: the log goes on where it ended, once something is appended. Until then nothing is written.
fn resume(options: &Options, dir: &Dir, survey: &Survey, report: RecoveryReport) -> Result<Opened> {
    let (epoch, block) = (survey.end.epoch, survey.end.block);
    let segment = match dir.open_segment(Some(survey.log), epoch, Access::Write)? {
        Ok((segment, _)) => Arc::new(segment),
        Err(damage) => return Err(Error::Corruption(Arc::new(damage))),
    };
    segment.reserve_space()?;
    // Spares that the last writer had prepared are what they were; but only the next epochs in a row are of use. (A cut may have begun in them where there was no
    // room for the MARK that says so first.)
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
    // The MARK behind CLOSED promises what that does (no frame before it promises more, or the log would not be clean), and not that frame: a crash may leave a
    // hole in its place.
    let mut buf = FrameBuf::zeroed(BLOCK);
    segment.read(block - 1, &mut buf)?;
    let Head::Frame(header) = segment.binding.head(block - 1, &buf[..SECTOR]) else {
        return Err(io::Error::other("what was read a moment ago is not there")).doing("read the segment", &segment.path);
    };
    let closed = Placed { segment: segment.clone(), block: block - 1, header, buf, again: true, copying: None };
    let assembler = Assembler::behind_closed(segment, options.segment_blocks(), closed);
    let (entries, control) = (survey.chain.clone(), survey.control.clone());
    let durable = Promise { position: survey.promise.position, lsn: survey.last_lsn() };
    Ok(Opened { log: survey.log, assembler, spares, entries, control, durable, report })
}

/// After anything else: it goes on in a fresh segment.
fn branch(options: &Options, dir: &Dir, survey: &Survey, repair: &Repair, mut report: RecoveryReport) -> Result<Opened> {
    let damaged = matches!(report.verdict, Verdict::Corruption(_));
    // What no promise covers may be only in the page cache.
    let unproven = unproven_from(survey);
    let end = Place { at: survey.end, next_lsn: repair.next_lsn.unwrap_or(survey.next_lsn) };
    let lost = matches!(&report.verdict, Verdict::Corruption(damage) if damage.kind == DamageKind::LostNewest);
    let epoch = if damaged { survey.highest + 1 + u64::from(lost) } else { survey.newest + 1 };
    let mut control = survey.control.clone();
    for waiver in &repair.waivers {
        if !control.waivers.contains(waiver) {
            control.waivers.push(*waiver);
        }
    }
    if damaged {
        control.cut(); // LSNs that were acknowledged may be given to other records, even where nothing says which.
    }
    for waiver in &mut control.waivers {
        if waiver.to.epoch == u64::MAX {
            waiver.to = Position::new(epoch, LINK_BLOCK);
        }
    }
    let fresh = fresh_segments(options, dir, survey, epoch, damaged)?;
    // Copies would close the gaps that a salvage leaves in the LSNs.
    let from = unproven.unwrap_or(end);
    let (from, absorbed_cut) = if !control.waivers.is_empty() || damaged {
        (from, None)
    } else {
        fork::absorb(dir, survey.log, &survey.chain, options.segment_blocks(), from)?
    };
    let bytes_before = |lsn| {
        let chain = Chain::new(survey.log, survey.chain.clone(), &survey.control);
        Snapshot::reader(dir, &chain, Lsn::FIRST, survey.last_lsn()).bytes_before(lsn)
    };
    let copied = fork::blocks_behind(&survey.chain, from.at, survey.end);
    let has_room = fresh.segment.blocks >= options.segment_blocks() || copied <= u64::from(copy_room(fresh.segment.blocks));
    let mut unsealed: Vec<u64> = survey.unsealed.iter().copied().filter(|&e| !repair.moved.contains(&segment_name(e))).collect();
    if !damaged && !bug::is(Bug::SealLate) {
        // Before anything else: what shows that the log went on behind a clean close may be only in the page cache, and without it the log
        // would be closed, whatever the fork has begun to write. The fresh segment is there, as a SEAL says.
        fork::seal_off(dir, survey.log, survey.newest, from, bytes_before(from.next_lsn))?;
        unsealed.retain(|&epoch| epoch != survey.newest);
    }
    let go_on = |from: Place, Fresh { segment, spares }: Fresh| {
        let mut control = control.clone();
        let front = survey.chain.iter().find(|e| e.epoch <= from.at.epoch).map_or(u64::MAX, |e| e.epoch);
        control.waivers.retain(|w| w.to.epoch >= front || damaged);
        let own = damaged.then_some(Cut { since: survey.control.generation, at: from.next_lsn });
        let cut = own.or(absorbed_cut.filter(|_| from != end));
        let branch = Branch {
            log: survey.log,
            from,
            bytes: bytes_before(from.next_lsn),
            cut,
            segment_blocks: options.segment_blocks(),
            fresh: segment,
            spares,
            unsealed: unsealed.clone(),
            control: control.clone(),
        };
        let chain = Chain { start: Lsn::FIRST, ..Chain::new(survey.log, survey.chain.clone(), &control) };
        let copies = (from != end).then(|| Snapshot::reader(dir, &chain, from.next_lsn, survey.last_lsn()));
        fork::fork(dir, branch, copies)?.join().map(|branched| (from, control, branched))
    };
    // What no promise covers is written again: there, or, where copies cannot be or have no room, in place.
    let in_place = |fresh| {
        if let Some(unproven) = unproven {
            write_again(dir, survey, unproven.at)?;
        }
        go_on(end, fresh)
    };
    let (from, control, mut branched) = if !repair.waivers.is_empty() || !has_room {
        in_place(fresh)?
    } else {
        match go_on(from, fresh) {
            Err(error) if error.is_no_space() && from != end => {
                let begun = dir.names()?.epochs.into_iter().filter(|&e| e > epoch);
                fork::clear_away(dir, begun.map(segment_name));
                in_place(Fresh { segment: fresh_segment(options, dir, survey, epoch, damaged)?, spares: VecDeque::new() })?
            }
            gone_on => gone_on?,
        }
    };
    if let Some(written_to) = survey.written_to.filter(|w| w.epoch == from.at.epoch && !damaged) {
        give_back_rest(dir, survey.log, written_to)?;
    }
    if from.next_lsn <= survey.promise.lsn {
        branched.prove(&control)?;
    }
    report.rewritten_records = branched.copied;
    let mut entries = fork::up_to(&survey.chain, from.at);
    entries.extend(&branched.entries);
    let (assembler, spares, durable) = (branched.assembler, branched.spares, branched.durable);
    Ok(Opened { log: survey.log, assembler, spares, entries, control, durable, report })
}

/// Where the log holds what no promise covers; `None` if there is nothing. (A promise beyond the end proves all before it.)
fn unproven_from(survey: &Survey) -> Option<Place> {
    let proven = survey.promise.position.min(survey.end);
    if proven == survey.end || bug::is(Bug::TrustCache) {
        return None;
    }
    if survey.chain.iter().any(|e| e.epoch == survey.promise.position.epoch) {
        return Some(Place { at: proven, next_lsn: survey.promise.lsn.next() });
    }
    // Nothing was promised yet, or only what is dropped by now. The first segment that is left, at least, was begun durably: before the log had its
    // identity, or before what preceded it was dropped.
    let first = survey.chain.first();
    Some(Place {
        at: first.map_or(Position::default(), |e| Position::new(e.epoch, LINK_BLOCK + 1)),
        next_lsn: first.map_or(survey.next_lsn, |e| e.first_lsn),
    })
}

/// The segment in which a fork goes on, and those that are prepared behind it.
struct Fresh {
    segment: Arc<Segment>,
    spares: VecDeque<Arc<Segment>>,
}

/// Takes the segments that were prepared, as far as they follow one another and every sector of them was read and is unwritten: a crash may
/// have kept any part of what was on its way there. One in the way is replaced, under its name, for a SEAL may vouch for that.
fn fresh_segments(options: &Options, dir: &Dir, survey: &Survey, epoch: u64, damaged: bool) -> Result<Fresh> {
    let usable = |e: u64| !damaged && (survey.unwritten.contains(&e) || bug::is(Bug::TrustSpares));
    let open = |e: u64| match dir.open_segment(Some(survey.log), e, Access::Write) {
        Ok(Ok((segment, None))) if usable(e) && segment.blocks == options.segment_blocks() && segment.reserve_space().is_ok() => {
            Some(Arc::new(segment))
        }
        _ => None,
    };
    let mut ready: VecDeque<_> = (epoch..).map_while(|e| survey.names.epochs.contains(&e).then(|| open(e))).collect();
    let first = ready.pop_front().flatten();
    let mut spares: VecDeque<_> = ready.into_iter().map_while(|spare| spare).collect();
    // (Without damage, what lies beyond the newest active segment was never part of the log.)
    let kept = |e: u64| e == epoch || spares.iter().any(|s| s.epoch() == e);
    let unused = survey.names.epochs.iter().copied().filter(|&e| e > survey.newest && !kept(e) && !damaged);
    fork::clear_away(dir, unused.map(segment_name));
    if first.is_some() || !spares.is_empty() {
        dir.sync()?; // Their names may be only in memory, if the last writer was killed.
    }
    let segment = match (first, spares.pop_back()) {
        (Some(segment), last) => {
            spares.extend(last);
            segment
        }
        (None, Some(last)) => dir.prepare(survey.log, epoch, last.blocks, Stuff::Segment(last.epoch()), &at_once)?,
        (None, None) => fresh_segment(options, dir, survey, epoch, damaged)?,
    };
    Ok(Fresh { segment, spares })
}

/// Makes a segment: of a superseded one of its size, or of new space; on a full disk, of a superseded one of any size, of what an unfinished
/// fork left under its name, or of the reserve.
fn fresh_segment(options: &Options, dir: &Dir, survey: &Survey, epoch: u64, damaged: bool) -> Result<Arc<Segment>> {
    let blocks = options.segment_blocks();
    // (Of a damaged log they are evidence.)
    let superseded = if damaged { None } else { clear_superseded(dir, survey, blocks)? };
    let reuse = |fits: &dyn Fn(u32) -> bool| {
        let old = superseded?;
        let Ok(Ok((segment, None))) = dir.open_segment(Some(survey.log), old, Access::Read) else { return None };
        let made = fits(segment.blocks).then(|| dir.prepare(survey.log, epoch, segment.blocks, Stuff::Segment(old), &at_once))?;
        (!made.as_ref().is_err_and(Error::is_no_space)).then_some(made)
    };
    if let Some(made) = reuse(&|there| there == blocks) {
        return made;
    }
    let error = match dir.prepare(survey.log, epoch, blocks, Stuff::Nothing, &at_once) {
        Err(error) if error.is_no_space() => error,
        made => return made,
    };
    if let Some(made) = reuse(&|_| true) {
        return made;
    }
    if let Ok(Ok((begun, None))) = dir.open_segment(Some(survey.log), epoch, Access::Write)
        && begun.blank().is_ok()
    {
        dir.sync()?; // Its name may be only in memory.
        return Ok(Arc::new(begun));
    }
    dir.take_reserve(survey.log, epoch, blocks, error)
}

/// Of the superseded segments one stays, which is of the size that is asked for, if any is; of the others the reserve takes what it can use,
/// and the rest goes. Before another file is made, for an opening that is killed behind its LINK leaves one: else so many openings would leave
/// as many.
fn clear_superseded(dir: &Dir, survey: &Survey, blocks: u32) -> Result<Option<u64>> {
    let superseded = superseded(dir, survey)?;
    let fitness = |epoch: u64| (dir.has_blocks(epoch, blocks), dir.blocks_of(&segment_name(epoch)));
    let Some(best) = superseded.iter().copied().max_by_key(|&epoch| fitness(epoch)) else { return Ok(None) };
    let (small, unneeded) = dir.fit_for_reserve(blocks, superseded.into_iter().filter(|&epoch| epoch != best));
    let unneeded = dir.fill_reserve(small).into_iter().chain(unneeded);
    fork::clear_away(dir, unneeded.map(segment_name));
    Ok(Some(best))
}

/// Segments past which a LINK of the chain leads, which is durable by now. Not those that were dropped from the front: that they were may be
/// only in the page cache, in a MARK, until the fork says it, too.
fn superseded(dir: &Dir, survey: &Survey) -> Result<Vec<u64>> {
    let (Some(first), Some(tip)) = (survey.chain.first(), survey.chain.last()) else { return Ok(Vec::new()) };
    let link = match dir.open_segment(Some(survey.log), first.epoch, Access::Read)? {
        Ok((segment, None)) => fork::link_of(&segment)?,
        _ => None,
    };
    let dropped = link.map_or(first.epoch, |link| link.pred.epoch);
    let on_chain = |epoch: u64| survey.chain.iter().any(|entry| entry.epoch == epoch);
    let behind = survey.names.epochs.iter().copied().filter(|&epoch| epoch > dropped && epoch < tip.epoch);
    // (A first attempt may have taken one.)
    Ok(behind.filter(|&epoch| !on_chain(epoch) && dir.blocks_of(&segment_name(epoch)) > 0).collect())
}

/// Gives back the space behind what was ever written to the segment in which the log left its branch.
fn give_back_rest(dir: &Dir, log: LogId, written_to: Position) -> Result<()> {
    if let Ok((segment, None)) = dir.open_segment(Some(log), written_to.epoch, Access::Write)? {
        segment.give_back(written_to.block);
    }
    Ok(())
}

/// Writes what lies between a position and the end of the log once more, byte by byte the same, durably.
fn write_again(dir: &Dir, survey: &Survey, from: Position) -> Result<()> {
    let mut buf = vec![0; FRAME_MAX];
    for entry in survey.chain.iter().filter(|e| e.epoch >= from.epoch) {
        let segment = match dir.open_segment(Some(survey.log), entry.epoch, Access::Write)? {
            Ok((segment, _)) => segment,
            Err(damage) => return Err(Error::Corruption(Arc::new(damage))),
        };
        let end = entry.end.unwrap_or(survey.end.block);
        let mut block = if entry.epoch == from.epoch { from.block } else { LINK_BLOCK };
        while block < end {
            let want = buf.len().min((end - block) as usize * BLOCK);
            let read = segment.read(block, &mut buf[..want])?;
            segment.write(block, &mut [io::IoSlice::new(&buf[..read])], true)?;
            if read < want {
                break;
            }
            block += (want / BLOCK) as u32;
        }
    }
    Ok(())
}

/// What going on with a damaged log would mean.
fn plan(dir: &Dir, action: OnDamage) -> Result<(Survey, Repair)> {
    let mut repair = Repair::default();
    loop {
        let survey = dir.there(recovery::survey(dir, dir.names()?, Depth::All, &repair.waivers, &mut |_, _| {})?)?;
        let Verdict::Corruption(damage) = &survey.verdict else {
            repair.move_what_is_off(&survey.chain);
            return Ok((survey, repair));
        };
        let name = damage.path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name == IDENTITY {
            repair.copied.push(name);
            return Ok((survey, repair));
        }
        if survey.names.epochs.iter().any(|&e| segment_name(e) == name) && !repair.copied.contains(&name) {
            repair.copied.push(name);
        }
        if action == OnDamage::StopAtDamage {
            let beyond = survey.names.epochs.iter().filter(|&&e| e > survey.end.epoch).map(|&e| segment_name(e));
            repair.moved = beyond.collect();
            repair.move_what_is_off(&survey.chain);
            if survey.known >= survey.next_lsn {
                repair.given_up.push((survey.next_lsn, survey.known));
            }
            return Ok((survey, repair));
        }
        if survey.control.waivers.len() >= WAIVERS_MAX {
            let why = format!("more than {WAIVERS_MAX} stretches are damaged: stop at the damage, or restore a copy");
            return Err(Error::Invalid { what: "salvage", why });
        }
        let resumes = resume_after(dir, &survey)?;
        // With nothing readable behind it, the log goes on in a fresh segment, above every LSN that is known.
        let known = survey.known.max(damage.last_lsn.unwrap_or(Lsn::ZERO));
        let (to, next) = resumes.unwrap_or((Position::new(u64::MAX, LINK_BLOCK), known.next()));
        let waiver = Waiver { from: survey.end, to, first_lost: survey.next_lsn, last_lost: next.prev() };
        if waiver.last_lost >= waiver.first_lost {
            repair.given_up.push((waiver.first_lost, waiver.last_lost));
        }
        if resumes.is_none() {
            if next > survey.next_lsn {
                repair.waivers.push(waiver);
                repair.next_lsn = Some(next);
            }
            repair.move_what_is_off(&survey.chain);
            return Ok((survey, repair));
        }
        if repair.waivers.contains(&waiver) {
            let why = format!(
                "{} stays damaged, whatever of it is given up: stop at the damage, or restore a copy",
                damage.path.display()
            );
            return Err(Error::Invalid { what: "salvage", why });
        }
        repair.waivers.push(waiver);
    }
}

/// The next place behind the damage where a unit begins, and its LSN.
fn resume_after(dir: &Dir, survey: &Survey) -> Result<Option<(Position, Lsn)>> {
    let mut buf = Vec::new();
    let at = survey.break_at;
    for &epoch in survey.names.epochs.iter().filter(|&&e| e >= at.epoch.max(1) && e == within_reach(e)) {
        let Ok((segment, short)) = dir.open_segment(Some(survey.log), epoch, Access::Read)? else { continue };
        let is_link = |found: &Found| matches!(found, Found::Frame(header) if header.kind == Kind::Link);
        if short.is_some() && !is_link(&segment.frame(LINK_BLOCK, segment.data_end(), &mut buf)?) {
            continue; // With neither its length nor its LINK, no survey makes use of it.
        }
        // Where the log is known to leave a segment, nothing behind that is of the log.
        let end = survey.chain.iter().find(|e| e.epoch == epoch).and_then(|e| e.end).unwrap_or(segment.data_end());
        let there = segment.file.len().doing("read the segment's length", &segment.path)? / BLOCK as u64;
        let end = u64::from(end).min(there) as u32;
        let mut block = if epoch == at.epoch { at.block + 1 } else { LINK_BLOCK };
        while block < end {
            if let Found::Frame(header) = segment.frame(block, end, &mut buf)? {
                let begins = match header.kind {
                    Kind::Link => block == LINK_BLOCK && Link::decode(&buf[HEADER..]).is_some(),
                    Kind::Data => !header.has(crate::format::CONTINUED),
                    Kind::Mark => true,
                    Kind::Header | Kind::Seal => false,
                };
                if begins && header.first_lsn() >= survey.next_lsn {
                    return Ok(Some((segment.at(block), header.first_lsn())));
                }
            }
            block += 1;
        }
    }
    Ok(None)
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
            put_aside: Vec::new(),
            garbled_sectors: 0,
            took: std::time::Duration::ZERO,
        }
    }
}

/// What repairing a log would do; nothing is changed. See [`repair_plan`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairPlan {
    /// What was found first.
    pub damage: Option<Damage>,
    /// LSNs that would be given up: first and last of each stretch.
    pub given_up: Vec<(Lsn, Lsn)>,
    /// The LSN of the last record that would remain.
    pub last_lsn: Lsn,
    /// Files that would be put aside in `damaged/`.
    pub put_aside: Vec<String>,
}

/// What opening with [`Options::on_damage`] would give up, without doing it. Reads the whole log.
///
/// # Errors
/// As [`verify`](crate::verify), and [`Error::Invalid`] for [`OnDamage::Refuse`] or a log with too many damages to salvage.
pub fn repair_plan(dir: impl AsRef<Path>, action: OnDamage) -> Result<RepairPlan> {
    repair_plan_on(Arc::new(OsDisk::new()), dir, action)
}

/// As [`repair_plan`], on a file system of one's own.
///
/// # Errors
/// As [`repair_plan`].
pub fn repair_plan_on(disk: Arc<dyn Disk>, dir: impl AsRef<Path>, action: OnDamage) -> Result<RepairPlan> {
    let dir = Dir::open(&*disk, dir.as_ref())?;
    if action == OnDamage::Refuse {
        return Err(Error::Invalid { what: "action", why: "to refuse repairs nothing".into() });
    }
    let first = dir.there(recovery::survey(&dir, dir.names()?, Depth::All, &[], &mut |_, _| {})?)?;
    let damage = match first {
        Survey { verdict: Verdict::Corruption(damage), .. } => Some(damage),
        survey => {
            let last_lsn = survey.last_lsn();
            return Ok(RepairPlan { damage: None, given_up: Vec::new(), last_lsn, put_aside: Vec::new() });
        }
    };
    let (survey, repair) = plan(&dir, action)?;
    Ok(RepairPlan {
        damage,
        given_up: repair.given_up,
        last_lsn: repair.next_lsn.unwrap_or(survey.next_lsn).prev(),
        put_aside: [repair.copied, repair.moved].concat(),
    })
}
