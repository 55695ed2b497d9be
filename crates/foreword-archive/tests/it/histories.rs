//! What is restored is what was archived: any LSN, any time, any timeline.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use foreword::{Lsn, OnDamage, Options, View};
use foreword_archive::{Archiver, Error, RestoreOptions, Standby, Target};

use crate::support::*;

/// Restored points compared: all, if they are not more than this.
fn points() -> u64 {
    std::env::var("FOREWORD_ARCHIVE_POINTS").ok().map_or(40, |points| points.parse().unwrap())
}

fn micros(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn records_of_any_length_come_back_with_their_times() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        for (lsn, len) in (1..).zip([0, 1, 100, 4_096, 65_536, 300_000, 1_500_000, 0, 7]) {
            log.commit(record(lsn, len)).unwrap();
        }
        log.commit(b"").unwrap();
        log.close().unwrap();
        let archiver = push(&place.log(), &store).await.unwrap();
        assert_eq!(archiver.archived(), Lsn(10));
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        let archive = open(&store).await;
        let mut archived = archive.records(None, Lsn(1), Lsn(100)).unwrap();
        for there in View::open(place.log()).unwrap().iter(Lsn::ZERO).map(Result::unwrap) {
            let record = archived.next().await.unwrap().unwrap();
            assert_eq!((record.lsn, record.micros), (there.lsn, micros(there.time)));
            assert!(record.data[..] == there.data[..]);
            assert!(archive.record(None, there.lsn).await.unwrap() == record);
        }
        assert!(archived.next().await.unwrap().is_none());
    });
}

/// They are fetched by several requests; and what is damaged in one of them is named, and leaves
/// what came before it for the next call.
#[test]
fn large_chunks_are_restored_in_parts() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = Options::new().segment_bytes(1 << 20).idle_mark(Some(Duration::from_millis(1))).open(place.log()).unwrap();
        for lsn in 1..25 {
            log.commit(dense_record(lsn, if lsn == 7 { 9 << 20 } else { 700_000 })).unwrap();
        }
        log.close().unwrap();
        let mut options = options();
        (options.chunk_bytes, options.chunk_age) = (64 << 20, Duration::from_secs(3_600));
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
        archiver.push_all().await.unwrap();
        let mut archive = open(&store).await;
        let chunks = archive.timeline(None).unwrap().chunks.clone();
        assert!(chunks.len() == 1 && chunks[0].bytes > 24 << 20, "{chunks:?}");
        for to in [24, 20] {
            faulty.set(Fault::None);
            let there = restored(&store, &place, Target::Lsn(Lsn(to)), None).await.unwrap();
            assert!(there == records(&place.log()).into_iter().take(to as usize).collect());
            assert!(faulty.calls.load(std::sync::atomic::Ordering::SeqCst) > 10, "as many requests as parts, at least");
        }
        let (name, whole) = (chunks[0].name.clone(), faulty.objects().await[&chunks[0].name].clone());
        let mut damaged = whole.clone();
        damaged[(chunks[0].bytes - (3 << 20)) as usize] ^= 1;
        faulty.write(&name, damaged).await;
        let dir = place.path("resumed");
        let mut options = RestoreOptions::default();
        options.segment_bytes = 1 << 20;
        let error = archive.restore(&dir, &options).await.unwrap_err();
        assert!(matches!(&error, Error::Damaged { object, .. } if *object == name), "{error}");
        let so_far = records(&place.path("resumed.restoring")).len();
        assert!((10..24).contains(&so_far), "{so_far}");
        faulty.write(&name, whole).await;
        archive.restore(&dir, &options).await.unwrap();
        assert!(records(&dir) == records(&place.log()));
    });
}

