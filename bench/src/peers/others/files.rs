//! What several adapters do with files.

use std::fs::File;
use std::path::Path;

use anyhow::Result;

/// Syncs every file in a directory, and the directory: for peers whose own sync reaches no disk.
pub fn sync_all(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_data()?;
        }
    }
    Ok(File::open(dir)?.sync_all()?)
}
