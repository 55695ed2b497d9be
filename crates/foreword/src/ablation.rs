//! Choices of the design that a build with `--cfg foreword_ablation` can do without, so that `foreword-bench ablation` can say what each is worth.
//! There the environment variable `FOREWORD_ABLATION` names one; in every other build [`without`] is `false` at compile time. No choice
//! is about safety: without it the log is as correct, and slower.
#![cfg_attr(not(foreword_ablation), allow(unreachable_pub, dead_code))]

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    ZeroFill,
    PacedFill,
    DirectWrites,
    Cohort,
    Turns,
}

impl Choice {
    /// All of them, each with what is done instead.
    pub const ALL: &[(Choice, &str)] = &[
        (Choice::ZeroFill, "segments are allocated, but not filled with zeros: each first write of a block changes metadata"),
        (Choice::PacedFill, "a segment is filled in one burst, not in step with the log"),
        (Choice::DirectWrites, "durable writes go through the page cache (RWF_DSYNC), not past it (O_DIRECT)"),
        (Choice::Cohort, "a flush does not wait for the committers that the last one woke"),
        (Choice::Turns, "committers sleep until their flush is over, however many they are"),
    ];
}

/// Whether it is done without.
#[cfg(not(foreword_ablation))]
pub(crate) const fn without(_: Choice) -> bool {
    false
}

/// Whether it is done without.
#[cfg(foreword_ablation)]
pub(crate) fn without(choice: Choice) -> bool {
    static OUT: std::sync::OnceLock<Option<Choice>> = std::sync::OnceLock::new();
    let find = || {
        let name = std::env::var("FOREWORD_ABLATION").ok()?;
        Choice::ALL.iter().map(|&(choice, _)| choice).find(|choice| format!("{choice:?}") == name)
    };
    *OUT.get_or_init(find) == Some(choice)
}
