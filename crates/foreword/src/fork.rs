//! Going on in a fresh segment: after a crash, after a salvage, and after a cut at the back. One mechanism for all three.
//!
//! Nothing that lies in the log is changed. The fresh segment is filled from block 2 on, made durable, and becomes part of the
//! log by one write: its LINK. Until that is there, a reader sees the log as it was, and a next attempt begins anew.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::assemble::{self, Assembler, NeedSegments, Urgency};
use crate::bug::{self, Bug};
use crate::disk::Access;
use crate::error::Doing;
use crate::format::{BLOCK, Control, Kind, LogId, Position, Promise};
use crate::reader::Reader;
use crate::recovery::Entry;
use crate::segment::{DAMAGED, Dir, Found, Segment, at_once};
use crate::{Lsn, Result};

/// Copied records are written when so many bytes of them have gathered.
const WRITE_AT: usize = 1 << 20;

/// Where, and as what, the log goes on.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) log: LogId,
    /// Where the log so far ends.
    pub(crate) at: Position,
    /// The LSN of the first record behind that.
    pub(crate) next_lsn: Lsn,
    pub(crate) segment_blocks: u32,
    /// The epoch of the fresh segment, unless one is prepared.
    pub(crate) epoch: u64,
    pub(crate) spares: VecDeque<Arc<Segment>>,
    /// Segments that get a seal, or have theirs made durable, for the fresh one follows them.
    pub(crate) unsealed: Vec<u64>,
    pub(crate) control: Control,
}

/// The log's new tail, durable to its end.
#[derive(Debug)]
pub(crate) struct Branched {
    pub(crate) assembler: Assembler,
    pub(crate) spares: VecDeque<Arc<Segment>>,
    /// The fresh segments' part of the chain.
    pub(crate) entries: Vec<Entry>,
    pub(crate) durable: Promise,
    /// How many records were written again.
    pub(crate) copied: u64,
}

/// Makes the branch, and writes all that `copies` reads into it.
pub(crate) fn fork(dir: &Dir, branch: Branch, copies: Option<Reader>) -> Result<Branched> {
    let Branch { log, at, next_lsn, segment_blocks, epoch, mut spares, unsealed, control } = branch;
    let prepare = |epoch| dir.prepare(log, epoch, segment_blocks, None, &at_once);
    let first = match spares.pop_front() {
        Some(spare) => spare,
        None => prepare(epoch)?,
    };
    let mut assembler = Assembler::link(first.clone(), at, next_lsn, &control);
    let mut link = assembler.take();
    let mut entries = vec![Entry { epoch: first.epoch(), first_lsn: next_lsn, end: None }];
    let mut fresh = vec![first];

    let before = Promise { position: at, lsn: next_lsn.prev() };
    let mut write = |assembler: &mut Assembler| -> Result<()> {
        let mut frames = assembler.take();
        for placed in &mut frames {
            if !fresh.iter().any(|s| Arc::ptr_eq(s, &placed.segment)) {
                fresh.push(placed.segment.clone());
            }
            let (segment, block) = (placed.segment.clone(), placed.block);
            segment.write(block, &mut [io::IoSlice::new(placed.finish(before))], false)?;
        }
        assembler.recycle(frames);
        Ok(())
    };
    let mut copied = 0;
    if let Some(mut copies) = copies {
        while let Some(record) = copies.next()? {
            while let Err(NeedSegments(need)) = assembler.put(&[record.data], Urgency::Ordinary, &mut spares, &control) {
                while spares.len() < need {
                    spares.push_back(prepare(assembler.next_epoch(&spares))?);
                }
            }
            copied += 1;
            if assembler.placed_bytes() > WRITE_AT {
                write(&mut assembler)?;
            }
        }
    }
    write(&mut assembler)?;
    for segment in fresh.iter().filter(|_| !bug::is(Bug::LinkBeforeCopies)) {
        segment.sync()?;
    }
    for epoch in unsealed {
        if let Ok((segment, None)) = dir.open_segment(Some(log), epoch, Access::Write)? {
            // What follows the fork is superseded: nothing of it counts.
            let end = if epoch == at.epoch { at.block } else { 0 };
            let mut seal = assemble::seal(&Arc::new(segment), end, next_lsn);
            let (segment, block) = (seal.segment.clone(), seal.block);
            let mut there = vec![0; BLOCK];
            let bytes = match segment.frame(block, segment.blocks, &mut there)? {
                // It may be only in the page cache: the same bytes once more.
                Found::Frame(header) if header.kind == Kind::Seal => {
                    segment.read(block, &mut there)?;
                    &there[..]
                }
                Found::Damaged(_) => continue,
                _ => seal.finish(before),
            };
            segment.write(block, &mut [io::IoSlice::new(bytes)], true)?;
        }
    }
    for rotation in assembler.rotations() {
        if let Some(last) = entries.last_mut() {
            last.end = Some(rotation.from.block);
        }
        entries.push(Entry { epoch: rotation.to_epoch, first_lsn: rotation.first_lsn, end: None });
    }
    let durable = assembler.end();
    for mut placed in link.drain(..) {
        let (segment, block) = (placed.segment.clone(), placed.block);
        segment.write(block, &mut [io::IoSlice::new(placed.finish(durable))], true)?;
    }
    Ok(Branched { assembler, spares, entries, durable, copied })
}

/// Removes files that are not of the log any more. Their loss or survival in a crash makes no difference.
pub(crate) fn remove(dir: &Dir, names: impl IntoIterator<Item = String>) -> Result<()> {
    let mut any = false;
    for name in names {
        match dir.handle.remove(&name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => removed.doing("remove the file", &dir.file(&name))?,
        }
        any = true;
    }
    if any { dir.sync() } else { Ok(()) }
}

/// Keeps a damaged file: as a copy, or the file itself.
pub(crate) fn put_aside(dir: &Dir, name: &str, copy: bool) -> Result<()> {
    let path = dir.file(DAMAGED);
    let aside = dir.handle.create_dir(DAMAGED).doing("create the directory", &path)?;
    let taken = aside.list().doing("list the directory", &path)?;
    let mut kept = name.to_owned();
    for n in 1.. {
        if !taken.contains(&kept) {
            break;
        }
        kept = format!("{name}.{n}");
    }
    let (from, to) = (dir.file(name), path.join(&kept));
    if copy {
        let source = dir.handle.open(name, Access::Read).doing("open the file", &from)?;
        let target = dir.handle.create_like(&format!("{DAMAGED}/{kept}"), name).doing("create the file", &to)?;
        let mut buf = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            let n = source.read_full_at(&mut buf, at).doing("read the file", &from)?;
            if n == 0 {
                break;
            }
            target.write_all_at(&buf[..n], at).doing("write the file", &to)?;
            at += n as u64;
        }
        target.sync().doing("sync the file", &to)?;
    } else {
        dir.handle.rename(name, &format!("{DAMAGED}/{kept}")).doing("put the file aside", &from)?;
    }
    aside.sync().doing("sync the directory", &path)?;
    dir.sync()
}
