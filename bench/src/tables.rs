//! Results as tables: for the terminal, for a page, and for docs/performance/tables.md.

use std::path::Path;

use anyhow::{Context, Result};
use foreword_measure::report::{Axis, Plot, Report, Section, Series, Table, Unit};
use foreword_measure::sample::Spread;

use crate::ablation;
use crate::gauge::Latency;
use crate::outcome::Outcome;
use crate::results::{Metric, Results};
use crate::workload::Workload::{self, Append, Async, Batch, Commit, Open, Recover, Rotate, Tail};

const OURS: &str = "foreword";
const FLOOR: &str = "floor";

/// Records a second, until all are durable.
fn rate(o: &Outcome) -> Option<f64> {
    (o.records > 0).then(|| o.records as f64 / o.spent.seconds)
}

/// Records a second, until the last append returned.
fn append_rate(o: &Outcome) -> Option<f64> {
    o.append_seconds.map(|seconds| o.records as f64 / seconds)
}

fn seconds(o: &Outcome) -> Option<f64> {
    Some(o.spent.seconds)
}

/// In seconds.
fn of_latency(latency: Option<Latency>, of: fn(Latency) -> u64) -> Option<f64> {
    latency.map(|l| of(l) as f64 / 1e9)
}

fn p50(o: &Outcome) -> Option<f64> {
    of_latency(o.latency, |l| l.p50)
}

fn p99(o: &Outcome) -> Option<f64> {
    of_latency(o.latency, |l| l.p99)
}

fn p999(o: &Outcome) -> Option<f64> {
    of_latency(o.latency, |l| l.p999)
}

fn longest(o: &Outcome) -> Option<f64> {
    of_latency(o.latency, |l| l.max)
}

/// Processor seconds a record.
fn cpu(o: &Outcome) -> Option<f64> {
    Some(o.spent.cpu_seconds / o.records as f64)
}

/// Flushes that the disk made, for each record.
fn flushes(o: &Outcome) -> Option<f64> {
    o.spent.disk_flushes.map(|n| n as f64 / o.records as f64)
}

/// Bytes that the disk wrote, for each record.
fn disk_bytes(o: &Outcome) -> Option<f64> {
    o.spent.disk_written_bytes.map(|n| n as f64 / o.records as f64)
}

/// Memory that it took.
fn memory(o: &Outcome) -> Option<f64> {
    (o.memory_peak > 0).then(|| o.memory_peak.saturating_sub(o.memory_before) as f64)
}

/// How a figure is shown.
type Show = fn(f64) -> String;

/// To three digits, in groups of three: `118,000`.
fn count(value: f64) -> String {
    if value < 100.0 {
        let digits = if value < 10.0 { 2 } else { 1 };
        return format!("{value:.digits$}");
    }
    let scale = 10f64.powf(value.log10().floor() - 2.0).max(1.0);
    thousands(&format!("{:.0}", (value / scale).round() * scale))
}

