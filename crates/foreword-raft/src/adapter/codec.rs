//! The types of openraft as bytes. **No I/O.**
//!
//! ```text
//! format  u8   1
//! value        in postcard's wire format: fields in order, integers as varints, without names
//! ```
//!
//! Both versions of openraft write the same bytes for the same types.

use std::fmt;
use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

const FORMAT: u8 = 1;

/// What is wrong with the bytes of a vote, an entry or a log id: the source of an [`io::Error`] of
/// the kind
/// [`InvalidData`](io::ErrorKind::InvalidData).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecodable {
    /// The group.
    pub group: u64,
    /// What was read.
    pub what: &'static str,
    /// At which index, if it has one.
    pub index: Option<u64>,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}: the {}", self.group, self.what)?;
        if let Some(index) = self.index {
            write!(f, " at index {index}")?;
        }
        write!(f, " cannot be read: {}; open it with the program, and the types, that wrote it", self.why)
    }
}

impl std::error::Error for Undecodable {}

pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_extend(value, vec![FORMAT]).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

pub(crate) fn decode<T: DeserializeOwned>(group: u64, what: &'static str, index: Option<u64>, bytes: &[u8]) -> io::Result<T> {
    let why = match bytes {
        [FORMAT, value @ ..] => match postcard::take_from_bytes(value) {
            Ok((value, [])) => return Ok(value),
            Ok((_, more)) => format!("{} bytes follow where it should end", more.len()),
            Err(error) => error.to_string(),
        },
        [format, ..] => format!("its format is {format}, and this program knows {FORMAT}"),
        [] => "it is empty".to_owned(),
    };
    Err(undecodable(group, what, index, why))
}

pub(crate) fn undecodable(group: u64, what: &'static str, index: Option<u64>, why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Undecodable { group, what, index, why })
}
