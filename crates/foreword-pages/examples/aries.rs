//! ARIES on a graph of four nodes. One transaction has committed and is not in the page file,
//! another has not committed and is, and the power fails. Then the power fails in recovery, too, at
//! each of its changes. `cargo run -p foreword-pages --example aries`.

use foreword::{Lsn, SyncPolicy, View};
use foreword_pages::{Options, PageId, Store, Txn};
use foreword_sim::{Choice, SimDisk};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const DIR: &str = "/graph";
const PAGE: usize = 4096;
/// Bytes of a page's header, which comes before the user's bytes.
const HEAD: u64 = 32;

// ANCHOR: graph
/// A node is a page: first the nodes that it points to, then the nodes that point to it. Each has a
/// byte, 1 if there is an edge.
const NODES: [(char, PageId); 4] = [('a', PageId(2)), ('b', PageId(3)), ('c', PageId(4)), ('d', PageId(5))];
const OUT: usize = 0;
const IN: usize = NODES.len();

/// The two halves of an edge are in two pages. Half an edge is a broken graph.
fn half_out(txn: &mut Txn, from: usize, to: usize) -> Result<()> {
    Ok(txn.update(NODES[from].1, OUT + to, &[1])?)
}

fn half_in(txn: &mut Txn, from: usize, to: usize) -> Result<()> {
    Ok(txn.update(NODES[to].1, IN + from, &[1])?)
}
// ANCHOR_END: graph

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;

fn options(disk: &SimDisk) -> Options {
    let log = foreword::Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual()).on_error(|_| ());
    Options::new().page_bytes(PAGE).pool_bytes(16 * PAGE).background(false).recovery_threads(1).disk(disk.handle()).log(log)
}

// ANCHOR: story
/// What happens before the power fails.
fn story(disk: &SimDisk) -> Result<()> {
    let store = options(disk).open(DIR)?;
    let mut txn = store.begin();
    for (_, page) in NODES {
        assert_eq!(txn.allocate()?, page);
    }
    half_out(&mut txn, A, B)?; // the edge a -> b
    half_in(&mut txn, A, B)?;
    txn.commit()?;

    let mut loser = store.begin();
    half_out(&mut loser, B, C)?; // half of b -> c
    store.checkpoint_all()?; // *steal*: writes pages with uncommitted changes, too
    half_in(&mut loser, B, C)?; // the other half

    let mut winner = store.begin();
    half_out(&mut winner, C, D)?; // the edge c -> d
    half_in(&mut winner, C, D)?;
    winner.commit()?; // *no-force*: the log is durable, the pages are not written

    disk.power_off(); // and the loser never came to its commit
    Ok(())
}
// ANCHOR_END: story

/// The edges in the page file alone: what a database without a log would find.
fn halves_in_the_file(disk: &SimDisk) -> String {
    let mut found = String::new();
    for (from, (name, page)) in NODES.iter().enumerate() {
        let body = disk.peek(format!("{DIR}/PAGES"), page.0 * PAGE as u64 + HEAD, 2 * NODES.len()).unwrap_or_default();
        for (to, (other, _)) in NODES.iter().enumerate().filter(|(to, _)| *to != from) {
            if body.get(OUT + to) == Some(&1) {
                found += &format!(" [{name}]->{other}");
            }
            if body.get(IN + to) == Some(&1) {
                found += &format!(" {other}->[{name}]");
            }
        }
    }
    found
}

/// The edges of the graph; an error if one has only one half.
fn edges(store: &Store) -> Result<String> {
    let mut edges = String::new();
    for (from, (name, page)) in NODES.iter().enumerate() {
        for (to, (other, other_page)) in NODES.iter().enumerate() {
            let out = store.read(*page)?[OUT + to] == 1;
            let back = store.read(*other_page)?[IN + from] == 1;
            if out != back {
                return Err(format!("half of {name}->{other}").into());
            }
            if out {
                edges += &format!(" {name}->{other}");
            }
        }
    }
    Ok(edges)
}

// ANCHOR: decode
/// What a record of the store says (docs/PAGES.md), but for the bytes that it changes.
fn describe(record: &[u8]) -> Option<String> {
    let (kind, mut rest) = record.split_first()?;
    let mut number = || leb128(&mut rest);
    Some(match kind & 0x0f {
        1 => format!("update   T{}, page {2}; to be undone after it: {1}", number()?, number()?, number()?),
        2 => format!("undo     T{}, page {2}; to be undone next: {1}", number()?, number()?, number()?),
        3 => format!("format   page {}", number()?),
        4 => format!("commit   T{}", number()?),
        5 => format!("abort    T{}: all undone", number()?),
        6 => "checkpoint begins".to_owned(),
        7 => format!("checkpoint ends: it began at {}", number()?),
        _ => return None,
    })
}
// ANCHOR_END: decode

fn leb128(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn show_log(disk: &SimDisk, from: Lsn) -> Result<Lsn> {
    let view = View::open_on(disk.handle(), format!("{DIR}/log"))?.recoverable()?;
    for record in view.iter(from) {
        let record = record?;
        println!("  {:>3}  {}", record.lsn, describe(&record.data).ok_or("not a record of the store")?);
    }
    Ok(view.last_lsn()?)
}

/// Runs the example.
pub fn main() -> Result<()> {
    let disk = SimDisk::new(1);
    story(&disk)?;
    let crashed = disk.crash(&Choice::None); // only what was synced is there
    println!("the log, as the power failure left it:");
    let last = show_log(&crashed, Lsn::ZERO)?;
    println!("the page file:{}", halves_in_the_file(&crashed));

    let recovered = crashed.copy();
    let store = options(&recovered).open(DIR)?;
    let report = store.recovery();
    println!(
        "\nrecovery: {} changes made again, {} skipped; {} loser, {} changes undone",
        report.applied, report.skipped, report.losers, report.undo.records
    );
    println!("the graph:{}", edges(&store)?);
    println!("what recovery added to the log:");
    show_log(&recovered, last.next())?;

    // ANCHOR: again
    let mut states = 0;
    for change in crashed.changes() + 1..=recovered.changes() {
        let interrupted = crashed.copy();
        interrupted.power_off_at(change);
        let _ = options(&interrupted).open(DIR); // recovery, cut short
        for after in interrupted.crash_states(32, change) {
            let store = options(&after).open(DIR)?;
            assert_eq!(edges(&store)?, " a->b c->d");
            states += 1;
        }
    }
    // ANCHOR_END: again
    println!(
        "\nthe power failed at each of the {} changes of that recovery: {states} states, all with this graph",
        recovered.changes() - crashed.changes()
    );
    Ok(())
}
