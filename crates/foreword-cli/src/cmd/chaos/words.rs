//! What the writing process tells the one that will kill it: a line each.

use std::fmt;

use foreword::Lsn;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The log is open, with the records from one LSN to another.
    Ready(Lsn, Lsn),
    /// This record, of this generation, was acknowledged, and so were all before it: they survive a
    /// kill. The text names what acknowledged it: a call of the log, or a reader that returned it.
    Acknowledged(Lsn, u64, String),
    /// The records before this one will be dropped.
    Cutting(Lsn),
    /// The records before this one were dropped.
    Cut(Lsn),
    /// This record and all after it will be cut off; what is appended in their place will be of
    /// this generation.
    CuttingBack(Lsn, u64),
    /// The announced records were cut off.
    CutBack,
    /// The announced records were not cut off, after all.
    Uncut,
    /// The file LOCK was removed, and the log has stopped because of it.
    LockLost,
    /// The disk is full.
    Full,
    /// Something that must not be.
    Wrong(String),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Ready(start, last) => write!(f, "ready {start} {last}"),
            Word::Acknowledged(lsn, generation, by) => write!(f, "acknowledged {lsn} {generation} {by}"),
            Word::Cutting(lsn) => write!(f, "cutting {lsn}"),
            Word::Cut(lsn) => write!(f, "cut {lsn}"),
            Word::CuttingBack(lsn, generation) => write!(f, "cutting-back {lsn} {generation}"),
            Word::CutBack => f.write_str("cut-back"),
            Word::Uncut => f.write_str("uncut"),
            Word::LockLost => f.write_str("lock-lost"),
            Word::Full => f.write_str("full"),
            Word::Wrong(what) => write!(f, "wrong {}", what.replace('\n', " ")),
        }
    }
}

impl Word {
    pub(super) fn parse(line: &str) -> Option<Word> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let lsn = |text: &str| text.parse().ok().map(Lsn);
        Some(match word {
            "ready" => {
                let (start, last) = rest.split_once(' ')?;
                Word::Ready(lsn(start)?, lsn(last)?)
            }
            "acknowledged" => {
                let (record, rest) = rest.split_once(' ')?;
                let (generation, by) = rest.split_once(' ')?;
                Word::Acknowledged(lsn(record)?, generation.parse().ok()?, by.to_owned())
            }
            "cutting" => Word::Cutting(lsn(rest)?),
            "cut" => Word::Cut(lsn(rest)?),
            "cutting-back" => {
                let (from, generation) = rest.split_once(' ')?;
                Word::CuttingBack(lsn(from)?, generation.parse().ok()?)
            }
            "cut-back" => Word::CutBack,
            "uncut" => Word::Uncut,
            "lock-lost" => Word::LockLost,
            "full" => Word::Full,
            "wrong" => Word::Wrong(rest.to_owned()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_understood_as_it_was_said() {
        let words = [
            Word::Ready(Lsn(7), Lsn(12)),
            Word::Acknowledged(Lsn(3), 9, "a reader".to_owned()),
            Word::Cutting(Lsn(4)),
            Word::Cut(Lsn(5)),
            Word::CuttingBack(Lsn(6), 2),
            Word::CutBack,
            Word::Uncut,
            Word::LockLost,
            Word::Full,
            Word::Wrong("it was 1, not 2".to_owned()),
        ];
        for word in words {
            assert_eq!(Word::parse(&word.to_string()), Some(word));
        }
        for nonsense in
            ["", "ready 7", "acknowledged", "acknowledged x 1 sync", "acknowledged 12", "acknowledged 12 sync", "acknow"]
        {
            assert_eq!(Word::parse(nonsense), None, "{nonsense}");
        }
    }
}
