//! Circles in the graph, and what they are called.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::graph::{APPENDS, Edge, Graph, MISSES, ON, READS, TIME};
use super::{Anomaly, Kind};

const ALL: u8 = APPENDS | READS | MISSES | TIME;

/// From the worst, and those without times first: the edge with which a circle begins, and the
/// others. A kind that has edges that the ones before it have not has them in each of its circles,
/// where there are no circles of those before it.
const KINDS: [(Kind, u8, u8); 8] = [
    (Kind::G0, APPENDS, APPENDS),
    (Kind::G1c, APPENDS | READS, APPENDS | READS),
    (Kind::GSingle, MISSES, APPENDS | READS),
    (Kind::G2, APPENDS | READS | MISSES, APPENDS | READS | MISSES),
    (Kind::G0, APPENDS | TIME, APPENDS | TIME),
    (Kind::G1c, APPENDS | READS | TIME, APPENDS | READS | TIME),
    (Kind::GSingle, MISSES, APPENDS | READS | TIME),
    (Kind::G2, ALL, ALL),
];

/// How many nodes are visited to find a circle of one kind in one knot that is the shortest.
const BUDGET: usize = 300_000;

/// A circle of the worst kind in each knot.
pub fn find(graph: &Graph) -> Vec<Anomaly> {
    let mut left = members(graph, &knots(graph, ALL));
    let mut found = Vec::new();
    for (at, (kind, first, others)) in KINDS.into_iter().enumerate() {
        let knots = knots(graph, first | others);
        let size: HashMap<usize, usize> =
            members(graph, &knots).into_iter().map(|members| (knots[members[0]], members.len())).collect();
        left.retain(|members| {
            let starts = members.iter().copied().filter(|txn| size.contains_key(&knots[*txn]));
            let Some(circle) = shortest(graph, &knots, starts, first, others) else { return true };
            let text: Vec<_> = circle.iter().map(step).collect();
            found.push((members[0], Anomaly { kind, is_by_time: at >= 4, text: text.join("; ") }));
            false
        });
    }
    assert!(left.is_empty(), "knots without a circle: {left:?}");
    found.sort_by_key(|found| found.0);
    found.into_iter().map(|found| found.1).collect()
}

/// The transactions of each knot of several.
fn members(graph: &Graph, knots: &[usize]) -> Vec<Vec<usize>> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    (0..graph.transactions).for_each(|txn| members.entry(knots[txn]).or_default().push(txn));
    members.into_values().filter(|members| members.len() > 1).collect()
}

type Steps = Vec<(usize, Edge)>;

fn shortest(graph: &Graph, knots: &[usize], starts: impl Iterator<Item = usize>, first: u8, others: u8) -> Option<Steps> {
    let (mut budget, mut best) = (BUDGET, None::<Steps>);
    for start in starts {
        let found = circle(graph, knots, start, (first, others), &mut budget);
        if let Some(found) = found.filter(|found| best.as_ref().is_none_or(|best| found.len() < best.len())) {
            best = Some(found);
        }
        if budget == 0 {
            break;
        }
    }
    best
}

/// The shortest way from a transaction to itself that begins with an edge of `first` and goes on
/// with edges of `others`: each step from a transaction to the next.
fn circle(graph: &Graph, knots: &[usize], start: usize, (first, others): (u8, u8), budget: &mut usize) -> Option<Steps> {
    let is_point = |node: usize| node >= graph.transactions;
    let mut came: HashMap<usize, (usize, Edge)> = HashMap::new();
    let mut next = VecDeque::new();
    let leave = |node: usize, mask: u8, next: &mut VecDeque<(usize, Edge)>| {
        for edge in graph.edges[node].iter().filter(|edge| edge.why & mask != 0 && knots[edge.to] == knots[node]) {
            // A way through points is no longer than one without.
            if is_point(edge.to) { next.push_front((node, *edge)) } else { next.push_back((node, *edge)) }
        }
    };
    leave(start, first, &mut next);
    while let Some((from, edge)) = next.pop_front() {
        if came.contains_key(&edge.to) {
            continue;
        }
        came.insert(edge.to, (from, edge));
        *budget = budget.saturating_sub(1);
        if edge.to == start {
            return Some(way(graph, &came, start));
        }
        leave(edge.to, others | ON, &mut next);
    }
    None
}

/// How a circle came to its start, without the points.
fn way(graph: &Graph, came: &HashMap<usize, (usize, Edge)>, start: usize) -> Steps {
    let mut steps = Steps::new();
    let mut node = start;
    loop {
        let (from, mut edge) = came[&node];
        if node >= graph.transactions
            && let Some((_, later)) = steps.pop()
        {
            (edge.to, edge.value) = (later.to, later.value);
        }
        steps.push((from, edge));
        node = from;
        if node == start {
            steps.reverse();
            return steps;
        }
    }
}

fn step((from, edge): &(usize, Edge)) -> String {
    let Edge { to, why, key, before, value } = edge;
    match *why {
        APPENDS => format!("transaction {from} appended {before} to key {key} before {to} appended {value} (ww)"),
        READS => format!("transaction {from} appended {value} to key {key}, which {to} read (wr)"),
        MISSES => format!("transaction {from} read key {key} without {value}, which {to} appended (rw)"),
        _ => format!("transaction {from} had ended when {to} began"),
    }
}

/// For each node the number of its knot (its strongly connected component), by edges of a mask:
/// Tarjan's algorithm, without recursion.
fn knots(graph: &Graph, mask: u8) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let n = graph.edges.len();
    let (mut index, mut low, mut knot) = (vec![NONE; n], vec![NONE; n], vec![NONE; n]);
    let (mut stack, mut calls, mut count, mut knots) = (Vec::new(), Vec::<(usize, usize)>::new(), 0, 0);
    for root in 0..n {
        if index[root] == NONE {
            calls.push((root, 0));
        }
        while let Some((node, at)) = calls.pop() {
            let edges = &graph.edges[node];
            if index[node] == NONE {
                (index[node], low[node]) = (count, count);
                count += 1;
                stack.push(node);
            }
            // The one that was followed last is done.
            let done = at.checked_sub(1).map(|at| edges[at].to).filter(|&done| knot[done] == NONE);
            done.into_iter().for_each(|done| low[node] = low[node].min(low[done]));
            if let Some(next) = (at..edges.len()).find(|&next| edges[next].why & (mask | ON) != 0) {
                calls.push((node, next + 1));
                if index[edges[next].to] == NONE {
                    calls.push((edges[next].to, 0));
                }
            } else if low[node] == index[node] {
                while let Some(member) = stack.pop() {
                    knot[member] = knots;
                    if member == node {
                        break;
                    }
                }
                knots += 1;
            }
        }
    }
    knot
}
