//! Verdicts and damage, in words and as JSON.

use foreword::{Damage, DamageKind, Error, Lsn, Verdict};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{Output, Tone};

/// One word for the verdict; `None` is that of a log with a writer.
pub(crate) fn name(verdict: Option<&Verdict>) -> &'static str {
    verdict.map_or("in-use", Verdict::name)
}

/// The verdict with the rows of the table in `docs/FORMAT.md` that it stands for.
pub(crate) fn sentence(verdict: Option<&Verdict>) -> String {
    match verdict {
        None => "in use: a writer has it open, and everything that is durable is sound".to_owned(),
        Some(Verdict::Created) => "created".to_owned(),
        Some(Verdict::Clean) => "clean (row 1): the log was closed".to_owned(),
        Some(Verdict::Unclosed) => "unclosed (row 2): the log was not closed; nothing is missing".to_owned(),
        Some(Verdict::TornTail) => {
            "torn tail (rows 3 to 5, 18, 19): a crash cut a write short; nothing acknowledged is missing".to_owned()
        }
        Some(Verdict::Corruption(damage)) => format!(
            "corruption, {} (row {})",
            if damage.kind == DamageKind::Identity && damage.last_lsn.is_none() {
                "proven: the file that names the log is damaged, and no record"
            } else if damage.proven {
                "proven: acknowledged data is damaged"
            } else {
                "possible: the damaged data may have been acknowledged"
            },
            damage.row()
        ),
        Some(other) => other.name().to_owned(),
    }
}

/// The same from a look at the log's tail, which says nothing of what lies before.
pub(crate) fn tail_sentence(verdict: Option<&Verdict>) -> String {
    match verdict {
        None => "in use: a writer has it open".to_owned(),
        Some(Verdict::Corruption(_)) => sentence(verdict),
        looked => format!("{}, judged by the tail alone: `foreword verify` reads everything", sentence(looked)),
    }
}

/// How bad it is.
pub(crate) fn tone(verdict: Option<&Verdict>) -> Tone {
    match verdict {
        Some(Verdict::Corruption(_)) => Tone::Bad,
        Some(Verdict::TornTail) => Tone::Warn,
        _ => Tone::Good,
    }
}

/// Where the damage is, and how it is known.
pub(crate) fn damage_fields(out: &mut Output, damage: &Damage) -> Result<(), Failure> {
    out.field("file", damage.path.display())?;
    out.field("offset", damage.offset)?;
    let until = "until the log is repaired";
    match damage.last_lsn.filter(|&last| last >= damage.first_lsn) {
        Some(last) => {
            let lsns = stretches(&[(damage.first_lsn, last)]);
            out.field("unreadable", format_args!("LSN {lsns}, known to have been durable, {until}"))?
        }
        None if damage.kind == DamageKind::Identity => {
            out.field("unreadable", "nothing because of this: a repair writes the file anew")?
        }
        None => out.field("unreadable", format_args!("any records from LSN {} on, {until}", damage.first_lsn))?,
    }
    out.field("evidence", &damage.evidence)
}

pub(crate) fn damage_json(damage: &Damage) -> Value {
    json!({
        "kind": format!("{:?}", damage.kind),
        "row": damage.row(),
        "proven": damage.proven,
        "file": damage.path.display().to_string(),
        "offset": damage.offset,
        "first_lsn": damage.first_lsn.0,
        "last_lsn": damage.last_lsn.map(|lsn| lsn.0),
        "evidence": damage.evidence,
    })
}

/// The damage in a verdict.
pub(crate) fn damage(verdict: Option<&Verdict>) -> Option<&Damage> {
    match verdict {
        Some(Verdict::Corruption(damage)) => Some(damage),
        _ => None,
    }
}

/// That nobody knows what other processes ask to be kept, if that is so, and what to do.
pub(crate) fn holds_unknown(out: &mut Output, why: Option<&Error>) -> Result<(), Failure> {
    why.map_or(Ok(()), |why| out.toned("holds", Tone::Bad, format_args!("unknown: {why}")))
}

/// Records that no promise covers: nothing in the log shows a flush that made them durable.
pub(crate) fn unproven_from(first: Lsn, damaged: bool) -> String {
    let keeps = if damaged { "a repair that leaves them" } else { "opening it for writing keeps them all and" };
    format!(
        "unproven from LSN {first} on: the log does not show whether these records were acknowledged; {keeps} makes them \
         durable"
    )
}

/// LSNs from the first to the last, in words.
pub(crate) fn range(first: Lsn, last: Lsn) -> String {
    records((last.0 + 1).saturating_sub(first.0), first, last)
}

/// A range of records in words: how many, and the first and last LSN.
pub(crate) fn records(count: u64, first: Lsn, last: Lsn) -> String {
    match count {
        0 => format!("none; the next is LSN {first}"),
        1 => format!("1: LSN {first}"),
        n => format!("{n}: LSN {first} to {last}"),
    }
}

/// What a repair gives up, in words: stretches of LSNs, and whatever there was from another on.
pub(crate) fn given_up(lost: &[(Lsn, Lsn)], unknown_from: Option<Lsn>) -> String {
    let beyond = unknown_from.map(|lsn| format!("what there was from LSN {lsn} on (nothing that is left says how many records)"));
    let known = if lost.is_empty() { None } else { Some(format!("LSN {}", stretches(lost))) };
    let all: Vec<_> = known.into_iter().chain(beyond).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", and ") }
}

/// Stretches of LSNs, in words.
pub(crate) fn stretches(lost: &[(Lsn, Lsn)]) -> String {
    let one = |(first, last): &(Lsn, Lsn)| if first == last { first.to_string() } else { format!("{first} to {last}") };
    lost.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub(crate) fn stretches_json(lost: &[(Lsn, Lsn)]) -> Value {
    lost.iter().map(|(first, last)| json!([first.0, last.0])).collect()
}
