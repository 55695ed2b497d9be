//! Standard output, a line at a time.

use std::fmt;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::plain::{plain, plain_json};

/// Standard output took no more.
#[derive(Debug)]
pub struct NotWritten(io::Error);

impl NotWritten {
    /// Whether its reader has closed it, as `head` does: a quiet end, not an error.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl From<io::Error> for NotWritten {
    fn from(error: io::Error) -> NotWritten {
        NotWritten(error)
    }
}

impl fmt::Display for NotWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl std::error::Error for NotWritten {}

/// Prints a line, at once, as it is: text that others chose goes through [`plain`] first.
///
/// # Errors
/// [`NotWritten`], like all here.
pub fn line(line: impl AsRef<str>) -> Result<(), NotWritten> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{}\n", line.as_ref()).as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a JSON value on a line of its own. What would act on a terminal is escaped in it.
///
/// # Errors
/// [`NotWritten`].
pub fn json(value: &Value) -> Result<(), NotWritten> {
    line(plain_json(&value.to_string()))
}

/// Prints aligned columns; those with numbers alone to the right. A cell that others chose is made
/// [`plain`].
///
/// # Errors
/// [`NotWritten`].
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Result<(), NotWritten> {
    let mut table = Table::new();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(plain).collect()).collect();
    table.load_style(presets::NOTHING).set_header(head).add_rows(&rows);
    for (n, column) in table.column_iter_mut().enumerate() {
        let is_number = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        let numbers = rows.iter().all(|row| row.get(n).is_none_or(is_number));
        column.set_padding((0, 2)).set_cell_alignment(if numbers { CellAlignment::Right } else { CellAlignment::Left });
    }
    table.trim_fmt().lines().try_for_each(line)
}

/// Says something beside the output, on standard error, in the name of a command. Whether it is
/// read changes nothing.
pub fn note(command: &str, text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{command}: {}", plain(text));
}
