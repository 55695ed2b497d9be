//! Records to output.

use std::io::{self, Write};
use std::time::SystemTime;

use clap::ValueEnum;
use foreword::Lsn;

use foreword_command::units;

/// How `cat` writes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// The record's bytes as they are, then a newline
    #[value(alias = "lines")]
    Text,
    /// One line per record: {"lsn": 7, "time": "2026-11-29T08:30:00.123456Z", "data": "text"}, with
    /// "hex": "00ff" for "data" if it is not UTF-8, and with "unproven": true if the log does not
    /// show that the record was acknowledged
    Json,
    /// One line per record, two hex digits per byte
    Hex,
    /// The record's length (4 bytes, little-endian) and then its bytes
    LengthPrefixed,
}

impl OutputFormat {
    /// `unproven`: the log does not show that the record was acknowledged.
    pub(crate) fn write(
        self,
        (lsn, time): (Lsn, SystemTime),
        data: &[u8],
        unproven: bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        match self {
            OutputFormat::Text => {
                out.write_all(data)?;
                out.write_all(b"\n")
            }
            OutputFormat::Json => write_json((lsn, time), data, unproven, out),
            OutputFormat::Hex => {
                write_hex(data, out)?;
                out.write_all(b"\n")
            }
            OutputFormat::LengthPrefixed => {
                // No record has 1 GiB.
                out.write_all(&(data.len() as u32).to_le_bytes())?;
                out.write_all(data)
            }
        }
    }
}

fn write_json((lsn, time): (Lsn, SystemTime), data: &[u8], unproven: bool, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{{\"lsn\":{lsn},\"time\":\"{}\",", units::timestamp(time))?;
    match std::str::from_utf8(data) {
        Ok(text) => {
            out.write_all(b"\"data\":")?;
            serde_json::to_writer(&mut *out, text)?;
        }
        Err(_) => {
            out.write_all(b"\"hex\":\"")?;
            write_hex(data, out)?;
            out.write_all(b"\"")?;
        }
    }
    out.write_all(if unproven { b",\"unproven\":true}\n" } else { b"}\n" })
}

fn write_hex(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 512];
    for some in bytes.chunks(digits.len() / 2) {
        for (pair, byte) in digits.chunks_exact_mut(2).zip(some) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        out.write_all(&digits[..some.len() * 2])?;
    }
    Ok(())
}
