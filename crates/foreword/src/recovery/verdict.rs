//! The verdict: the table of `docs/FORMAT.md`, as code. It depends on nothing but the [`Evidence`]:
//! no file is read here.
//!
//! There are two tables. What is wrong with whole files is judged first; else what is found at X
//! and behind it. Of each exactly one line claims any evidence, so that their order means nothing:
//! that none is unclaimed the compiler checks, that none is claimed twice the tests do.

use Row::*;

use super::evidence::Last::{self, *};
use super::evidence::LinkFound::{self, *};
use super::evidence::Place::{self, *};
use super::evidence::{Evidence, Front};
use crate::error::{Damage, DamageKind};
use crate::files::names::{IDENTITY, segment_name};
use crate::format::{LINK_BLOCK, Position};

#[cfg(test)]
mod tests;

/// What the evidence says of a log: the rows of the verdict table in `docs/FORMAT.md`, coarsely.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// There was no log; it was made.
    Created,
    /// It was closed (row 1).
    Clean,
    /// It was not closed, and nothing is missing or torn (row 2).
    Unclosed,
    /// A crash tore the tail; what is cut was never acknowledged (rows 3, 4, 5, 18 and 19).
    TornTail,
    /// Data that was, or may have been, acknowledged is damaged.
    Corruption(Damage),
}

impl Verdict {
    /// One word, for scripts: `created`, `clean`, `unclosed`, `torn-tail` or `corruption`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Created => "created",
            Verdict::Clean => "clean",
            Verdict::Unclosed => "unclosed",
            Verdict::TornTail => "torn-tail",
            Verdict::Corruption(_) => "corruption",
        }
    }
}

/// A row of the table in `docs/FORMAT.md`, by its number there. Others are judged as these are: row
/// 11 as row 10, row 16 as row 6, rows 18 and 19 as rows 2 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Row {
    /// Clean close.
    R1 = 1,
    /// Crash between writes.
    R2 = 2,
    /// Torn tail.
    R3 = 3,
    /// Hole: later blocks reached the disk, earlier ones did not.
    R4 = 4,
    /// Unfinished unit at the end.
    R5 = 5,
    /// Acknowledged data that is not there.
    R6 = 6,
    /// Acknowledged data that is garbled.
    R7 = 7,
    /// Garbled data that may have been acknowledged.
    R8 = 8,
    /// Anything but a HEADER in a block 0.
    R9 = 9,
    /// Lost segment, in the middle or the first.
    R10 = 10,
    /// Lost newest segment.
    R12 = 12,
    /// All segments lost.
    R13 = 13,
    /// Foreign segment.
    R14 = 14,
    /// Copy of another segment.
    R15 = 15,
    /// Truncated, or longer, file.
    R17 = 17,
    /// Damaged seal.
    R20 = 20,
    /// Damaged `LOG`.
    R21 = 21,
    /// Wrong structure under valid checksums.
    R22 = 22,
}

/// Where what a row tells of is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    /// `LOG`.
    Identity,
    /// The file of [`Evidence::unusable`], and so on.
    Unusable,
    Front,
    FirstLink,
    Gone,
    /// X's file, as a whole.
    Length,
    X,
    NextLink,
    Seal,
}

/// A row, and where what it tells of is.
type Claim = (Row, Site);

/// A table: each line has a pattern for each column, and says what it claims.
macro_rules! table {
    ($judge:ident, $claims:ident: $facts:ty => $claim_type:ty; $($line:pat => $claim:expr;)+) => {
        fn $judge(facts: $facts) -> $claim_type {
            match facts { $($line => $claim,)+ }
        }

        /// What each line that fits claims.
        #[cfg(test)]
        fn $claims(facts: $facts) -> Vec<$claim_type> {
            let mut claims = Vec::new();
            $(if let $line = facts { claims.push($claim); })+
            claims
        }
    };
}

const NO: bool = false;
const YES: bool = true;

/// Whether an unusable file lies behind the tip.
const BEHIND: bool = true;
const BEFORE: bool = false;

type FileFacts = (bool, Option<(bool, Row)>, Front, LinkFound, bool, bool);

