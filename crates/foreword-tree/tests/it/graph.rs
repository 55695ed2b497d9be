//! The example `graph`: a graph that is loaded by several threads, killed and recovered has every
//! edge, once; and it answers as a model does that knows no pages.
#![allow(dead_code, unreachable_pub)]

#[path = "../../examples/graph"]
mod program {
    pub mod graph;
    pub mod load;
}

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foreword_tree::Options;
use program::graph::{Direction, Edge, Graph, Properties};
use program::load;

const EXCERPT: &str = include_str!("../../examples/graph/excerpt.tsv");

/// A graph, as simply as can be: for each node its properties, and for each two nodes and label the
/// properties of the edge.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    nodes: BTreeMap<String, Properties>,
    edges: BTreeMap<(String, String, String), Properties>,
}

impl Model {
    fn of_excerpt() -> Model {
        let mut model = Model::default();
        for line in EXCERPT.lines() {
            let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
            let property = |name: &str, at: usize| (name.to_owned(), fields[at].clone());
            if fields[0] == "N" {
                model.nodes.insert(fields[1].clone(), vec![property("version", 2), property("section", 3)]);
                continue;
            }
            for node in &fields[1..3] {
                model.nodes.entry(node.clone()).or_default();
            }
            let edge = (fields[1].clone(), fields[3].clone(), fields[2].clone());
            model.edges.entry(edge).or_default().push(property("constraint", 4));
        }
        model
    }

    /// All that a graph has, by its queries.
    fn of(graph: &Graph) -> Model {
        let all = graph.run(|txn| {
            let mut all = Model::default();
            for name in txn.names()? {
                for Edge { label, node, properties } in txn.neighbours(&name, Direction::Out)? {
                    all.edges.insert((name.clone(), label, node), properties);
                }
                all.nodes.insert(name.clone(), txn.properties(&name)?.unwrap());
            }
            let mut incoming = BTreeMap::new();
            for to in all.nodes.keys() {
                for Edge { label, node, properties } in txn.neighbours(to, Direction::In)? {
                    incoming.insert((node, label, to.clone()), properties);
                }
            }
            assert_eq!(incoming, all.edges, "both directions have the same edges");
            assert_eq!(txn.counts()?, (all.nodes.len() as u64, all.edges.len() as u64));
            Ok(all)
        });
        graph.db().verify(true).unwrap();
        all.unwrap()
    }

    /// Edges that several transactions have added to have their properties in any order.
    fn in_any_order(mut self) -> Model {
        self.edges.values_mut().for_each(|properties| properties.sort());
        self
    }

    /// How many edges lead from one node to each that can be reached.
    fn distances(&self, from: &str) -> HashMap<String, usize> {
        let mut far = HashMap::from([(from.to_owned(), 0)]);
        let mut queue = VecDeque::from([from.to_owned()]);
        while let Some(node) = queue.pop_front() {
            let first = (node.clone(), String::new(), String::new());
            for ((_, _, next), _) in self.edges.range(first..).take_while(|((from, ..), _)| *from == node) {
                if !far.contains_key(next) {
                    far.insert(next.clone(), far[&node] + 1);
                    queue.push_back(next.clone());
                }
            }
        }
        far
    }
}

fn open(dir: &Path) -> Graph {
    Graph::open(dir, Options::new()).unwrap()
}

fn load_excerpt(graph: &Graph, batch: usize, threads: usize) {
    let lines: Vec<&str> = EXCERPT.lines().collect();
    load::load(graph, &lines, &load::missing(graph, lines.len(), batch).unwrap(), threads).unwrap();
}

fn run(args: &[&str]) -> String {
    let out = Command::new(crate::common::example("graph")).args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn killed_again_and_again_while_it_loads_it_comes_out_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("graph");
    let (store, file) = (store.to_str().unwrap(), concat!(env!("CARGO_MANIFEST_DIR"), "/examples/graph/excerpt.tsv"));
    let mut kills = 0;
    for attempt in 0u64.. {
        // Few lines a transaction, so that the kill comes within one; each time other threads.
        let (batch, threads) = ((1 + attempt % 3).to_string(), (1 + attempt % 4).to_string());
        let load = Command::new(crate::common::example("graph"))
            .args(["load", store, file, &batch, &threads])
            .stdout(Stdio::null())
            .spawn();
        let mut load = load.unwrap();
        std::thread::sleep(Duration::from_millis(20 + attempt * 7919 % (50 + 10 * attempt)));
        load.kill().unwrap(); // SIGKILL
        let status = load.wait().unwrap();
        if status.success() {
            break;
        }
        assert_eq!(status.code(), None, "it failed by itself");
        kills += 1;
        assert!(kills < 1000, "it does not come forward");
    }
    println!("{kills} kills");
    assert!(kills >= 3);
    let printed = run(&["edges", store]);
    let edges: BTreeSet<&str> = printed.lines().collect();
    assert_eq!(edges, EXCERPT.lines().filter(|line| line.starts_with('E')).collect());
    assert_eq!(printed.lines().count(), edges.len(), "none is there twice");
    let path = run(&["path", store, "gimp", "zlib1g"]);
    let model = Model::of_excerpt();
    assert_eq!(path.trim().split(" -> ").count() - 1, model.distances("gimp")["zlib1g"], "{path}");
    assert_eq!(Model::of(&open(Path::new(store))).in_any_order(), model.in_any_order());
}

