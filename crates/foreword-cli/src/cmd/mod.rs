//! The subcommands.

pub(crate) mod append;
pub(crate) mod archive;
mod baseline;
pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod chaos;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod dump;
mod ground;
pub(crate) mod hold;
pub(crate) mod manual;
pub(crate) mod repair;
pub(crate) mod stat;
pub(crate) mod top;
pub(crate) mod truncate;
pub(crate) mod verify;
