//! Imports go one way, in each crate of the repository: no file imports one that imports it, also
//! by way of others; and in the library, a folder imports only those below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files of a crate from the bottom up: each line imports only itself and those above
/// it. A file that is named stands there, and not where its folder does; what is not named may
/// import all, and be imported by all.
const FLOORS: [(&str, &[&[&str]]); 3] = [
    (
        "foreword",
        &[
            &["format"],
            &["files"],
            &["assemble"],
            &["read"],
            &["recovery"],
            &["read::verify", "read::view", "read::watch"],
            &["open"],
            &["write"],
        ],
    ),
    (
        "foreword-pages",
        &[
            &["change", "error", "ids", "leb", "page", "parts", "record", "sabotage", "sync", "types"],
            &["alloc", "file", "latch", "policy", "pool"],
            &["engine"],
            &["checkpoint", "rollback", "txn"],
            &["background", "backup", "recovery"],
            &["builder", "options", "replay", "session", "store"],
        ],
    ),
    (
        "foreword-tree",
        &[&["error", "node", "records", "sabotage", "sync"], &["locks"], &["tree"], &["engine", "scan", "txn"], &["db"]],
    ),
];

/// A file of a crate, by its module's path: `read::reader`, or an empty one for the root.
#[derive(Default)]
struct Module {
    /// Paths from `crate`, `super`, `self` or a submodule, as the code has them.
    paths: Vec<Vec<String>>,
    /// Names that it imports, private ones too: submodules see them.
    names: BTreeMap<String, Vec<String>>,
    /// What it only passes on.
    passed_on: Vec<Vec<String>>,
}

struct Crate(BTreeMap<String, Module>);

fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn child(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// The code without comments and unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap());
    let mut code = code.collect::<Vec<_>>().join("\n");
    while let Some(at) = code.find("#[cfg(doc)]\nuse ") {
        let end = at + code[at..].find(';').unwrap();
        code.replace_range(at..=end, "");
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// All paths that begin at the start of a text, where braces stand for several.
fn paths(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(list) = text.strip_prefix('{') {
        let (mut all, mut depth, mut begin) = (Vec::new(), 0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    all.extend(paths(&list[begin..at]));
                    begin = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => (),
            }
        }
        return all;
    }
    let name = text.split(|c| !is_word(c)).next().unwrap();
    if name.is_empty() {
        return Vec::new();
    }
    let Some(rest) = text[name.len()..].strip_prefix("::") else { return vec![vec![name.to_owned()]] };
    let mut rest = paths(rest);
    if rest.is_empty() {
        rest.push(Vec::new()); // `::*`, `::<`
    }
    rest.iter_mut().for_each(|path| path.insert(0, name.to_owned()));
    rest
}

fn module(code: &str, submodules: &BTreeSet<&str>) -> Module {
    let mut module = Module::default();
    let ours = |path: &Vec<String>| ["crate", "super", "self"].contains(&&*path[0]) || submodules.contains(&*path[0]);
    let mut rest = code;
    // The statements `use`, and then all other code.
    let mut others = String::new();
    while let Some(at) = rest.find("use ") {
        let line = rest[..at].rfind('\n').map_or(0, |at| at + 1);
        let visibility = rest[line..at].trim();
        if !visibility.is_empty() && !visibility.starts_with("pub") {
            others += &rest[..at + 4];
            rest = &rest[at + 4..];
            continue;
        }
        others += &rest[..line];
        let end = at + rest[at..].find(';').unwrap();
        for path in paths(&rest[at + 4..end]).into_iter().filter(ours) {
            module.names.insert(path.last().unwrap().clone(), path.clone());
            if visibility.is_empty() { &mut module.paths } else { &mut module.passed_on }.push(path);
        }
        rest = &rest[end + 1..];
    }
    others += rest;
    let mut before = ' ';
    for (at, c) in others.char_indices() {
        let begins = is_word(c) && !is_word(before) && before != ':' && before != '$' && !others[..at].ends_with("in ");
        before = c;
        if begins && others[at..].trim_start_matches(is_word).starts_with("::") {
            module.paths.extend(paths(&others[at..]).into_iter().filter(ours));
        }
    }
    module
}

impl Crate {
    fn read(src: &Path) -> Crate {
        let mut texts = BTreeMap::new();
        let mut folders = vec![(src.to_owned(), String::new())];
        while let Some((folder, at)) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                if path.is_dir() {
                    if name != "bin" {
                        folders.push((path.clone(), child(&at, name)));
                    }
                } else if path.extension().is_some_and(|e| e == "rs") && name != "tests" && name != "build" {
                    let root = at.is_empty() && (name == "lib" || (name == "main" && !src.join("lib.rs").exists()));
                    if name == "main" && !root {
                        continue; // A program of the same package.
                    }
                    let module = if root || name == "mod" { at.clone() } else { child(&at, name) };
                    texts.insert(module, code(&fs::read_to_string(&path).unwrap()));
                }
            }
        }
        // What only unit tests have may import all, as they do.
        let tests = |(module, code): (&String, &String)| -> Vec<String> {
            let declared = code.split("#[cfg(test)]\nmod ").skip(1).filter_map(|rest| rest.split_once(';'));
            declared.map(|(name, _)| child(module, name)).collect()
        };
        for tests in texts.iter().flat_map(tests).collect::<Vec<_>>() {
            texts.retain(|module, _| !module.starts_with(&child(&tests, "")));
            texts.insert(tests, String::new());
        }
        let submodules = |of: &str| {
            texts.keys().filter(|m| !m.is_empty() && parent(m) == of).map(|m| m.rsplit("::").next().unwrap()).collect()
        };
        Crate(texts.iter().map(|(name, code)| (name.clone(), module(code, &submodules(name)))).collect())
    }

    /// The file that has what a path names.
    fn resolve(&self, from: &str, path: &[String], depth: u32) -> String {
        let (mut at, mut rest) = match &*path[0] {
            "crate" => (String::new(), &path[1..]),
            "super" => (parent(from).to_owned(), &path[1..]),
            "self" => (from.to_owned(), &path[1..]),
            _ => (from.to_owned(), path),
        };
        while let Some((name, more)) = rest.split_first() {
            let inner = if name == "super" { parent(&at).to_owned() } else { child(&at, name) };
            if self.0.contains_key(&inner) || name == "super" {
                (at, rest) = (inner, more);
            } else if let Some(path) = self.0.get(&at).and_then(|module| module.names.get(name))
                && depth < 9
            {
                return self.resolve(&at, path, depth + 1);
            } else {
                break;
            }
        }
        at
    }

    /// What each file imports, or names.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let of = |name: &str, module: &Module| {
            let within = |other: &String| other.starts_with(&child(name, ""));
            let passed_on = module
                .passed_on
                .iter()
                .map(|path| self.resolve(name, path, 0))
                .filter(|other| !name.is_empty() && !within(other));
            let mut imports: BTreeSet<String> =
                module.paths.iter().map(|path| self.resolve(name, path, 0)).chain(passed_on).collect();
            imports.remove(name);
            imports
        };
        self.0.iter().map(|(name, module)| (&**name, of(name, module))).collect()
    }
}

