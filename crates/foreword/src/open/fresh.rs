//! The segments in which a fork goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bug::bug;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::files::fill::at_once;
use crate::files::names::segment_name;
use crate::files::prepare::Stuff;
use crate::files::reserve::can_be_reserve;
use crate::files::segment::Segment;
use crate::open::clear;
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
    if clear::take_links_back(dir, survey.log, &behind).is_err() {
        spares.clear();
    }
    clear::clear_away(dir, unused.into_iter().map(segment_name));
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
    let superseded = if damaged { None } else { clear::clear_superseded(dir, survey, blocks)? };
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
