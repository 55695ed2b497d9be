//! The page around the plots.

use std::fmt::Write;

use super::escape::escaped;
use super::parts::{Item, Report, Section, Table};
use super::plot;

const CSS: &str = include_str!("page.css");

pub(super) fn page(report: &Report) -> String {
    let title = escaped(&report.title);
    let mut out = format!(
        "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">
<link rel=\"icon\" href=\"data:,\">
<title>{title}</title>
<style>
{CSS}</style>
</head>
<body>
<main>
<h1>{title}</h1>
"
    );
    paragraphs(&mut out, "lead", &report.text);
    if !report.warnings.is_empty() {
        out.push_str("<div class=\"warning\" role=\"note\">\n");
        paragraphs(&mut out, "", &report.warnings);
        out.push_str("</div>\n");
    }
    if !report.facts.is_empty() {
        out.push_str("<dl>\n");
        for (name, value) in &report.facts {
            let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(value));
        }
        out.push_str("</dl>\n");
    }
    for part in &report.sections {
        section(&mut out, part);
    }
    let _ = write!(out, "</main>\n<script id=\"data\" type=\"application/json\">{}</script>\n</body>\n</html>\n", data(report));
    out
}

/// As JSON that cannot end its element.
fn data(report: &Report) -> String {
    // Texts and numbers have no way to fail; what is no finite number becomes null.
    serde_json::to_string(report).unwrap_or_default().replace('<', "\\u003c")
}

fn section(out: &mut String, section: &Section) {
    let _ = writeln!(out, "<section>\n<h2>{}</h2>", escaped(&section.title));
    paragraphs(out, "", &section.text);
    for item in &section.items {
        match item {
            Item::Plot(plot) => {
                let _ = writeln!(out, "<figure>\n<figcaption><h3>{}</h3>", escaped(&plot.title));
                if !plot.text.is_empty() {
                    let _ = writeln!(out, "<p>{}</p>", escaped(&plot.text));
                }
                out.push_str("</figcaption>\n");
                out.push_str(&plot::figure(plot));
                table(out, &plot.table());
                out.push_str("</figure>\n");
            }
            Item::Table(texts) => table(out, texts),
            Item::List(points) => {
                let points: String = points.iter().map(|point| format!("<li>{}</li>\n", escaped(point))).collect();
                let _ = writeln!(out, "<ul>\n{points}</ul>");
            }
            Item::Code(lines) => {
                let _ = writeln!(out, "<pre><code>{}</code></pre>", escaped(lines));
            }
        }
    }
    out.push_str("</section>\n");
}

fn paragraphs(out: &mut String, class: &str, texts: &[String]) {
    for text in texts {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let _ = writeln!(out, "<p{class}>{}</p>", escaped(text));
    }
}

/// Wider than the page, it scrolls by itself.
fn table(out: &mut String, table: &Table) {
    if !table.title.is_empty() {
        let _ = writeln!(out, "<h3>{}</h3>", escaped(&table.title));
    }
    let class = |i: usize| if i < table.words { " class=\"word\"" } else { "" };
    out.push_str("<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>");
    for (i, name) in table.head.iter().enumerate() {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(i), escaped(name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let (tag, scope) = if i == 0 { ("th", " scope=\"row\"") } else { ("td", "") };
            let (text, small) = match cell.split_once('\n') {
                Some((text, small)) => (text, format!("<br><small>{}</small>", escaped(small))),
                None => (cell.as_str(), String::new()),
            };
            let _ = write!(out, "<{tag}{scope}{}>{}{small}</{tag}>", class(i), escaped(text));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use crate::sample::Spread;

    #[test]
    fn cells_lists_and_code_keep_to_their_places() {
        let bar = Bar::from(Spread::of(&[1.0, 2.0, 3.0]).unwrap());
        let plot = Plot::bars("p", Axis::linear("x", Unit::Seconds), [("a", bar)]);
        let section = Section::new("S").plot(plot).list(vec!["one <".into()]).code("x < y");
        let table = Table::new("", &["a", "b", "c"], vec![vec!["1".into(), "2".into(), "3".into()]]).words(2);
        let html = Report::new("T").section(section.table(table)).to_html();
        for part in [
            "<td>2 s<br><small>1 s–3 s</small></td>",
            "<li>one &lt;</li>",
            "<pre><code>x &lt; y</code></pre>",
            "<td class=\"word\">2</td><td>3</td>",
        ] {
            assert!(html.contains(part), "{part}");
        }
    }

    #[test]
    fn the_page_carries_its_data_and_asks_for_nothing() {
        let plot = Plot::lines(
            "p",
            Axis::linear("x", Unit::Count),
            Axis::linear("y", Unit::Seconds),
            vec![Series::measured("</script><b>", [(1.0, f64::NAN), (2.0, 0.5)])],
        );
        let table = Table::new("t", &["a", "b"], vec![vec!["1".into(), "2 & 3".into()]]);
        let report = Report::new("T \"quoted\"").text("lead").warning("careful").fact("disk", "vda");
        let html = report.clone().section(Section::new("S").text("s").plot(plot).table(table)).to_html();
        for part in ["<h1>T &quot;quoted&quot;</h1>", "careful", "<dt>disk</dt><dd>vda</dd>", "<h2>S</h2>", "2 &amp; 3", "500 ms"]
        {
            assert!(html.contains(part), "{part}");
        }
        assert_eq!(html.matches("</script>").count(), 1, "the data cannot end its element");
        for outside in ["http://", "https://", "//", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        let json = html.split_once("application/json\">").unwrap().1.split_once("</script>").unwrap().0;
        let data: serde_json::Value = serde_json::from_str(json).unwrap();
        let points = &data["sections"][0]["items"][0]["plot"]["body"]["lines"]["series"][0]["points"];
        assert_eq!((points[0]["y"].is_null(), &points[1]["y"]), (true, &0.5.into()));
    }
}
