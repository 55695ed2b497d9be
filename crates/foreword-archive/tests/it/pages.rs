//! A page store: archived, backed up while it works, and restored to a moment. It is the graph
//! example of foreword-tree.
#![allow(dead_code)]

#[path = "../../../foreword-tree/examples/graph"]
mod program {
    pub mod graph;
    pub mod load;
}

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foreword::Lsn;
use foreword_archive::{Archive, Archiver, Copied, Error, RestoreOptions, Target};
use foreword_tree::Options;
use foreword_tree::foreword_pages::Store;
use program::graph::{Direction, Graph, Result};
use program::load;

use crate::support::*;

const EXCERPT: &str = include_str!("../../../foreword-tree/examples/graph/excerpt.tsv");
const BATCH: usize = 20;

fn options() -> Options {
    Options::new().pool_bytes(1 << 20).log(small())
}

fn load(graph: &Graph, lines: std::ops::Range<usize>) -> Result<()> {
    load::load(graph, &EXCERPT.lines().collect::<Vec<_>>(), &[lines], 1)
}

/// How many lines are loaded.
fn progress(graph: &Graph) -> usize {
    graph.run(|txn| txn.loaded()).unwrap().last().map_or(0, |range| range.end as usize)
}

/// The edges that a graph has, and those of so many lines.
fn edges(graph: &Graph) -> BTreeSet<String> {
    let edges = graph.run(|txn| {
        let mut edges = BTreeSet::new();
        for from in txn.names()? {
            for edge in txn.neighbours(&from, Direction::Out)? {
                edges.extend(
                    edge.properties
                        .into_iter()
                        .map(|(_, constraint)| format!("{from} {} {} {constraint}", edge.node, edge.label)),
                );
            }
        }
        Ok(edges)
    });
    edges.unwrap()
}

fn expected(lines: usize) -> BTreeSet<String> {
    let fields = EXCERPT.lines().take(lines).map(|line| line.split('\t').collect::<Vec<_>>());
    fields.filter(|fields| fields[0] == "E").map(|fields| fields[1..].join(" ")).collect()
}

fn copy(store: &Store, to: &mut dyn std::io::Write) -> std::io::Result<Copied> {
    let backup = store.backup(to).map_err(std::io::Error::other)?;
    Ok(Copied { log: backup.log, log_start: backup.log_start, consistent: backup.consistent })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

#[test]
fn a_graph_is_restored_to_random_lsns_and_to_a_time() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let dir = place.path("graph");
        let graph = Graph::open(&dir, options()).unwrap();
        let log = dir.join("log");
        let mut push = crate::support::options();
        push.chunk_age = Duration::from_millis(20);
        let mut archiver = Archiver::begin(&log, store.clone(), keys(), push).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let archiving = tokio::spawn(async move {
            archiver.run(async { _ = stopped.await }).await.unwrap();
            archiver
        });
        // What the graph had, by the last LSN that was durable then.
        let mut had = vec![(graph.db().store().stats().log.durable_lsn, 0)];
        let lines = EXCERPT.lines().count();
        let (mut backups, mut moment) = (Vec::new(), None);
        for (batch, from) in (0..lines).step_by(BATCH).enumerate() {
            load(&graph, from..(from + BATCH).min(lines)).unwrap();
            had.push((graph.db().store().stats().log.durable_lsn, (from + BATCH).min(lines)));
            if batch == 15 || batch == 35 {
                // The pages change meanwhile: the next batch is loaded while they are copied.
                let of = graph.db().store().clone();
                let mut archive = open(&store).await;
                while archive.timelines().next().is_none() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    archive.refresh().await.unwrap();
                }
                backups.push(archive.back_up(move |to| copy(&of, to)).await.unwrap());
            }
            if batch == 40 {
                tokio::time::sleep(Duration::from_millis(1_100)).await;
                moment = Some((now(), (from + BATCH).min(lines)));
                tokio::time::sleep(Duration::from_millis(1_100)).await;
            }
        }
        shown_up_to(&log, graph.db().store().stats().log.durable_lsn).await;
        stop.send(()).unwrap();
        let mut archiver = archiving.await.unwrap();
        let last = archiver.push_all().await.unwrap();
        drop(graph);
        std::fs::remove_dir_all(&dir).unwrap();

        let restore = async |to: Target| {
            let mut options = RestoreOptions::default();
            (options.to, options.segment_bytes) = (to, 64 << 10);
            let (plan, backup) = open(&store).await.restore_backup(&dir, &options).await?;
            let graph = Graph::open(&dir, self::options()).unwrap();
            let progress = progress(&graph);
            assert_eq!(edges(&graph), expected(progress), "{to:?}");
            drop(graph);
            std::fs::remove_dir_all(&dir).unwrap();
            Ok::<_, Error>((progress, plan, backup))
        };
        let mut seed = 7u64;
        for _ in 0..20 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let to = Lsn(backups[0].consistent + (seed >> 33) % (last.0 - backups[0].consistent + 1));
            let (progress, plan, backup) = restore(Target::Lsn(to)).await.unwrap();
            // All that had committed by then.
            let had = had.iter().rfind(|(lsn, _)| *lsn <= to).unwrap().1;
            assert!((had..=had + BATCH).contains(&progress), "{to}: {progress} instead of {had}");
            assert_eq!(plan.last, to);
            assert_eq!(backup.consistent, backups[usize::from(to.0 >= backups[1].consistent)].consistent);
        }
        let (time, had) = moment.unwrap();
        assert_eq!(restore(Target::Time(time)).await.unwrap().0, had);
        assert_eq!(restore(Target::Latest).await.unwrap().0, lines);
        let early = restore(Target::Lsn(Lsn(backups[0].consistent - 1))).await;
        assert!(matches!(early, Err(Error::NotThere { .. })), "{early:?}");
    });
}

