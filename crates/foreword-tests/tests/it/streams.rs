//! Records as a stream: through cuts, closings, and what ends it.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use foreword::{Error, Log, Lsn, Options, Record, RecordStream, Result, View};
use futures_core::{FusedStream, Stream};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn poll(records: &mut RecordStream) -> Poll<Option<Result<Record>>> {
    Pin::new(records).poll_next(&mut Context::from_waker(Waker::noop()))
}

/// The data of what comes until the stream waits or ends, and whether it ended.
fn rest(records: &mut RecordStream) -> (Vec<String>, bool) {
    let mut texts = Vec::new();
    loop {
        match poll(records) {
            Poll::Ready(Some(Ok(record))) => texts.push(String::from_utf8(record.data).unwrap()),
            Poll::Ready(Some(Err(Error::Cut { at, reached, .. }))) => texts.push(format!("cut {at}, reached {reached}")),
            Poll::Ready(Some(Err(error))) => texts.push(error.to_string()),
            Poll::Ready(None) => return (texts, true),
            Poll::Pending => return (texts, false),
        }
    }
}

/// The next item, once it is there: a view looks every few milliseconds.
fn wait(records: &mut RecordStream) -> Option<Result<Record>> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Poll::Ready(item) = poll(records) {
            return item;
        }
        assert!(Instant::now() < until, "nothing comes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn commit(log: &Log, texts: &[&str]) {
    for text in texts {
        log.commit(text).unwrap();
    }
}

#[test]
fn a_stream_goes_on_behind_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    let mut records = log.reader().into_stream();
    commit(&log, &["a", "b", "c"]);
    assert_eq!(rest(&mut records), (vec!["a".into(), "b".into(), "c".into()], false));
    // Once while it waits, and once before it has read what replaces the first cut's records.
    for (round, texts) in [["d", "e"], ["f", "g"]].iter().enumerate() {
        log.truncate_back(Lsn(2)).unwrap();
        commit(&log, texts);
        let cut = "cut 2, reached 3".to_owned();
        assert_eq!(rest(&mut records), (vec![cut, texts[0].into(), texts[1].into()], false), "round {round}");
        assert_eq!((records.position(), records.is_terminated()), (Lsn(4), false));
    }
    log.close().unwrap();
    assert_eq!(rest(&mut records), (vec![], true));
    assert!(records.is_terminated());
}

#[test]
fn the_reader_comes_back_of_a_stream_that_ended() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    commit(&log, &["a"; 40]);
    let view = View::open(dir.path()).unwrap();
    let mut of_view = view.reader_at(Lsn(40)).into_stream();
    assert_eq!(wait(&mut of_view).unwrap().unwrap().lsn, Lsn(40));
    // What is dropped ends it; its owner goes on where the log begins.
    let mut overtaken = log.reader_at(Lsn(2)).into_stream();
    log.truncate_front(Lsn(40)).unwrap();
    let (said, ended) = rest(&mut overtaken);
    assert!(ended && said.len() == 1 && said[0].contains("dropped"), "{said:?}");
    let mut reader = overtaken.into_reader();
    assert_eq!(reader.position(), Lsn(2));
    reader.seek(log.start_lsn());
    assert_eq!(rest(&mut reader.into_stream()), (vec!["a".into()], false));
    // A closing ends it; the next writer's records come from the same place.
    log.close().unwrap();
    assert!(wait(&mut of_view).is_none() && of_view.is_terminated());
    let log = options().open(dir.path()).unwrap();
    commit(&log, &["b"]);
    assert!(matches!(poll(&mut of_view), Poll::Ready(None)), "a stream that has ended stays so");
    // (Until the view has seen that writer, there is nothing to wait for.)
    let until = Instant::now() + Duration::from_secs(20);
    let mut again = of_view.into_reader().into_stream();
    let record = loop {
        if let Some(record) = wait(&mut again) {
            break record.unwrap();
        }
        assert!(Instant::now() < until, "the view does not see the writer");
        std::thread::sleep(Duration::from_millis(2));
        again = again.into_reader().into_stream();
    };
    assert_eq!(record.data, b"b");
}
