//! The example: a graph that is loaded, killed and recovered has every edge, once.
#![allow(dead_code, unreachable_pub)]

#[path = "../../examples/graph/graph.rs"]
mod program;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use foreword_pages::Options;
use program::{Direction, Graph};

const EXCERPT: &str = include_str!("../../examples/graph/excerpt.tsv");

/// The edges of the excerpt, as the command prints them.
fn expected() -> BTreeSet<String> {
    EXCERPT.lines().filter(|line| line.starts_with('E')).map(str::to_owned).collect()
}

/// The number of edges from one package to another, by the file alone.
fn distance(from: &str, to: &str) -> usize {
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in EXCERPT.lines().filter(|line| line.starts_with('E')) {
        let fields: Vec<&str> = line.split('\t').collect();
        needs.entry(fields[1]).or_default().push(fields[2]);
    }
    let mut far = BTreeMap::from([(from, 0)]);
    let mut queue = VecDeque::from([from]);
    while let Some(package) = queue.pop_front() {
        for &next in needs.get(package).into_iter().flatten() {
            if !far.contains_key(next) {
                far.insert(next, far[package] + 1);
                queue.push_back(next);
            }
        }
    }
    far[to]
}

/// The example's program. Cargo builds it with all tests, but not with this test alone.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(format!("graph{}", std::env::consts::EXE_SUFFIX));
    if !program.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--example", "graph", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
        assert!(build.arg("--target-dir").arg(target.parent().unwrap()).status().unwrap().success());
    }
    program
}

fn run(args: &[&str]) -> String {
    let out = Command::new(program()).args(args).output().unwrap();
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
        // Each line is a transaction, so that the kill comes within one.
        let load = Command::new(program()).args(["load", store, file, "1"]).stdout(Stdio::null()).spawn();
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
    let edges: BTreeSet<String> = printed.lines().map(str::to_owned).collect();
    assert_eq!(edges, expected());
    assert_eq!(printed.lines().count(), expected().len(), "none is there twice");
    let path = run(&["path", store, "gimp", "zlib1g"]);
    assert_eq!(path.trim().split(" -> ").count() - 1, distance("gimp", "zlib1g"), "{path}");
}

#[test]
fn nodes_and_edges_are_found_and_a_failed_transaction_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let graph = Graph::open(dir.path(), &Options::new()).unwrap();
    let (a, b) = graph
        .write(|w| {
            let (a, b) = (w.node("a")?, w.node("b")?);
            assert_eq!(w.node("a")?, a);
            w.set_properties(a, &[("colour", "red"), ("empty", "")])?;
            w.add_edge(a, b, &[("weight", "7")])?;
            Ok((a, b))
        })
        .unwrap();
    let failed = graph.write(|w| {
        let c = w.node("c")?;
        (0..1000).try_for_each(|_| w.add_edge(a, c, &[]))?;
        w.set_properties(a, &[("bad", "two\nlines")])
    });
    assert!(failed.is_err());
    let reader = graph.read();
    assert_eq!((reader.nodes().unwrap(), reader.edges().unwrap()), (2, 1));
    assert_eq!(reader.find("c").unwrap(), None);
    assert_eq!(reader.name(b).unwrap(), "b");
    assert_eq!(reader.properties(a).unwrap(), [("colour".into(), "red".into()), ("empty".into(), "".into())]);
    let out = reader.neighbours(a, Direction::Out).unwrap();
    assert_eq!((out.len(), out[0].node, &out[0].properties[..]), (1, b, &[("weight".into(), "7".into())][..]));
    assert_eq!(reader.neighbours(b, Direction::In).unwrap()[0].node, a);
    assert_eq!(reader.shortest_path(b, a).unwrap(), None);
    drop(reader);
    graph.close().unwrap();
}

#[test]
fn many_nodes_with_many_edges_survive_a_reopening_with_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().page_bytes(4096).pool_bytes(40 * 4096);
    let graph = Graph::open(dir.path(), &options).unwrap();
    // Each node has edges to its double and the one after: a tree, in which everything is log2 away
    // from 1.
    graph
        .write(|w| {
            let nodes: Vec<_> = (0..2000).map(|i| w.node(&format!("node {i}"))).collect::<Result<_, _>>()?;
            (1..1000).try_for_each(|i| {
                w.add_edge(nodes[i], nodes[2 * i], &[]).and_then(|()| w.add_edge(nodes[i], nodes[2 * i + 1], &[]))
            })?;
            (0..2000).try_for_each(|i| w.add_edge(nodes[0], nodes[i], &[]))
        })
        .unwrap();
    drop(graph);
    let graph = Graph::open(dir.path(), &options).unwrap();
    let reader = graph.read();
    let find = |i: usize| reader.find(&format!("node {i}")).unwrap().unwrap();
    for i in [2usize, 77, 1023, 1999] {
        assert_eq!(reader.shortest_path(find(1), find(i)).unwrap().unwrap().len(), i.ilog2() as usize + 1);
    }
    assert_eq!(reader.reachable(find(1)).unwrap(), 1999);
    assert_eq!(reader.neighbours(find(0), Direction::Out).unwrap().len(), 2000);
}
