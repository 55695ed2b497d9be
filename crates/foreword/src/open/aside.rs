//! Copies of files, and the directory for what is put aside.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::bug::bug;
use crate::error::{Doing, is_full};
use crate::files::dir::Dir;
use crate::files::disk::{Access, DiskDir, DiskFile};
use crate::files::names::{DAMAGED, TMP, parse_segment_name, segment_name};
use crate::format::{BLOCK, Entry};
use crate::{Error, Result};

/// Files are copied, and compared, so many bytes at a time.
const COPY_BYTES: usize = 1 << 20;
/// What a directory takes of a disk, at most: an inode of XFS takes 8 blocks if there is none to
/// spare.
const DIRECTORY_BLOCKS: u32 = 16;
/// A copy in `damaged/` that is not whole yet.
const COPY_BEGUN: &str = "copy.tmp";

/// Makes a durable copy of a file under a name that is free; nothing, if that fails. The name is not
/// durable yet.
fn copy(dir: &Dir, name: &str, to: &str) -> Result<()> {
    let source = dir.handle.open(name, Access::Read).doing("open the file", &dir.file(name))?;
    let target = dir.handle.create_like(to, name).doing("create the file", &dir.file(to))?;
    let copied = (|| {
        let (mut buf, mut at) = (vec![0; COPY_BYTES], 0);
        loop {
            let n = source.read_full_at(&mut buf, at).doing("read the file", &dir.file(name))?;
            if n == 0 {
                return target.sync().doing("sync the file", &dir.file(to));
            }
            target.write_all_at(&buf[..n], at).doing("write the file", &dir.file(to))?;
            at += n as u64;
        }
    })();
    if copied.is_err() {
        let _ = dir.handle.remove(to);
    }
    copied
}

/// Whether two files hold the same bytes.
fn is_same(one: &dyn DiskFile, other: &dyn DiskFile) -> io::Result<bool> {
    if one.len()? != other.len()? {
        return Ok(false);
    }
    let (mut a, mut b, mut at) = (vec![0; COPY_BYTES], vec![0; COPY_BYTES], 0);
    loop {
        let (n, m) = (one.read_full_at(&mut a, at)?, other.read_full_at(&mut b, at)?);
        if a[..n] != b[..m] || n == 0 {
            return Ok(n == m && n == 0);
        }
        at += n as u64;
    }
}

/// Puts copies in the place of segments. A process that has one of them open, and still writes to
/// it, writes to a file that has no name any more.
pub(super) fn replace_by_copies(dir: &Dir, epochs: impl Iterator<Item = u64>) -> Result<()> {
    for epoch in epochs {
        let (name, path) = (segment_name(epoch), dir.segment(epoch));
        let tmp = format!("{name}{TMP}");
        let copied = dir.remove_if_there(&tmp).doing("remove the file", &dir.file(&tmp)).and_then(|()| copy(dir, &name, &tmp));
        if let Err(error) = copied.and_then(|()| dir.handle.replace(&tmp, &name).doing("rename the file", &path)) {
            let _ = dir.handle.remove(&tmp);
            return Err(error);
        }
    }
    dir.sync()
}

/// The directory for what is put aside; made, if it is not there.
struct Aside<'a> {
    dir: &'a Dir,
    handle: Arc<dyn DiskDir>,
    path: PathBuf,
}

