//! Text that others chose (names, paths, what a file or the system says), made safe to print on a
//! terminal.

use std::fmt::{self, Display, Write};

/// A text in which what would move the cursor, colour, hide or reorder is written as Rust writes
/// it: `\n`, `\u{1b}`. All else, a backslash too, stays: done twice, it is as done once.
pub fn plain(text: impl Display) -> String {
    let mut out = String::new();
    // Writing to a string fails only if the text itself does.
    let _ = write!(Plain(&mut out), "{text}");
    out
}

struct Plain<'a>(&'a mut String);

impl Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match acts(c) {
                true => self.0.extend(c.escape_default()),
                false => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Whether it does something to what is around it, or cannot be seen.
fn acts(c: char) -> bool {
    const INVISIBLE: [std::ops::RangeInclusive<char>; 9] = [
        '\u{ad}'..='\u{ad}',
        '\u{61c}'..='\u{61c}',
        '\u{180e}'..='\u{180e}',
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
        '\u{fff9}'..='\u{fffb}',
        '\u{e0000}'..='\u{e0fff}',
    ];
    c.is_control() || INVISIBLE.iter().any(|range| range.contains(&c))
}

/// JSON in which the same characters stand as `\u` and four digits. A parser reads the same text.
pub fn plain_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match acts(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(out, "\\u{unit:04x}");
            }),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_written_out_and_the_rest_stays() {
        assert_eq!(plain("a\x1b[2J\n\t\u{9b}\u{202e}\u{200d}\u{e0041}"), r"a\u{1b}[2J\n\t\u{9b}\u{202e}\u{200d}\u{e0041}");
        for text in ["", "C:\\log", "naïve e\u{301} 日本語 שלום 🦀", "`\"'\\n"] {
            assert_eq!(plain(text), text);
        }
        let once = plain("\x07\\\n");
        assert_eq!(plain(&once), once);
    }

    #[test]
    fn json_means_the_same() {
        let text = "\"\\\x1b\n\u{7f}\u{9b}\u{202e}\u{e0041}é";
        let json = plain_json(&serde_json::json!({ text: text }).to_string());
        assert!(!json.contains(acts), "{json:?}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value[text], text);
    }
}
