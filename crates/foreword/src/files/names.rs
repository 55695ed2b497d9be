//! The names in a log's directory.

use crate::bug::bug;

pub(crate) const IDENTITY: &str = "LOG";
pub(crate) const DAMAGED: &str = "damaged";
pub(crate) const LOCK: &str = "LOCK";
pub(crate) const HOLDS: &str = "HOLDS";
/// [`HOLDS`], while it is being made: whoever has it locked finishes it.
pub(crate) const HOLDS_TMP: &str = "HOLDS.tmp";
/// The files of the [reserve](super::reserve).
pub(crate) const RESERVES: [&str; 2] = ["RESERVE-1", "RESERVE-2"];
pub(crate) const STATS: &str = "STATS";
pub(crate) const TMP: &str = ".tmp";

/// Beyond what any log reaches; so epochs can be counted up without a thought of overflow.
pub(crate) const EPOCH_MAX: u64 = u64::MAX >> 8;

/// An epoch that a log may have reached, or 0: what bears a higher one is strange, for it may leave
/// no room for others behind it.
pub(crate) fn within_reach(epoch: u64) -> u64 {
    if epoch <= EPOCH_MAX / 2 { epoch } else { 0 }
}

/// An epoch behind which a repair can go on, or 0. A name is easily made, and says nothing of a log
/// where it leaves that log no room within reach.
pub(crate) fn with_room_behind(epoch: u64) -> u64 {
    let mut with_room = epoch <= EPOCH_MAX / 4;
    bug!(GoOutOfReach, with_room = epoch <= EPOCH_MAX / 2);
    if with_room { epoch } else { 0 }
}

pub(crate) fn segment_name(epoch: u64) -> String {
    format!("{epoch:020}.seg")
}

/// Whether a log makes a file under another name first, so that it is complete when it has this
/// one.
pub(super) fn is_made_by_rename(name: &str) -> bool {
    name == IDENTITY || RESERVES.contains(&name) || parse_segment_name(name).is_some()
}

pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let epoch = (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?;
    epoch.filter(|&epoch| epoch <= EPOCH_MAX)
}

/// The names in a log's directory, sorted out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Epochs with a segment file, ascending.
    pub(crate) epochs: Vec<u64>,
    /// What an unfinished step of an earlier writer left: the next writer removes it.
    pub(crate) temporary: Vec<String>,
    pub(crate) identity: bool,
    pub(crate) lock: bool,
    /// [`DAMAGED`] is there.
    pub(crate) damaged: bool,
    /// [`HOLDS_TMP`] is there.
    pub(crate) holds_begun: bool,
    /// Names that a log uses only where there is one already.
    pub(crate) later: Vec<String>,
    /// Names that a log does not use.
    pub(crate) others: Vec<String>,
}
