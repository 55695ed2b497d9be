//! The check of one state of a disk: recovery, and all that can be asked of the log then.

use foreword::{Error, Log, Lsn, Verdict};

use super::log::{DIR, Shape, options, read_log, recover, summary, view};
use super::model::{Checked, Found, Model, ensure, violated};
use crate::{Choice, SimDisk};

/// Recovers a log and checks it against the model, against a view and `verify`, and against a
/// second recovery. Returns the log, and what it has.
pub(crate) fn check_state(disk: &SimDisk, model: &Model, floor: u64, shape: Shape, seed: u64) -> Checked<(Log, Found)> {
    let sees = view(disk);
    let verified = foreword::Verify::new().disk(disk.handle()).run(DIR);
    let log = match options(disk, shape).open(DIR) {
        Ok(log) => log,
        Err(error) => return violated("what a crash leaves opens", error.to_string()),
    };
    let found = match read_log(&log) {
        Ok(found) => found,
        Err(error) => return violated("what recovery found can be read", error.to_string()),
    };
    model.check(&found, floor)?;
    let backward = log.iter_back(Lsn::MAX).map(|r| r.map(|r| (r.lsn.0, r.data))).collect::<Result<Vec<_>, _>>();
    let same = backward.as_ref().is_ok_and(|b| b.iter().rev().eq(found.records.iter()));
    ensure(same, "reading backward shows the same", || format!("{:?}", backward.map(|b| b.len())))?;

    let verdict = &log.recovery().verdict;
    match (sees, verified) {
        (Err(Error::NotFound { .. }), Err(Error::NotFound { .. })) => {
            ensure(!model.made && *verdict == Verdict::Created, "a log that was made is there", || format!("{verdict:?}"))?;
        }
        (Ok((saw, view)), Ok(verified)) => {
            ensure(saw.as_ref() == Some(verdict), "a view sees what a writer sees", || format!("{saw:?} and {verdict:?}"))?;
            ensure(view == found, "a view shows what recovery returns", || {
                format!("{} and {}", summary(&view), summary(&found))
            })?;
            ensure(verified.verdict.as_ref() == Some(verdict), "verify and open see the same", || {
                format!("{:?} and {verdict:?}", verified.verdict)
            })?;
            let same = verified.last_lsn.0 == found.last && verified.start_lsn.0 == found.start;
            ensure(same, "verify and open see the same", || format!("{verified:?} and the end {}", found.last))?;
        }
        other => return violated("a view shows what recovery returns", format!("{other:?}")),
    }
    // When opening has returned, everything is durable: a power failure changes nothing.
    let after = disk.crash(&if seed.is_multiple_of(2) { Choice::None } else { Choice::Seed(seed) });
    let again = recover(&after, shape)?.1;
    ensure(again == found, "recovery is idempotent", || format!("{} and then {}", summary(&found), summary(&again)))?;
    Ok((log, found))
}