table! { judge_files, claims_on_files: FileFacts => Option<Claim>;
//   any   unusable                   the chain           first       newest LOG
//   files file                       begins              LINK        gone   damaged
    (NO,   _,                         _,                  _,          _,     _  ) => Some((R13, Site::Identity));
    (YES,  Some((BEHIND, row)),       _,                  _,          _,     _  ) => Some((row, Site::Unusable));
    (YES,  None | Some((BEFORE, _)),  Front::Lost { .. }, _,          _,     _  ) => Some((R10, Site::Front));
    (YES,  None | Some((BEFORE, _)),  Front::Late { .. }, _,          _,     _  ) => Some((R22, Site::Front));
    (YES,  Some((BEFORE, row)),       Front::Sound,       _,          _,     _  ) => Some((row, Site::Unusable));
    (YES,  None,                      Front::Sound,       Absent,     _,     _  ) => Some((R6,  Site::FirstLink));
    (YES,  None,                      Front::Sound,       Broken(_),  _,     _  ) => Some((R7,  Site::FirstLink));
    (YES,  None,                      Front::Sound,       Sound,      YES,   _  ) => Some((R12, Site::Gone));
    (YES,  None,                      Front::Sound,       Sound,      NO,    YES) => Some((R21, Site::Identity));
    (YES,  None,                      Front::Sound,       Sound,      NO,    NO ) => None;
}

type XFacts = (Place, bool, bool, Last, LinkFound, bool, bool);

// The LINK behind the tip is what X is, where the log had left the tip and there is anything
// against that LINK.
table! { judge_x, claims_on_x: XFacts => Claim;
//   X                 promise  written  the last frame  the LINK         seal     length
//                     beyond   behind   leaves          behind the tip   damaged  wrong
    (Unwritten,        NO,      NO,      Closed,         Sound | Absent,  NO,      NO ) => (R1,  Site::X);
    (Unwritten,        NO,      NO,      Whole,          Sound | Absent,  NO,      NO ) => (R2,  Site::X);
    (Torn,             NO,      NO,      _,              Sound | Absent,  _,       NO ) => (R3,  Site::X);
    (Torn,             NO,      YES,     _,              Sound | Absent,  _,       NO ) => (R4,  Site::X);
    (Unwritten,        NO,      YES,     _,              Sound | Absent,  NO,      NO ) => (R4,  Site::X);
    (Unwritten,        NO,      NO,      InUnit,         Sound | Absent,  NO,      NO ) => (R5,  Site::X);
    (Unwritten | Torn, YES,     _,       _,              Sound,           _,       NO ) => (R6,  Site::X);
    (Unwritten | Torn, YES,     _,       _,              Absent,          _,       NO ) => (R6,  Site::NextLink);
    (Damaged(_),       YES,     _,       _,              _,               _,       NO ) => (R7,  Site::X);
    (Unwritten | Torn, YES,     _,       _,              Broken(_),       _,       NO ) => (R7,  Site::NextLink);
    (Damaged(_),       NO,      _,       _,              _,               _,       NO ) => (R8,  Site::X);
    (Unwritten | Torn, NO,      _,       _,              Broken(_),       _,       NO ) => (R8,  Site::NextLink);
    (_,                _,       _,       _,              _,               _,       YES) => (R17, Site::Length);
    (Unwritten,        NO,      _,       _,              Sound | Absent,  YES,     NO ) => (R20, Site::Seal);
    (Structure(_),     _,       _,       _,              _,               _,       NO ) => (R22, Site::X);
}

impl Row {
    /// The row of damage that was found when a file was opened.
    fn of(damage: &Damage) -> Row {
        match damage.kind {
            DamageKind::Foreign => Row::R14,
            DamageKind::Misplaced => Row::R15,
            DamageKind::Size => Row::R17,
            DamageKind::Structure => Row::R22,
            _ => Row::R9,
        }
    }

    /// What kind of damage the row tells of; none, if it tells of none.
    fn damage(self) -> Option<DamageKind> {
        Some(match self {
            Row::R1 | Row::R2 | Row::R3 | Row::R4 | Row::R5 => return None,
            Row::R6 => DamageKind::Missing,
            Row::R7 | Row::R8 => DamageKind::Garbled,
            Row::R9 => DamageKind::Header,
            Row::R10 => DamageKind::LostSegment,
            Row::R12 => DamageKind::LostNewest,
            Row::R13 => DamageKind::LostAll,
            Row::R14 => DamageKind::Foreign,
            Row::R15 => DamageKind::Misplaced,
            Row::R17 => DamageKind::Size,
            Row::R20 => DamageKind::Seal,
            Row::R21 => DamageKind::Identity,
            Row::R22 => DamageKind::Structure,
        })
    }
}

impl Evidence {
    /// The verdict.
    pub(super) fn verdict(&self) -> Verdict {
        let (row, site) = self.judge();
        match (row, row.damage()) {
            (_, Some(kind)) => Verdict::Corruption(self.damage(row, kind, site)),
            (Row::R1, None) => Verdict::Clean,
            (Row::R2, None) => Verdict::Unclosed,
            (_, None) => Verdict::TornTail,
        }
    }

    fn judge(&self) -> Claim {
        judge_files(self.file_facts()).unwrap_or_else(|| judge_x(self.x_facts()))
    }

