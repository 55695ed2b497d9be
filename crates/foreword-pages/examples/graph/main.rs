//! A small graph database, and Debian's package dependencies in it. See `README.md` beside this
//! file.

#[allow(unreachable_pub)] // The module is one of the tests', too.
mod graph;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use foreword_pages::Options;
use graph::{Direction, Graph, Reader, Result, Writer};

const USAGE: &str = "\
usage: graph load DIR FILE [BATCH]   load a file as debian.py makes it, BATCH lines a transaction (100); goes on where it was cut short
       graph stats DIR               numbers of nodes, edges and lines loaded
       graph show DIR NAME           a node, what it needs and what needs it
       graph path DIR FROM TO        a shortest path
       graph edges DIR               all edges, as in the file";

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
    // Small segments of log: after a kill, opening makes one, and fills it with zeros.
    let options = Options::new().log(foreword::Options::new().segment_bytes(8 << 20));
    let open = |dir: &str| Graph::open(Path::new(dir), &options);
    match args {
        ["load", dir, file] => load(open(dir)?, file, 100),
        ["load", dir, file, batch] => load(open(dir)?, file, batch.parse()?),
        ["stats", dir] => stats(&open(dir)?),
        ["show", dir, name] => show(&open(dir)?.read(), name),
        ["path", dir, from, to] => path(&open(dir)?.read(), from, to),
        ["edges", dir] => edges(&open(dir)?.read()),
        _ => Err(USAGE.into()),
    }
}

/// Loads the lines that were not loaded yet. The graph has their number, which changes with it.
fn load(graph: Graph, file: &str, batch: usize) -> Result<()> {
    println!("{}", graph.store().recovery());
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let done = graph.read().progress()? as usize;
    println!("{done} of {} lines are loaded", lines.len());
    let started = Instant::now();
    for (i, some) in lines.get(done..).unwrap_or(&[]).chunks(batch.max(1)).enumerate() {
        graph.write(|writer| {
            some.iter().try_for_each(|line| load_line(writer, line))?;
            writer.set_progress((done + i * batch.max(1) + some.len()) as u64)
        })?;
    }
    let took = started.elapsed().as_secs_f64();
    println!("{} lines in {took:.2} s", lines.len().saturating_sub(done));
    stats(&graph)?;
    graph.close()
}

fn load_line(writer: &mut Writer<'_>, line: &str) -> Result<()> {
    match *line.split('\t').collect::<Vec<_>>() {
        ["N", name, version, section] => {
            let node = writer.node(name)?;
            writer.set_properties(node, &[("version", version), ("section", section)])
        }
        ["E", from, to, kind, constraint] => {
            let (from, to) = (writer.node(from)?, writer.node(to)?);
            writer.add_edge(from, to, &[("kind", kind), ("constraint", constraint)])
        }
        _ => Err(format!("what is this line? {line}").into()),
    }
}

fn stats(graph: &Graph) -> Result<()> {
    let (reader, pages) = (graph.read(), graph.store().stats());
    println!("{} nodes, {} edges, {} lines loaded", reader.nodes()?, reader.edges()?, reader.progress()?);
    println!("{} pages, {} checkpoints, {} page images", pages.pages_used, pages.checkpoints, pages.page_images);
    Ok(())
}

fn show(reader: &Reader<'_>, name: &str) -> Result<()> {
    let node = reader.find(name)?.ok_or("there is no such node")?;
    let property = |all: graph::Properties| all.into_iter().map(|(key, value)| format!("  {key}: {value}")).collect::<String>();
    println!("{name}{}", property(reader.properties(node)?));
    for edge in reader.neighbours(node, Direction::Out)? {
        println!("  needs {}{}", reader.name(edge.node)?, property(edge.properties));
    }
    println!("needed by {}, and needs {} in all", reader.neighbours(node, Direction::In)?.len(), reader.reachable(node)? - 1);
    Ok(())
}

fn path(reader: &Reader<'_>, from: &str, to: &str) -> Result<()> {
    let find = |name: &str| reader.find(name)?.ok_or(format!("there is no node {name}").into()) as Result<graph::Node>;
    match reader.shortest_path(find(from)?, find(to)?)? {
        None => println!("there is no path"),
        Some(path) => {
            let names: Result<Vec<String>> = path.into_iter().map(|node| reader.name(node)).collect();
            println!("{}", names?.join(" -> "));
        }
    }
    Ok(())
}

fn edges(reader: &Reader<'_>) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for node in 0..reader.nodes()? {
        let name = reader.name(node)?;
        for edge in reader.neighbours(node, Direction::Out)? {
            let values: Vec<String> = edge.properties.into_iter().map(|(_, value)| value).collect();
            writeln!(out, "E\t{name}\t{}\t{}", reader.name(edge.node)?, values.join("\t"))?;
        }
    }
    Ok(out.flush()?)
}
