//! Standard output and standard error: lines, JSON, and tables.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::exit::Failure;

/// A line, at once.
pub(crate) fn line(line: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{}\n", line.as_ref()).as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
}

pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    line(value.to_string())
}

/// Said beside the output. Whether it is read changes nothing.
pub(crate) fn note(line: impl AsRef<str>) {
    _ = writeln!(std::io::stderr(), "foreword-archive: {}", plain(line.as_ref()));
}

/// What others say, made safe to print on a terminal: what would move its cursor or colour it is
/// written as Rust writes it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Columns, numbers to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head).add_rows(rows);
    for (n, column) in table.column_iter_mut().enumerate() {
        let number = rows.iter().all(|row| row.get(n).is_none_or(|cell| cell.starts_with(|c: char| c.is_ascii_digit())));
        column.set_padding((0, 2)).set_cell_alignment(if number { CellAlignment::Right } else { CellAlignment::Left });
    }
    table.trim_fmt().lines().try_for_each(line)
}
