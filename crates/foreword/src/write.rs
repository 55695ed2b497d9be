//! Writing: how records get to the disk, and what is kept of them.

pub(crate) mod append;
pub(crate) mod background;
pub(crate) mod circle;
pub(crate) mod clock;
pub(crate) mod close;
pub(crate) mod commit;
pub(crate) mod committers;
pub(crate) mod flush;
pub(crate) mod hold;
pub(crate) mod inner;
pub(crate) mod pace;
pub(crate) mod readable;
pub(crate) mod remove;
pub(crate) mod retain;
pub(crate) mod rotate;
pub(crate) mod runtime;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod tell;
pub(crate) mod ticket;
pub(crate) mod truncate;