/// Cuts, salvages, crashes, restored logs that go on, and several archivers, one after another: each
/// point of each timeline is what the log was then.
#[test]
fn each_point_of_each_timeline_is_what_the_log_was() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let mut chance = Chance(0x5eed_0f0a);
        // By timeline, what is to be there.
        let mut oracle: BTreeMap<u32, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
        let mut dir = place.log();
        let mut content = 0;
        for step in 0..40 {
            let log = small().open(&dir).unwrap();
            match chance.below(6) {
                0 if log.last_lsn() > Lsn(20) => log.truncate_back(Lsn(log.last_lsn().0 - chance.below(15))).unwrap(),
                1 => _ = log.truncate_front(Lsn(chance.below(log.last_lsn().0 + 1).max(1))).unwrap(),
                _ => {}
            }
            for _ in 0..chance.below(60) {
                content += 1;
                log.commit(record(content, chance.below(3_000) as usize)).unwrap();
            }
            log.close().unwrap();
            let archiver = push(&dir, &store).await.unwrap();
            let timeline = oracle.entry(archiver.timeline()).or_default();
            timeline.append(&mut records(&dir));
            if step % 9 == 8 {
                // The log is lost, and goes on from some point.
                let archive = open(&store).await;
                let (first, last) = archive.range(None).unwrap();
                let to = Lsn(first.0 + chance.below(last.0 - first.0 + 1));
                dir = place.path(&format!("log{step}"));
                let mut options = RestoreOptions::default();
                (options.to, options.segment_bytes) = (Target::Lsn(to), 64 << 10);
                open(&store).await.restore(&dir, &options).await.unwrap();
            }
        }
        faulty.set(Fault::None);
        let archive = open(&store).await;
        let timelines: Vec<_> = archive.timelines().map(|timeline| (timeline.id, timeline.parent)).collect();
        assert!(timelines.len() > 8, "{timelines:?}");
        // What a timeline shares with its parent was archived there.
        for (id, parent) in timelines {
            if let Some(parent) = parent {
                let shared: Vec<_> =
                    oracle[&parent.timeline].range(..=parent.last).map(|(lsn, data)| (*lsn, data.clone())).collect();
                oracle.get_mut(&id).unwrap().extend(shared);
            }
        }
        for n in 0..points() {
            let ids: Vec<_> = oracle.keys().copied().collect();
            let id = ids[(n % ids.len() as u64) as usize];
            let (first, last) = archive.range(Some(id)).unwrap();
            let to = first.0 + chance.below(last.0 - first.0 + 1);
            let there = restored(&store, &place, Target::Lsn(Lsn(to)), Some(id)).await.unwrap();
            let expected: BTreeMap<_, _> = oracle[&id].range(first.0..=to).map(|(lsn, data)| (*lsn, data.clone())).collect();
            assert!(there == expected, "timeline {id}, {first} to {to}: {:?} instead of {:?}", there.keys(), expected.keys());
        }
    });
}

#[test]
fn a_time_is_found_among_chunks_and_timelines() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        let time = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second);
        // Ten records a second, and a clock that was set back at 300.
        let second = |lsn: u64| if lsn < 300 { lsn / 10 } else { lsn / 10 - 5 };
        for lsn in 1..600 {
            log.append_copies(Lsn(lsn), [(time(second(lsn)), record(lsn, 1_000))]).unwrap();
        }
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        let log = small().open(place.log()).unwrap();
        log.truncate_back(Lsn(500)).unwrap();
        log.append_copies(Lsn(500), (500..700).map(|lsn| (time(second(lsn)), record(lsn, 1_001)))).unwrap();
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        let archive = open(&store).await;
        assert!(archive.timelines().count() == 2 && archive.timelines().all(|timeline| timeline.chunks.len() > 2));
        for at in 0..64 {
            let expected = (1..700).take_while(|&lsn| second(lsn) <= at).last().unwrap();
            assert_eq!(archive.lsn_at(None, micros(time(at))).await.unwrap(), Lsn(expected), "{at}");
        }
        let early = archive.lsn_at(None, micros(time(0)) - 1).await;
        assert!(matches!(early, Err(Error::NotThere { .. })), "{early:?}");
        let there = restored(&store, &place, Target::Time(micros(time(20))), Some(1)).await.unwrap();
        assert_eq!(there.keys().last(), Some(&209));
    });
}

