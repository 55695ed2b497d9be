//! Standard output: buffered, in lines, fields, tables and JSON.

use std::fmt;
use std::io::{BufWriter, StdoutLock, Write};

use serde_json::Value;

use crate::exit::Failure;

/// Large, so that the system calls are few.
const BUFFER: usize = 256 << 10;

pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Output {
        Output(BufWriter::with_capacity(BUFFER, std::io::stdout().lock()))
    }

    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) -> Result<(), Failure> {
        self.0.write_fmt(line).and_then(|()| self.0.write_all(b"\n")).map_err(Failure::output)
    }

    /// A name and its value, the values below one another.
    pub(crate) fn field(&mut self, name: &str, value: impl fmt::Display) -> Result<(), Failure> {
        self.line(format_args!("{name:<10}  {value}"))
    }

    /// A JSON value on a line of its own.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(format_args!("{value}"))
    }

    /// Aligned columns: to the right, but for the last.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let cell_width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = head.iter().enumerate().map(|(i, name)| cell_width(i).max(name.chars().count())).collect();
        self.row(head.iter().copied(), &widths)?;
        for row in rows {
            self.row(row.iter().map(String::as_str), &widths)?;
        }
        Ok(())
    }

    fn row<'a>(&mut self, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> Result<(), Failure> {
        let mut line = String::new();
        for (i, (cell, &width)) in cells.zip(widths).enumerate() {
            if i + 1 == widths.len() {
                line.push_str(cell);
            } else {
                line.push_str(&format!("{cell:>width$}  "));
            }
        }
        self.line(format_args!("{line}"))
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(Failure::output)
    }

    /// For those who write in their own way.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.0
    }
}
