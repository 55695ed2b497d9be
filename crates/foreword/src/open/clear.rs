//! What becomes of files that are not the log's any more, or never were.

use std::io;

use crate::bug::bug;
use crate::error::Doing;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::files::fill::at_once;
use crate::files::names::{Names, segment_name};
use crate::files::prepare::Stuff;
use crate::files::segment::Seal;
use crate::format::{BLOCK, FrameBuf, LINK_BLOCK, LogId};
use crate::open::fork::link_of;
use crate::open::opened::Opened;
use crate::recovery::Survey;
use crate::{Options, Result};

/// Removes what a fork has begun behind its first segment, and did not join to the log; returns
/// whether it is gone. The log is sound with or without it.
pub(crate) fn remove_begun(dir: &Dir, log: LogId, first: u64) -> bool {
    let removed = dir.names().and_then(|names| {
        let begun: Vec<u64> = names.epochs.into_iter().filter(|&epoch| epoch > first).collect();
        take_links_back(dir, log, &begun)?;
        remove(dir, begun.into_iter().map(segment_name))
    });
    if let Err(error) = &removed {
        crate::trace::warn!(error = %error, "cannot remove what an unfinished fork has left");
    }
    removed.is_ok()
}

/// Takes back the LINKs of segments that a fork has begun, which are in the order of their epochs:
/// the newest first, durably. Only then they can be removed one by one: one that has a LINK and
/// whose predecessor is gone would be taken for the front of a log that has lost what was before,
/// and one that is sealed vouches for the next. That no LINK is seen there may be only in the page
/// cache, where an attempt before was killed or failed.
pub(crate) fn take_links_back(dir: &Dir, log: LogId, epochs: &[u64]) -> Result<()> {
    for &epoch in epochs.iter().rev() {
        let Ok((segment, _)) = dir.open_segment(Some(log), epoch, Access::Write)? else { continue };
        bug!(
            TrustZeros,
            if link_of(&segment)?.is_none() {
                continue;
            }
        );
        segment.write(LINK_BLOCK, &mut [io::IoSlice::new(&FrameBuf::zeroed(BLOCK))], true)?;
    }
    Ok(())
}

/// As [`remove`], where the log is sound with or without them: what cannot be removed stays, and is
/// tried again by the next opening.
pub(crate) fn clear_away(dir: &Dir, names: impl IntoIterator<Item = String>) {
    for name in names {
        if let Err(error) = remove(dir, [name]) {
            crate::trace::warn!(error = %error, "cannot remove a file that is not of the log any more");
        }
    }
}

/// Removes files that are not of the log any more. Their loss or survival in a crash makes no
/// difference.
pub(crate) fn remove(dir: &Dir, names: impl IntoIterator<Item = String>) -> Result<()> {
    let mut any = false;
    for name in names {
        dir.remove_if_there(&name).doing("remove the file", &dir.file(&name))?;
        any = true;
    }
    if any { dir.sync() } else { Ok(()) }
}

/// Clears away what an unfinished step left under a temporary name. What it had made of the reserve
/// is the reserve again: there may be no space to make another.
pub(super) fn clear_temporary(dir: &Dir, names: &Names) {
    let rescued = |name: &&String| dir.rescue_reserve(name);
    clear_away(dir, names.temporary.iter().filter(|name| !rescued(name)).cloned());
}

/// Of segments that are not of the log the reserve takes what it can use, and the rest goes.
fn give_up(dir: &Dir, epochs: impl Iterator<Item = u64>) {
    let (small, unneeded) = dir.fit_for_reserve(epochs);
    let unneeded = dir.fill_reserve(small).into_iter().chain(unneeded);
    clear_away(dir, unneeded.map(segment_name));
}

/// Clears away what an earlier repair has begun, and was killed: its reserve is the reserve again,
/// and this one goes on in the same epoch, so that killed repairs do not add up. What a SEAL vouches
/// for stays until this one replaces it, and does not count as given to a segment. What cannot be
/// cleared away stays, and this one goes on behind it.
pub(super) fn clear_begun(dir: &Dir, survey: &mut Survey, begun: &[u64]) {
    if begun.is_empty() || take_links_back(dir, survey.log, begun).is_err() {
        return;
    }
    let is_sealed = |epoch| match dir.open_segment(Some(survey.log), epoch, Access::Read) {
        Ok(Ok((segment, None))) => !matches!(segment.seal(), Ok(Seal::Absent | Seal::Damaged)),
        Ok(_) => false,
        Err(_) => true,
    };
    let vouches = |epoch: u64| survey.names.epochs.contains(&epoch) && !begun.contains(&epoch) && is_sealed(epoch);
    let (mut vouched, mut others): (Vec<_>, Vec<_>) = begun.iter().partition(|&&epoch| vouches(epoch - 1));
    bug!(ClearVouched, others.append(&mut vouched));
    give_up(dir, others.iter().copied());
    let stays = |epoch: &u64| !others.contains(epoch) || dir.handle.id_of(&segment_name(*epoch)).is_ok();
    survey.unsealed.retain(stays);
    survey.names.epochs.retain(|epoch| stays(epoch) && !vouched.contains(epoch));
}

/// Of the superseded segments one stays, which is of the size that is asked for, if any is; of the
/// others the reserve takes what it can use, and the rest goes. Before another file is made, for an
/// opening that is killed behind its LINK leaves one: else so many openings would leave as many.
pub(super) fn clear_superseded(dir: &Dir, survey: &Survey, blocks: u32) -> Result<Option<u64>> {
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
        Ok((segment, None)) => link_of(&segment)?,
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
        clear_away(dir, unneeded.into_iter().filter(|&epoch| !opened.has(epoch)).map(segment_name));
    };
    // First those that cannot be the reserve: what they leave may be room for it.
    use_or_remove(opened, others);
    let (left, _) = dir.keep_reserve(options.segment_blocks(), small);
    use_or_remove(opened, left);
}
