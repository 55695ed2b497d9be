//! Standard output: buffered, in lines, fields, tables and JSON.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::sync::{Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::exit::Failure;
use foreword_command::plain;
use foreword_command::plain::plain_json;

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

/// How a text is marked, for readers who skim.
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

/// Prints a message that is not a result to standard error. If standard error is closed, nothing
/// happens.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "foreword: {}", plain(text));
}

/// Prints an error to standard error, once: a failure of background work is also that of the call
/// that comes upon it.
pub(crate) fn error(text: impl fmt::Display) {
    static LAST: Mutex<String> = Mutex::new(String::new());
    let text = plain(text);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if *last != text {
        let _ = writeln!(anstream::stderr(), "{0}foreword:{0:#} {text}", Tone::Bad.style());
        *last = text;
    }
}

pub(crate) struct Output {
    to: BufWriter<StdoutLock<'static>>,
    /// Whether tones are shown. Records go through as they are, whatever is in them.
    colors: bool,
    /// How many columns the terminal has, if this is one: words are not broken at its edge.
    columns: Option<usize>,
}

impl Output {
    pub(crate) fn new() -> Output {
        let colors = AutoStream::choice(&std::io::stdout()) != ColorChoice::Never;
        Output { to: BufWriter::with_capacity(BUFFER, std::io::stdout().lock()), colors, columns: columns() }
    }

    /// As it is: text that others chose goes through [`plain`] first.
    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) -> Result<(), Failure> {
        self.to.write_fmt(line).and_then(|()| self.to.write_all(b"\n")).map_err(Failure::output)
    }

    /// A name and its value, the values below one another.
    pub(crate) fn field(&mut self, name: &str, value: impl fmt::Display) -> Result<(), Failure> {
        self.toned(name, Tone::Plain, value)
    }

    /// As `field`, the value in a tone.
    pub(crate) fn toned(&mut self, name: &str, tone: Tone, value: impl fmt::Display) -> Result<(), Failure> {
        let shown = self.paint(Tone::Name, format!("{name:<10}"));
        self.hanging(&format!("{shown}  "), name.chars().count().max(10) + 2, tone, value)
    }

    /// A text behind `begin`, which is `indent` columns wide. If the terminal is too narrow for one
    /// line, the others are indented below the first.
    fn hanging(&mut self, begin: &str, indent: usize, tone: Tone, text: impl fmt::Display) -> Result<(), Failure> {
        let text = plain(text);
        let lines = match self.columns {
            Some(columns) => broken(&text, columns.saturating_sub(indent).max(16)),
            None => vec![text.as_str()],
        };
        lines.into_iter().enumerate().try_for_each(|(i, line)| {
            let line = self.paint(tone, line);
            if i == 0 { self.line(format_args!("{begin}{line}")) } else { self.line(format_args!("{:indent$}{line}", "")) }
        })
    }

    /// A point of a list.
    pub(crate) fn point(&mut self, text: &str) -> Result<(), Failure> {
        self.hanging("- ", 2, Tone::Plain, text)
    }

    /// A text in a tone, where that is to be seen; nothing else in it does anything to a terminal.
    pub(crate) fn paint(&self, tone: Tone, text: impl fmt::Display) -> String {
        let (style, text) = (tone.style(), plain(text));
        if self.colors && tone != Tone::Plain { format!("{style}{text}{style:#}") } else { text }
    }

    /// Names and their values, all values below one another.
    pub(crate) fn fields(&mut self, fields: &[(String, String)]) -> Result<(), Failure> {
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        fields.iter().try_for_each(|(name, value)| self.hanging(&format!("{name:<width$}  "), width + 2, Tone::Plain, value))
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

    /// For records, which are written as they are.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.to
    }
}

/// The terminal's width, if standard output is one and it has a width.
fn columns() -> Option<usize> {
    #[cfg(unix)]
    {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
    }
    #[cfg(not(unix))]
    None
}

/// Breaks the text at blanks into lines of at most `columns` characters. A longer word gets a line
/// of its own.
fn broken(text: &str, columns: usize) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while rest.chars().count() > columns {
        let far = rest.char_indices().nth(columns).map_or(rest.len(), |(at, _)| at);
        // A blank just behind the last column ends the line as well.
        let before = if rest[far..].starts_with(' ') { Some(far) } else { rest[..far].rfind(' ').filter(|&at| at > 0) };
        let end = before.or_else(|| rest[far..].find(' ').map(|at| far + at));
        let Some(end) = end else { break };
        lines.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(' ');
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks_alone() {
        assert_eq!(broken("one two three", 7), ["one two", "three"]);
        assert_eq!(broken("one two three", 6), ["one", "two", "three"]);
        assert_eq!(broken("/a/long/path that", 5), ["/a/long/path", "that"]);
        assert_eq!(broken("whatever", 5), ["whatever"]);
        assert_eq!(broken("é é é é", 3), ["é é", "é é"]);
        assert_eq!(broken("", 5), [""]);
    }
}
