//! The tests of the suite on the simulated disk, in one program. Beside it is one for the thread
//! schedules, which is built with other flags.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod damage;
mod examples;
mod exhaustive;
mod matrix;
mod random;
mod regressions;
mod reopened;
mod threads;
