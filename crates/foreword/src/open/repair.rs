//! What is given up when a damaged log is opened all the same, or would be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::bug::bug;
use crate::error::{Damage, DamageKind, Doing};
use crate::files::dir::Dir;
use crate::files::disk::{Access, Disk, OsDisk};
use crate::files::names::{IDENTITY, segment_name, within_reach};
use crate::files::segment::Found;
use crate::format::{BLOCK, Entry, HEADER, Head, Kind, LINK_BLOCK, Link, Position, WAIVERS_MAX, Waiver};
use crate::open::fork;
use crate::options::OnDamage;
use crate::recovery::{self, Depth, Mended, Survey, Verdict};
use crate::{Error, Lsn, Result};

/// What is given up, and what is done with the files, when a damaged log is opened all the same.
#[derive(Debug, Default)]
pub(super) struct Repair {
    pub(super) waivers: Vec<Waiver>,
    pub(super) given_up: Vec<(Lsn, Lsn)>,
    /// Files of which a copy is kept, and files that are moved.
    pub(super) copied: Vec<String>,
    pub(super) moved: Vec<String>,
    /// Segments that an earlier attempt has begun, and prepared ones: nothing that the log lacks.
    pub(super) begun: Vec<u64>,
    /// The LSN to go on with.
    pub(super) next_lsn: Option<Lsn>,
    pub(super) unknown_from: Option<Lsn>,
}

impl Repair {
    /// A segment that is of no use (not even of this log, or of this place) does not stay under its
    /// name.
    fn move_what_is_off(&mut self, chain: &[Entry]) {
        let stays = |name: &String| name == IDENTITY || chain.iter().any(|e| segment_name(e.epoch) == *name);
        let (copied, off) = std::mem::take(&mut self.copied).into_iter().partition(stays);
        self.copied = copied;
        let new: Vec<_> = off.into_iter().filter(|name| !self.moved.contains(name)).collect();
        self.moved.extend(new);
    }
}

fn survey_all(dir: &Dir, depth: Depth, waivers: &[Waiver]) -> Result<Survey> {
    dir.there(recovery::survey(dir, dir.names()?, depth, waivers, &mut |_, _| Ok(()))?)
}

