//! A small graph database on trees: nodes with a name, edges with a label, properties on both. Any
//! number of threads read and write it at once; each of their transactions is as if it was alone.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `nodes` | name | properties |
//! | `out` | from, label, to | properties |
//! | `in` | to, label, from | |
//! | `counts` | `nodes`, `edges` | how many there are, a u64 |
//! | `loaded` | the first line of a range, a u64 | the line behind it, a u64 |
//!
//! The parts of a key stand one behind the other, with a zero byte between them, which no name has.
//! Zero is lower than all other bytes, so keys have the order of their parts, and the edges of a
//! node lie side by side: from `name 0` to `name 1`. A u64 is big-endian, so its bytes have the
//! order of the numbers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::path::Path;

use foreword_tree::{Db, Options, Tree};
pub use foreword_tree::{Error, Result};

/// Names and values, in the order in which they were given. A name may be there several times.
pub type Properties = Vec<(String, String)>;

/// An edge, as one of its nodes has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub label: String,
    /// The node at the other end.
    pub node: String,
    pub properties: Properties,
}

#[derive(Clone, Copy, Debug)]
pub enum Direction {
    Out,
    In,
}

pub struct Graph {
    db: Db,
    nodes: Tree,
    out: Tree,
    into: Tree,
    counts: Tree,
    loaded: Tree,
}

impl Graph {
    /// Opens the graph in a directory, or makes one. Recovers it, if need be.
    pub fn open(dir: &Path, options: Options) -> Result<Graph> {
        let db = Db::open_with(options, dir)?;
        let [nodes, out, into] = [db.tree("nodes")?, db.tree("out")?, db.tree("in")?];
        let (counts, loaded) = (db.tree("counts")?, db.tree("loaded")?);
        Ok(Graph { db, nodes, out, into, counts, loaded })
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    pub fn close(self) -> Result<()> {
        self.db.close()
    }

    /// Does work in one transaction, which is durable when this returns; if `work` fails, nothing
    /// has happened. `work` is called again if it met another transaction, and one of them had to
    /// give way: so all that it changes is to be in the graph.
    pub fn run<T>(&self, mut work: impl FnMut(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        self.db.run(|txn| {
            let mut txn = Txn { graph: self, txn, known: HashSet::new(), new_nodes: 0, new_edges: 0 };
            let done = work(&mut txn)?;
            txn.count_new()?;
            Ok(done)
        })
    }
}

/// A transaction on the graph. What it has read stays as it is until it ends. After a call that
/// fails, its work has to fail, too: half an edge may be there.
pub struct Txn<'g> {
    graph: &'g Graph,
    txn: &'g mut foreword_tree::Txn,
    /// Nodes that it has found or made, and so need not look for again: they are locked.
    known: HashSet<String>,
    new_nodes: u64,
    new_edges: u64,
}

impl Txn<'_> {
    /// Makes a node of this name, if there is none.
    pub fn node(&mut self, name: &str) -> Result<()> {
        if !self.known.contains(name) {
            // It is only read first: others may, too, and most nodes that edges lead to are there.
            match self.txn.get(self.graph.nodes, name)? {
                Some(_) => _ = self.known.insert(name.to_owned()),
                None => _ = self.make_node(name, "")?,
            }
        }
        Ok(())
    }

    /// Gives a node these properties, in place of those that it had. Makes it, if there is none.
    pub fn set_properties(&mut self, node: &str, properties: &[(&str, &str)]) -> Result<()> {
        let text = text(properties)?;
        if self.make_node(node, &text)? { Ok(()) } else { self.txn.put(self.graph.nodes, node, text) }
    }

    /// Makes a node, unless there is one of this name. Whether it has made it.
    fn make_node(&mut self, name: &str, text: &str) -> Result<bool> {
        let is_new = self.txn.insert(self.graph.nodes, key(&[name])?, text)?;
        self.new_nodes += u64::from(is_new);
        self.known.insert(name.to_owned());
        Ok(is_new)
    }

    /// Makes an edge, with its nodes if need be. One that is there gets these properties behind
    /// those that it has.
    pub fn add_edge(&mut self, from: &str, label: &str, to: &str, properties: &[(&str, &str)]) -> Result<()> {
        self.node(from)?;
        self.node(to)?;
        let (edge, text) = (key(&[from, label, to])?, text(properties)?);
        if self.txn.insert(self.graph.out, &edge, &text)? {
            self.new_edges += 1;
            return self.txn.put(self.graph.into, key(&[to, label, from])?, "");
        }
        let old = self.txn.get(self.graph.out, &edge)?.unwrap_or_default();
        self.txn.put(self.graph.out, &edge, [old, text.into_bytes()].concat())
    }

    /// Notes that lines of the caller's file are loaded, by what else this transaction does.
    pub fn set_loaded(&mut self, lines: Range<u64>) -> Result<()> {
        self.txn.put(self.graph.loaded, lines.start.to_be_bytes(), lines.end.to_be_bytes())
    }

    /// Counts what is new. All that write change these numbers, and each has them locked until its
    /// transaction ends: so they are the last that it locks, always in this order.
    fn count_new(&mut self) -> Result<()> {
        for (name, new) in [("nodes", self.new_nodes), ("edges", self.new_edges)] {
            if new > 0 {
                let old = self.txn.get_for_update(self.graph.counts, name)?;
                let count = old.map_or(Ok(0), |old| number(&old))? + new;
                self.txn.put(self.graph.counts, name, count.to_be_bytes())?;
            }
        }
        Ok(())
    }