#[test]
fn queries_find_what_a_model_finds() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(dir.path());
    load_excerpt(&graph, 100, 1);
    let model = Model::of_excerpt();
    assert_eq!(Model::of(&graph), model);
    for from in model.nodes.keys().step_by(7) {
        let far = model.distances(from);
        graph
            .run(|txn| {
                assert_eq!(txn.reachable(from, usize::MAX)?, far);
                let near = txn.reachable(from, 2)?;
                assert_eq!(near, far.iter().filter(|(_, far)| **far <= 2).map(|(node, far)| (node.clone(), *far)).collect());
                for to in model.nodes.keys().step_by(5) {
                    let path = txn.shortest_path(from, to)?;
                    assert_eq!(path.as_ref().map(|path| path.len() - 1), far.get(to).copied(), "from {from} to {to}");
                    let path = path.unwrap_or_default();
                    assert!(path.first().is_none_or(|first| first == from) && path.last().is_none_or(|last| last == to));
                    for step in path.windows(2) {
                        assert!(txn.neighbours(&step[0], Direction::Out)?.iter().any(|edge| edge.node == step[1]), "{path:?}");
                    }
                }
                Ok(())
            })
            .unwrap();
    }
    graph.close().unwrap();
}

#[test]
fn nodes_and_edges_are_found_and_a_failed_transaction_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(dir.path());
    let properties =
        |all: &[(&str, &str)]| all.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect::<Properties>();
    graph
        .run(|txn| {
            txn.node("a")?;
            txn.node("a")?;
            txn.set_properties("a", &[("colour", "red"), ("empty", "")])?;
            txn.add_edge("a", "knows", "b", &[("weight", "7")])?;
            txn.add_edge("a", "knows", "b", &[("since", "1990")])
        })
        .unwrap();
    let before = Model::of(&graph);
    let fails = |name: &str, value: &str| {
        let failed = graph.run(|txn| {
            (0..1000).try_for_each(|i| txn.add_edge("a", &i.to_string(), "c", &[]))?;
            txn.set_loaded(0..1000)?;
            txn.set_properties("a", &[(name, value)])
        });
        assert!(failed.is_err());
        assert_eq!(Model::of(&graph), before);
    };
    fails("bad", "two\nlines");
    fails("a\ttab", "");
    let zero = graph.run(|txn| txn.add_edge("a", "knows", "b\0c", &[])).unwrap_err();
    assert_eq!(zero.to_string(), "a name has a zero byte");
    graph
        .run(|txn| {
            assert_eq!(txn.counts()?, (2, 1));
            assert_eq!((txn.properties("c")?, txn.loaded()?), (None, Vec::<Range<u64>>::new()));
            assert_eq!(txn.properties("a")?.unwrap(), properties(&[("colour", "red"), ("empty", "")]));
            let edge = |node: &str| Edge {
                label: "knows".into(),
                node: node.into(),
                properties: properties(&[("weight", "7"), ("since", "1990")]),
            };
            assert_eq!(txn.neighbours("a", Direction::Out)?, [edge("b")]);
            assert_eq!(txn.neighbours("b", Direction::In)?, [edge("a")]);
            assert_eq!(txn.shortest_path("b", "a")?, None);
            Ok(())
        })
        .unwrap();
    graph.close().unwrap();
}

#[test]
fn edges_of_a_node_are_not_those_of_one_whose_name_begins_alike() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(dir.path());
    let names = ["", "a", "a\u{1}", "a b", "ab", "\u{1}"];
    graph.run(|txn| names.iter().try_for_each(|name| txn.add_edge(name, name, name, &[("of", name)]))).unwrap();
    for name in names {
        let [out, into] = [Direction::Out, Direction::In].map(|to| graph.run(|txn| txn.neighbours(name, to)).unwrap());
        let edge = Edge { label: name.into(), node: name.into(), properties: vec![("of".into(), name.into())] };
        assert_eq!((out, into), (vec![edge.clone()], vec![edge]), "{name:?}");
    }
}

