//! The picture of a recovery, as SVG: the log from its start to its end, what each phase read of it, and how long it took.

use std::fmt::Write;
use std::time::Duration;

use foreword::Lsn;

use super::Recovery;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 110.0;
const BAR: f64 = 22.0;

impl Recovery {
    /// The picture of it: an SVG document.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut svg = String::new();
        // (Writing to a String does not fail.)
        let _ = self.draw(&mut svg);
        svg
    }

    fn draw(&self, svg: &mut String) -> std::fmt::Result {
        let last = self.last_lsn.max(Lsn(1));
        let start = self.log.start_lsn.max(Lsn(1)).min(last);
        let span = (last.0 - start.0 + 1) as f64;
        let x = |lsn: Lsn| LEFT + (lsn.0.clamp(start.0, last.0 + 1) - start.0) as f64 / span * (WIDTH - LEFT - 20.0);
        writeln!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 330" font-family="sans-serif" font-size="13">"##
        )?;
        writeln!(svg, r##"<rect width="{WIDTH}" height="330" fill="#fff"/>"##)?;
        writeln!(svg, r##"<text x="20" y="28" font-size="17">Recovery: {}</text>"##, took(self.took()))?;
        let begin = if self.checkpoint > Lsn::ZERO { self.checkpoint } else { start };
        let bars = [
            ("log", start, "#ccd3da", format!("records {start} to {last}")),
            (
                "analysis",
                begin,
                "#5b8db8",
                format!("{} pages, {} transactions lost, {} ended", self.pages, self.losers, self.winners),
            ),
            (
                "redo",
                self.redo_from,
                "#5aa469",
                format!("{} made, {} skipped, {} images", self.applied, self.skipped, self.images),
            ),
        ];
        for (i, (name, from, colour, what)) in bars.iter().enumerate() {
            let y = 60.0 + 44.0 * i as f64;
            let width = (x(last.next()) - x(*from)).max(1.0);
            writeln!(svg, r##"<text x="20" y="{}">{name}</text>"##, y + 16.0)?;
            writeln!(svg, r##"<rect x="{:.1}" y="{y}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"##, x(*from))?;
            writeln!(svg, r##"<text x="{LEFT}" y="{}" fill="#555" font-size="11">{what}</text>"##, y + 35.0)?;
        }
        if self.checkpoint > Lsn::ZERO {
            let at = x(self.checkpoint);
            writeln!(svg, r##"<path d="M{at:.1} 52V170" stroke="#333" stroke-dasharray="4 3"/>"##)?;
            writeln!(
                svg,
                r##"<text x="{at:.1}" y="48" font-size="11" text-anchor="middle">checkpoint {}</text>"##,
                self.checkpoint
            )?;
        }
        self.draw_times(svg, 215.0)?;
        writeln!(svg, "</svg>")
    }

    /// Each phase as long as it took, one behind the other.
    fn draw_times(&self, svg: &mut String, y: f64) -> std::fmt::Result {
        let total = self.took().as_secs_f64().max(1e-9);
        let mut at = LEFT;
        writeln!(svg, r##"<text x="20" y="{}">time</text>"##, y + 16.0)?;
        let phases = [
            ("log", self.log.took, "#ccd3da", String::new()),
            (
                "analysis",
                self.analysis.took,
                "#5b8db8",
                format!("{} pages listed, {} transactions alive", self.listed, self.live),
            ),
            ("redo", self.redo.took, "#5aa469", format!("{}, {} threads", rate(self.redo.records, self.redo.took), self.threads)),
            ("undo", self.undo.took, "#c8734f", format!("{} changes of {} transactions", self.undo.records, self.losers)),
        ];
        for (i, (name, time, colour, what)) in phases.iter().enumerate() {
            let width = time.as_secs_f64() / total * (WIDTH - LEFT - 20.0);
            writeln!(svg, r##"<rect x="{at:.1}" y="{y}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"##)?;
            at += width;
            let (column, line) = (LEFT + 390.0 * (i % 2) as f64, y + 48.0 + 24.0 * (i / 2) as f64);
            writeln!(svg, r##"<rect x="{column}" y="{}" width="11" height="11" fill="{colour}"/>"##, line - 10.0)?;
            let gap = if what.is_empty() { "" } else { ": " };
            writeln!(svg, r##"<text x="{}" y="{line}" font-size="12">{name} {}{gap}{what}</text>"##, column + 17.0, took(*time))?;
        }
        Ok(())
    }

    fn took(&self) -> Duration {
        self.log.took + self.analysis.took + self.redo.took + self.undo.took
    }
}

fn took(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.2} s"),
        s => format!("{:.1} ms", s * 1e3),
    }
}

fn rate(records: u64, time: Duration) -> String {
    match time.as_secs_f64() {
        s if s > 0.0 => format!("{records} records, {:.2} million/s", records as f64 / s / 1e6),
        _ => format!("{records} records"),
    }
}
