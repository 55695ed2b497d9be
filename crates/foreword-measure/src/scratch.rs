//! A temporary directory inside a directory of the user's.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Result};

/// A new directory for measurements; it and what is in it are removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes `NAME.PROCESS.NUMBER` in a directory that exists. Nothing else there is touched.
    ///
    /// # Errors
    /// If the directory is not there, or cannot be written to.
    pub fn new(dir: &Path, name: &str) -> Result<Scratch> {
        let mut number = 0;
        loop {
            let path = dir.join(format!("{name}.{}.{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => return made.doing("create the directory", &path).map(|()| Scratch { path }),
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed can be seen.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_new_each_time_and_goes_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), b"precious").unwrap();
        let (a, b) = (Scratch::new(dir.path(), "x").unwrap(), Scratch::new(dir.path(), "x").unwrap());
        assert_ne!(a.path(), b.path());
        std::fs::write(a.path().join("file"), b"1").unwrap();
        drop((a, b));
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"]);
        let missing = Scratch::new(&dir.path().join("no"), "x").unwrap_err();
        assert!(missing.to_string().starts_with("cannot create the directory ("), "{missing}");
    }
}