async fn shown_up_to(log: &Path, lsn: Lsn) {
    while foreword::View::open(log).unwrap().last_lsn().unwrap() < lsn {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One that was restored goes on, in a timeline of its own, and is backed up and restored again.
#[test]
fn a_store_that_was_restored_goes_on_and_is_archived_again() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let dir = place.path("graph");
        let graph = Graph::open(&dir, options()).unwrap();
        load(&graph, 0..100).unwrap();
        let back_up = async |graph: &Graph| {
            let of = graph.db().store().clone();
            shown_up_to(&dir.join("log"), of.stats().log.durable_lsn).await;
            push(&dir.join("log"), &store).await.unwrap();
            open(&store).await.back_up(move |to| copy(&of, to)).await.unwrap();
            shown_up_to(&dir.join("log"), graph.db().store().stats().log.durable_lsn).await;
            push(&dir.join("log"), &store).await.unwrap()
        };
        let point = back_up(&graph).await.archived();
        load(&graph, 100..200).unwrap();
        back_up(&graph).await;
        graph.close().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();

        let mut options = RestoreOptions::default();
        (options.to, options.segment_bytes) = (Target::Lsn(point), 64 << 10);
        open(&store).await.restore_backup(&dir, &options).await.unwrap();
        let graph = Graph::open(&dir, self::options()).unwrap();
        assert_eq!(progress(&graph), 100);
        load(&graph, 100..150).unwrap();
        let archiver = back_up(&graph).await;
        assert_eq!(archiver.timeline(), 2);
        graph.close().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        for (timeline, lines) in [(2, 150), (1, 200)] {
            (options.to, options.timeline) = (Target::Latest, Some(timeline));
            let mut archive = Archive::open(store.clone(), keys()).await.unwrap();
            archive.restore_backup(&dir, &options).await.unwrap();
            let graph = Graph::open(&dir, self::options()).unwrap();
            assert_eq!(progress(&graph), lines);
            assert_eq!(edges(&graph), expected(lines));
            graph.close().unwrap();
            std::fs::remove_dir_all(&dir).unwrap();
        }
    });
}
