//! The example `kv`, killed again and again: what it had said "ok" to is there, and no line in part.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Rng, crashes_wanted, example};

type Contents = BTreeMap<String, String>;

fn start(dir: &Path) -> Child {
    Command::new(example("tree-kv")).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The `n`th line, and what it does to the contents.
fn line(n: u64, contents: &mut Contents) -> String {
    let (one, other, value) = (n * 7 % 40, n * 13 % 40, "x".repeat((n * 31 % 1500) as usize));
    let balance = |name: &str| contents.get(name).map_or(0, |old| old.parse::<i64>().unwrap());
    let (a, b) = (balance("a") - 3, balance("b") + 3);
    contents.remove(&format!("key-{other}"));
    for (key, value) in
        [("a", a.to_string()), ("b", b.to_string()), ("n", n.to_string()), (&format!("key-{one}"), format!("{n}{value}"))]
    {
        contents.insert(key.to_owned(), value);
    }
    format!("add a -3; delete key-{other}; put key-{one} {n}{value}; add b 3; put n {n}")
}

fn list(dir: &Path) -> Contents {
    let mut kv = start(dir);
    kv.stdin.take().unwrap().write_all(b"list\n").unwrap();
    let mut said = String::new();
    kv.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(kv.wait().unwrap().success());
    let entries = said.strip_suffix("ok\n").expect("it is listed").lines();
    entries.map(|entry| entry.split_once(' ').unwrap()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn killed_again_and_again_it_has_what_it_said_ok_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("kv");
    let (mut rng, mut contents, mut done) = (Rng::new(1), Contents::new(), 0);
    for kill in 0..crashes_wanted(12).min(1000) {
        let mut kv = start(&store);
        let (mut input, output) = (kv.stdin.take().unwrap(), BufReader::new(kv.stdout.take().unwrap()));
        // Some lines ahead, so that the kill comes while one is carried out.
        let (wanted, mut states) = (1 + rng.below(60), vec![contents]);
        let lines: Vec<String> = (1..=wanted + 8)
            .map(|i| {
                let mut next = states[states.len() - 1].clone();
                let line = line(done + i, &mut next);
                states.push(next);
                line + "\n"
            })
            .collect();
        let writer =
            std::thread::spawn(move || lines.iter().try_for_each(|line| input.write_all(line.as_bytes())).map(|()| input));
        // (The pipe stays open until the kill: the program is not to end by itself.)
        let mut output = output.lines();
        let said = output.by_ref().take(wanted as usize).filter(|said| said.as_ref().is_ok_and(|said| said == "ok")).count();
        std::thread::sleep(std::time::Duration::from_micros(rng.below(3000)));
        kv.kill().unwrap(); // SIGKILL
        kv.wait().unwrap();
        drop((writer.join(), output));
        assert_eq!(said as u64, wanted);
        contents = list(&store);
        let n: u64 = contents.get("n").map_or(0, |n| n.parse().unwrap());
        assert!(n >= done + wanted, "kill {kill}: line {} was carried out, and {n} is the last that is there", done + wanted);
        assert!(contents == states[(n - done) as usize], "kill {kill}: the contents are not those of line {n}");
        done = n;
    }
    assert!(done > 12);
}