/// What going on with a damaged log would mean, from what was found when all of it was read.
pub(super) fn plan(dir: &Dir, action: OnDamage, found: Survey) -> Result<(Survey, Repair)> {
    let (mut repair, mut mended, mut survey) = (Repair::default(), Mended::default(), found);
    let mut in_fork = false;
    loop {
        let Verdict::Corruption(damage) = &survey.verdict else {
            // A fork that did not come to its end need not have all.
            repair.unknown_from = in_fork.then_some(survey.next_lsn);
            repair.move_what_is_off(&survey.chain);
            return Ok((survey, repair));
        };
        let name = damage.path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name == IDENTITY && !repair.copied.contains(&name) {
            repair.copied.push(name.clone());
        }
        if damage.kind == DamageKind::Identity {
            // It is written anew, and says nothing of the records: they are judged without it.
            mended.identity = true;
            survey = survey_all(dir, Depth::AllBut(mended), &repair.waivers)?;
            continue;
        }
        if damage.kind == DamageKind::Size && !mended.surplus {
            // Nothing of the log is behind a segment's last block: it is judged without that, too.
            let too_long = too_long(dir, &survey)?;
            if too_long.contains(&name) {
                repair.copied.extend(too_long);
                mended.surplus = true;
                survey = survey_all(dir, Depth::AllBut(mended), &repair.waivers)?;
                continue;
            }
        }
        if survey.names.epochs.iter().any(|&e| segment_name(e) == name) && !repair.copied.contains(&name) {
            repair.copied.push(name);
        }
        let behind = Behind::look(dir, &survey)?;
        if repair.waivers.is_empty() && !survey.chain.is_empty() {
            repair.begun.clone_from(&behind.begun);
        }
        if action == OnDamage::StopAtDamage {
            let beyond = survey.names.epochs.iter().filter(|&e| *e > survey.end.epoch && !repair.begun.contains(e));
            repair.moved = beyond.map(|&e| segment_name(e)).collect();
            repair.move_what_is_off(&survey.chain);
            if survey.known >= survey.next_lsn {
                repair.given_up.push((survey.next_lsn, survey.known));
            }
            // What a salvage would find says whether the log's end is known. (One that is refused
            // knows of too much damage.)
            let end = |salvage: (Survey, Repair)| salvage.1.unknown_from;
            let known = survey.known.next().max(survey.next_lsn);
            let unknown_from = plan(dir, OnDamage::Salvage, survey.clone()).map_or(Some(known), end);
            repair.unknown_from = unknown_from.map(|lsn| lsn.max(known));
            return Ok((survey, repair));
        }
        if survey.control.waivers.len() >= WAIVERS_MAX {
            let why = format!("more than {WAIVERS_MAX} stretches are damaged: stop at the damage, or restore a copy");
            return Err(Error::Invalid { what: "salvage", why });
        }
        let resumes = resume_after(dir, &survey, &behind.segments)?;
        // With nothing readable behind it, the log goes on in a fresh segment, above every LSN that
        // is known.
        let known = survey.known.max(damage.last_lsn.unwrap_or(Lsn::ZERO));
        let (to, next) = resumes.unwrap_or((Position::new(u64::MAX, LINK_BLOCK), known.next()));
        let waiver = Waiver { from: survey.end, to, first_lost: survey.next_lsn, last_lost: next.prev() };
        if waiver.last_lost >= waiver.first_lost {
            repair.given_up.push((waiver.first_lost, waiver.last_lost));
        }
        if resumes.is_none() {
            repair.unknown_from = Some(next);
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
        in_fork |= behind.unfinished.contains(&waiver.to.epoch);
        repair.waivers.push(waiver);
        survey = survey_all(dir, Depth::AllBut(mended), &repair.waivers)?;
    }
}

/// Files that are longer than their segments, but for those that the log has left.
fn too_long(dir: &Dir, survey: &Survey) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for &epoch in
        survey.names.epochs.iter().filter(|&&e| !survey.chain.iter().any(|entry| entry.epoch == e && entry.end.is_some()))
    {
        if let Ok((segment, Some(damage))) = dir.open_segment(Some(survey.log), epoch, Access::Read)?
            && segment.ends_before(&damage)
        {
            names.push(segment_name(epoch));
        }
    }
    Ok(names)
}

/// The segments from the break on, by what the LINKs say of them.
#[derive(Debug, Default)]
struct Behind {
    /// Those to search for what follows the damage: no LINK leads past them, and they are not begun.
    segments: Vec<u64>,
    /// Of these, what a fork left that did not come to its end, and that has records which the log
    /// lacks up to the break: they may be lost elsewhere.
    unfinished: BTreeSet<u64>,
    /// What else such a fork left, and prepared segments.
    begun: Vec<u64>,
}

