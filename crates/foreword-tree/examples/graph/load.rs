//! Loads lines as `debian.py` makes them, by several threads, and again where that was cut short.

use std::ops::Range;

use super::graph::{Error, Graph, Result, Txn};

/// The lines that are not loaded yet, in ranges of at most `batch`.
pub fn missing(graph: &Graph, lines: usize, batch: usize) -> Result<Vec<Range<usize>>> {
    let loaded = graph.run(|txn| txn.loaded())?;
    let mut missing = Vec::new();
    let mut from = 0;
    for Range { start, end } in loaded.into_iter().chain(std::iter::once(lines as u64..u64::MAX)) {
        let start = lines.min(start as usize);
        missing.extend((from..start).step_by(batch.max(1)).map(|at| at..start.min(at.saturating_add(batch.max(1)))));
        from = end as usize;
    }
    Ok(missing)
}

/// Loads ranges of lines, each in one transaction, which also notes that it is loaded.
///
/// Each thread has a part of the file to itself: what is close together in the file is so in the
/// trees, too, where transactions that insert side by side wait for each other.
pub fn load(graph: &Graph, lines: &[&str], ranges: &[Range<usize>], threads: usize) -> Result<()> {
    let load_part = |part: &[Range<usize>]| part.iter().try_for_each(|range| load_range(graph, lines, range));
    std::thread::scope(|scope| {
        let parts = ranges.chunks(ranges.len().div_ceil(threads.max(1)).max(1));
        let loading: Vec<_> = parts.map(|part| scope.spawn(move || load_part(part))).collect();
        loading.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Error::other("a thread panicked"))))
    })
}

fn load_range(graph: &Graph, lines: &[&str], range: &Range<usize>) -> Result<()> {
    graph.run(|txn| {
        lines[range.clone()].iter().try_for_each(|line| load_line(txn, line))?;
        txn.set_loaded(range.start as u64..range.end as u64)
    })
}

fn load_line(txn: &mut Txn<'_>, line: &str) -> Result<()> {
    match *line.split('\t').collect::<Vec<_>>() {
        ["N", name, version, section] => txn.set_properties(name, &[("version", version), ("section", section)]),
        ["E", from, to, kind, constraint] => txn.add_edge(from, kind, to, &[("constraint", constraint)]),
        _ => Err(Error::other(format!("what is this line? {line}"))),
    }
}
