//! An embedded key-value store with transactions: `kv DIR` reads lines, and each is a transaction of
//! steps: `put KEY VALUE`, `add KEY NUMBER`, `get KEY`, `delete KEY`, `list [FROM [TO]]`, with `;`
//! between them. "ok" stands behind what is durable. The test kills it again and again.

use std::io::{BufRead, Write};

use foreword_tree::{Db, Result, Tree, Txn};

/// Carries out a line of steps, all of them or none, and returns what they print.
fn line(db: &Db, tree: Tree, line: &str) -> Result<String> {
    // Run again if it meets another transaction: here there is none, in a server there are many.
    db.run(|txn| {
        let mut out = String::new();
        for one in line.split(';') {
            step(txn, tree, &one.split_whitespace().collect::<Vec<_>>(), &mut out)?;
        }
        Ok(out)
    })
}

fn step(txn: &mut Txn, tree: Tree, words: &[&str], out: &mut String) -> Result<()> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match *words {
        ["put", key, value] => txn.put(tree, key, value)?,
        ["add", key, number] => {
            let old = txn.get_for_update(tree, key)?.map_or(0, |old| text(old).parse().unwrap_or(0));
            txn.put(tree, key, (old + number.parse().unwrap_or(0i64)).to_string())?;
        }
        ["get", key] => *out += &txn.get(tree, key)?.map_or("none\n".to_owned(), |value| text(value) + "\n"),
        ["delete", key] => _ = txn.delete(tree, key)?,
        ["list", ref range @ ..] => {
            let from = range.first().map_or(&b""[..], |from| from.as_bytes());
            let to = range.get(1).map_or(&[0xff][..], |to| to.as_bytes());
            for entry in txn.scan(tree, from..to) {
                let (key, value) = entry?;
                *out += &format!("{} {}\n", text(key), text(value));
            }
        }
        _ => *out += "put KEY VALUE | add KEY NUMBER | get KEY | delete KEY | list [FROM [TO]]\n",
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let db = Db::open(std::env::args().nth(1).ok_or("kv DIR")?)?; // recovers, if there is anything to recover
    let tree = db.tree("kv")?;
    let mut out = std::io::stdout().lock();
    for entered in std::io::stdin().lock().lines() {
        match line(&db, tree, &entered?) {
            Ok(said) => writeln!(out, "{said}ok")?, // durable now
            Err(error) => writeln!(out, "error: {error}")?,
        }
        out.flush()?;
    }
    Ok(db.close()?)
}
