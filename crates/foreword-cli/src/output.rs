//! Standard output: buffered, in lines, fields, tables and JSON.

use std::fmt;
use std::io::{BufWriter, StdoutLock, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::exit::Failure;

/// Large, so that the system calls are few.
const BUFFER: usize = 256 << 10;

/// A column of a table.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    name: &'static str,
    align: CellAlignment,
}

impl Column {
    /// Of texts.
    pub(crate) fn left(name: &'static str) -> Column {
        Column { name, align: CellAlignment::Left }
    }

    /// Of numbers.
    pub(crate) fn right(name: &'static str) -> Column {
        Column { name, align: CellAlignment::Right }
    }
}

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

    /// Names and their values, all values below one another.
    pub(crate) fn fields(&mut self, fields: &[(String, String)]) -> Result<(), Failure> {
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        fields.iter().try_for_each(|(name, value)| self.line(format_args!("{name:<width$}  {value}")))
    }

    /// As it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.0.write_all(text.as_bytes()).map_err(Failure::output)
    }

    /// A JSON value on a line of its own.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(format_args!("{value}"))
    }

    /// Aligned columns.
    pub(crate) fn table(&mut self, head: &[Column], rows: &[Vec<String>]) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(head.iter().map(|column| column.name)).add_rows(rows);
        for (column, Column { align, .. }) in table.column_iter_mut().zip(head) {
            column.set_padding((0, 2)).set_cell_alignment(*align);
        }
        self.line(format_args!("{}", table.trim_fmt()))
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(Failure::output)
    }

    /// For those who write in their own way.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.0
    }
}
