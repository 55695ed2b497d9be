//! Holds of other processes: what they ask for is in the file `HOLDS`, until the writer takes it
//! into the log.
//!
//! A process reads or writes the file under its lock; the log's writer holds that from before it
//! decides what to drop until that is durable. So when a hold is placed, either the writer has not
//! decided yet, and will see it, or it has, and the start LSN says what is gone. No process waits
//! for another to wake up.
//!
//! The file has two places, and each text goes into both, one after the other. So one place is
//! whole at any time, and what was asked for durably is in both: damage to one of them loses
//! nothing. It is whole when it gets its name. So a file without a whole place is damaged, and not
//! taken for one in which nothing is asked for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use crate::error::{Doing, is_full};
use crate::files::dir::Dir;
use crate::files::disk::{Access, DiskFile};
use crate::files::names::{HOLDS, HOLDS_TMP, IDENTITY};
use crate::files::text::{checked, push_checksum, push_escaped, unescaped};
use crate::format::LogId;
use crate::limit::{Hold, Holds, Limit, judged};
use crate::{Error, Lsn, Result};

const TITLE: &str = "foreword holds 1";
/// More than any text has: 64 names of 64 bytes, if all of them are escaped, and numbers.
const PLACE: u64 = 16 << 10;
/// How often the file is looked at anew, where others make, write or remove it meanwhile.
const TRIES: u32 = 5;

/// What other processes ask for: a hold of that name, or none any more.
pub(crate) type Wishes = BTreeMap<String, Option<Hold>>;

/// The file, while it is locked.
pub(crate) struct Outside {
    file: Box<dyn DiskFile>,
    dir: Dir,
    path: PathBuf,
    log: LogId,
    text: Text,
}

/// What the file says.
struct Text {
    number: u64,
    wishes: Wishes,
    /// Which place has it.
    place: u64,
    /// Whether both have: then it is durable.
    in_both: bool,
}

impl Text {
    fn of_nothing() -> Text {
        Text { number: 0, wishes: Wishes::new(), place: 0, in_both: true }
    }
}

/// What there is of the file, while it is locked.
enum Taken {
    Whole(Outside),
    /// It has no name yet, and gets none: what stood in the way.
    Begun(Outside, Error),
}

impl Dir {
    /// Takes the lock; makes the file, if it is not there: [`Error::NoSpace`] if it has no room.
    /// [`Error::Busy`] if another has it for longer than a moment.
    pub(crate) fn outside(&self, log: LogId) -> Result<Outside> {
        match self.take_holds(log) {
            Ok(Taken::Whole(outside)) => Ok(outside),
            Ok(Taken::Begun(_, error)) | Err(error) => Err(error.or_no_space(&self.path, Some(2 * PLACE))),
        }
    }