/// Flips a bit in record 9.
fn damage(log: &Path) {
    let has = |bytes: &[u8]| bytes.windows(9).position(|bytes| bytes == b"record 9 ");
    let files = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let (segment, mut bytes) =
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).find(|(_, bytes)| has(bytes).is_some()).unwrap();
    let at = has(&bytes).unwrap();
    bytes[at + 50] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

#[test]
fn what_a_salvage_gives_up_the_archive_has_or_names() {
    run(async {
        for archived in [true, false] {
            let (place, (_, store)) = (Place::new(), Faulty::new());
            let log = small().open(place.log()).unwrap();
            commit_each(&log, 1..100, 2_000);
            log.close().unwrap();
            if archived {
                push(&place.log(), &store).await.unwrap();
            }
            damage(&place.log());
            let log = small().on_damage(OnDamage::Salvage).open(place.log()).unwrap();
            let given_up = log.recovery().given_up.clone();
            assert_eq!(given_up.len(), 1, "{:?}", log.recovery());
            log.commit(record(100, 10)).unwrap();
            log.close().unwrap();
            let archiver = push(&place.log(), &store).await.unwrap();
            // Its LSNs are not used again: it is the same history.
            assert_eq!(archiver.timeline(), 1);
            let there = restored(&store, &place, Target::Latest, None).await.unwrap();
            if archived {
                assert!(there.len() == 100 && there.contains_key(&given_up[0].0.0));
                continue;
            }
            let (first, last) = (given_up[0].0.0, given_up[0].1.0);
            assert_eq!((there.keys().next(), there.len() as u64), (Some(&(last + 1)), 100 - last));
            let archive = open(&store).await;
            assert_eq!(archive.stretches(1), [(Lsn(1), Lsn(first - 1)), (Lsn(last + 1), Lsn(100))]);
            let gaps = archive.verify(1.0, &mut |_| {}).await.unwrap().gaps;
            assert!(matches!(&gaps[..], [(1, from, to, _)] if (from.0, to.0) == (first, last)), "{gaps:?}");
            let before = restored(&store, &place, Target::Lsn(Lsn(first - 1)), None).await.unwrap();
            assert_eq!(before.len() as u64, first - 1);
            let within = restored(&store, &place, Target::Lsn(Lsn(first)), None).await;
            assert!(matches!(within, Err(Error::NotThere { .. })), "{within:?}");
        }
    });
}

/// Cut twice, with some of what was cut appended again as it was: a timeline shares all that is the
/// same, and no more.
#[test]
fn a_timeline_shares_all_that_is_the_same() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let time = |lsn: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + lsn);
        let copies = |lsns: std::ops::Range<u64>, len| lsns.map(move |lsn| (time(lsn), record(lsn, len)));
        let log = small().open(place.log()).unwrap();
        log.append_copies(Lsn(1), copies(1..200, 1_000)).unwrap();
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        let log = small().open(place.log()).unwrap();
        log.truncate_back(Lsn(50)).unwrap();
        log.append_copies(Lsn(50), copies(50..180, 1_000)).unwrap();
        log.truncate_back(Lsn(171)).unwrap();
        log.append_copies(Lsn(171), copies(171..190, 999)).unwrap();
        log.close().unwrap();
        let archiver = push(&place.log(), &store).await.unwrap();
        let archive = open(&store).await;
        let timeline = archive.timeline(None).unwrap();
        assert_eq!((archiver.timeline(), timeline.parent.unwrap().last, timeline.first), (2, 170, 171));
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        assert_eq!(restored(&store, &place, Target::Latest, Some(1)).await.unwrap().len(), 199);
    });
}

