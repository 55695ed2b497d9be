//! Target `input`: what people give to the command: records in every encoding, in pieces of any
//! size, and sizes and times among the arguments.

use std::time::SystemTime;

use clap::ValueEnum;
use foreword::Lsn;

use crate::decode::{Decoder, InputFormat};
use crate::encode::OutputFormat;
use crate::units;

/// Tries one input: the format, the longest record, the size of the pieces, and the bytes that come
/// in.
pub fn run(data: &[u8]) {
    let Some((&[format, max, piece], input)) = data.split_first_chunk() else { return };
    let formats = InputFormat::value_variants();
    let format = formats[usize::from(format) % formats.len()];
    // Short ones, where the bounds are.
    let max = usize::from(max) * usize::from(max) / 16;
    let whole = decode(format, max, input, input.len().max(1));
    assert!(whole == decode(format, max, input, usize::from(piece).max(1)), "how it comes in pieces makes no difference");
    assert!(whole.0.iter().all(|record| record.len() <= max), "none is longer than allowed");
    for (out, back) in [
        (OutputFormat::LengthPrefixed, InputFormat::LengthPrefixed),
        (OutputFormat::Hex, InputFormat::Hex),
        (OutputFormat::Json, InputFormat::Json),
    ] {
        let (again, error) = decode(back, usize::MAX, &encode(out, &whole.0), 7);
        assert!(again == whole.0 && error.is_none(), "{out:?} comes back: {error:?}");
    }
    if let Ok(text) = std::str::from_utf8(input) {
        check_units(text);
    }
}

/// The records of an input that comes in pieces, and how it ended.
fn decode(format: InputFormat, max: usize, input: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let mut decoder = Decoder::new(format, max);
    let mut records = Vec::new();
    let mut put = |record: &[u8]| {
        records.push(record.to_vec());
        Ok(())
    };
    let fed = input.chunks(piece).try_for_each(|some| decoder.feed(some, &mut put));
    let error = fed.and_then(|()| decoder.finish(&mut put)).err().map(|failure| failure.to_string());
    (records, error)
}

fn encode(format: OutputFormat, records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (lsn, data) in (1..).zip(records) {
        let written = format.write((Lsn(lsn), SystemTime::UNIX_EPOCH), data, false, &mut out);
        assert!(written.is_ok(), "memory takes it: {written:?}");
    }
    out
}

fn check_units(text: &str) {
    if let Ok(bytes) = units::size(text) {
        assert_eq!(units::size(&bytes.to_string()), Ok(bytes), "{text}");
        assert!(!units::human(bytes).starts_with('-'));
    }
    if let Ok(time) = units::time(text) {
        assert!(text.ends_with(['s', 'm']), "{text}: {time:?}");
    }
    if let Ok(moment) = units::moment(text) {
        assert!(!units::timestamp(moment).is_empty(), "{text}: {moment:?}");
    }
}
