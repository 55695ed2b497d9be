//! Which log it is: by `LOG`, or by the newest segment.

use super::files::Segments;
use crate::files::dir::stated_version;
use crate::files::names::{IDENTITY, Names};
use crate::format::{self, LogId};
use crate::{Error, Result};

/// Which log it is.
#[derive(Debug)]
pub(super) struct Identity {
    /// `None`: neither `LOG` nor a segment says so.
    pub(super) log: Option<LogId>,
    /// What is wrong with `LOG`.
    pub(super) damage: Option<&'static str>,
}

/// Finds out which log it is, and looks at its segments. A `LOG` of another version is refused, if
/// no segment tells that it is damaged.
pub(super) fn identify(segments: &mut Segments<'_>, names: &Names) -> Result<Identity> {
    let (mut log, mut damage, mut other_version) = (None, None, None);
    if names.identity {
        match segments.dir.read_identity()? {
            Ok(id) => log = Some(id),
            Err(text) => {
                damage = Some("the file is not as it was written");
                other_version = stated_version(&text).filter(|&version| version != format::VERSION);
            }
        }
    }
    if log.is_none() {
        log = segments.newest_identity(names)?;
    }
    if let (None, Some(found)) = (log, other_version) {
        let path = segments.dir.file(IDENTITY);
        return Err(Error::UnsupportedVersion { path, found, supported: format::VERSION });
    }
    segments.look_at_all(log, names)?;
    if segments.found.is_empty()
        && damage.is_none()
        && let Some(other) = segments.newest_identity(names)?.filter(|&other| Some(other) != log)
    {
        damage = Some("its uuid is that of no segment");
        log = Some(other);
        segments.look_at_all(log, names)?;
    }
    Ok(Identity { log, damage })
}

/// The same for a caller that does not judge `LOG`.
pub(super) fn stated_or_newest(segments: &Segments<'_>, names: &Names) -> Result<Option<LogId>> {
    let stated = if names.identity { segments.dir.read_identity()?.ok() } else { None };
    match stated {
        Some(log) => Ok(Some(log)),
        None => segments.newest_identity(names),
    }
}
