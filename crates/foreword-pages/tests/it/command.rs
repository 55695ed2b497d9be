//! The command, as people run it.

use std::process::{Command, Output};

use foreword_pages::Options;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foreword-pages")).args(args).output().unwrap()
}

#[test]
fn it_recovers_and_shows_how() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Options::new().open(&path).unwrap();
    let mut txn = store.begin();
    let pages: Vec<_> = (0..50).map(|_| txn.allocate().unwrap()).collect();
    pages.iter().for_each(|&page| txn.update(page, 0, b"page").unwrap());
    txn.commit().unwrap();
    let mut lost = store.begin();
    lost.update(pages[0], 0, b"lost").unwrap();
    store.checkpoint().unwrap();
    // What has not ended when the store is closed is lost.
    store.close().unwrap();
    drop(lost);

    let svg = dir.path().join("picture.svg");
    let out = run(&["recover", path.to_str().unwrap(), "--svg", svg.to_str().unwrap(), "--threads", "2"]);
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("1 lost") && text.contains("undo       1 changes of 1 transactions"), "{text}");
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    assert!(picture.contains("1 lost, and undone") && picture.contains("1 undone") && !picture.contains("NaN"), "{picture}");

    let out = run(&["recover", path.to_str().unwrap()]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("0 lost") && text.contains("redo, undo nothing"), "it was closed: {text}");
}

#[test]
fn it_says_what_it_cannot_do() {
    let dir = tempfile::tempdir().unwrap();
    for (args, status) in [
        (&["recover", dir.path().to_str().unwrap()][..], 1),
        (&["recover"], 2),
        (&["recover", "a", "b"], 2),
        (&["recover", "a", "--threads", "many"], 2),
        (&["repair", "a"], 2),
        (&[], 2),
        (&["--help"], 0),
    ] {
        let out = run(args);
        assert_eq!(out.status.code(), Some(status), "{args:?}: {out:?}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().all(|entry| entry.unwrap().file_name() == "log"));
}