#[test]
fn lines_are_loaded_once_however_they_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(dir.path());
    let lines: Vec<&str> = EXCERPT.lines().collect();
    for (batch, threads, ranges) in [(7, 1, 3), (100, 4, 5), (1, 3, 40), (64, 2, 1000), (100, 1, 1000)] {
        let missing = load::missing(&graph, lines.len(), batch).unwrap();
        // (Not all of it, and not from the front.)
        let some: Vec<_> = missing.iter().rev().take(ranges).cloned().collect();
        load::load(&graph, &lines, &some, threads).unwrap();
        let before: usize = missing.iter().map(Range::len).sum();
        let left: usize = load::missing(&graph, lines.len(), 10).unwrap().iter().map(Range::len).sum();
        assert_eq!(left, before - some.iter().map(Range::len).sum::<usize>());
    }
    assert!(load::missing(&graph, lines.len(), 10).unwrap().is_empty());
    assert_eq!(Model::of(&graph).in_any_order(), Model::of_excerpt().in_any_order());
}

#[test]
fn many_nodes_with_many_edges_survive_a_reopening_with_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::new().page_bytes(4096).pool_bytes(40 * 4096);
    let graph = Graph::open(dir.path(), options()).unwrap();
    // Each node has edges to its double and the one after: a tree, in which everything is log2 away
    // from 1.
    let name = |i: usize| format!("node {i}");
    graph
        .run(|txn| {
            (1..1000).try_for_each(|i| {
                txn.add_edge(&name(i), "left", &name(2 * i), &[])?;
                txn.add_edge(&name(i), "right", &name(2 * i + 1), &[])
            })?;
            (0..2000).try_for_each(|i| txn.add_edge(&name(0), "all", &name(i), &[]))
        })
        .unwrap();
    drop(graph);
    let graph = Graph::open(dir.path(), options()).unwrap();
    graph
        .run(|txn| {
            for i in [2usize, 77, 1023, 1999] {
                assert_eq!(txn.shortest_path(&name(1), &name(i))?.unwrap().len(), i.ilog2() as usize + 1);
            }
            assert_eq!(txn.reachable(&name(1), usize::MAX)?.len(), 1999);
            assert_eq!(txn.reachable(&name(1), 3)?.len(), 15);
            assert_eq!(txn.neighbours(&name(0), Direction::Out)?.len(), 2000);
            Ok(())
        })
        .unwrap();
}

/// Threads that add edges between the same few nodes, and properties to the same edges.
#[test]
fn what_concurrent_writers_add_is_there_once() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let graph = open(dir.path());
    let node = |i: usize| format!("node {}", i % 5);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let graph = &graph;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let (from, to) = (node(thread * round), node(thread + 3 * round));
                    let (own, by) = (format!("{thread} {round}"), [("by", &*thread.to_string())]);
                    graph
                        .run(|txn| {
                            // In the order of rounds, and so not in one order: they wait for each other.
                            txn.add_edge(&from, &own, &to, &by)?;
                            txn.add_edge(&node(round), "shared", &node(round + 1), &by)?;
                            txn.add_edge(&node(round + thread), "shared", &node(round), &by)
                        })
                        .unwrap();
                }
            });
        }
    });
    // One thread's work after the other's comes to the same.
    let mut expected = Model::default();
    let mut add = |from: String, label: &str, to: String, thread: usize| {
        for node in [&from, &to] {
            expected.nodes.entry(node.clone()).or_default();
        }
        expected.edges.entry((from, label.to_owned(), to)).or_default().push(("by".into(), thread.to_string()));
    };
    for thread in 0..THREADS {
        for round in 0..ROUNDS {
            add(node(thread * round), &format!("{thread} {round}"), node(thread + 3 * round), thread);
            add(node(round), "shared", node(round + 1), thread);
            add(node(round + thread), "shared", node(round), thread);
        }
    }
    assert_eq!(Model::of(&graph).in_any_order(), expected.in_any_order());
    graph.close().unwrap();
}

/// Two transactions that each wait for what the other has locked: one is run again.
#[test]
fn a_deadlock_is_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(dir.path());
    graph.run(|txn| ["a", "b"].iter().try_for_each(|node| txn.set_properties(node, &[]))).unwrap();
    let (both_have_one, runs) = (Barrier::new(2), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let (graph, both_have_one, runs) = (&graph, &both_have_one, &runs);
            scope.spawn(move || {
                let mut is_first_run = true;
                graph
                    .run(|txn| {
                        runs.fetch_add(1, Ordering::SeqCst);
                        txn.set_properties(first, &[("by", first)])?;
                        if std::mem::take(&mut is_first_run) {
                            both_have_one.wait();
                        }
                        txn.set_properties(second, &[("by", first)])?;
                        txn.add_edge(first, "met", second, &[])
                    })
                    .unwrap();
            });
        }
    });
    assert!(runs.into_inner() >= 3, "neither met the other");
    let found = Model::of(&graph);
    assert_eq!(found.nodes["a"], found.nodes["b"], "one was there after the other");
    assert_eq!(found.edges.len(), 2);
    graph.close().unwrap();
}
