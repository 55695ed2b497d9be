//! Files: the seam to the operating system, a segment, and the other names in a log's directory.

pub(crate) mod dir;
pub mod disk;
pub(crate) mod fill;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod outside;
pub(crate) mod prepare;
pub(crate) mod reserve;
pub(crate) mod segment;
pub(crate) mod text;
pub(crate) mod time;
pub(crate) mod writer;