/// Digits in groups of three.
fn thousands(digits: &str) -> String {
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn time(value: f64) -> String {
    Unit::Seconds.text(value)
}

fn bytes(value: f64) -> String {
    Unit::Bytes.text(value)
}

/// The median, and how far it is to be believed.
fn with_spread(spread: Spread, show: Show) -> String {
    format!("{} ({} to {})", show(spread.median), show(spread.min), show(spread.max))
}

fn size(bytes: usize) -> String {
    Unit::Bytes.text(bytes as f64)
}

impl Results {
    /// A contestant's name in tables.
    fn title(&self, peer: &str) -> String {
        let mark = if self.is_dishonest(peer) { " †" } else { "" };
        match peer {
            OURS => format!("**{peer}**"),
            _ => format!("{peer}{mark}"),
        }
    }

    /// One workload, everything that is known of it; the fastest first.
    pub fn brief(&self, workload: Workload) -> Table {
        let head = ["", "a second", "(least to most)", "to Foreword", "p50", "p99", "CPU", "flushes", "disk", "memory"];
        let mut peers = self.peers(workload);
        peers.sort_by(|a, b| {
            self.median(workload, b, rate).unwrap_or(0.0).total_cmp(&self.median(workload, a, rate).unwrap_or(0.0))
        });
        let row = |peer: &str| {
            let spread = self.spread(workload, peer, rate);
            let show = |metric: Metric, show: Show| self.median(workload, peer, metric).map_or(String::new(), show);
            let to_ours = self.ratio((workload, peer), (workload, OURS), rate);
            vec![
                self.title(peer).replace("**", ""),
                spread.map_or(String::new(), |s| count(s.median)),
                spread.map_or(String::new(), |s| format!("{} to {}", count(s.min), count(s.max))),
                to_ours.map_or(String::new(), |r| format!("{:.2}", r.median)),
                show(p50, time),
                show(p99, time),
                show(cpu, time),
                show(flushes, |n| format!("{n:.3}")),
                show(disk_bytes, bytes),
                show(memory, bytes),
            ]
        };
        Table::new(workload.to_string(), &head, peers.into_iter().map(row).collect())
    }

    /// One figure of several workloads: a row for each contestant, and below, Foreword's ratios.
    fn matrix(&self, title: &str, columns: &[(String, Workload)], metric: Metric, show: Show) -> Option<Table> {
        let columns: Vec<_> = columns.iter().filter(|(_, w)| !self.peers(*w).is_empty()).collect();
        let mut peers: Vec<&str> = Vec::new();
        for (_, workload) in &columns {
            let new: Vec<&str> = self.peers(*workload).into_iter().filter(|p| !peers.contains(p)).collect();
            peers.extend(new);
        }
        // In the order in which contestants are listed.
        peers.sort_by_key(|peer| crate::peers::PEERS.iter().position(|p| p.name == *peer));
        let row = |peer: &&str| {
            let figures = columns.iter().map(|(_, w)| self.median(*w, peer, metric).map_or("–".to_owned(), show));
            std::iter::once(self.title(peer)).chain(figures).collect::<Vec<String>>()
        };
        let rows: Vec<_> = peers.iter().map(row).filter(|row| row[1..].iter().any(|cell| cell != "–")).collect();
        let head: Vec<&str> = std::iter::once("").chain(columns.iter().map(|(label, _)| label.as_str())).collect();
        (!rows.is_empty()).then(|| Table::new(title, &head, rows))
    }

    /// Foreword to the best peer, to what the disk allows (`allows` says how many times the floor's
    /// rate that is), and to what threads allow that wait for each other.
    fn ratios(
        &self,
        columns: &[(String, Workload)],
        metric: Metric,
        allows: impl Fn(Workload) -> Option<(Workload, f64)>,
    ) -> Option<Table> {
        let columns: Vec<_> = columns.iter().filter(|(_, w)| self.median(*w, OURS, metric).is_some()).collect();
        if columns.is_empty() {
            return None;
        }
        let two = |ratio: Spread| with_spread(ratio, |r| format!("{r:.2}"));
        let mut best = vec!["to the best peer".to_owned()];
        let mut limit = vec!["to what the disk allows".to_owned()];
        let mut group = vec!["to an empty group commit".to_owned()];
        for &&(_, workload) in &columns {
            let peer = self.best_peer(workload, metric);
            let ratio = peer.and_then(|peer| Some((peer, self.ratio((workload, OURS), (workload, peer), metric)?)));
            best.push(ratio.map_or("–".to_owned(), |(peer, ratio)| format!("{}, {peer}", two(ratio))));
            let allowed = allows(workload).and_then(|(of, times)| {
                let floor = self.best_floor(of)?;
                Some(self.ratio((workload, OURS), (of, floor), rate)?.scaled(1.0 / times))
            });
            limit.push(allowed.map_or("–".to_owned(), two));
            let floor = self.best_floor(workload).filter(|_| matches!(workload, Commit { threads: 2.., .. }));
            group.push(floor.and_then(|floor| self.ratio((workload, OURS), (workload, floor), rate)).map_or("–".to_owned(), two));
        }
        let head: Vec<&str> = std::iter::once("Foreword").chain(columns.iter().map(|(label, _)| label.as_str())).collect();
        let groups = group[1..].iter().any(|cell| cell != "–").then_some(group);
        Some(Table::new("", &head, [best, limit].into_iter().chain(groups).collect()))
    }

    /// The fastest way of writing durably.
    fn best_floor(&self, workload: Workload) -> Option<&str> {
        let floors = self.peers(workload).into_iter().filter(|p| p.starts_with(FLOOR));
        let rated = floors.filter_map(|p| Some((p, self.median(workload, p, rate)?)));
        rated.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(p, _)| p)
    }

    /// Everything, in sections.
    pub fn sections(&self) -> Vec<Section> {
        let parts = [
            self.contestants(),
            self.commits(128),
            self.commits(1 << 10),
            self.commits(16 << 10),
            self.asynchronous(),
            self.batches(),
            self.appends(),
            self.recovery(),
            self.opening(),
            self.tailing(),
            self.rotating(),
            self.memory(),
            self.ablation(),
            self.failures(),
        ];
        parts.into_iter().flatten().filter(|section| !section.items.is_empty()).collect()
    }

    fn contestants(&self) -> Option<Section> {
        let row = |c: &crate::results::Contestant| {
            let of: Vec<_> = self.honest.iter().filter(|h| h.peer == c.name).collect();
            let checked = match of.iter().all(|h| h.is_honest()) {
                _ if of.is_empty() => "–".to_owned(),
                true => "yes".to_owned(),
                false => {
                    let seen = |h: &&crate::results::Honest| format!("{} of {}", h.covered, h.commits);
                    format!("**no**: {}", of.iter().map(seen).collect::<Vec<_>>().join(", "))
                }
            };
            let lacks = if c.lacks.is_empty() { String::new() } else { format!("; lacks {}", c.lacks.join("; ")) };
            vec![self.title(&c.name), c.version.clone(), format!("{}{lacks}", c.setting), checked]
        };
        let rows: Vec<_> = self.run.contestants.iter().map(row).collect();
        let table = Table::new("", &["", "version", "configuration", "a flush covers each acknowledgement"], rows);
        let text = "Each acknowledges a commit only when it is synced, as strace shows: a flush of the file \
                    began after the record was written to it, and ended before the commit returned (100 \
                    commits by one thread, 800 by eight). † marks a contestant that strace saw acknowledging \
                    without a flush; it does not count as a peer in ratios.";
        Some(Section::new("Contestants").text(text).table(table))
    }

    fn commits(&self, bytes: usize) -> Option<Section> {
        let threads = [1, 2, 8, 64, 256];
        let of = |threads| Commit { threads, size: bytes };
        let columns = threads.map(|t| (format!("T={t}"), of(t)));
        let mut section = Section::new(format!("Durable commits, records of {}", size(bytes))).text(
            "Commits a second by T threads, each of which waits for its record before it commits the \
                   next; medians.",
        );
        let allows = |w| match w {
            Commit { threads, .. } => Some((of(1), threads as f64)),
            _ => None,
        };
        section = with(section, self.matrix("Commits a second", &columns, rate, count));
        section = with(section, self.ratios(&columns, rate, allows));
        if let Some(plot) = self.commit_plot(&columns, bytes) {
            section = section.plot(plot);
        }
        section = with(section, self.matrix("Latency, p50", &columns, p50, time));
        section = with(section, self.matrix("Latency, p99", &columns, p99, time));
        section = with(section, self.matrix("Processor time of a commit", &columns, cpu, time));
        section = with(section, self.matrix("Flushes of the disk for a commit", &columns, flushes, |n| format!("{n:.3}")));
        section = with(section, self.matrix("Written to the disk for a commit", &columns, disk_bytes, self::bytes));
        Some(section)
    }

    fn commit_plot(&self, columns: &[(String, Workload)], bytes: usize) -> Option<Plot> {
        let threads = |w: Workload| if let Commit { threads, .. } = w { threads as f64 } else { 0.0 };
        let (_, one) = columns.first()?;
        let line = |peer: &str| {
            let points = columns.iter().filter_map(|(_, w)| Some((threads(*w), self.spread(*w, peer, rate)?)));
            Series::measured(peer, points.collect::<Vec<_>>())
        };
        let floor = self.median(*one, self.best_floor(*one)?, rate)?;
        let ceiling = Series::limit("T / F", columns.iter().map(|(_, w)| (threads(*w), threads(*w) * floor)));
        let peers = self.peers(columns.iter().map(|(_, w)| *w).find(|w| threads(*w) == 8.0)?);
        let (x, y) = (Axis::log("threads", Unit::Count).discrete(), Axis::log("commits/s", Unit::Count));
        let series = peers.into_iter().map(line).chain([ceiling]).collect();
        Some(Plot::lines(format!("Commits by threads, {}", size(bytes)), x, y, series))
    }

    fn asynchronous(&self) -> Option<Section> {
        let columns =
            [1, 256, 4096].map(|n| (format!("{} in flight", thousands(&n.to_string())), Async { in_flight: n, size: 128 }));
        let section = Section::new("Asynchronous commits from one thread, records of 128 B").text(
            "A window of commits is in flight. When the oldest is durable, all that are durable leave \
                   the window, and as many new ones enter.",
        );
        let section = with(section, self.matrix("Commits a second", &columns, rate, count));
        let section = with(section, self.ratios(&columns, rate, |_| None));
        Some(with(section, self.matrix("Latency, p50", &columns, p50, time)))
    }

    fn batches(&self) -> Option<Section> {
        let columns = [1, 8].map(|threads| (format!("T={threads}"), Batch { threads, size: 128 }));
        let section =
            Section::new("Atomic batches of 100 records of 128 B").text("Records a second, each batch durable before the next.");
        let section = with(section, self.matrix("", &columns, rate, count));
        Some(with(section, self.ratios(&columns, rate, |_| None)))
    }

    fn appends(&self) -> Option<Section> {
        let columns = [16, 128, 1 << 10, 4 << 10, 16 << 10].map(|n| (size(n), Append { threads: 1, size: n }));
        let text = "One thread appends for half a second without waiting, and then syncs.";
        let section = Section::new("Buffered append").text(text);
        let section =
            with(section, self.matrix("Records a second, until the last append returned", &columns, append_rate, count));
        let section = with(section, self.ratios(&columns, append_rate, |_| None));
        let section = with(section, self.matrix("Records a second, until all are durable", &columns, rate, count));
        let section = with(section, self.ratios(&columns, rate, |w| Some((w, 1.0))));
        let columns = [2, 4, 8].map(|threads| (format!("T={threads}"), Append { threads, size: 128 }));
        let title = "Threads that append together, records of 128 B: records a second, until the last append returned";
        let section = with(section, self.matrix(title, &columns, append_rate, count));
        Some(with(section, self.ratios(&columns, append_rate, |_| None)))
    }

    fn recovery(&self) -> Option<Section> {
        let mut section = Section::new("Recovery").text(
            "Opening a log and reading every record, with all checksums verified. The files are in the \
                   page cache, or (cold) on the disk alone.",
        );
        for workload in self.workloads() {
            let Recover { bytes: all, size: each, cold } = workload else { continue };
            let gib = |o: &Outcome| Some(o.spent.seconds);
            let mut peers: Vec<_> =
                self.peers(workload).into_iter().filter_map(|p| Some((p, self.spread(workload, p, gib)?))).collect();
            peers.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
            let row = |(peer, spread): (&str, Spread)| {
                let speed = |seconds: f64| format!("{:.2}", all as f64 / f64::from(1 << 30) / seconds);
                vec![
                    self.title(peer),
                    speed(spread.median),
                    format!("{} to {}", speed(spread.max), speed(spread.min)),
                    self.median(workload, peer, memory).map_or("–".to_owned(), bytes),
                ]
            };
            let title = format!("{} in records of {}{}", size(all as usize), size(each), if cold { ", cold" } else { "" });
            let rows = peers.into_iter().map(row).collect();
            section = section.table(Table::new(title, &["", "GiB/s", "(least to most)", "memory"], rows));
            let column = [(format!("{}{}", size(all as usize), if cold { ", cold" } else { "" }), workload)];
            section = with(section, self.ratios(&column, rate, |w| Some((w, 1.0))));
        }
        Some(section)
    }

    fn opening(&self) -> Option<Section> {
        let sizes = [256, 1 << 10, 4 << 10, 16 << 10].map(|mib| mib << 20);
        let columns = |killed| sizes.map(|bytes| (size(bytes as usize), Open { bytes, killed }));
        let section =
            Section::new("Opening").text("How long opening takes, by the size of the log. The files are in the page cache.");
        let section = with(section, self.matrix("After a clean close", &columns(false), seconds, time));
        let section = with(section, self.matrix("After the process was killed", &columns(true), seconds, time));
        Some(with(section, self.matrix("Memory that it took", &columns(false), memory, bytes)))
    }

    fn tailing(&self) -> Option<Section> {
        let mut rows = Vec::new();
        for workload in self.workloads() {
            let Tail { threads, view, .. } = workload else { continue };
            let show = |metric: Metric, show: Show| self.median(workload, OURS, metric).map_or(String::new(), show);
            let which = if view { "through the files, as from another process" } else { "in the same process" };
            rows.push(vec![
                format!("{threads} threads, {which}"),
                show(rate, count),
                show(p50, time),
                show(p99, time),
                show(longest, time),
            ]);
        }
        let text = "Threads commit records of 128 B as fast as they can, and a reader follows. The lag is \
                    the time from the acknowledgement of a record to the committer until the reader has it. \
                    The reader received every record. No peer has a reader that follows what is durable.";
        let head = ["", "commits/s", "lag, p50", "p99", "most"];
        (!rows.is_empty()).then(|| Section::new("A reader that follows").text(text).table(Table::new("", &head, rows)))
    }

    fn rotating(&self) -> Option<Section> {
        let columns: [(&str, Metric); 5] = [
            ("p50 elsewhere", p50),
            ("p99.9 elsewhere", p999),
            ("p50 at rotation", |o| of_latency(o.at_rotation, |l| l.p50)),
            ("p99 at rotation", |o| of_latency(o.at_rotation, |l| l.p99)),
            ("p99.9 at rotation", |o| of_latency(o.at_rotation, |l| l.p999)),
        ];
        let ratio: Metric = |o| Some(of_latency(o.at_rotation, |l| l.p999)? / p999(o)?);
        let mut rows = Vec::new();
        for workload in self.workloads() {
            let Rotate { threads, .. } = workload else { continue };
            let show = |(_, metric)| self.median(workload, OURS, metric).map_or(String::new(), time);
            let ratio = self.spread(workload, OURS, ratio).map_or(String::new(), |r| with_spread(r, |r| format!("{r:.2}")));
            rows.push([format!("T={threads}")].into_iter().chain(columns.map(show)).chain([ratio]).collect());
        }
        let text = "Commits of 128 B to a log with segments of 1 MiB, which it zero-fills meanwhile (as \
                    *foreword-growing*), for twenty times as long as other measurements. *At rotation* are \
                    the commits during which the log began another segment, *elsewhere* are all others. \
                    (With one thread there are some 200 at rotation, so their p99.9 is the longest.)";
        let head: Vec<&str> = [""].into_iter().chain(columns.map(|(name, _)| name)).chain(["p99.9 to p99.9 elsewhere"]).collect();
        (!rows.is_empty()).then(|| Section::new("Rotation").text(text).table(Table::new("", &head, rows)))
    }

    fn memory(&self) -> Option<Section> {
        let columns = [
            ("T=8, 128 B", Commit { threads: 8, size: 128 }),
            ("T=256, 16 KiB", Commit { threads: 256, size: 16 << 10 }),
            ("append, 1 KiB", Append { threads: 1, size: 1 << 10 }),
            ("recovery", Recover { bytes: 1 << 30, size: 1 << 10, cold: false }),
        ];
        let columns = columns.map(|(name, workload)| (name.to_owned(), workload));
        let text = "The most memory that a process took while its log was open, beyond what it had before. \
                    Mapped files and the stacks of threads count.";
        Some(with(Section::new("Memory").text(text), self.matrix("", &columns, memory, bytes)))
    }

    /// What each choice of the design is worth.
    fn ablation(&self) -> Option<Section> {
        let workloads: Vec<Workload> = self.workloads().into_iter().filter(|&w| !self.ablated(w).is_empty()).collect();
        let mut names: Vec<&str> = Vec::new();
        for name in workloads.iter().flat_map(|&w| self.ablated(w)).filter(|&name| name != ablation::WHOLE) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let table = |title: &str, metric: Metric| {
            let row = |name: &&str| {
                let ratio = |w: &Workload| self.ratio((*w, name), (*w, ablation::WHOLE), metric);
                let cell = |w| ratio(w).map_or("–".to_owned(), |r| with_spread(r, |r| format!("{r:.2}")));
                std::iter::once(name.to_string()).chain(workloads.iter().map(cell)).collect::<Vec<_>>()
            };
            let labels: Vec<String> = workloads.iter().map(Workload::to_string).collect();
            let head: Vec<&str> = std::iter::once("").chain(labels.iter().map(String::as_str)).collect();
            Table::new(title, &head, names.iter().map(row).collect())
        };
        let section = Section::new("What each choice is worth")
            .text(
                "Foreword with one design choice left out, relative to Foreword as it is, interleaved in a \
                   run of their own. docs/performance/tables.md explains the names.",
            )
            .table(table("Commits a second (less than 1: the choice pays)", rate))
            .table(table("Latency, p99 (more than 1: the choice pays)", p99));
        (!names.is_empty()).then_some(section)
    }

    fn failures(&self) -> Option<Section> {
        let row =
            |(workload, peer, why): &(Workload, String, String)| vec![peer.clone(), workload.to_string(), without_paths(why)];
        let rows: Vec<_> = self.failed.iter().map(row).collect();
        (!rows.is_empty()).then(|| Section::new("Failed").table(Table::new("", &["", "workload", "error"], rows)))
    }
}