    fn file_facts(&self) -> FileFacts {
        (
            !self.no_segment,
            self.unusable.as_ref().map(|file| (file.behind_tip, Row::of(&file.damage))),
            self.front,
            self.first_link.1,
            self.gone.is_some(),
            self.identity.is_some(),
        )
    }

    fn x_facts(&self) -> XFacts {
        (
            self.place,
            self.is_promised(),
            self.written,
            self.last_frame(),
            self.next_link.1,
            self.seal.is_some(),
            self.length.is_some() && self.length_counts(),
        )
    }

    /// A promise beyond X says that something was durable there.
    fn is_promised(&self) -> bool {
        self.promise.position > self.at
    }

    /// A log is closed only if its newest segment has a LINK: in another it does not go on.
    fn last_frame(&self) -> Last {
        match self.last {
            Closed if self.link_given_up => Whole,
            last => last,
        }
    }

    /// Where the log has left a segment, what is cut off may be what it does not need.
    fn length_counts(&self) -> bool {
        self.at.epoch == self.tip || matches!(self.place, Place::Damaged(_))
    }

    /// Where it is, and the evidence in words.
    fn damage(&self, row: Row, kind: DamageKind, site: Site) -> Damage {
        let named = |name: &str, offset, evidence: &str| (self.path.join(name), offset, evidence.to_owned());
        let at = |at: Position, evidence: &str| named(&segment_name(at.epoch), at.byte(), evidence);
        let link = |epoch, evidence| at(Position::new(epoch, LINK_BLOCK), evidence);
        let whole = |epoch, evidence| named(&segment_name(epoch), 0, evidence);
        let found = |found: Option<&Damage>| found.map(|d| (d.path.clone(), d.offset, d.evidence.clone())).unwrap_or_default();
        let (path, offset, evidence) = match site {
            Site::Identity if row == Row::R13 => named(IDENTITY, 0, "the log's identity is here, but no segment"),
            Site::Identity => named(IDENTITY, 0, self.identity.unwrap_or_default()),
            Site::Unusable => found(self.unusable.as_ref().map(|file| &file.damage)),
            Site::Front => match self.front {
                Front::Late { epoch, .. } => link(epoch, "a LINK with which the log begins, but not at its first record"),
                Front::Lost { epoch, .. } => whole(epoch, "a segment of the log is not there, and its records were not dropped"),
                Front::Sound => Default::default(), // The table does not lead here.
            },
            Site::FirstLink => {
                let (epoch, found) = self.first_link;
                link(epoch, found.against().unwrap_or("a LINK that is not there, though there is more of the log"))
            }
            Site::Gone => {
                let evidence = "the newest segment is sealed: there was another after it, and it is gone";
                whole(self.gone.unwrap_or_default(), evidence)
            }
            Site::Length => found(self.length.as_ref()),
            Site::X => at(self.at, &self.broken_here()),
            Site::NextLink => {
                let (epoch, found) = self.next_link;
                let why = found.against().unwrap_or("a LINK that is not there");
                let evidence =
                    if self.is_promised() { self.promised_though(why) } else { format!("{why}; a crash cannot do this") };
                link(epoch, &evidence)
            }
            Site::Seal => at(self.seal.map(|seal| seal.at).unwrap_or_default(), "the segment's seal is damaged"),
        };
        let promised = Some(self.promise.lsn).filter(|&lsn| lsn >= self.next_lsn);
        let last_lsn = match self.front {
            Front::Lost { last, .. } | Front::Late { last, .. } if site == Site::Front => promised.max(Some(last)),
            _ => promised,
        };
        let proven = match row {
            Row::R20 => self.seal.is_some_and(|seal| seal.inner),
            _ => row != Row::R8,
        };
        Damage { kind, path, offset, first_lsn: self.next_lsn, last_lsn, proven, evidence }
    }

    fn broken_here(&self) -> String {
        match self.place {
            Place::Structure(why) => why.to_owned(),
            Place::Damaged(why) if self.is_promised() => self.promised_though(why),
            Place::Damaged(why) => {
                format!("{why}; a crash cannot do this, and no later promise says whether it was acknowledged")
            }
            Place::Unwritten => self.promised_though("nothing is written here"),
            Place::Torn => self.promised_though("a frame of which some sectors were never written"),
        }
    }

    fn promised_though(&self, why: &str) -> String {
        let Position { epoch, block } = self.promise.position;
        format!("{why}; a later frame says that all before block {block} of segment {epoch} was durable")
    }
}

impl LinkFound {
    /// What is wrong with it, if it is there.
    fn against(self) -> Option<&'static str> {
        match self {
            LinkFound::Broken(why) => Some(why),
            LinkFound::Sound | LinkFound::Absent => None,
        }
    }
}
