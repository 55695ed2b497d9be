//! Reading: what readers read from, in every direction, in the writer's process and in others.

pub(crate) mod find;
pub(crate) mod iter;
pub(crate) mod reader;
pub(crate) mod recent;
pub(crate) mod record;
pub(crate) mod snapshot;
pub(crate) mod source;
pub(crate) mod span;
#[cfg(feature = "stream")]
pub(crate) mod stream;
pub(crate) mod tails;
pub(crate) mod verify;
pub(crate) mod view;
pub(crate) mod walk;
pub(crate) mod watch;
