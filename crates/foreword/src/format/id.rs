//! The identity of a log.

use std::fmt;
use std::str::FromStr;

/// The identity of a log: 128 random bits, made with the log and borne by every byte of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub [u8; 16]);

impl LogId {
    pub(crate) fn random() -> Result<LogId, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        bytes[6] = bytes[6] & 0x0f | 0x40; // a version 4 UUID
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(LogId(bytes))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// That a text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseLogIdError;

impl fmt::Display for ParseLogIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID (8-4-4-4-12 lower-case hex digits)")
    }
}

impl std::error::Error for ParseLogIdError {}

impl FromStr for LogId {
    type Err = ParseLogIdError;

    fn from_str(text: &str) -> Result<Self, ParseLogIdError> {
        let mut bytes = [0u8; 16];
        let hex: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
        if hex.len() != 32 {
            return Err(ParseLogIdError);
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |b: u8| (b as char).to_digit(16).ok_or(ParseLogIdError);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        let id = LogId(bytes);
        // Only the one canonical spelling: a log's identity file is compared to the byte.
        if id.to_string() == text { Ok(id) } else { Err(ParseLogIdError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_id_has_one_spelling() {
        let id = LogId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<LogId>(), Err(ParseLogIdError));
        assert_eq!("".parse::<LogId>(), Err(ParseLogIdError));
    }
}
