//! What a run wrote down: a file of JSON lines, to which each result is added as it comes, so that
//! a run that is stopped is not lost.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use foreword_measure::sample::{self, Spread};
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::workload::Workload;

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// The first of each run, also of one that goes on.
    Run(Run),
    /// One measurement.
    Measured(Box<Measured>),
    /// A contestant that failed.
    Failed { workload: Workload, peer: String, why: String },
    /// Whether its acknowledgements are covered by flushes.
    Honest(Honest),
}

/// The circumstances.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    pub facts: Vec<(String, String)>,
    /// What speaks against the figures.
    pub warnings: Vec<String>,
    pub contestants: Vec<Contestant>,
    /// Of each measurement.
    pub seconds: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contestant {
    pub name: String,
    pub version: String,
    pub setting: String,
    pub lacks: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub workload: Workload,
    pub peer: String,
    pub round: usize,
    /// What others used of the processors meanwhile, of 1.
    pub others: Option<f64>,
    pub outcome: Outcome,
}

/// What strace saw of a contestant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Honest {
    pub peer: String,
    pub threads: usize,
    pub commits: u64,
    /// Of those, how many had a whole flush between the call and its return.
    pub covered: u64,
    /// System calls that flush, and how often they were seen.
    pub flushes: BTreeMap<String, u64>,
}

impl Honest {
    pub fn is_honest(&self) -> bool {
        self.commits > 0 && self.covered == self.commits
    }
}

/// All lines of a file.
#[derive(Clone, Debug, Default)]
pub struct Results {
    pub run: Run,
    /// How long measurements lasted: the shortest and the longest, if the run was made in parts.
    pub seconds: Option<(f64, f64)>,
    pub measured: Vec<Measured>,
    pub failed: Vec<(Workload, String, String)>,
    pub honest: Vec<Honest>,
}

/// A figure that is made of an outcome.
pub type Metric = fn(&Outcome) -> Option<f64>;

impl Results {
    pub fn read(path: &Path) -> Result<Results> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut results = Results::default();
        for (i, line) in BufReader::new(file).lines().enumerate() {
            let line = line.with_context(|| format!("read {}", path.display()))?;
            // (A run that was killed may have left half a line at the end.)
            match serde_json::from_str(&line).with_context(|| format!("{}, line {}", path.display(), i + 1)) {
                Ok(line) => results.add(line),
                Err(e) if line.ends_with('}') => return Err(e),
                Err(_) => {}
            }
        }
        Ok(results)
    }

    fn add(&mut self, line: Line) {
        match line {
            Line::Run(run) => {
                let mut warnings = std::mem::take(&mut self.run.warnings);
                warnings.extend(run.warnings.iter().filter(|w| !self.run.warnings.contains(w)).cloned());
                // A run of some workloads or contestants that was added.
                let mut contestants = std::mem::take(&mut self.run.contestants);
                contestants.retain(|c| run.contestants.iter().all(|new| new.name != c.name));
                contestants.extend(run.contestants);
                let (least, most) = self.seconds.unwrap_or((run.seconds, run.seconds));
                self.seconds = Some((least.min(run.seconds), most.max(run.seconds)));
                self.run = Run { warnings, contestants, ..run };
            }
            Line::Measured(measured) => self.measured.push(*measured),
            Line::Failed { workload, peer, why } => self.failed.push((workload, peer, why)),
            Line::Honest(honest) => {
                self.honest.retain(|h| (&h.peer, h.threads) != (&honest.peer, honest.threads));
                self.honest.push(honest);
            }
        }
    }

    /// Whether there is such a measurement, or no use in trying it.
    pub fn has(&self, workload: Workload, peer: &str, round: usize) -> bool {
        self.measured.iter().any(|m| m.workload == workload && m.peer == peer && m.round == round)
            || self.failed.iter().any(|(w, p, _)| *w == workload && p == peer)
    }

    /// The workloads that were measured, in the order of the tables.
    pub fn workloads(&self) -> Vec<Workload> {
        let mut all = Workload::all();
        let others = self.measured.iter().map(|m| m.workload).filter(|w| !all.contains(w)).collect::<Vec<_>>();
        for other in others {
            if !all.contains(&other) {
                all.push(other);
            }
        }
        all.retain(|&w| self.measured.iter().any(|m| m.workload == w));
        all
    }

    /// The contestants of a workload, in the order of the run.
    pub fn peers(&self, workload: Workload) -> Vec<&str> {
        self.names(workload).filter(|name| !name.contains(':')).collect()
    }

    /// What was measured of Foreword with a choice of its design left out: `foreword:` and its
    /// name.
    pub fn ablated(&self, workload: Workload) -> Vec<&str> {
        self.names(workload).filter(|name| name.contains(':')).collect()
    }

    fn names(&self, workload: Workload) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = Vec::new();
        for m in self.measured.iter().filter(|m| m.workload == workload) {
            if !names.contains(&m.peer.as_str()) {
                names.push(&m.peer);
            }
        }
        names.into_iter()
    }

    /// A figure of each round, by round.
    fn rounds(&self, workload: Workload, peer: &str, metric: Metric) -> BTreeMap<usize, f64> {
        let of = self.measured.iter().filter(|m| m.workload == workload && m.peer == peer);
        of.filter_map(|m| Some((m.round, metric(&m.outcome)?))).collect()
    }

    /// A figure with its spread over the rounds.
    pub fn spread(&self, workload: Workload, peer: &str, metric: Metric) -> Option<Spread> {
        Spread::of(&self.rounds(workload, peer, metric).into_values().collect::<Vec<_>>())
    }

    pub fn median(&self, workload: Workload, peer: &str, metric: Metric) -> Option<f64> {
        Some(self.spread(workload, peer, metric)?.median)
    }

    /// A contestant's figure to another's of the same round.
    pub fn ratio(&self, (w1, p1): (Workload, &str), (w2, p2): (Workload, &str), metric: Metric) -> Option<Spread> {
        let (a, b) = (self.rounds(w1, p1, metric), self.rounds(w2, p2, metric));
        let (a, b): (Vec<f64>, Vec<f64>) = a.iter().filter_map(|(round, a)| Some((*a, *b.get(round)?))).unzip();
        sample::ratio(&a, &b)
    }

    /// The peer with the highest figure of those whose acknowledgements are what they say.
    pub fn best_peer(&self, workload: Workload, metric: Metric) -> Option<&str> {
        let peers = self.peers(workload).into_iter().filter(|p| !p.starts_with("floor") && !p.starts_with("foreword"));
        let honest = peers.filter(|p| !self.is_dishonest(p));
        let rated = honest.filter_map(|p| Some((p, self.median(workload, p, metric)?)));
        rated.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(p, _)| p)
    }

    /// Whether strace saw an acknowledgement without a flush.
    pub fn is_dishonest(&self, peer: &str) -> bool {
        self.honest.iter().any(|h| h.peer == peer && !h.is_honest())
    }
}

/// A file of results, for adding to.
pub struct Book(File);

impl Book {
    pub fn open(path: &Path) -> Result<Book> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Book(file.with_context(|| format!("open {}", path.display()))?))
    }

    pub fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        Ok(self.0.write_all(text.as_bytes())?)
    }
}
