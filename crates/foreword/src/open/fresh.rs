//! The segments in which a fork goes on, and what becomes of files that are not the log's any more.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bug::bug;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::files::fill::at_once;
use crate::files::names::{Names, segment_name, within_reach};
use crate::files::prepare::Stuff;
use crate::files::reserve::can_be_reserve;
use crate::files::segment::Segment;
use crate::open::fork;
use crate::open::opened::Opened;
use crate::recovery::Survey;
use crate::{Error, Options, Result};

/// The segment in which a fork goes on, and those that are prepared behind it.
pub(super) struct Fresh {
    pub(super) segment: Arc<Segment>,
    pub(super) spares: VecDeque<Arc<Segment>>,
}

/// Takes the segments that were prepared, as far as they follow one another and every sector of
/// them was read and is unwritten: a crash may have kept any part of what was on its way there. One
/// in the way is replaced, under its name, for a SEAL may vouch for that.
pub(super) fn fresh_segments(options: &Options, dir: &Dir, survey: &Survey, epoch: u64, damaged: bool) -> Result<Fresh> {
    let usable = |e: u64| {
        let mut unwritten = survey.unwritten.contains(&e);
        bug!(TrustSpares, unwritten = true);
        unwritten && !damaged
    };
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
    let beyond = || survey.names.epochs.iter().copied().filter(|&e| e > survey.newest && !damaged);
    let unused: Vec<u64> = beyond().filter(|&e| !kept(e)).collect();
    // That they have no LINK may be only in the page cache: one whose LINK an opening was taking
    // back. (Of those that go, too, for one may stay.)
    let behind: Vec<u64> = beyond().filter(|&e| e != epoch).collect();
    if fork::take_links_back(dir, survey.log, &behind).is_err() {
        spares.clear();
    }
    fork::clear_away(dir, unused.into_iter().map(segment_name));
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

/// Makes a segment, of the log's size (or that of its tip, if that is larger and may be of the
/// reserve): of a superseded one of that size, or of new space; on a full disk, of a
/// superseded one of any size, of what an unfinished fork left under its name (before new space, if
/// a part of the reserve is missing), or of the reserve.
pub(super) fn fresh_segment(options: &Options, dir: &Dir, survey: &Survey, epoch: u64, damaged: bool) -> Result<Arc<Segment>> {
    let tip = survey.chain.last().map_or(0, |entry| dir.blocks_of(&segment_name(entry.epoch)));
    // One that may be of the reserve is written again, all of it, so as to be the reserve again.
    let mut blocks = if can_be_reserve(tip) { options.segment_blocks().max(tip) } else { options.segment_blocks() };
    bug!(ForgetLarger, blocks = options.segment_blocks());
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
    // What an unfinished fork left under the name, which may be of the reserve.
    let begun = || -> Result<Option<Arc<Segment>>> {
        let Ok((begun, None)) = dir.open_segment(Some(survey.log), epoch, Access::Write)? else { return Ok(None) };
        if begun.blank().is_err() {
            return Ok(None);
        }
        dir.sync()?; // Its name may be only in memory.
        Ok(Some(Arc::new(begun)))
    };
    // A new one would replace it, and its space be there for others.
    if dir.lacks_reserve(options.segment_blocks())
        && let Ok(Some(begun)) = begun()
    {
        return Ok(begun);
    }
    let error = match dir.prepare(survey.log, epoch, blocks, Stuff::Nothing, &at_once) {
        Err(error) if error.is_no_space() => error,
        made => return made,
    };
    if let Some(made) = reuse(&|_| true) {
        return made;
    }
    if let Ok(Some(begun)) = begun() {
        return Ok(begun);
    }
    dir.take_reserve(survey.log, epoch, blocks, tip, error)
}

/// Clears away what an unfinished step left under a temporary name. What it had made of the reserve
/// is the reserve again: there may be no space to make another.
pub(super) fn clear_temporary(dir: &Dir, names: &Names) {
    let rescued = |name: &&String| dir.rescue_reserve(name);
    fork::clear_away(dir, names.temporary.iter().filter(|name| !rescued(name)).cloned());
}

/// Of segments that are not of the log the reserve takes what it can use, and the rest goes.
fn give_up(dir: &Dir, epochs: impl Iterator<Item = u64>) {
    let (small, unneeded) = dir.fit_for_reserve(epochs);
    let unneeded = dir.fill_reserve(small).into_iter().chain(unneeded);
    fork::clear_away(dir, unneeded.map(segment_name));
}

/// Clears away what an earlier repair has begun, and was killed: its reserve is the reserve again,
/// and this one goes on in the same epoch, so that killed repairs do not add up. What a SEAL vouches
/// for stays until this one replaces it. What cannot be cleared away stays, and this one goes on
/// behind it.
pub(super) fn clear_begun(dir: &Dir, survey: &mut Survey, begun: &[u64]) {
    if begun.is_empty() || fork::take_links_back(dir, survey.log, begun).is_err() {
        return;
    }
    let is_sealed = |epoch| fork::is_sealed(dir, survey.log, epoch).unwrap_or(true);
    let vouches = |epoch: &u64| survey.names.epochs.contains(epoch) && !begun.contains(epoch) && is_sealed(*epoch);
    let vouched = begun.iter().copied().find(|epoch| vouches(&(epoch - 1)));
    give_up(dir, begun.iter().copied().filter(|&epoch| Some(epoch) != vouched));
    let stays = |epoch: &u64| !begun.contains(epoch) || dir.handle.id_of(&segment_name(*epoch)).is_ok();
    survey.names.epochs.retain(stays);
    survey.unsealed.retain(stays);
    let others = survey.names.epochs.iter().copied().filter(|&epoch| Some(epoch) != vouched);
    let promised = survey.promise.position.epoch;
    survey.highest = others.chain([promised]).map(within_reach).max().unwrap_or(0);
}

/// Of the superseded segments one stays, which is of the size that is asked for, if any is; of the
/// others the reserve takes what it can use, and the rest goes. Before another file is made, for an
/// opening that is killed behind its LINK leaves one: else so many openings would leave as many.
fn clear_superseded(dir: &Dir, survey: &Survey, blocks: u32) -> Result<Option<u64>> {
    let superseded = superseded(dir, survey)?;
    let fitness = |epoch: u64| (dir.has_blocks(epoch, blocks), dir.blocks_of(&segment_name(epoch)));
    let Some(best) = superseded.iter().copied().max_by_key(|&epoch| fitness(epoch)) else { return Ok(None) };
    give_up(dir, superseded.into_iter().filter(|&epoch| epoch != best));
    Ok(Some(best))
}

/// Segments past which a LINK of the chain leads, which is durable by now. Not those that were
/// dropped from the front: that they were may be only in the page cache, in a MARK, until the fork
/// says it, too.
pub(super) fn superseded(dir: &Dir, survey: &Survey) -> Result<Vec<u64>> {
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

/// Makes use of the files that are not of the log any more: as its reserve, and of one (or as many
/// as there are to be spares) as the next segment, but none while a part of the reserve is missing:
/// the next opening may need more than there is of it, when records have filled that segment. The
/// others go, and spares beyond what a log keeps. None of this can fail the opening: the log has
/// gone on.
pub(super) fn tidy_up(options: &Options, dir: &Dir, opened: &mut Opened, names: &Names) {
    opened.spares.truncate(options.spares_kept());
    dir.fill_holes_in_reserve();
    let superseded = names.epochs.iter().copied().filter(|&epoch| !opened.has(epoch));
    let (small, others) = dir.fit_for_reserve(superseded);
    let use_or_remove = |opened: &mut Opened, epochs: Vec<u64>| {
        let mut unneeded = Vec::new();
        for epoch in epochs {
            let next = opened.assembler.next_epoch(&opened.spares);
            let mut short = dir.lacks_reserve(options.segment_blocks());
            bug!(RecycleFirst, short = false);
            let spares_wanted = if short { 0 } else { options.spare_segments.max(1) };
            let wanted = opened.spares.len() < spares_wanted && epoch < next && !opened.has(epoch);
            if wanted && dir.has_blocks(epoch, options.segment_blocks()) {
                let recycled = dir.prepare(opened.log, next, options.segment_blocks(), Stuff::Segment(epoch), &at_once);
                opened.spares.extend(recycled);
            } else {
                unneeded.push(epoch);
            }
        }
        fork::clear_away(dir, unneeded.into_iter().filter(|&epoch| !opened.has(epoch)).map(segment_name));
    };
    // First those that cannot be the reserve: what they leave may be room for it.
    use_or_remove(opened, others);
    let (left, _) = dir.keep_reserve(options.segment_blocks(), small);
    use_or_remove(opened, left);
}