impl Behind {
    fn look(dir: &Dir, survey: &Survey) -> Result<Behind> {
        let from = survey.break_at.epoch.max(1);
        let mut segments: Vec<u64> = survey.names.epochs.iter().copied().filter(|&e| e >= from && e == within_reach(e)).collect();
        bug!(FollowNoLinks, return Ok(Behind { segments, ..Behind::default() }));
        let mut preds = BTreeMap::new();
        // With the first segment of the fork, which gets its LINK last.
        let mut forks = BTreeMap::new();
        for &epoch in segments.iter().filter(|&&e| e > from) {
            let Ok((segment, _)) = dir.open_segment(Some(survey.log), epoch, Access::Read)? else { continue };
            match segment.frame(LINK_BLOCK, segment.data_end(), &mut Vec::new())? {
                Found::Frame(_) => {
                    let Some(link) = fork::link_of(&segment)?.filter(|link| link.follows(epoch)) else { continue };
                    match forks.get(&link.pred.epoch).copied() {
                        Some(first) => drop(forks.insert(epoch, first)),
                        None => drop(preds.insert(epoch, link.pred.epoch)),
                    }
                }
                // All that a fork writes promises what lies before it.
                Found::Unwritten | Found::Torn if survey.promise.position <= segment.at(LINK_BLOCK) => {
                    forks.insert(epoch, epoch);
                }
                _ => {}
            }
        }
        let mut alone = BTreeSet::new();
        for (&epoch, &first) in &forks {
            if has_more(dir, survey, epoch)? {
                alone.insert(first);
            }
        }
        bug!(DropUnfinished, alone.clear());
        let (unfinished, begun): (Vec<_>, Vec<_>) = forks.into_iter().partition(|(_, first)| alone.contains(first));
        let begun: Vec<u64> = begun.into_iter().map(|(epoch, _)| epoch).collect();
        segments.retain(|epoch| !begun.contains(epoch));
        let mut last = preds.last_key_value().map_or(0, |(&epoch, _)| epoch);
        while let Some(&pred) = preds.get(&last) {
            segments.retain(|&e| e >= last || e <= pred.max(from));
            last = pred;
        }
        Ok(Behind { segments, unfinished: unfinished.into_iter().map(|(epoch, _)| epoch).collect(), begun })
    }
}

/// Whether a segment has a record that the log lacks up to the break.
fn has_more(dir: &Dir, survey: &Survey, epoch: u64) -> Result<bool> {
    if survey.known < survey.next_lsn || survey.unwritten.contains(&epoch) {
        return Ok(false); // (Nothing has, or this has none.)
    }
    let Ok((segment, _)) = dir.open_segment(Some(survey.log), epoch, Access::Read)? else { return Ok(false) };
    let mut block = LINK_BLOCK;
    while block < segment.data_end() {
        block += match segment.head(block)? {
            Head::Frame(header) if header.next_lsn() > survey.next_lsn => return Ok(true),
            Head::Frame(header) => header.blocks(),
            _ => 1,
        };
    }
    Ok(false)
}

/// The next place behind the damage where a unit begins, and its LSN.
fn resume_after(dir: &Dir, survey: &Survey, segments: &[u64]) -> Result<Option<(Position, Lsn)>> {
    let mut buf = Vec::new();
    let at = survey.break_at;
    for &epoch in segments {
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

/// What repairing a log would do; nothing is changed. See [`repair_plan`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairPlan {
    /// What was found first.
    pub damage: Option<Damage>,
    /// LSNs that would be given up: first and last of each stretch.
    pub given_up: Vec<(Lsn, Lsn)>,
    /// Records from this LSN on may be lost besides: nothing can be read behind the damage, so
    /// nothing says how many there were. These LSNs are given to new records.
    pub unknown_from: Option<Lsn>,
    /// The LSN of the last record that would remain.
    pub last_lsn: Lsn,
    /// Files that would be put aside in `damaged/`.
    pub put_aside: Vec<String>,
}

/// What opening with [`Options::on_damage`](crate::Options::on_damage) would give up, without doing
/// it. Reads the whole log.
///
/// # Errors
/// As [`verify`](crate::verify), and [`Error::Invalid`] for [`OnDamage::Refuse`] or a log with too
/// many damages to salvage.
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
    let found = survey_all(&dir, Depth::All, &[])?;
    let Verdict::Corruption(damage) = found.verdict.clone() else {
        let (given_up, put_aside) = (Vec::new(), Vec::new());
        return Ok(RepairPlan { damage: None, given_up, unknown_from: None, last_lsn: found.last_lsn(), put_aside });
    };
    let (survey, repair) = plan(&dir, action, found)?;
    Ok(RepairPlan {
        damage: Some(damage),
        given_up: repair.given_up,
        unknown_from: repair.unknown_from,
        last_lsn: repair.next_lsn.unwrap_or(survey.next_lsn).prev(),
        put_aside: [repair.copied, repair.moved].concat(),
    })
}
