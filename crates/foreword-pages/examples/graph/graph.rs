//! A small graph database on pages: nodes and directed edges with properties, found by name, by
//! adjacency, and by breadth-first search. Every change is part of a transaction.
//!
//! In the pages, all numbers little-endian, a *ref* being a page id × 65536 + an offset in the
//! page:
//!
//! - The **root**, which the store names: magic, number of nodes, number of edges, the caller's
//!   number, the heap page and how much of it is used, the bucket page; then the directory pages,
//!   each a list of node pages.
//! - **Node pages** hold entries of 40 bytes: refs to the name, the properties, the newest block of
//!   outgoing edges and of incoming ones; the next node in the same bucket (+ 1), and the hash of
//!   the name.
//! - The **bucket page** holds the first node (+ 1) of each bucket.
//! - **Heap pages** hold, back to back, blobs (u16 length, bytes) and blocks of edges (ref of the
//!   next block, u16 used, u16 room, then for each edge u32 node and the ref of its properties).

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use foreword_pages::{Options, PageId, Store, Txn};

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Error>;
/// Names and values, in the order in which they were given.
pub type Properties = Vec<(String, String)>;

/// A node's number, from 0.
pub type Node = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    pub node: Node,
    pub properties: Properties,
}

#[derive(Clone, Copy, Debug)]
pub enum Direction {
    Out,
    In,
}

const MAGIC: u64 = u64::from_le_bytes(*b"fwrdgrph");
const NODES: usize = 8;
const EDGES: usize = 16;
const PROGRESS: usize = 24;
const HEAP: usize = 32;
const HEAP_USED: usize = 40;
const BUCKETS: usize = 48;
const DIRECTORY: usize = 56;

const ENTRY: usize = 40;
const NAME: usize = 0;
const PROPERTIES: usize = 8;
const OUT: usize = 16;
const IN: usize = 24;
const NEXT: usize = 32;
const HASH: usize = 36;

const BLOCK_HEAD: usize = 12;
const BLOCK_EDGE: usize = 12;
const BLOCK_ROOM_MAX: u16 = 128;

/// The place of a node, a blob or a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ref {
    page: PageId,
    offset: usize,
}

impl Ref {
    fn from_number(number: u64) -> Option<Ref> {
        (number != 0).then_some(Ref { page: PageId(number >> 16), offset: (number & 0xffff) as usize })
    }

    fn number(self) -> u64 {
        self.page.0 << 16 | self.offset as u64
    }

    fn plus(self, bytes: usize) -> Ref {
        Ref { offset: self.offset + bytes, ..self }
    }
}

pub struct Graph {
    store: Store,
    root: PageId,
    /// Isolation: one transaction changes the graph at a time, and no thread reads meanwhile.
    turn: RwLock<()>,
}

impl Graph {
    pub fn open(dir: &Path, options: &Options) -> Result<Graph> {
        let store = options.open(dir)?;
        let root = match store.root()? {
            Some(root) => root,
            None => {
                let mut txn = store.begin();
                let (root, buckets) = (txn.allocate()?, txn.allocate()?);
                txn.update(root, 0, &MAGIC.to_le_bytes())?;
                txn.update(root, BUCKETS, &buckets.0.to_le_bytes())?;
                txn.set_root(root)?;
                txn.commit()?;
                root
            }
        };
        let graph = Graph { store, root, turn: RwLock::new(()) };
        match graph.u64_at(root, 0)? {
            MAGIC => Ok(graph),
            _ => Err("the pages hold something else than a graph".into()),
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn close(self) -> Result<()> {
        Ok(self.store.close()?)
    }

    /// Changes the graph in one transaction. If `work` succeeds, the transaction is committed,
    /// durably; else nothing has happened.
    pub fn write<T>(&self, work: impl FnOnce(&mut Writer<'_>) -> Result<T>) -> Result<T> {
        let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        let mut writer = Writer { graph: self, txn: self.store.begin() };
        let result = work(&mut writer)?;
        writer.txn.commit()?;
        Ok(result)
    }

    pub fn read(&self) -> Reader<'_> {
        Reader { graph: self, _turn: self.turn.read().unwrap_or_else(PoisonError::into_inner) }
    }

    fn bytes<const N: usize>(&self, page: PageId, offset: usize) -> Result<[u8; N]> {
        let page = self.store.read(page)?;
        let bytes = page.get(offset..offset + N).ok_or("a ref that does not lie in its page")?;
        Ok(bytes.try_into()?)
    }

    fn u64_at(&self, page: PageId, offset: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(page, offset)?))
    }

