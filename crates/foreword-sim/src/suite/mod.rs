//! The log's own test: workloads on a simulated disk, checked against a model of what their callers know.
//!
//! What is checked of each state that a crash leaves: nothing acknowledged is lost; nothing is returned that was not appended, at that LSN,
//! with those bytes; batches are whole; LSNs are dense; a view shows what recovery then returns, and `verify` says the same; recovery is
//! idempotent, also when it is itself cut short; when opening returns, all is durable; the log can be gone on with. Of a log that lives: nothing is
//! acknowledged after a failed flush, and a poisoned log stays poisoned. Of damage: it is reported, or harmless.

mod damage;
mod exhaustive;
mod model;
mod random;
mod runner;

pub use damage::{DamageTally, damages};
pub use exhaustive::{Bounds, Failure, Tally, exhaustive};
pub use model::Violation;
pub use random::{Case, Event, Summary, full_disk};
pub use runner::Step;