#[test]
fn a_log_that_stops_at_its_damage_goes_on_in_a_new_timeline() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..100, 2_000);
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        damage(&place.log());
        let log = small().on_damage(OnDamage::StopAtDamage).open(place.log()).unwrap();
        let last = log.last_lsn().0;
        assert!(last < 99);
        commit(&log, last + 1..120);
        log.close().unwrap();
        let archiver = push(&place.log(), &store).await.unwrap();
        assert_eq!(archiver.timeline(), 2);
        assert_eq!(open(&store).await.timeline(None).unwrap().parent.unwrap().last, last);
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        assert_eq!(restored(&store, &place, Target::Latest, Some(1)).await.unwrap().len(), 99);
    });
}

#[test]
fn small_chunks_are_replaced_and_batches_stay_whole() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        log.commit(b"the first").unwrap();
        let mut options = options();
        (options.rpo, options.chunk_age) = (Some(Duration::from_millis(20)), Duration::from_millis(400));
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let archiving = tokio::spawn(async move {
            archiver.run(async { drop(stopped.await) }).await.unwrap();
            archiver
        });
        let (mut most, begun) = (0, std::time::Instant::now());
        for lsn in (2..200).step_by(3) {
            log.commit_batch(&[record(lsn, 10), record(lsn + 1, 10), record(lsn + 2, 10)]).unwrap();
            tokio::time::sleep(Duration::from_millis(15)).await;
            let archive = open(&store).await;
            let timeline = archive.timeline(None).unwrap();
            most = most.max(timeline.chunks.len());
            assert!(timeline.whole <= 1 || (timeline.whole - 1) % 3 == 0, "half a batch is not whole: {}", timeline.whole);
            assert!(log.durable_lsn().0 - timeline.last < 60, "archived {}, durable {}", timeline.last, log.durable_lsn());
        }
        shown(&log).await;
        stop.send(()).unwrap();
        let archiver = archiving.await.unwrap();
        assert_eq!(archiver.archived(), log.durable_lsn());
        log.close().unwrap();
        assert!(most > 4, "there were at most {most} chunks at once");
        let archive = open(&store).await;
        let chunks = archive.timeline(None).unwrap().chunks.len();
        // One each 400 ms, and what the last of them has not taken the place of yet.
        let expected = begun.elapsed().as_millis() as usize / 400 + 4;
        assert!(chunks <= expected, "{chunks} chunks are left of some seventy, and not {expected}");
        let objects = faulty.objects().await;
        assert_eq!(objects.keys().filter(|name| name.starts_with("chunk/")).count(), chunks, "what was replaced is gone");
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
    });
}

/// Many chunks: what opening reads is bounded, and old chunks are found in their indexes.
#[test]
fn opening_reads_a_summary_and_what_is_behind_it() {
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        log.commit(record(1, 10)).unwrap();
        let mut options = options();
        options.chunk_age = Duration::ZERO;
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
        for _ in 0..6 {
            let from = log.last_lsn().0 + 1;
            commit_each(&log, from..from + 150, 10);
            archiver.push_all().await.unwrap();
        }
        for lsn in 902..1_100 {
            log.commit(record(lsn, 10)).unwrap();
            push_on(&mut archiver, &log).await.unwrap();
        }
        let archive = open(&store).await;
        let timeline = archive.timeline(None).unwrap();
        assert!(timeline.indexes.len() >= 4 && timeline.chunks.len() <= 256 + 150, "{} indexes", timeline.indexes.len());
        faulty.set(Fault::None);
        open(&store).await;
        let calls = faulty.calls.load(std::sync::atomic::Ordering::SeqCst);
        assert!(archive.manifests() > 200 && calls < 100, "{calls} calls for {} manifests", archive.manifests());
        log.close().unwrap();
        for to in [1, 100, 256, 257, 700, 1_099] {
            let there = restored(&store, &place, Target::Lsn(Lsn(to)), None).await.unwrap();
            assert!(there == records(&place.log()).into_iter().take_while(|(lsn, _)| *lsn <= to).collect());
        }
    });
}

