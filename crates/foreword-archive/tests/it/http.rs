//! Over HTTP, with a server that fails in the ways that servers do.

use std::time::Duration;

use foreword_archive::{Archive, Archiver, Error, Target};

use crate::server::{Answer, Server};
use crate::support::*;

fn patient() -> foreword_archive::PushOptions {
    let mut options = options();
    options.patience = Some(Duration::from_secs(30));
    options
}

/// One request of three goes wrong, in each way that there is, and in no order that a retry could
/// fall in step with.
#[test]
fn whatever_a_server_answers_what_is_archived_comes_back() {
    run(async {
        let statuses = [400, 403, 409, 429, 500, 503].map(Answer::Status);
        let slow_down = Answer::Says(503, "<Code>SlowDown</Code><Message>Reduce your request rate</Message>");
        for wrong in [Answer::Lost, Answer::Cut, Answer::Slow, Answer::WrongEtag, slow_down].into_iter().chain(statuses) {
            // What no client tries again, the archiver does, and a restore says.
            let is_final = matches!(wrong, Answer::Status(400 | 403));
            let (server, store) = Server::start().await;
            let place = Place::new();
            let log = small().open(place.log()).unwrap();
            commit_each(&log, 1..130, 2_000);
            log.close().unwrap();
            let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), patient()).await.unwrap();
            let is_wrong = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 3 == 2;
            // (A conflict is said of what is created.)
            let may = move |method: &str| wrong != Answer::Status(409) || method == "PUT";
            server.answer(move |n, method, _| if is_wrong(n) && may(method) { wrong } else { Answer::Right });
            archiver.push_all().await.unwrap_or_else(|error| panic!("{wrong:?}: {error}"));
            // (Chunks that are up at the same time share a manifest.)
            assert!(server.requests() > 5, "{wrong:?}");
            let there = restored(&store, &place, Target::Latest, None).await;
            if !is_final {
                assert!(there.unwrap_or_else(|error| panic!("{wrong:?}: {error}")) == records(&place.log()), "{wrong:?}");
            }
            server.answer(|_, _, _| Answer::Right);
            assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()), "{wrong:?}");
            let verified = open(&store).await.verify(1.0, &mut |_| {}).await.unwrap();
            assert!(verified.faults.is_empty(), "{wrong:?}: {:?}", verified.faults);
        }
    });
}

/// Each request in turn is done, and its answer lost: no archiver takes what it did itself for
/// another's.
#[test]
fn each_answer_that_is_lost_is_ones_own() {
    run(async {
        for at in 0.. {
            let (server, store) = Server::start().await;
            let place = Place::new();
            let log = small().open(place.log()).unwrap();
            commit_each(&log, 1..60, 2_000);
            server.answer(move |n, _, _| if n == at { Answer::Lost } else { Answer::Right });
            let mut archiver = Archiver::begin(place.log(), store.clone(), keys(), patient()).await.unwrap();
            push_on(&mut archiver, &log).await.unwrap();
            let requests = server.requests();
            assert_eq!(archiver.archived(), log.durable_lsn());
            log.close().unwrap();
            let archive = open(&store).await;
            assert_eq!((archive.timelines().count(), archive.newest_epoch()), (1, 1), "request {at}");
            assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
            if at >= requests {
                assert!(at > 10, "{at}");
                break;
            }
        }
    });
}

#[test]
fn a_server_that_refuses_is_said_and_nothing_is_lost() {
    run(async {
        // Credentials that have expired, and a bucket that is gone.
        for status in [403, 404] {
            let (server, store) = Server::start().await;
            let place = Place::new();
            let log = small().open(place.log()).unwrap();
            commit_each(&log, 1..60, 2_000);
            let mut archiver = push_log(&log, &store).await.unwrap();
            commit_each(&log, 60..90, 2_000);
            server.answer(move |_, _, _| Answer::Status(status));
            let refused = push_on(&mut archiver, &log).await;
            assert!(matches!(refused, Err(Error::Store { .. })), "{status}: {refused:?}");
            let opened = Archive::open(store.clone(), keys()).await;
            assert!(matches!(opened, Err(Error::Store { .. } | Error::NoArchive { .. })), "{status}: {opened:?}");
            server.answer(|_, _, _| Answer::Right);
            push_log(&log, &store).await.unwrap();
            log.close().unwrap();
            assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
        }
    });
}

#[test]
fn clocks_that_differ_are_said_with_the_difference() {
    run(async {
        let (server, store) = Server::start().await;
        let place = Place::new();
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..60, 2_000);
        let mut archiver = push_log(&log, &store).await.unwrap();
        commit_each(&log, 60..90, 2_000);
        for (ahead, said) in [(1_500, "s behind"), (-3_600, "s ahead")] {
            server.answer(move |_, _, _| Answer::Skewed(ahead));
            let pushed = push_on(&mut archiver, &log).await.unwrap_err();
            let opened = Archive::open(store.clone(), keys()).await.map(drop).unwrap_err();
            for error in [pushed, opened] {
                let Error::Clock { ahead: Some(here), .. } = error else { panic!("{error:?}") };
                assert!((here + ahead).abs() < 20 && error.to_string().contains(said), "{error}");
                assert!(error.is_retryable());
            }
        }
        server.answer(|_, _, _| Answer::Says(403, "<Code>RequestTimeTooSkewed</Code>"));
        let opened = Archive::open(store.clone(), keys()).await.map(drop);
        assert!(matches!(opened, Err(Error::Clock { ahead: None, .. })), "{opened:?}");
        // Once it is set right, the same archiver goes on.
        server.answer(|_, _, _| Answer::Right);
        push_on(&mut archiver, &log).await.unwrap();
        log.close().unwrap();
        assert!(restored(&store, &place, Target::Latest, None).await.unwrap() == records(&place.log()));
    });
}
