//! Standard output: buffered, in lines, fields, tables and JSON.

use std::fmt;
use std::io::{BufWriter, StdoutLock, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::exit::Failure;
use crate::plain::{plain, plain_json};

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

/// What a text is to whoever looks over it quickly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A name, a heading.
    Name,
    Good,
    Warn,
    Bad,
    /// Nothing more than what it says.
    Plain,
}

impl Tone {
    pub(crate) fn style(self) -> Style {
        match self {
            Tone::Name => Style::new().bold(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Plain => Style::new(),
        }
    }
}

pub(crate) struct Output {
    to: BufWriter<StdoutLock<'static>>,
    /// Whether tones are to be seen. Records go through as they are, whatever is in them.
    colors: bool,
}

impl Output {
    pub(crate) fn new() -> Output {
        let colors = AutoStream::choice(&std::io::stdout()) != ColorChoice::Never;
        Output { to: BufWriter::with_capacity(BUFFER, std::io::stdout().lock()), colors }
    }

    /// As it is: what others chose goes through [`plain`].
    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) -> Result<(), Failure> {
        self.to.write_fmt(line).and_then(|()| self.to.write_all(b"\n")).map_err(Failure::output)
    }

    /// A name and its value, the values below one another.
    pub(crate) fn field(&mut self, name: &str, value: impl fmt::Display) -> Result<(), Failure> {
        self.toned(name, Tone::Plain, value)
    }

    /// As `field`, the value in a tone.
    pub(crate) fn toned(&mut self, name: &str, tone: Tone, value: impl fmt::Display) -> Result<(), Failure> {
        let name = self.paint(Tone::Name, format!("{name:<10}"));
        let value = self.paint(tone, value);
        self.line(format_args!("{name}  {value}"))
    }

    /// A text in a tone, where that is to be seen; nothing else in it does anything to a terminal.
    pub(crate) fn paint(&self, tone: Tone, text: impl fmt::Display) -> String {
        let (style, text) = (tone.style(), plain(text));
        if self.colors && tone != Tone::Plain { format!("{style}{text}{style:#}") } else { text }
    }

    /// Names and their values, all values below one another.
    pub(crate) fn fields(&mut self, fields: &[(String, String)]) -> Result<(), Failure> {
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        fields.iter().try_for_each(|(name, value)| self.line(format_args!("{name:<width$}  {}", plain(value))))
    }

    /// As they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(Failure::output)
    }

    /// A JSON value on a line of its own.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(format_args!("{}", plain_json(&value.to_string())))
    }

    /// Aligned columns. Cells that others chose come painted.
    pub(crate) fn table(&mut self, head: &[Column], rows: &[Vec<String>]) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(head.iter().map(|column| column.name)).add_rows(rows);
        for (column, Column { align, .. }) in table.column_iter_mut().zip(head) {
            column.set_padding((0, 2)).set_cell_alignment(*align);
        }
        let table = table.trim_fmt();
        let mut lines = table.lines();
        let head = self.paint(Tone::Name, lines.next().unwrap_or_default().to_owned());
        self.line(format_args!("{head}"))?;
        lines.try_for_each(|line| self.line(format_args!("{line}")))
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(Failure::output)
    }

    /// For those who write in their own way.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.to
    }
}