#[test]
fn a_standby_follows_through_cuts_and_takes_over() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options()).await.unwrap();
        push_on(&mut archiver, &log).await.unwrap();
        let mut restore = RestoreOptions::default();
        restore.segment_bytes = 64 << 10;
        let follow = async || Standby::open(open(&store).await, place.path("standby"), restore.clone()).await.unwrap();
        let mut standby = follow().await;
        assert_eq!(standby.last_lsn(), Lsn(49));
        commit(&log, 50..80);
        push_on(&mut archiver, &log).await.unwrap();
        assert_eq!(standby.catch_up().await.unwrap(), Lsn(79));
        log.truncate_back(Lsn(60)).unwrap();
        commit(&log, 60..70);
        push_on(&mut archiver, &log).await.unwrap();
        assert_eq!(archiver.timeline(), 2);
        assert_eq!(standby.catch_up().await.unwrap(), Lsn(69));
        standby.close().await.unwrap();
        assert!(records(&place.path("standby")) == records(&place.log()));
        commit(&log, 70..75);
        push_on(&mut archiver, &log).await.unwrap();
        assert_eq!(follow().await.promote().await.unwrap(), Lsn(74));
        // The old one is fenced; the new one goes on.
        commit(&log, 75..80);
        let fenced = push_on(&mut archiver, &log).await;
        assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
        let promoted = small().open(place.path("standby")).unwrap();
        promoted.commit(b"of the new writer").unwrap();
        promoted.close().unwrap();
        let archiver = push(&place.path("standby"), &store).await.unwrap();
        assert_eq!((archiver.timeline(), archiver.archived()), (3, Lsn(75)));
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.path("standby")));
    });
}

/// One that has caught up, and waits.
#[test]
fn a_follower_is_told_of_cuts() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..40, 100);
        let mut options = options();
        options.chunk_age = Duration::from_millis(20);
        let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), options).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let archiving = tokio::spawn(async move { archiver.run(async { drop(stopped.await) }).await.map(|()| archiver) });
        let caught_up = async |timeline: u32| {
            let begun = std::time::Instant::now();
            loop {
                let archive = open(&store).await;
                if archive.timeline(None).is_ok_and(|newest| newest.id == timeline && newest.last == log.last_lsn().0) {
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", archive.timelines().last());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        for timeline in 1..5 {
            caught_up(timeline).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            log.truncate_back(Lsn(log.last_lsn().0 - 8)).unwrap();
            let next = log.last_lsn().0 + 1;
            commit_each(&log, next..next + 30, 10 * timeline as usize);
        }
        caught_up(5).await;
        stop.send(()).unwrap();
        archiving.await.unwrap().unwrap();
        log.close().unwrap();
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
    });
}

#[test]
fn a_log_that_was_written_to_is_no_standby() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit(&log, 1..50);
        log.close().unwrap();
        push(&place.log(), &store).await.unwrap();
        let mut restore = RestoreOptions::default();
        restore.segment_bytes = 64 << 10;
        let follow = async |name: &str| Standby::open(open(&store).await, place.path(name), restore.clone()).await;
        for (name, cut) in [("written", false), ("cut", true)] {
            follow(name).await.unwrap().close().await.unwrap();
            let own = small().open(place.path(name)).unwrap();
            if cut {
                own.truncate_back(Lsn(40)).unwrap();
            }
            own.commit(b"its own").unwrap();
            own.close().unwrap();
            let before = records(&place.path(name));
            let refused = follow(name).await;
            assert!(matches!(refused, Err(Error::Foreign { .. })), "{name}: {refused:?}");
            assert!(records(&place.path(name)) == before);
        }
        // Once it is promoted, it is none either; and the old log is not archived any more.
        follow("promoted").await.unwrap().promote().await.unwrap();
        assert!(matches!(follow("promoted").await, Err(Error::Foreign { .. })));
        let old = push(&place.log(), &store).await;
        assert!(matches!(old, Err(Error::Foreign { .. })), "{old:?}");
        assert_eq!(push(&place.path("promoted"), &store).await.unwrap().timeline(), 2);
    });
}