    /// The same, to look at what is asked for. Where the file cannot be made, this has the lock of
    /// what there is of it: nobody else makes it meanwhile. None where there is no room even for
    /// that: then other processes can ask for nothing, either, as long as there is none.
    pub(crate) fn outside_if_possible(&self, log: LogId) -> Result<Option<Outside>> {
        match self.take_holds(log) {
            Ok(Taken::Whole(outside) | Taken::Begun(outside, _)) => Ok(Some(outside)),
            Err(Error::Io { source, .. }) if has_no_room(&source) && self.has_no_outside() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn take_holds(&self, log: LogId) -> Result<Taken> {
        for patience in (0..TRIES).rev() {
            // (Where a file is never told as the same twice, there is no more to be known.)
            let is_it = |file: &dyn DiskFile, name: &str| Ok::<_, Error>(patience == 0 || self.is_named(file, name)?);
            if !self.has_no_outside() {
                let file = self.take(HOLDS)?.ok_or(Error::Busy)?;
                if is_it(&*file, HOLDS)? {
                    let text = self.read_holds(&*file, log)?;
                    return Ok(Taken::Whole(Outside { file, dir: self.clone(), path: self.file(HOLDS), log, text }));
                }
                continue;
            }
            let begun = self.begin_holds()?;
            // (Else who had the lock before has finished it.)
            if is_it(&*begun, HOLDS_TMP)? {
                let path = self.file(HOLDS_TMP);
                let mut begun = Outside { file: begun, dir: self.clone(), path, log, text: Text::of_nothing() };
                // (What is here may be that very file, under its other name.)
                let named = if self.has_no_outside() { self.finish_holds(&mut begun) } else { Ok(false) };
                match named {
                    Ok(true) => return Ok(Taken::Whole(begun)),
                    Ok(false) => _ = self.handle.remove(HOLDS_TMP), // Another was faster.
                    Err(error) => return Ok(Taken::Begun(Outside { text: Text::of_nothing(), ..begun }, error)),
                }
            }
        }
        Err(Error::Busy)
    }

    /// Begins the file under another name, so that it is locked before it has its own.
    fn begin_holds(&self) -> Result<Box<dyn DiskFile>> {
        if self.handle.id_of(HOLDS_TMP).is_err() {
            // For the users that the log is for. (If another is faster, it does that.)
            let _ = self.handle.create_like(HOLDS_TMP, IDENTITY);
        }
        self.take(HOLDS_TMP)?.ok_or(Error::Busy)
    }

    /// Writes it whole, with no requests in it, and gives it its name; `false` if there is one by
    /// now. The name is durable before anything is asked for ([`Outside::write`]).
    fn finish_holds(&self, begun: &mut Outside) -> Result<bool> {
        // Whatever another left in it, and whoever that was. (As far as that may be changed.)
        let _ = self.handle.make_like(HOLDS_TMP, IDENTITY);
        begun.file.set_len(0).doing("empty the file", &begun.path)?;
        // The space of both places, so that what is taken into the log can be cleared on a full
        // disk.
        begun.file.allocate(2 * PLACE).doing("make room for the holds of other processes", &begun.path)?;
        begun.write()?;
        // (After an error the next attempt begins again with what there is of it.)
        match self.handle.rename(HOLDS_TMP, HOLDS) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            named => named.doing("rename the file", &begun.path)?,
        }
        begun.path = self.file(HOLDS);
        Ok(true)
    }

    /// Whether a name leads to a file that was opened by it.
    fn is_named(&self, file: &dyn DiskFile, name: &str) -> Result<bool> {
        let path = self.file(name);
        let id = file.id().doing("look at the file", &path)?;
        match self.handle.id_of(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            named => Ok(named.doing("look at the file", &path)? == id),
        }
    }

    fn read_holds(&self, file: &dyn DiskFile, log: LogId) -> Result<Text> {
        let path = self.file(HOLDS);
        let read = read(file, log).doing("read the holds of other processes", &path)?;
        read.map_err(|why| Error::HoldsDamaged { path, why })
    }

    fn has_no_outside(&self) -> bool {
        self.handle.id_of(HOLDS).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    /// The holds of a log and those that other processes have placed since, as their owners see
    /// them, and as far as that can be told without the lock.
    /// (The log's own, and where it starts, are asked for after that: what goes from here is there
    /// before.)
    pub(crate) fn with_outside(&self, log: LogId, own: impl FnOnce() -> (Lsn, Holds)) -> Result<Holds> {
        let wishes = self.wishes(log)?;
        let (start, mut holds) = own();
        apply(&wishes, &mut holds);
        Ok(judged(holds, start))
    }

    /// What other processes ask for, without the lock.
    pub(crate) fn wishes(&self, log: LogId) -> Result<Wishes> {
        let mut left = TRIES;
        loop {
            let file = match self.handle.open(HOLDS, Access::Read) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Wishes::new()),
                opened => opened.doing("open the holds of other processes", &self.file(HOLDS))?,
            };
            match self.read_holds(&*file, log) {
                // Both places may have been written while they were read.
                Err(Error::HoldsDamaged { .. }) if left > 0 => left -= 1,
                read => return Ok(read?.wishes),
            }
        }
    }
}

impl Outside {
    pub(crate) fn apply(&self, holds: &mut Holds) {
        apply(&self.text.wishes, holds);
    }

    /// Makes durable what is asked for. (Who wrote it last may have been killed before it was.)
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.text.in_both { Ok(()) } else { self.write() }
    }

    /// Asks for a hold, durably.
    pub(crate) fn place(&mut self, name: &str, hold: Hold) -> Result<()> {
        self.text.wishes.insert(name.to_owned(), Some(hold));
        self.write()
    }

    /// Asks that a hold be released, durably. One that the log does not have stands here alone, and
    /// goes: so what is asked for always has room.
    pub(crate) fn release(&mut self, name: &str, log: &Holds) -> Result<()> {
        if log.contains_key(name) {
            self.text.wishes.insert(name.to_owned(), None)
        } else {
            self.text.wishes.remove(name)
        };
        self.write()
    }

    /// Moves what is asked for behind a cut there, durably, as the log does with its own holds:
    /// before the cut counts, so that none is found as it was.
    pub(crate) fn cut(&mut self, at: Lsn) -> Result<()> {
        let behind: Vec<_> = self.text.wishes.values_mut().flatten().filter(|hold| hold.lsn > at).collect();
        if behind.is_empty() {
            return Ok(());
        }
        behind.into_iter().for_each(|hold| hold.lsn = at);
        self.write()
    }

    /// It is all in the log, durably.
    pub(crate) fn clear(&mut self) -> Result<()> {
        if self.text.wishes.is_empty() {
            return self.settle();
        }
        self.text.wishes.clear();
        self.write()
    }

    /// Writes the text into both places, so that at any time one is whole: first into the one that
    /// does not have what counts.
    fn write(&mut self) -> Result<()> {
        // A file that says more than its first text has a name that lasts, whoever made it.
        if self.text.number == 1 {
            self.dir.sync()?;
        }
        self.text.number += 1;
        self.text.in_both = false;
        let text = encode(self.log, self.text.number, &self.text.wishes);
        for _ in 0..2 {
            let place = 1 - self.text.place;
            self.file.write_all_at(text.as_bytes(), place * PLACE).doing("write the holds of other processes", &self.path)?;
            self.file.sync().doing("sync the holds of other processes", &self.path)?;
            self.text.place = place;
        }
        self.text.in_both = true;
        Ok(())
    }
}