    fn u32_at(&self, page: PageId, offset: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(page, offset)?))
    }

    fn blob(&self, at: Ref) -> Result<Vec<u8>> {
        let len = u16::from_le_bytes(self.bytes(at.page, at.offset)?) as usize;
        let page = self.store.read(at.page)?;
        Ok(page.get(at.offset + 2..at.offset + 2 + len).ok_or("a blob that does not lie in its page")?.to_vec())
    }

    fn text(&self, at: Option<Ref>) -> Result<String> {
        Ok(String::from_utf8(at.map_or(Ok(Vec::new()), |at| self.blob(at))?)?)
    }

    fn properties(&self, at: Option<Ref>) -> Result<Properties> {
        let text = self.text(at)?;
        Ok(text.lines().filter_map(|line| line.split_once('\t')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    fn nodes(&self) -> Result<Node> {
        Ok(self.u64_at(self.root, NODES)? as Node)
    }

    /// Where a node's page is listed: the offset of the directory page in the root, the offset in
    /// that page, and the offset of the node's entry in its page.
    fn place(&self, node: Node) -> (usize, usize, usize) {
        let (entries, pages) = (self.store.page_len() / ENTRY, self.store.page_len() / 8);
        let page = node as usize / entries;
        (DIRECTORY + page / pages * 8, page % pages * 8, node as usize % entries * ENTRY)
    }

    fn entry(&self, node: Node) -> Result<Ref> {
        if node >= self.nodes()? {
            return Err(format!("there is no node {node}").into());
        }
        let (in_root, in_directory, offset) = self.place(node);
        let directory = PageId(self.u64_at(self.root, in_root)?);
        Ok(Ref { page: PageId(self.u64_at(directory, in_directory)?), offset })
    }

    fn bucket(&self, name: &str) -> Result<(Ref, u32)> {
        let hash = name.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let buckets = self.store.page_len() / 4;
        let page = PageId(self.u64_at(self.root, BUCKETS)?);
        Ok((Ref { page, offset: hash as usize % buckets * 4 }, hash))
    }

    fn find(&self, name: &str) -> Result<Option<Node>> {
        let (bucket, hash) = self.bucket(name)?;
        let mut next = self.u32_at(bucket.page, bucket.offset)?;
        while next != 0 {
            let entry = self.entry(next - 1)?;
            if self.u32_at(entry.page, entry.offset + HASH)? == hash && self.text(self.ref_at(entry.plus(NAME))?)? == name {
                return Ok(Some(next - 1));
            }
            next = self.u32_at(entry.page, entry.offset + NEXT)?;
        }
        Ok(None)
    }

    fn ref_at(&self, at: Ref) -> Result<Option<Ref>> {
        Ok(Ref::from_number(self.u64_at(at.page, at.offset)?))
    }

    /// The edges of a node, the newest block first: the other node, and where the properties are.
    fn links(&self, node: Node, direction: Direction) -> Result<Vec<(Node, Option<Ref>)>> {
        let mut links = Vec::new();
        let mut block = self.ref_at(self.entry(node)?.plus(direction.offset()))?;
        while let Some(at) = block {
            let page = self.store.read(at.page)?;
            let used = u16::from_le_bytes(page[at.offset + 8..at.offset + 10].try_into()?) as usize;
            let edges = page.get(at.offset + BLOCK_HEAD..at.offset + BLOCK_HEAD + used * BLOCK_EDGE);
            for edge in edges.ok_or("a block of edges that does not lie in its page")?.chunks_exact(BLOCK_EDGE) {
                let properties = Ref::from_number(u64::from_le_bytes(edge[4..].try_into()?));
                links.push((u32::from_le_bytes(edge[..4].try_into()?), properties));
            }
            block = Ref::from_number(u64::from_le_bytes(page[at.offset..at.offset + 8].try_into()?));
        }
        Ok(links)
    }
}

impl Direction {
    fn offset(self) -> usize {
        match self {
            Direction::Out => OUT,
            Direction::In => IN,
        }
    }
}

/// Sees the graph as it is between two transactions.
pub struct Reader<'g> {
    graph: &'g Graph,
    _turn: RwLockReadGuard<'g, ()>,
}

impl Reader<'_> {
    pub fn nodes(&self) -> Result<Node> {
        self.graph.nodes()
    }

    pub fn edges(&self) -> Result<u64> {
        self.graph.u64_at(self.graph.root, EDGES)
    }

    /// The number that was last given to [`Writer::set_progress`].
    pub fn progress(&self) -> Result<u64> {
        self.graph.u64_at(self.graph.root, PROGRESS)
    }

    pub fn find(&self, name: &str) -> Result<Option<Node>> {
        self.graph.find(name)
    }

    pub fn name(&self, node: Node) -> Result<String> {
        let at = self.graph.entry(node)?.plus(NAME);
        self.graph.text(self.graph.ref_at(at)?)
    }

    pub fn properties(&self, node: Node) -> Result<Properties> {
        let at = self.graph.entry(node)?.plus(PROPERTIES);
        self.graph.properties(self.graph.ref_at(at)?)
    }

    pub fn neighbours(&self, node: Node, direction: Direction) -> Result<Vec<Edge>> {
        let links = self.graph.links(node, direction)?.into_iter();
        links.map(|(node, at)| Ok(Edge { node, properties: self.graph.properties(at)? })).collect()
    }

    /// A shortest path along outgoing edges, both ends included.
    pub fn shortest_path(&self, from: Node, to: Node) -> Result<Option<Vec<Node>>> {
        let mut came_from = HashMap::from([(from, from)]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if node == to {
                let mut path = vec![to];
                while path[path.len() - 1] != from {
                    path.push(came_from[&path[path.len() - 1]]);
                }
                path.reverse();
                return Ok(Some(path));
            }
            for (next, _) in self.graph.links(node, Direction::Out)? {
                came_from.entry(next).or_insert_with(|| {
                    queue.push_back(next);
                    node
                });
            }
        }
        Ok(None)
    }

    /// The number of nodes that can be reached along outgoing edges, with the node itself.
    pub fn reachable(&self, from: Node) -> Result<usize> {
        let mut seen = vec![false; self.nodes()? as usize];
        seen[from as usize] = true;
        let mut queue = vec![from];
        let mut at = 0;
        while at < queue.len() {
            for (next, _) in self.graph.links(queue[at], Direction::Out)? {
                if !std::mem::replace(&mut seen[next as usize], true) {
                    queue.push(next);
                }
            }
            at += 1;
        }
        Ok(queue.len())
    }
}

