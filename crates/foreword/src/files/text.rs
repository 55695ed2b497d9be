//! Small texts that processes leave each other, in lines: whole or not there.

use std::fmt::Write;

/// The last line, which says that all before it is there. (Writing to a string cannot fail.)
pub(crate) fn push_checksum(text: &mut String) {
    let crc = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, "crc {crc:08x}");
}

/// What comes before that line; `None` if it is not whole. What follows is left of a longer text.
pub(crate) fn checked(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|e| std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or(""));
    let end = text.find("\ncrc ")? + 1;
    let crc = text.get(end + 4..end + 12)?;
    (u32::from_str_radix(crc, 16).ok()? == crc32c::crc32c(&text.as_bytes()[..end])).then(|| &text[..end])
}

/// The rest of a line, whatever is in it.
pub(crate) fn push_escaped(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('\n');
}

pub(crate) fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        out.push(if escaped == Some('n') { '\n' } else { c });
    }
    out
}