fn apply(wishes: &Wishes, holds: &mut Holds) {
    for (name, hold) in wishes {
        match hold {
            Some(hold) => holds.insert(name.clone(), *hold),
            None => holds.remove(name),
        };
    }
}

/// What counts of a file; or what is wrong with it.
fn read(file: &dyn DiskFile, log: LogId) -> io::Result<std::result::Result<Text, String>> {
    let mut bytes = vec![0; 2 * PLACE as usize];
    let len = file.read_full_at(&mut bytes, 0)?;
    if len < bytes.len() {
        return Ok(Err(format!("it has {len} bytes, not {}", bytes.len())));
    }
    let texts: Vec<_> =
        (0..).zip(bytes.chunks(PLACE as usize)).filter_map(|(place, text)| Some((place, decode(text)?))).collect();
    let in_both = matches!(&texts[..], [(_, one), (_, other)] if one == other);
    let newest = texts.into_iter().max_by_key(|(_, (_, number, _))| *number);
    Ok(match newest {
        Some((place, (of, number, wishes))) => {
            Ok(Text { number, wishes: if of == log { wishes } else { Wishes::new() }, place, in_both })
        }
        None => Err("neither of its two texts is whole".into()),
    })
}

/// Whether there is no room for even an empty file, or none is ever made.
fn has_no_room(error: &io::Error) -> bool {
    is_full(error) || error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

fn encode(log: LogId, number: u64, wishes: &Wishes) -> String {
    let mut text = format!("{TITLE}\nlog {log}\nnumber {number}\n");
    for (name, hold) in wishes {
        let _ = match hold {
            Some(Hold { lsn, limit, .. }) => {
                let (blocks, seconds) = limit.to_units();
                write!(text, "hold {lsn} {blocks} {seconds} ")
            }
            None => write!(text, "release "),
        };
        push_escaped(name, &mut text);
    }
    push_checksum(&mut text);
    text
}

/// `None` if it is not whole.
fn decode(place: &[u8]) -> Option<(LogId, u64, Wishes)> {
    let mut lines = checked(place)?.trim_end_matches('\n').split('\n');
    if lines.next()? != TITLE {
        return None;
    }
    let log = lines.next()?.strip_prefix("log ")?.parse().ok()?;
    let number = lines.next()?.strip_prefix("number ")?.parse().ok()?;
    let mut wishes = Wishes::new();
    for line in lines {
        let (name, hold) = match line.split_once(' ')? {
            ("release", name) => (name, None),
            ("hold", rest) => {
                let mut parts = rest.splitn(4, ' ');
                let mut number = || parts.next()?.parse::<u64>().ok();
                let (lsn, blocks, seconds) = (number()?, number()?, number()?);
                let limit = Limit::from_units(blocks.try_into().ok()?, seconds.try_into().ok()?);
                (parts.next()?, Some(Hold::new(Lsn(lsn), limit)))
            }
            _ => return None,
        };
        wishes.insert(unescaped(name), hold);
    }
    Some((log, number, wishes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_text_comes_back_and_fits_its_place() {
        let limit = Limit::bytes(u64::MAX).or_age(Duration::MAX).as_stored();
        let mut wishes: Wishes =
            (0..64).map(|i| (format!("{i:02}{}", "\\".repeat(62)), Some(Hold::new(Lsn(u64::MAX), limit)))).collect();
        wishes.insert("two words\n".into(), None);
        let text = encode(LogId([3; 16]), u64::MAX, &wishes);
        assert!(text.len() <= PLACE as usize, "{} bytes", text.len());
        assert_eq!(decode(format!("{text}left of a longer text").as_bytes()), Some((LogId([3; 16]), u64::MAX, wishes)));
        for cut in 0..text.len() - 1 {
            assert_eq!(decode(&text.as_bytes()[..cut]), None);
        }
    }
}