/// A transaction on the graph.
pub struct Writer<'g> {
    graph: &'g Graph,
    txn: Txn,
}

impl Writer<'_> {
    /// The node of this name; a new one if there is none.
    pub fn node(&mut self, name: &str) -> Result<Node> {
        if let Some(node) = self.graph.find(name)? {
            return Ok(node);
        }
        let node = self.graph.nodes()?;
        self.txn.update(self.graph.root, NODES, &u64::from(node + 1).to_le_bytes())?;
        let entry = self.new_entry(node)?;
        let name_at = self.put_blob(name.as_bytes())?;
        let (bucket, hash) = self.graph.bucket(name)?;
        let next = self.graph.u32_at(bucket.page, bucket.offset)?;
        let mut bytes = [0; ENTRY];
        bytes[NAME..NAME + 8].copy_from_slice(&name_at.number().to_le_bytes());
        bytes[NEXT..NEXT + 4].copy_from_slice(&next.to_le_bytes());
        bytes[HASH..HASH + 4].copy_from_slice(&hash.to_le_bytes());
        self.txn.update(entry.page, entry.offset, &bytes)?;
        self.txn.update(bucket.page, bucket.offset, &(node + 1).to_le_bytes())?;
        Ok(node)
    }

    pub fn set_properties(&mut self, node: Node, properties: &[(&str, &str)]) -> Result<()> {
        let at = self.put_properties(properties)?;
        let entry = self.graph.entry(node)?.plus(PROPERTIES);
        Ok(self.txn.update(entry.page, entry.offset, &at.to_le_bytes())?)
    }

    pub fn add_edge(&mut self, from: Node, to: Node, properties: &[(&str, &str)]) -> Result<()> {
        let at = self.put_properties(properties)?;
        self.link(from, Direction::Out, to, at)?;
        self.link(to, Direction::In, from, at)?;
        let edges = self.graph.u64_at(self.graph.root, EDGES)?;
        Ok(self.txn.update(self.graph.root, EDGES, &(edges + 1).to_le_bytes())?)
    }

    /// Sets a number of the caller's, which changes with the transaction.
    pub fn set_progress(&mut self, progress: u64) -> Result<()> {
        Ok(self.txn.update(self.graph.root, PROGRESS, &progress.to_le_bytes())?)
    }

    fn link(&mut self, node: Node, direction: Direction, to: Node, properties: u64) -> Result<()> {
        let head = self.graph.entry(node)?.plus(direction.offset());
        let newest = self.graph.ref_at(head)?;
        let (mut used, mut room) = (0u16, 0u16);
        if let Some(block) = newest {
            used = u16::from_le_bytes(self.graph.bytes(block.page, block.offset + 8)?);
            room = u16::from_le_bytes(self.graph.bytes(block.page, block.offset + 10)?);
        }
        let block = match newest {
            Some(block) if used < room => block,
            _ => {
                (used, room) = (0, (room * 2).clamp(2, BLOCK_ROOM_MAX));
                let block = self.take(BLOCK_HEAD + usize::from(room) * BLOCK_EDGE)?;
                self.txn.update(block.page, block.offset, &newest.map_or(0, Ref::number).to_le_bytes())?;
                self.txn.update(block.page, block.offset + 10, &room.to_le_bytes())?;
                self.txn.update(head.page, head.offset, &block.number().to_le_bytes())?;
                block
            }
        };
        let mut edge = [0; BLOCK_EDGE];
        edge[..4].copy_from_slice(&to.to_le_bytes());
        edge[4..].copy_from_slice(&properties.to_le_bytes());
        self.txn.update(block.page, block.offset + BLOCK_HEAD + usize::from(used) * BLOCK_EDGE, &edge)?;
        Ok(self.txn.update(block.page, block.offset + 8, &(used + 1).to_le_bytes())?)
    }

    /// The place of a new node's entry. Allocates pages for it if need be.
    fn new_entry(&mut self, node: Node) -> Result<Ref> {
        let (in_root, in_directory, offset) = self.graph.place(node);
        if in_root + 8 > self.graph.store.page_len() {
            return Err("the graph is full".into());
        }
        if offset == 0 {
            if in_directory == 0 {
                let directory = self.txn.allocate()?;
                self.txn.update(self.graph.root, in_root, &directory.0.to_le_bytes())?;
            }
            let directory = PageId(self.graph.u64_at(self.graph.root, in_root)?);
            let page = self.txn.allocate()?;
            self.txn.update(directory, in_directory, &page.0.to_le_bytes())?;
        }
        self.graph.entry(node)
    }

    fn put_properties(&mut self, properties: &[(&str, &str)]) -> Result<u64> {
        if properties.iter().any(|(key, value)| key.contains(['\t', '\n']) || value.contains('\n')) {
            return Err("a property has a tab in its name or a line break".into());
        }
        let text: String = properties.iter().map(|(key, value)| format!("{key}\t{value}\n")).collect();
        if text.is_empty() { Ok(0) } else { Ok(self.put_blob(text.as_bytes())?.number()) }
    }

    fn put_blob(&mut self, bytes: &[u8]) -> Result<Ref> {
        let at = self.take(2 + bytes.len())?;
        self.txn.update(at.page, at.offset, &(bytes.len() as u16).to_le_bytes())?;
        self.txn.update(at.page, at.offset + 2, bytes)?;
        Ok(at)
    }

    /// Takes so many bytes from the heap.
    fn take(&mut self, len: usize) -> Result<Ref> {
        if len > self.graph.store.page_len() {
            return Err(format!("{len} bytes are more than a page has").into());
        }
        let mut page = PageId(self.graph.u64_at(self.graph.root, HEAP)?);
        let mut offset = self.graph.u64_at(self.graph.root, HEAP_USED)? as usize;
        if page.0 == 0 || len > self.graph.store.page_len() - offset {
            (page, offset) = (self.txn.allocate()?, 0);
            self.txn.update(self.graph.root, HEAP, &page.0.to_le_bytes())?;
        }
        self.txn.update(self.graph.root, HEAP_USED, &((offset + len) as u64).to_le_bytes())?;
        Ok(Ref { page, offset })
    }
}