/// Files that import each other, if there are any.
fn circle(imports: &BTreeMap<&str, BTreeSet<String>>) -> Option<String> {
    // A file whose imports all are in no circle is in none.
    let mut left: BTreeSet<&str> = imports.keys().copied().collect();
    loop {
        let free: Vec<&str> =
            left.iter().copied().filter(|name| imports[name].iter().all(|other| !left.contains(&**other))).collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|name| _ = left.remove(name));
    }
    let mut path = vec![*left.first()?];
    loop {
        let next = *left.get(&**imports[path[path.len() - 1]].iter().find(|other| left.contains(&***other))?)?;
        if let Some(at) = path.iter().position(|name| *name == next) {
            return Some([&path[at..], &[next]].concat().join(" -> "));
        }
        path.push(next);
    }
}

/// On which floor a file stands, if on any: the longest name that fits decides.
fn floor(floors: &[&[&str]], module: &str) -> Option<usize> {
    let is_in = |room: &&str| module == *room || module.starts_with(&child(room, ""));
    let fits = floors.iter().enumerate().flat_map(|(floor, rooms)| rooms.iter().map(move |room| (room, floor)));
    fits.filter(|(room, _)| is_in(room)).max_by_key(|(room, _)| room.len()).map(|(_, floor)| floor)
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn files_do_not_import_each_other() {
    let folders =
        |folder: &str| fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let all = [folders(""), folders("crates"), folders("bench"), folders("scripts")].concat();
    let crates: Vec<_> = all.into_iter().filter(|path| path.join("Cargo.toml").exists() && path.join("src").exists()).collect();
    assert!(crates.len() > 10, "{crates:?}");
    let mut circles = Vec::new();
    for path in crates {
        let files = Crate::read(&path.join("src"));
        circles.extend(circle(&files.imports()).map(|circle| format!("{}: {circle}", path.display())));
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn folders_import_those_below() {
    let mut upward = Vec::new();
    for (name, floors) in FLOORS {
        let files = Crate::read(&root().join("crates").join(name).join("src"));
        for (file, imported) in files.imports() {
            let Some(at) = floor(floors, file) else { continue };
            let above = imported.iter().filter(|other| floor(floors, other) > Some(at));
            upward.extend(above.map(|other| format!("{name}: {file} -> {other}")));
        }
        let named = floors.iter().flat_map(|rooms| rooms.iter());
        named.for_each(|room| assert!(files.0.contains_key(*room), "{name} has no {room}"));
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

/// What the other tests rely on: an import is seen that is written as `use`, by way of what a
/// folder passes on, or in the code.
#[test]
fn imports_are_seen() {
    let library = Crate::read(&root().join("crates/foreword/src"));
    let imports = library.imports();
    for (from, to) in [
        ("open::fork", "assemble"),
        ("files::segment", "format::frame"),
        ("read::tails", "strangers"),
        ("recovery", "recovery::scan"),
        ("assemble::large", "assemble"),
        ("log", "open"),
        ("read::verify", "read::view"),
    ] {
        assert!(imports[from].contains(to), "{from} imports {to}: {:?}", imports[from]);
    }
    assert!(imports.len() > 90, "{} files", imports.len());
    let circle =
        |of: &[(&'static str, &str)]| circle(&of.iter().map(|&(from, to)| (from, BTreeSet::from([to.to_owned()]))).collect());
    assert_eq!(circle(&[("a", "b"), ("b", "c")]), None);
    assert_eq!(circle(&[("a", "b"), ("b", "c"), ("c", "b")]).unwrap(), "b -> c -> b");
}
