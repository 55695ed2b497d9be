//! An earlier `--json` report of `doctor` or `bench`, and how far the new one differs from it.

use std::path::{Path, PathBuf};

use foreword_measure::report::{Section, Table, Unit};
use serde::Serialize;
use serde_json::Value;

use crate::exit::Failure;
use crate::output::{Column, Output};

/// A measured quantity: the median of its rounds, the least and the most.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quantity {
    pub(super) name: String,
    pub(super) unit: Unit,
    median: f64,
    min: f64,
    max: f64,
}

impl Quantity {
    /// Of a spread as a report has it in JSON; `None` if that is no spread.
    pub(super) fn of(name: impl Into<String>, unit: Unit, spread: &Value) -> Option<Quantity> {
        let number = |name: &str| spread[name].as_f64();
        Some(Quantity { name: name.into(), unit, median: number("median")?, min: number("min")?, max: number("max")? })
    }

    /// Whether less of it is better.
    fn is_a_cost(&self) -> bool {
        self.unit == Unit::Seconds
    }
}

/// All quantities of a report that are compared.
pub(super) type Quantities = fn(&Value) -> Vec<Quantity>;

/// The report to compare with.
#[derive(Debug)]
pub(super) struct Baseline {
    file: PathBuf,
    report: Value,
}

/// The new report compared with the baseline.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    file: PathBuf,
    /// When the baseline was measured, as it says.
    started: Option<String>,
    /// What differs in what was measured, or on what: then the ratios compare two things.
    differences: Vec<String>,
    changes: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    name: String,
    #[serde(skip)]
    unit: Unit,
    before: f64,
    now: f64,
    /// Now to before, of the medians.
    ratio: f64,
    verdict: ChangeVerdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ChangeVerdict {
    Better,
    Worse,
    /// The ranges of the rounds overlap.
    Unclear,
}

impl ChangeVerdict {
    fn name(self) -> &'static str {
        match self {
            ChangeVerdict::Better => "better",
            ChangeVerdict::Worse => "worse",
            ChangeVerdict::Unclear => "within the spread",
        }
    }
}

impl Baseline {
    /// Reads the report, which must be one of the same command.
    pub(super) fn read(file: &Path, quantities: Quantities) -> Result<Baseline, Failure> {
        let wrong = |why: &str| Failure::Wrong(format!("--baseline {}: {why}", file.display()));
        let text = std::fs::read(file).map_err(|e| wrong(&e.to_string()))?;
        let report: Value = serde_json::from_slice(&text).map_err(|e| wrong(&format!("not JSON: {e}")))?;
        if quantities(&report).is_empty() {
            return Err(wrong("not a report that this command printed with --json"));
        }
        Ok(Baseline { file: file.to_owned(), report })
    }

    /// Sets a new report against this one. Quantities that only one of them has are left out.
    pub(super) fn compare(&self, new: &Value, quantities: Quantities) -> Comparison {
        let before = quantities(&self.report);
        let change = |now: Quantity| {
            let then = before.iter().find(|then| then.name == now.name)?;
            Some(Change {
                ratio: now.median / then.median,
                verdict: verdict(then, &now),
                name: now.name,
                unit: now.unit,
                before: then.median,
                now: now.median,
            })
        };
        Comparison {
            file: self.file.clone(),
            started: self.report["setting"]["started"].as_str().map(str::to_owned),
            differences: differences(&self.report, new),
            changes: quantities(new).into_iter().filter_map(change).collect(),
        }
    }
}

fn verdict(before: &Quantity, now: &Quantity) -> ChangeVerdict {
    let (more, less) = (now.min > before.max, now.max < before.min);
    match (more, less, now.is_a_cost()) {
        (true, _, true) | (_, true, false) => ChangeVerdict::Worse,
        (true, _, false) | (_, true, true) => ChangeVerdict::Better,
        (false, false, _) => ChangeVerdict::Unclear,
    }
}

/// The circumstances that differ between two reports.
fn differences(before: &Value, now: &Value) -> Vec<String> {
    const SAME: [(&str, &str); 8] = [
        ("host", "/setting/host"),
        ("processor", "/setting/machine/cpu"),
        ("processors", "/setting/machine/cpus"),
        ("system", "/setting/machine/system"),
        ("file system", "/setting/place/file_system"),
        ("device", "/setting/place/device/name"),
        ("time for each", "/seconds_each"),
        ("segment size", "/segment_bytes"),
    ];
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "unknown".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let both = SAME.map(|(name, at)| (name, text(before.pointer(at)), text(now.pointer(at))));
    both.into_iter()
        .filter(|(_, before, now)| before != now)
        .map(|(name, before, now)| format!("{name}: {before}, now {now}"))
        .collect()
}

