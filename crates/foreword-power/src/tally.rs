//! What was seen, counted and printed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::history::Violation;

/// What became of a state.
pub(crate) enum Outcome {
    /// All held; the verdict with which the log opened. What mounting said of a block that was
    /// torn, if the state was made with whole ones then.
    Held {
        verdict: &'static str,
        torn_block: Option<String>,
    },
    Violated(Violation),
    /// The file system itself did not mount.
    Unmountable(String),
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Outcome::Held { verdict, .. } => verdict,
            Outcome::Violated(violation) => violation.name(),
            Outcome::Unmountable(_) => UNMOUNTABLE,
        }
    }
}

const UNMOUNTABLE: &str = "does not mount";
/// Classes of states, by how many unsynced sectors were pending: the largest number of each.
const CLASSES: [(usize, &str); 5] =
    [(8, "1 to 8"), (64, "9 to 64"), (512, "65 to 512"), (4096, "513 to 4096"), (usize::MAX, "more")];
const COLUMNS: [&str; 9] =
    ["created", "clean", "unclosed", "torn-tail", "lost", "phantom", "split batch", "does not open", UNMOUNTABLE];
/// Of what went wrong, so much is printed in words.
const EXAMPLES: usize = 5;

/// Counts by class and outcome.
#[derive(Default)]
pub(crate) struct Tally {
    events: usize,
    notes: usize,
    points: usize,
    states: BTreeMap<(usize, &'static str), usize>,
    again: BTreeMap<&'static str, usize>,
    examples: Vec<String>,
    wrong: usize,
    whole_blocks: BTreeMap<String, usize>,
    unmountable: usize,
}

impl Tally {
    /// What the recording holds.
    pub(crate) fn recorded(&mut self, pending: &[usize], notes: usize) {
        self.events = pending.len() - 1;
        self.points = pending.iter().filter(|&&pending| pending > 0).count();
        self.notes = notes;
    }

    pub(crate) fn state(&mut self, pending: usize, outcome: &Outcome, what: &str) {
        let class = CLASSES.iter().position(|(most, _)| pending <= *most).unwrap_or(CLASSES.len() - 1);
        *self.states.entry((class, outcome.name())).or_default() += 1;
        self.look(outcome, what);
    }

    /// A state that was crashed again.
    pub(crate) fn again(&mut self, outcome: &Outcome, what: &str) {
        *self.again.entry(outcome.name()).or_default() += 1;
        self.look(outcome, what);
    }

    fn look(&mut self, outcome: &Outcome, what: &str) {
        match outcome {
            Outcome::Held { torn_block: Some(error), .. } => *self.whole_blocks.entry(error.clone()).or_default() += 1,
            Outcome::Held { .. } => {}
            Outcome::Violated(violation) => self.violated(what, violation),
            Outcome::Unmountable(error) => {
                self.unmountable += 1;
                self.example(format!("{what}: the file system {UNMOUNTABLE}: {error}"));
            }
        }
    }

    pub(crate) fn violated(&mut self, what: &str, violation: &Violation) {
        self.wrong += 1;
        self.example(format!("{what}: {violation}"));
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text);
        }
    }

    /// Whether the log did all it must. A file system that does not mount is not the log's doing;
    /// but then this disk does what none may.
    pub(crate) fn held(&self) -> bool {
        self.wrong == 0 && self.unmountable == 0
    }

    fn count(&self, class: Option<usize>, outcome: Option<&str>) -> usize {
        let fits =
            |(of, name): &(usize, &str)| class.is_none_or(|class| class == *of) && outcome.is_none_or(|outcome| outcome == *name);
        self.states.iter().filter(|(key, _)| fits(key)).map(|(_, count)| count).sum()
    }

    /// The report of a file system.
    pub(crate) fn report(&self, fs: &str, json: bool, recorded: Duration, replayed: Duration) -> String {
        if json { self.json(fs, recorded, replayed).to_string() } else { self.table(fs, recorded, replayed) }
    }

    fn json(&self, fs: &str, recorded: Duration, replayed: Duration) -> serde_json::Value {
        let outcomes = |class| {
            let seen = COLUMNS.iter().map(|&name| (name, self.count(class, Some(name)))).filter(|(_, count)| *count > 0);
            seen.collect::<BTreeMap<_, _>>()
        };
        let classes =
            CLASSES.iter().enumerate().map(|(class, (_, name))| (*name, outcomes(Some(class)))).collect::<BTreeMap<_, _>>();
        json!({
            "fs": fs, "events": self.events, "points": self.points, "notes": self.notes, "states": self.count(None, None),
            "outcomes": outcomes(None), "by_pending_sectors": classes, "crashed_again": self.again, "violations": self.wrong,
            "mounted_only_with_whole_blocks": self.whole_blocks,
            "examples": self.examples, "record_seconds": recorded.as_secs_f64(), "replay_seconds": replayed.as_secs_f64(),
        })
    }

    fn table(&self, fs: &str, recorded: Duration, replayed: Duration) -> String {
        let mut lines = vec![format!(
            "{fs}: {} events recorded in {:.1} s, {} of them notes; at {} of them something is pending; {} states checked in {:.1} s",
            self.events,
            recorded.as_secs_f64(),
            self.notes,
            self.points,
            self.count(None, None),
            replayed.as_secs_f64()
        )];
        let columns: Vec<&str> = COLUMNS.into_iter().filter(|name| self.count(None, Some(name)) > 0).collect();
        lines.push(format!("| unsynced sectors | states | {} |", columns.join(" | ")));
        lines.push(format!("|---|{}", "---|".repeat(columns.len() + 1)));
        let rows = CLASSES.iter().enumerate().map(|(class, (_, name))| (*name, Some(class))).chain([("all", None)]);
        for (name, class) in rows.filter(|(_, class)| self.count(*class, None) > 0) {
            let counts: Vec<String> = columns.iter().map(|column| self.count(class, Some(column)).to_string()).collect();
            lines.push(format!("| {name} | {} | {} |", self.count(class, None), counts.join(" | ")));
        }
        lines.push(format!("crashed again in recovery: {}", sum(&self.again)));
        lines.push(format!("mounted only with whole blocks: {}", sum(&self.whole_blocks)));
        lines.extend(self.examples.iter().map(|example| format!("  {example}")));
        lines.push(match self.held() {
            true => "none lost, none phantom, none that does not open\n".to_owned(),
            false => format!("FAILED: {} violations, {} not mounted\n", self.wrong, self.unmountable),
        });
        lines.join("\n")
    }
}

/// The sum, and its parts.
fn sum<K: std::fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let total = counts.values().sum::<usize>();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({})", parts.join(", ")) }
}