fn with(section: Section, table: Option<Table>) -> Section {
    match table {
        Some(table) => section.table(table),
        None => section,
    }
}

/// A table for a terminal.
pub fn text(table: &Table) -> String {
    let rows: Vec<&Vec<String>> = std::iter::once(&table.head).chain(&table.rows).collect();
    let widths: Vec<usize> =
        (0..table.head.len()).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    let mut out = format!("{}\n", table.title);
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[i] - cell.chars().count());
            out += &if i == 0 { format!("  {cell}{pad}") } else { format!("  {pad}{cell}") };
        }
        out.push('\n');
    }
    out
}

/// A table for a document.
pub fn markdown(table: &Table) -> String {
    let line =
        |cells: &[String]| format!("| {} |\n", cells.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | "));
    let title = if table.title.is_empty() { String::new() } else { format!("{}:\n\n", table.title) };
    let ruler = format!("|{}{}\n", "---|".repeat(table.words), "---:|".repeat(table.head.len() - table.words));
    format!("{title}{}{ruler}{}\n", line(&table.head), table.rows.iter().map(|row| line(row)).collect::<String>())
}

/// Writes the page and the summary beside a run's results.
pub fn write(out: &Path) -> Result<()> {
    let results = Results::read(out)?;
    let mut report = Report::new("Foreword beside its peers")
        .text("Each figure is the median of interleaved repetitions, measured in one run, in one directory.");
    report.facts = results.run.facts.clone();
    report.warnings = results.run.warnings.clone();
    report.sections = results.sections();
    for section in &mut report.sections {
        for item in &mut section.items {
            if let foreword_measure::report::Item::Table(table) = item {
                table.rows.iter_mut().flatten().for_each(|cell| *cell = cell.replace("**", ""));
            }
        }
    }
    for (extension, content) in [("html", report.to_html()), ("json", serde_json::to_string_pretty(&report)?)] {
        let path = out.with_extension(extension);
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// An error that names its place in a dependency's source, from the package on: without the path
/// where this machine keeps it.
fn without_paths(why: &str) -> String {
    let Some((before, rest)) = why.split_once("/registry/src/") else { return why.to_owned() };
    let start = before.rfind([' ', ':', '(']).map_or(0, |at| at + 1);
    let package = rest.split_once('/').map_or(rest, |(_host, package)| package);
    format!("{}{}", &before[..start], without_paths(package))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn of_a_place_in_a_dependency_the_package_is_enough() {
        let said = "log: a:/home/me/.cargo/registry/src/host-1f/log-0.1.0/src/lib.rs:133 -> exists; /x/registry/src/h/b-1/c.rs";
        assert_eq!(without_paths(said), "log: a:log-0.1.0/src/lib.rs:133 -> exists; b-1/c.rs");
        assert_eq!(without_paths("no path"), "no path");
    }

    #[test]
    fn figures_are_shown_to_three_digits() {
        let shown = [0.254, 9.876, 12.34, 345.6, 6789.0, 118_432.0, 9_612_345.0].map(count);
        assert_eq!(shown, ["0.25", "9.88", "12.3", "346", "6,790", "118,000", "9,610,000"]);
    }
}
