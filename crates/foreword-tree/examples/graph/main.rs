//! A small graph database, and Debian's package dependencies in it. See `README.md` beside this
//! file.

#[allow(unreachable_pub)] // The modules are those of tests, too.
mod graph;
#[allow(unreachable_pub)]
mod load;

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use foreword_tree::{Options, foreword_pages::foreword};
use graph::{Direction, Error, Graph, Properties, Result, Txn};

const USAGE: &str = "\
usage: graph load DIR FILE [BATCH [THREADS]]   load a file as debian.py makes it, BATCH lines a transaction (100), with
                                               THREADS threads (1); goes on where it was cut short
       graph stats DIR                         numbers of nodes, edges and lines loaded
       graph show DIR NAME                     a node, what it needs and what needs it
       graph path DIR FROM TO                  a shortest path
       graph edges DIR                         all edges, as in the file
       graph recover DIR SVG                   recover the graph, and draw how";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("graph: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    let number = |text: &str| text.parse().map_err(|_| Error::other(format!("{text} is not a number")));
    match *args {
        ["load", dir, file] => load(dir, file, 100, 1),
        ["load", dir, file, batch] => load(dir, file, number(batch)?, 1),
        ["load", dir, file, batch, threads] => load(dir, file, number(batch)?, number(threads)?),
        ["stats", dir] => stats(&open(dir)?),
        ["show", dir, name] => open(dir)?.run(|txn| show(txn, name)),
        ["path", dir, from, to] => open(dir)?.run(|txn| path(txn, from, to)),
        ["edges", dir] => open(dir)?.run(|txn| edges(txn)),
        ["recover", dir, svg] => std::fs::write(svg, open(dir)?.db().store().recovery().to_svg()).map_err(Error::other),
        _ => Err(Error::other(USAGE)),
    }
}

fn open(dir: &str) -> Result<Graph> {
    // Small segments of log: after a kill, opening makes one, and fills it with zeros.
    Graph::open(Path::new(dir), Options::new().log(foreword::Options::new().segment_bytes(8 << 20)))
}

fn load(dir: &str, file: &str, batch: usize, threads: usize) -> Result<()> {
    let graph = open(dir)?;
    println!("{}", graph.db().store().recovery());
    let text = std::fs::read_to_string(file).map_err(Error::other)?;
    let lines: Vec<&str> = text.lines().collect();
    let missing = load::missing(&graph, lines.len(), batch)?;
    let count: usize = missing.iter().map(Range::len).sum();
    println!("{} of {} lines are loaded", lines.len() - count, lines.len());
    let started = Instant::now();
    load::load(&graph, &lines, &missing, threads)?;
    println!("{count} lines in {:.2} s", started.elapsed().as_secs_f64());
    stats(&graph)?;
    graph.close()
}

fn stats(graph: &Graph) -> Result<()> {
    let ((nodes, edges), loaded) = graph.run(|txn| Ok((txn.counts()?, txn.loaded()?)))?;
    let lines: u64 = loaded.into_iter().map(|lines| lines.end - lines.start).sum();
    println!("{nodes} nodes, {edges} edges, {lines} lines loaded");
    let pages = graph.db().store().stats();
    println!("{} pages, {} checkpoints, {} page images", pages.pages_used, pages.checkpoints, pages.page_images);
    Ok(())
}

fn show(txn: &Txn<'_>, name: &str) -> Result<()> {
    let of = |all: Properties| all.into_iter().map(|(name, value)| format!("  {name}: {value}")).collect::<String>();
    println!("{name}{}", of(txn.properties(name)?.ok_or_else(|| Error::other("there is no such node"))?));
    for edge in txn.neighbours(name, Direction::Out)? {
        println!("  {} {}{}", edge.label, edge.node, of(edge.properties));
    }
    let reachable = txn.reachable(name, usize::MAX)?;
    let far = reachable.values().max().unwrap_or(&0);
    let needed = txn.neighbours(name, Direction::In)?.len();
    println!("needed by {needed}, and needs {} in all, up to {far} edges away", reachable.len() - 1);
    Ok(())
}

fn path(txn: &Txn<'_>, from: &str, to: &str) -> Result<()> {
    for name in [from, to] {
        txn.properties(name)?.ok_or_else(|| Error::other(format!("there is no node {name}")))?;
    }
    let path = txn.shortest_path(from, to)?;
    println!("{}", path.map_or("there is no path".to_owned(), |path| path.join(" -> ")));
    Ok(())
}

fn edges(txn: &Txn<'_>) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for name in txn.names()? {
        for edge in txn.neighbours(&name, Direction::Out)? {
            for (_, constraint) in edge.properties {
                writeln!(out, "E\t{name}\t{}\t{}\t{constraint}", edge.node, edge.label).map_err(Error::other)?;
            }
        }
    }
    out.flush().map_err(Error::other)
}
