//! Input to records: bytes that arrive in pieces of any size become records. Never holds more than
//! one line or record.

use clap::ValueEnum;
use serde_json::Value;

use crate::exit::Failure;

/// How `append` reads records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// A record is a line without its newline; the last line may lack one
    #[value(alias = "text")]
    Lines,
    /// A record is its length (4 bytes, little-endian) and then its bytes
    LengthPrefixed,
    /// A record is a line: a JSON string, or an object with the text as "data" or the bytes as
    /// "hex"
    Json,
    /// A record is a line of two hex digits per byte
    Hex,
}

/// Takes the records in.
type Put<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Failure>;

pub(crate) struct Decoder {
    format: InputFormat,
    /// The longest record.
    max: usize,
    /// Records that are complete.
    records: u64,
    /// What has come of a line, or of a length or the record that it announces.
    partial: Vec<u8>,
    /// The length that was announced.
    announced: Option<usize>,
}

impl Decoder {
    pub(crate) fn new(format: InputFormat, max: usize) -> Decoder {
        Decoder { format, max, records: 0, partial: Vec::new(), announced: None }
    }

    /// Takes in what has come; `put` gets each record that is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], put: Put<'_>) -> Result<(), Failure> {
        match self.format {
            InputFormat::LengthPrefixed => self.feed_prefixed(bytes, put),
            InputFormat::Lines | InputFormat::Json | InputFormat::Hex => self.feed_lines(bytes, put),
        }
    }

    /// The input has ended.
    pub(crate) fn finish(&mut self, put: Put<'_>) -> Result<(), Failure> {
        if self.format == InputFormat::LengthPrefixed {
            return match (self.announced, self.partial.len()) {
                (None, 0) => Ok(()),
                (None, n) => Err(self.wrong(&format!("the input ends after {n} of the 4 bytes of its length"))),
                (Some(len), n) => Err(self.wrong(&format!("the input ends after {n} of its {len} bytes"))),
            };
        }
        if self.partial.is_empty() {
            return Ok(());
        }
        let line = std::mem::take(&mut self.partial);
        self.line(&line, put)
    }

    fn feed_lines(&mut self, mut bytes: &[u8], put: Put<'_>) -> Result<(), Failure> {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.partial.is_empty() {
                self.line(line, put)?;
                continue;
            }
            self.gather(line)?;
            let mut line = std::mem::take(&mut self.partial);
            self.line(&line, put)?;
            line.clear();
            self.partial = line;
        }
        self.gather(bytes)
    }

    fn gather(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.check_line(self.partial.len() + bytes.len())?;
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn check_len(&self, len: usize) -> Result<(), Failure> {
        if len <= self.max {
            return Ok(());
        }
        Err(self.wrong(&format!("longer than {} bytes (see --max-record)", self.max)))
    }

    /// A line may be as long as a record needs that is as long as may be: so what one command
    /// writes, the other reads.
    fn check_line(&self, len: usize) -> Result<(), Failure> {
        let allowed = match self.format {
            InputFormat::Hex => self.max.saturating_mul(2),
            // Six characters for a byte (`\u0000`), and what stands around them.
            InputFormat::Json => self.max.saturating_mul(6).saturating_add(1 << 10),
            InputFormat::Lines | InputFormat::LengthPrefixed => self.max,
        };
        if len <= allowed { Ok(()) } else { self.check_len(self.max.saturating_add(1)) }
    }

    fn line(&mut self, line: &[u8], put: Put<'_>) -> Result<(), Failure> {
        self.check_line(line.len())?;
        let decoded = match self.format {
            InputFormat::Hex => Some(hex(line).map_err(|why| self.wrong(&why))?),
            InputFormat::Json => Some(json(line).map_err(|why| self.wrong(&why))?),
            InputFormat::Lines | InputFormat::LengthPrefixed => None,
        };
        let record = decoded.as_deref().unwrap_or(line);
        self.check_len(record.len())?;
        put(record)?;
        self.records += 1;
        Ok(())
    }

    fn feed_prefixed(&mut self, mut bytes: &[u8], put: Put<'_>) -> Result<(), Failure> {
        loop {
            let want = self.announced.unwrap_or(4);
            if self.partial.is_empty() && bytes.len() >= want {
                let (piece, rest) = bytes.split_at(want);
                bytes = rest;
                self.piece(piece, put)?;
                continue;
            }
            let (some, rest) = bytes.split_at(bytes.len().min(want - self.partial.len()));
            bytes = rest;
            self.partial.extend_from_slice(some);
            if self.partial.len() < want {
                return Ok(());
            }
            let mut piece = std::mem::take(&mut self.partial);
            self.piece(&piece, put)?;
            piece.clear();
            self.partial = piece;
        }
    }

    /// A whole length, or the whole record that it announced.
    fn piece(&mut self, piece: &[u8], put: Put<'_>) -> Result<(), Failure> {
        if self.announced.take().is_some() {
            put(piece)?;
            self.records += 1;
            return Ok(());
        }
        let len = piece.iter().rev().fold(0, |len, &byte| len << 8 | usize::from(byte));
        self.check_len(len)?;
        self.announced = Some(len);
        Ok(())
    }

    /// Names the record that is not as it should be.
    fn wrong(&self, why: &str) -> Failure {
        let what = if self.format == InputFormat::LengthPrefixed { "record" } else { "line" };
        Failure::Wrong(format!("{what} {} of the input: {why}", self.records + 1))
    }
}

