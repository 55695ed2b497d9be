//! What the commands `foreword`, `foreword-archive` and `foreword-raft` share: sizes and times as
//! people write them ([`units`]), how arguments are read ([`arguments`]), text that is safe to
//! print on a terminal ([`plain()`]), what a directory says of its log ([`directory`]), and lines and
//! tables on standard output ([`output`]). It is no library for other programs.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod arguments;
pub mod directory;
pub mod output;
pub mod plain;
pub mod units;

pub use plain::plain;
