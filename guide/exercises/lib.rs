//! The exercises of the guide. Each module says what is to be written, and has a test file in
//! `guide/tests` that is red until it is:
//!
//! ```sh
//! cargo test -p foreword-guide --test e1_writer -- --ignored
//! ```
//!
//! Solutions are in `guide/solutions`; `--features solutions` puts them in the place of the
//! exercises.

// What is to be written stands as `todo!()`; what only it will use is not used yet.
#![cfg_attr(not(feature = "solutions"), allow(clippy::todo, dead_code, unused_variables, unused_mut, unused_imports))]

#[cfg_attr(feature = "solutions", path = "../solutions/e1_writer.rs")]
pub mod e1_writer;
#[cfg_attr(feature = "solutions", path = "../solutions/e2_background.rs")]
pub mod e2_background;
#[cfg_attr(feature = "solutions", path = "../solutions/e3_group.rs")]
pub mod e3_group;
#[cfg_attr(feature = "solutions", path = "../solutions/e4_reader.rs")]
pub mod e4_reader;
#[cfg_attr(feature = "solutions", path = "../solutions/e5_verdict.rs")]
pub mod e5_verdict;
#[cfg_attr(feature = "solutions", path = "../solutions/e6_redo.rs")]
pub mod e6_redo;
#[cfg_attr(feature = "solutions", path = "../solutions/e7_undo.rs")]
pub mod e7_undo;
#[cfg_attr(feature = "solutions", path = "../solutions/e8_harness.rs")]
pub mod e8_harness;

/// The example on the repository's front page, as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