impl Comparison {
    const HEAD: [&'static str; 5] = ["quantity", "before", "now", "now/before", "change"];
    const RANGES: &'static str =
        "Medians. A change is better or worse if the ranges of the rounds, from the least to the most, do not overlap.";

    fn title(&self) -> String {
        let when = self.started.as_ref().map_or(String::new(), |started| format!(" of {started}"));
        format!("Compared with {}{when}", self.file.display())
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |c: &Change| {
            let text = |value| c.unit.text(value);
            vec![c.name.clone(), text(c.before), text(c.now), format!("{:.2}", c.ratio), c.verdict.name().to_owned()]
        };
        self.changes.iter().map(row).collect()
    }

    pub(super) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(format_args!("\n{}", foreword_command::plain(self.title())))?;
        let [name, before, now, ratio, change] = Comparison::HEAD;
        let head = [Column::left(name), Column::right(before), Column::right(now), Column::right(ratio), Column::left(change)];
        out.table(&head, &self.rows())?;
        for difference in &self.differences {
            out.line(format_args!("not the same: {}", foreword_command::plain(difference)))?;
        }
        out.line(format_args!("{}", Comparison::RANGES))
    }

    pub(super) fn section(&self) -> Section {
        let section = Section::new(self.title()).text(Comparison::RANGES);
        let differences = self.differences.iter().map(|difference| format!("Not the same: {difference}")).collect::<Vec<_>>();
        let section = if differences.is_empty() { section } else { section.list(differences) };
        section.table(Table::new("", &Comparison::HEAD, self.rows()))
    }
}

/// A report as JSON, with the comparison in it.
pub(super) fn with_comparison(mut report: Value, comparison: Option<&Comparison>) -> Result<Value, Failure> {
    if let Some(comparison) = comparison {
        report["baseline"] = serde_json::to_value(comparison).map_err(|e| Failure::Wrong(e.to_string()))?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quantities(report: &Value) -> Vec<Quantity> {
        let of = |name: &str, unit| Quantity::of(name, unit, &report[name]);
        [of("rate", Unit::Count), of("time", Unit::Seconds), of("other", Unit::Count)].into_iter().flatten().collect()
    }

    fn report(rate: (f64, f64, f64), time: (f64, f64, f64), cpus: u64) -> Value {
        let spread = |(min, median, max): (f64, f64, f64)| json!({ "min": min, "median": median, "max": max });
        let setting = json!({ "started": "2026-11-29T08:30:00Z", "machine": { "cpus": cpus } });
        json!({ "setting": setting, "rate": spread(rate), "time": spread(time) })
    }

    #[test]
    fn a_change_counts_only_beyond_the_spread_of_the_rounds_and_less_time_is_better() {
        use ChangeVerdict::{Better, Unclear, Worse};
        let before = report((90.0, 100.0, 110.0), (0.9, 1.0, 1.1), 2);
        let cases = [
            (report((120.0, 150.0, 160.0), (1.2, 1.5, 1.6), 2), [Better, Worse]),
            (report((50.0, 60.0, 80.0), (0.5, 0.6, 0.8), 2), [Worse, Better]),
            (report((105.0, 150.0, 160.0), (0.5, 0.6, 0.95), 2), [Unclear, Unclear]),
        ];
        for (new, verdicts) in cases {
            let baseline = Baseline { file: "before.json".into(), report: before.clone() };
            let found = baseline.compare(&new, quantities);
            assert_eq!(found.changes.iter().map(|c| c.verdict).collect::<Vec<_>>(), verdicts);
            assert!(found.differences.is_empty() && found.title() == "Compared with before.json of 2026-11-29T08:30:00Z");
        }
    }

    #[test]
    fn what_differs_between_the_machines_is_said() {
        let baseline = Baseline { file: "b".into(), report: report((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 64) };
        let found = baseline.compare(&report((2.0, 2.0, 2.0), (1.0, 1.0, 1.0), 2), quantities);
        assert_eq!(found.differences, ["processors: 64, now 2"]);
        assert_eq!(found.changes[0].ratio, 2.0);
    }

    #[test]
    fn what_is_no_such_report_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.json");
        let refused = || Baseline::read(&file, quantities).unwrap_err().to_string();
        assert!(refused().contains("--baseline"), "not there");
        for (text, why) in [("{", "not JSON"), ("{}", "not a report"), ("[]", "not a report"), ("7", "not a report")] {
            std::fs::write(&file, text).unwrap();
            assert!(refused().contains(why), "{text}: {}", refused());
        }
    }
}