    /// The numbers of nodes and edges. (Without those that this transaction has made.)
    pub fn counts(&self) -> Result<(u64, u64)> {
        let count = |name| self.txn.get(self.graph.counts, name)?.map_or(Ok(0), |count| number(&count));
        Ok((count("nodes")?, count("edges")?))
    }

    /// The lines that were [noted](Txn::set_loaded), in their order.
    pub fn loaded(&self) -> Result<Vec<Range<u64>>> {
        self.txn.scan(self.graph.loaded, ..).map(|entry| entry.and_then(|(from, to)| Ok(number(&from)?..number(&to)?))).collect()
    }

    /// The names of all nodes, in their order.
    pub fn names(&self) -> Result<Vec<String>> {
        self.txn.scan(self.graph.nodes, ..).map(|entry| string(entry?.0)).collect()
    }

    /// A node's properties, if there is one of this name.
    pub fn properties(&self, node: &str) -> Result<Option<Properties>> {
        self.txn.get(self.graph.nodes, node)?.map(properties).transpose()
    }

    /// The edges of a node in one direction, in the order of their labels and of the other nodes.
    pub fn neighbours(&self, node: &str, direction: Direction) -> Result<Vec<Edge>> {
        let edge = |link: Result<Link>| {
            let Link { label, node: other, value } = link?;
            let value = match direction {
                Direction::Out => value,
                Direction::In => self.txn.get(self.graph.out, key(&[&other, &label, node])?)?.ok_or_else(damaged)?,
            };
            Ok(Edge { label, node: other, properties: properties(value)? })
        };
        self.links(node, direction)?.map(edge).collect()
    }

    /// The nodes that can be reached along outgoing edges, each with the number of edges that lead
    /// there: up to `depth`. The node itself is among them, with 0.
    pub fn reachable(&self, from: &str, depth: usize) -> Result<HashMap<String, usize>> {
        let reached = self.search(from, depth, None)?;
        Ok(reached.into_iter().map(|(node, reached)| (node, reached.depth)).collect())
    }

    /// A shortest path along outgoing edges, both ends included.
    pub fn shortest_path(&self, from: &str, to: &str) -> Result<Option<Vec<String>>> {
        let mut reached = self.search(from, usize::MAX, Some(to))?;
        let mut path = vec![to.to_owned()];
        while path[path.len() - 1] != from {
            let Some(Reached { before, .. }) = reached.remove(&path[path.len() - 1]) else { return Ok(None) };
            path.push(before);
        }
        path.reverse();
        Ok(Some(path))
    }

    /// Searches breadth first, up to a depth, or until a node is reached.
    fn search(&self, from: &str, depth: usize, until: Option<&str>) -> Result<HashMap<String, Reached>> {
        let mut reached = HashMap::from([(from.to_owned(), Reached { before: from.to_owned(), depth: 0 })]);
        let mut queue = VecDeque::from([from.to_owned()]);
        while let Some(node) = queue.pop_front() {
            let at = reached[&node].depth;
            if at == depth || until.is_some_and(|until| reached.contains_key(until)) {
                break;
            }
            for link in self.links(&node, Direction::Out)? {
                let next = link?.node;
                if !reached.contains_key(&next) {
                    reached.insert(next.clone(), Reached { before: node.clone(), depth: at + 1 });
                    queue.push_back(next);
                }
            }
        }
        Ok(reached)
    }

    fn links(&self, node: &str, direction: Direction) -> Result<impl Iterator<Item = Result<Link>>> {
        let tree = match direction {
            Direction::Out => self.graph.out,
            Direction::In => self.graph.into,
        };
        let from = [&key(&[node])?, &[0][..]].concat();
        let to = [node.as_bytes(), &[1]].concat();
        let links = self.txn.scan(tree, &from[..]..&to[..]);
        Ok(links.map(move |entry| {
            let (key, value) = entry?;
            let mut parts = key[from.len()..].split(|byte| *byte == 0).map(|part| string(part.to_vec()));
            let (Some(label), Some(node)) = (parts.next(), parts.next()) else { return Err(damaged()) };
            Ok(Link { label: label?, node: node?, value })
        }))
    }
}

/// How a search came to a node.
struct Reached {
    before: String,
    depth: usize,
}

/// An edge, as a tree has it.
struct Link {
    label: String,
    node: String,
    value: Vec<u8>,
}

fn key(parts: &[&str]) -> Result<Vec<u8>> {
    if parts.iter().any(|part| part.contains('\0')) {
        return Err(Error::other("a name has a zero byte"));
    }
    Ok(parts.join("\0").into_bytes())
}

fn number(bytes: &[u8]) -> Result<u64> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged())
}

fn string(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(Error::other)
}

fn text(properties: &[(&str, &str)]) -> Result<String> {
    if properties.iter().any(|(name, value)| name.contains(['\t', '\n']) || value.contains('\n')) {
        return Err(Error::other("a property has a tab in its name or a line break"));
    }
    Ok(properties.iter().flat_map(|(name, value)| [*name, "\t", *value, "\n"]).collect())
}

fn properties(text: Vec<u8>) -> Result<Properties> {
    let text = string(text)?;
    Ok(text.lines().filter_map(|line| line.split_once('\t')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn damaged() -> Error {
    Error::other("the trees are not those of a graph")
}
