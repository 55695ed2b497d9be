//! Files: the seam to the operating system, a segment, and the other names in a log's directory.

pub mod disk;
pub(crate) mod lock;
pub(crate) mod outside;
pub(crate) mod reserve;
pub(crate) mod segment;
pub(crate) mod text;