fn hex(digits: &[u8]) -> Result<Vec<u8>, String> {
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of hex digits".to_owned());
    }
    let digit = |b: u8| match char::from(b).to_digit(16) {
        Some(digit) => Ok(digit as u8),
        None => Err(format!("`{}` is no hex digit", b.escape_ascii())),
    };
    digits.chunks_exact(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn json(line: &[u8]) -> Result<Vec<u8>, String> {
    const SHAPE: &str = "neither a JSON string nor an object with one of \"data\" and \"hex\", a string";
    match serde_json::from_slice(line).map_err(|e| format!("not JSON: {e}"))? {
        Value::String(text) => Ok(text.into_bytes()),
        Value::Object(mut fields) => match (fields.remove("data"), fields.remove("hex")) {
            (Some(Value::String(text)), None) => Ok(text.into_bytes()),
            (None, Some(Value::String(digits))) => hex(digits.as_bytes()),
            _ => Err(SHAPE.to_owned()),
        },
        _ => Err(SHAPE.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of an input that comes in pieces of one size, and how it ended.
    fn decode(format: InputFormat, max: usize, input: &[u8], piece: usize) -> (Vec<Vec<u8>>, Result<(), String>) {
        let mut decoder = Decoder::new(format, max);
        let mut records = Vec::new();
        let mut put = |record: &[u8]| {
            records.push(record.to_vec());
            Ok(())
        };
        let fed = input.chunks(piece).try_for_each(|some| decoder.feed(some, &mut put));
        let ended = fed.and_then(|()| decoder.finish(&mut put)).map_err(|e| e.to_string());
        (records, ended)
    }

    fn all_pieces(format: InputFormat, max: usize, input: &[u8], records: &[&[u8]], error: Option<&str>) {
        for piece in 1..=input.len().max(1) {
            let (found, ended) = decode(format, max, input, piece);
            assert_eq!(found, records, "in pieces of {piece}");
            match (&ended, error) {
                (Ok(()), None) => {}
                (Err(said), Some(error)) => assert!(said.contains(error), "{said}"),
                _ => panic!("{ended:?}, not {error:?}"),
            }
        }
    }

    #[test]
    fn lines_end_in_a_newline_or_with_the_input() {
        all_pieces(InputFormat::Lines, 9, b"", &[], None);
        all_pieces(InputFormat::Lines, 9, b"\n", &[b""], None);
        all_pieces(InputFormat::Lines, 9, b"one\n\n\xff\0\r\nlast", &[b"one", b"", b"\xff\0\r", b"last"], None);
        all_pieces(InputFormat::Lines, 4, b"four\nfours\nmore", &[b"four"], Some("line 2 of the input: longer than 4 bytes"));
        all_pieces(InputFormat::Lines, 4, b"fours", &[], Some("line 1"));
    }

    #[test]
    fn length_prefixed_records_are_whole_or_named() {
        let (a, b) = (b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0\n", InputFormat::LengthPrefixed);
        all_pieces(b, 9, a, &[b"ab", b"", b"\n"], None);
        for cut in [1, 3, 4, 5] {
            all_pieces(b, 9, &a[..cut], &[], Some("record 1 of the input: the input ends after"));
        }
        all_pieces(b, 9, &a[..a.len() - 1], &[b"ab", b""], Some("record 3 of the input: the input ends after 0 of its 1 bytes"));
        all_pieces(b, 1, a, &[], Some("record 1 of the input: longer than 1 bytes"));
        all_pieces(b, 1 << 20, b"\xff\xff\xff\xff", &[], Some("longer"));
    }

    #[test]
    fn hex_and_json_lines_say_what_is_wrong_with_them() {
        all_pieces(InputFormat::Hex, 9, b"00fF\n\nab", &[b"\0\xff", b"", b"\xab"], None);
        all_pieces(InputFormat::Hex, 9, b"00\n0\n", &[b"\0"], Some("line 2 of the input: an odd number"));
        all_pieces(InputFormat::Hex, 9, b"0g\n", &[], Some("`g` is no hex digit"));
        all_pieces(InputFormat::Hex, 2, b"0011\n001122\n", &[b"\0\x11"], Some("line 2 of the input: longer than 2 bytes"));
        all_pieces(
            InputFormat::Json,
            2,
            b"\"\\u0000\\u0000\"\n\"abc\"\n",
            &[b"\0\0"],
            Some("line 2 of the input: longer than 2"),
        );
        let input = b"\"a\\n\\u00e9\"\n{\"data\":\"x\",\"lsn\":7}\n{\"hex\":\"00ff\"}";
        all_pieces(InputFormat::Json, 99, input, &["a\né".as_bytes(), b"x", b"\0\xff"], None);
        for wrong in ["7", "{}", "{\"data\":1}", "{\"data\":\"\",\"hex\":\"\"}", "[\"a\"]"] {
            all_pieces(InputFormat::Json, 99, wrong.as_bytes(), &[], Some("neither a JSON string"));
        }
        all_pieces(InputFormat::Json, 99, b"\"ok\"\n\"no\n", &[b"ok"], Some("line 2 of the input: not JSON"));
    }
}
