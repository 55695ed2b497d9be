//! The modules of the crate are layers: imports go one way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const SRC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// All source files under a module's folder, and the module's own.
fn files(module: &str) -> Vec<PathBuf> {
    let mut files = vec![Path::new(SRC).join(format!("{module}.rs"))];
    let mut folders = vec![Path::new(SRC).join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// The modules of the crate that a module imports, outside its unit tests. What the root exports
/// counts as an import of the module that has it.
fn imports(module: &str, groups: &BTreeMap<String, usize>, exports: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files(module).into_iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = code.flat_map(|line| [line, "\n"]).collect();
        for path in code.split("crate::").skip(1) {
            let names = match path.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap(),
                None => path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap(),
            };
            found.extend(names.split(',').map(|name| {
                let name = name.trim();
                let known = groups.contains_key(name).then(|| name.to_owned());
                known.or_else(|| exports.get(name).cloned()).unwrap_or_else(|| panic!("{module} imports {name}"))
            }));
        }
    }
    found.remove(module);
    found
}

#[test]
fn imports_go_one_way() {
    let root = fs::read_to_string(format!("{SRC}/lib.rs")).unwrap();
    let (mut groups, mut group) = (BTreeMap::new(), 0);
    let mut exports = BTreeMap::new();
    for line in root.lines() {
        if line.is_empty() {
            group += 1;
        } else if let Some(name) = line.trim_start_matches("pub ").strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            groups.insert(name.to_owned(), group);
        } else if let Some((module, names)) = line.strip_prefix("pub use ").and_then(|rest| rest.split_once("::")) {
            let names = names.trim_matches(['{', '}', ';']).split(',');
            exports.extend(names.map(|name| (name.trim_end_matches(['}', ';']).trim().to_owned(), module.to_owned())));
        }
    }
    assert!(groups.len() > 15, "{groups:?}");
    let graph: BTreeMap<_, _> = groups.keys().map(|module| (module, imports(module, &groups, &exports))).collect();
    for (module, imported) in &graph {
        for other in imported {
            assert!(groups[other] <= groups[*module], "{module} imports {other}, which is below it");
        }
    }
    // Modules whose imports all are free of circles are free of circles.
    let mut free: BTreeSet<&str> = BTreeSet::new();
    while let Some((module, _)) = graph
        .iter()
        .find(|(module, imported)| !free.contains(module.as_str()) && imported.iter().all(|other| free.contains(other.as_str())))
    {
        free.insert(module);
    }
    let circle: Vec<_> = groups.keys().filter(|module| !free.contains(module.as_str())).collect();
    assert!(circle.is_empty(), "in a circle, or below one: {circle:?}");
}
