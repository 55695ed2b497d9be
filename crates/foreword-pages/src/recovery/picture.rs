//! The picture of a recovery, as SVG. The log, the time, the pages, the changes and the
//! transactions have a bar each. Its parts are as wide as they are large, and are named below the
//! bar. The colours follow the reader's light or dark scheme.

use std::fmt::Write;
use std::time::Duration;

use foreword::Lsn;

use super::report::Recovery;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 880.0;
const BAR: f64 = 24.0;
const LINE: f64 = 20.0;
/// The mean width of a letter of the text below a bar, at most.
const LETTER: f64 = 6.2;

const STYLE: &str = "\
text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2328}
.title{font-size:18px;font-weight:600}.name{font-size:13px;font-weight:600}.note{fill:#59636e}
.page{fill:#fff}.track{fill:#eceff2}.idle{fill:#aab4c0}.blue{fill:#3b7dd8}.green{fill:#2f9e62}.amber{fill:#d9902b}.red{fill:#cf4a3c}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9aa4af}.page{fill:#0d1117}.track{fill:#21262d}.idle{fill:#59636e}}
";

/// A part of a bar.
struct Part {
    class: &'static str,
    size: f64,
    text: String,
}

fn part(class: &'static str, size: f64, text: String) -> Part {
    Part { class, size, text }
}

impl Recovery {
    /// Draws the recovery: an SVG document.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut svg = String::new();
        // Writing to a String does not fail.
        let _ = self.draw(&mut svg);
        svg
    }

    fn draw(&self, svg: &mut String) -> std::fmt::Result {
        let mut body = String::new();
        let mut y = 84.0;
        for (name, parts) in [
            ("log", self.of_log()),
            ("time", self.of_time()),
            ("pages", self.of_pages()),
            ("changes", self.of_changes()),
            ("transactions", self.of_transactions()),
        ] {
            y = draw_bar(&mut body, y, name, &parts)?;
        }
        writeln!(svg, r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">"#)?;
        writeln!(svg, "<title>Recovery of a page store</title>\n<style>{STYLE}</style>")?;
        writeln!(svg, r#"<rect class="page" width="{WIDTH}" height="{y}"/>"#)?;
        writeln!(svg, r#"<text class="title" x="20" y="34">Recovery in {}</text>"#, took(self.took()))?;
        writeln!(svg, r#"<text class="note" x="20" y="58">{}</text>"#, self.found())?;
        writeln!(svg, "{body}</svg>")
    }

    /// What analysis found, in words.
    fn found(&self) -> String {
        let Recovery { listed, live, .. } = self;
        match self.checkpoint {
            Lsn::ZERO => "There was no checkpoint: everything in the log is redone.".into(),
            at => format!(
                "Analysis found the last checkpoint at LSN {}: {} not on disk then, {} under way.",
                grouped(at.0),
                counted(*listed, "page"),
                counted(*live, "transaction")
            ),
        }
    }

    fn of_log(&self) -> Vec<Part> {
        let first = self.log.start_lsn.max(Lsn::FIRST);
        let behind = self.last_lsn.next().max(first);
        let redo = self.redo_from.clamp(first, behind);
        let checkpoint = self.checkpoint.clamp(redo, behind);
        let since = if self.checkpoint == Lsn::ZERO { "all of it" } else { "from the checkpoint on" };
        [
            ("idle", first, redo, "kept for old transactions"),
            ("amber", redo, checkpoint, "before the checkpoint, for pages that were not on disk"),
            ("green", checkpoint, behind, since),
        ]
        .into_iter()
        .filter(|(_, from, to, _)| from < to)
        .map(|(class, from, to, what)| {
            let text = format!("{} to {}: {what}", grouped(from.0), grouped(to.0 - 1));
            part(class, (to.0 - from.0) as f64, text)
        })
        .collect()
    }

    fn of_time(&self) -> Vec<Part> {
        let redo = format!(
            "redo {}: {}, {}",
            took(self.redo.took),
            rate(self.redo.records, self.redo.took),
            counted(self.threads, "thread")
        );
        vec![
            part("idle", self.log.took.as_secs_f64(), format!("the log opened {}", took(self.log.took))),
            part("blue", self.analysis.took.as_secs_f64(), format!("analysis {}", took(self.analysis.took))),
            part("green", self.redo.took.as_secs_f64(), redo),
            part("red", self.undo.took.as_secs_f64(), format!("undo {}", took(self.undo.took))),
        ]
    }

    fn of_pages(&self) -> Vec<Part> {
        let touched = self.pages - self.images.min(self.pages);
        vec![
            part("green", self.images as f64, format!("{} rebuilt from their image", grouped(self.images))),
            part("blue", touched as f64, format!("{} changed as they were on disk", grouped(touched))),
            part("idle", self.pages_skipped as f64, format!("{} skipped", grouped(self.pages_skipped))),
        ]
    }

    fn of_changes(&self) -> Vec<Part> {
        vec![
            part("green", self.applied as f64, format!("{} made", grouped(self.applied))),
            part("idle", self.skipped as f64, format!("{} skipped: the pages have them", grouped(self.skipped))),
            part("red", self.undo.records as f64, format!("{} undone", grouped(self.undo.records))),
        ]
    }

    fn of_transactions(&self) -> Vec<Part> {
        vec![
            part("green", self.winners as f64, format!("{} ended", grouped(self.winners))),
            part("red", self.losers as f64, format!("{} lost, and undone", grouped(self.losers))),
        ]
    }

    fn took(&self) -> Duration {
        self.log.took + self.analysis.took + self.redo.took + self.undo.took
    }
}

/// Draws a bar, and its parts in words. Returns where the next bar may begin.
fn draw_bar(svg: &mut String, y: f64, name: &str, parts: &[Part]) -> Result<f64, std::fmt::Error> {
    writeln!(svg, r#"<text class="name" x="20" y="{}">{name}</text>"#, y + 17.0)?;
    writeln!(svg, r#"<rect class="track" x="{LEFT}" y="{y}" width="{}" height="{BAR}"/>"#, RIGHT - LEFT)?;
    // A part that is not empty is at least three units wide, so that it is seen.
    let seen = |part: &Part, total: f64| if part.size > 0.0 { (part.size / total * (RIGHT - LEFT)).max(3.0) } else { 0.0 };
    let total: f64 = parts.iter().map(|part| part.size).sum();
    let too_wide = parts.iter().map(|part| seen(part, total)).sum::<f64>() / (RIGHT - LEFT);
    let mut x = LEFT;
    for part in parts.iter().filter(|part| part.size > 0.0) {
        let width = seen(part, total) / too_wide;
        writeln!(svg, r#"<rect class="{}" x="{x:.1}" y="{y}" width="{width:.1}" height="{BAR}"/>"#, part.class)?;
        x += width;
    }
    let (mut x, mut y) = (LEFT, y + BAR + LINE - 2.0);
    for part in parts {
        let width = 22.0 + LETTER * part.text.len() as f64;
        if x > LEFT && x + width > RIGHT {
            (x, y) = (LEFT, y + LINE);
        }
        writeln!(svg, r#"<rect class="{}" x="{x:.1}" y="{}" width="10" height="10"/>"#, part.class, y - 9.0)?;
        writeln!(svg, r#"<text x="{:.1}" y="{y}">{}</text>"#, x + 16.0, part.text)?;
        x += width + 10.0;
    }
    Ok(y + 28.0)
}

fn took(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.2} s"),
        s => format!("{:.1} ms", s * 1e3),
    }
}

fn rate(records: u64, time: Duration) -> String {
    match time.as_secs_f64() {
        s if s > 0.0 => format!("{}, {:.2} million/s", counted(records, "record"), records as f64 / s / 1e6),
        _ => counted(records, "record"),
    }
}

fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// A number, with a comma before each three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let told = [0, 7, 999, 1000, 1234567, 100000].map(grouped);
        assert_eq!(told, ["0", "7", "999", "1,000", "1,234,567", "100,000"]);
        assert_eq!(counted(1, "page"), "1 page");
    }

    #[test]
    fn parts_fill_the_bar_and_small_ones_are_seen() {
        let mut svg = String::new();
        let parts = [1e9, 1.0, 0.0].map(|size| part("green", size, "text".into()));
        draw_bar(&mut svg, 0.0, "name", &parts).unwrap();
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("height=\"24\"") && line.contains("green"))
            .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths.len(), 2, "nothing is not drawn: {svg}");
        assert!(widths[1] >= 2.9 && (widths.iter().sum::<f64>() - (RIGHT - LEFT)).abs() < 0.2, "{widths:?}");
    }
}