impl Aside<'_> {
    fn open(dir: &Dir) -> Result<Aside<'_>> {
        let path = dir.file(DAMAGED);
        let handle = dir.handle.create_dir(DAMAGED).doing("create the directory", &path)?;
        Ok(Aside { dir, handle, path })
    }

    /// The same, if need be at the reserve's expense: files that are only moved there take no other
    /// room. Where that does not help (what is wanting may be an inode), the reserve is as it was.
    fn open_for_moves(dir: &Dir) -> Result<Aside<'_>> {
        let had = dir.reserve_blocks();
        let mut opened = Aside::open(dir);
        for _ in 0..DIRECTORY_BLOCKS {
            let mut is_full = matches!(&opened, Err(Error::Io { source, .. }) if is_full(source));
            bug!(NoRoomAside, is_full = false);
            if !is_full || !dir.shrink_reserve() {
                break;
            }
            opened = Aside::open(dir);
        }
        let mut restores = opened.is_err();
        bug!(LeaveShrunk, restores = false);
        if restores {
            dir.grow_reserve(had);
        }
        opened
    }

    fn list(&self) -> Result<Vec<String>> {
        self.handle.list().doing("list the directory", &self.path)
    }

    /// A name that is free, as the log's directory has it.
    fn free_name(&self, name: &str) -> Result<String> {
        let taken = self.list()?;
        let numbered = (1..).map(|n| format!("{name}.{n}"));
        let free = std::iter::once(name.to_owned()).chain(numbered).find(|kept| !taken.contains(kept));
        Ok(format!("{DAMAGED}/{}", free.unwrap_or_default()))
    }

    fn has_copy(&self, name: &str) -> Result<bool> {
        let of_it = |kept: &String| kept.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let kept: Vec<_> = self.list()?.into_iter().filter(of_it).collect();
        let damaged = self.dir.handle.open(name, Access::Read).doing("open the file", &self.dir.file(name))?;
        // (One that cannot be read is none.)
        let same = |kept: &String| self.handle.open(kept, Access::Read).and_then(|kept| is_same(&*damaged, &*kept));
        Ok(kept.iter().any(|kept| same(kept).unwrap_or(false)))
    }

    /// The places that are kept, each with the epoch of the segment that it is kept for.
    fn places(&self) -> Result<Vec<(u64, String)>> {
        let epoch_of = |name: &String| parse_segment_name(name.get(..segment_name(0).len())?);
        let segments = self.list()?.into_iter().filter_map(|name| Some((epoch_of(&name)?, name)));
        let is_empty = |name: &str| self.handle.open(name, Access::Read).and_then(|file| file.is_empty());
        let places = segments.filter(|(_, name)| is_empty(name).unwrap_or(false));
        Ok(places.map(|(epoch, name)| (epoch, format!("{DAMAGED}/{name}"))).collect())
    }

    fn sync(&self) -> Result<()> {
        self.handle.sync().doing("sync the directory", &self.path)?;
        self.dir.sync()
    }
}

/// Keeps a copy of a damaged file, if there is none yet: of an earlier repair, which was killed.
pub(super) fn copy_aside(dir: &Dir, name: &str) -> Result<()> {
    let bytes = u64::from(dir.blocks_of(name)) * BLOCK as u64;
    let aside = Aside::open(dir).and_then(|aside| keep_copy(dir, &aside, name).map(|()| aside));
    aside.map_err(|error| error.or_no_space(&dir.path, Some(bytes)))?.sync()
}

fn keep_copy(dir: &Dir, aside: &Aside<'_>, name: &str) -> Result<()> {
    let mut copied = aside.has_copy(name)?;
    bug!(CopyAgain, copied = false);
    if copied {
        return Ok(());
    }
    let begun = format!("{DAMAGED}/{COPY_BEGUN}");
    dir.remove_if_there(&begun).doing("remove the file", &dir.file(&begun))?;
    copy(dir, name, &begun)?;
    let kept = aside.free_name(name)?;
    dir.handle.rename(&begun, &kept).doing("rename the file", &dir.file(&kept))
}

/// Keeps a place for each of these segments that is there, and for none of the chain: an empty
/// file. With it, a repair that is killed before it has moved one there leaves that to the next
/// opening, which would otherwise remove a segment that is not of the log any more.
pub(super) fn keep_places(dir: &Dir, names: &[String], chain: &[Entry]) -> Result<()> {
    let aside = Aside::open_for_moves(dir)?;
    let places = aside.places()?;
    let stays = |epoch: u64| chain.iter().any(|e| e.epoch == epoch) && !names.contains(&segment_name(epoch));
    for (_, place) in places.iter().filter(|(epoch, _)| stays(*epoch)) {
        dir.handle.remove(place).doing("remove the file", &dir.file(place))?;
    }
    let there = |name: &&String| dir.handle.id_of(name).is_ok();
    for name in names.iter().filter(there).filter(|name| !places.iter().any(|(epoch, _)| segment_name(*epoch) == **name)) {
        let place = aside.free_name(name)?;
        dir.handle.create_like(&place, name).doing("create the file", &dir.file(&place))?;
    }
    aside.sync()
}

fn is_no_directory(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidInput, NotADirectory, PermissionDenied};
    matches!(kind, NotADirectory | AlreadyExists | InvalidInput | PermissionDenied)
}

/// Moves segments to the places that are kept for them, as far as both are there. They are not
/// of the log any more, durably.
pub(super) fn move_aside(dir: &Dir, moves: impl Fn(u64) -> bool) -> Result<()> {
    let aside = match Aside::open_for_moves(dir) {
        // What is no such directory, or not for this process, has no place for any.
        Err(Error::Io { source, .. }) if is_no_directory(source.kind()) => return Ok(()),
        opened => opened?,
    };
    let places: Vec<_> = aside.places()?.into_iter().filter(|(epoch, _)| moves(*epoch)).collect();
    if places.is_empty() {
        return Ok(());
    }
    for (epoch, place) in places {
        let name = segment_name(epoch);
        match dir.handle.replace(&name, &place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            moved => moved.doing("put the file aside", &dir.file(&name))?,
        }
    }
    aside.sync()
}
