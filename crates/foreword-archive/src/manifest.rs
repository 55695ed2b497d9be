//! Manifests: what the archive is, step by step. Each is an object with the next number, and has
//! the hash of the one before. Of an era that is closed, as an object says that stays for good, they
//! may be gone: what is created there later is of no account.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chunk::{ArchiveId, Chunk, Hash};
use crate::error::{Error, Result};
use crate::keys::{hex, sha256};

/// The format that this program writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// At least each so many manifests one says all that is known, so that reading an archive is not
/// reading its history.
pub(crate) const SUMMARY_EACH: u64 = 64;
/// So many numbers of manifests are an era. It is closed before its manifests are removed.
pub(crate) const ERA: u64 = 1024;
/// So many chunks of a timeline stand in a summary; older ones move to an index of their own.
pub(crate) const CHUNKS_MAX: usize = 256;
/// No LSN is beyond this.
const LSN_MAX: u64 = u64::MAX >> 2;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) archive: ArchiveId,
    pub(crate) number: u64,
    /// Of the bytes of the one before; of the first, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Hash>,
    /// The number of the newest that has a summary: this one, or one before.
    pub(crate) summary: u64,
    /// Rises with each archiver that begins.
    pub(crate) epoch: u64,
    /// Random, of the process that made this one: so that it knows its own again.
    pub(crate) writer: String,
    /// When, in microseconds since 1970, by the clock of the writer.
    pub(crate) time: u64,
    pub(crate) changes: Vec<Change>,
    /// All that is known, the changes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<State>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// An archiver begins: all with a lower epoch are fenced.
    Begin {
        host: String,
        process: u32,
    },
    Timeline(Timeline),
    /// A chunk is there. It takes the place of all that lie within it.
    Add {
        timeline: u32,
        chunk: Chunk,
    },
    /// Records that the archive will not get.
    Gap {
        timeline: u32,
        gap: Gap,
    },
    /// The log was cut behind all that was archived.
    Generation {
        timeline: u32,
        generation: u32,
    },
    /// The oldest chunks moved to an index.
    Index {
        timeline: u32,
        index: Index,
    },
    /// Chunks that end before an LSN are gone.
    Expire {
        timeline: u32,
        before: u64,
    },
    /// All of a timeline is gone.
    Drop {
        timeline: u32,
    },
    /// There is a copy of what stands on the log.
    Backup {
        timeline: u32,
        backup: Backup,
    },
    /// A copy is gone, by the name of its list.
    RemoveBackup {
        timeline: u32,
        name: String,
    },
    /// A standby has taken the place of a log, which is not archived any more.
    Retire {
        log: String,
    },
}

impl Change {
    /// That this process begins.
    pub(crate) fn begin() -> Change {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Change::Begin { host, process: std::process::id() }
    }
}

/// All that an archive has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) timelines: BTreeMap<u32, Timeline>,
    /// The highest that there ever was: numbers are not used again.
    pub(crate) last_timeline: u32,
    /// Logs whose place others have taken.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) retired: BTreeSet<String>,
}

/// A history of the log. A cut of archived records, a salvage, and a restored log that goes on
/// begin a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timeline {
    /// Its number.
    pub id: u32,
    /// The log, by its identity.
    pub log: String,
    /// How often records had been cut from it.
    pub generation: u32,
    /// Where it comes from: a timeline, up to an LSN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The first LSN of its own.
    pub first: u64,
    /// Why it began.
    pub reason: String,
    /// When, in microseconds since 1970.
    pub began: u64,
    /// What it lacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Where older chunks are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Index>,
    /// The newest chunks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Chunk>,
    /// Copies of what stands on the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<Backup>,
    /// The last LSN that is archived of it; one before its first, if none is.
    pub last: u64,
    /// The last that divides no batch.
    pub whole: u64,
}

/// Where a timeline comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The timeline.
    pub timeline: u32,
    /// The last LSN that they share.
    pub last: u64,
}

/// Records that an archive does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gap {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Why.
    pub reason: String,
}

/// A copy of what stands on the log, of a page file say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Backup {
    /// The list of its chunks. Their LSNs number the pieces of the copy, from 1 on.
    pub list: Index,
    /// The first LSN of the log that it needs.
    pub log_start: u64,
    /// The first LSN to which it can be restored.
    pub consistent: u64,
    /// When it was made, in microseconds since 1970.
    pub made: u64,
    /// The bytes of the copy.
    pub bytes: u64,
}

/// A list of chunks, as an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Index {
    /// The object.
    pub name: String,
    /// Its hash.
    pub sha256: Hash,
    /// The first LSN of its first chunk.
    pub first: u64,
    /// The last LSN of its last.
    pub last: u64,
    /// The latest time of their records.
    pub to: u64,
    /// How many chunks.
    pub chunks: u64,
    /// The bytes of their objects.
    pub bytes: u64,
}

impl Timeline {
    /// How many chunks it has of its own.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.chunks.len() as u64 + self.indexes.iter().map(|index| index.chunks).sum::<u64>()
    }

    /// The bytes of their objects.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).chain(self.indexes.iter().map(|index| index.bytes)).sum()
    }

    /// The LSN from which on nothing is missing up to the last.
    #[must_use]
    pub fn after_gaps(&self, up_to: u64) -> Option<u64> {
        self.gaps.iter().filter(|gap| gap.first <= up_to).map(|gap| gap.last + 1).max()
    }
}

impl State {
    pub(crate) fn timeline(&mut self, id: u32) -> Result<&mut Timeline, String> {
        self.timelines.get_mut(&id).ok_or_else(|| format!("there is no timeline {id}"))
    }

    /// Takes a change in; or says why it makes no sense.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Begin { .. } => {}
            Change::Timeline(timeline) => {
                if timeline.id <= self.last_timeline {
                    return Err(format!("timeline {} was there before", timeline.id));
                }
                if !(1..=LSN_MAX).contains(&timeline.first) || timeline.last != timeline.first - 1 {
                    return Err(format!("timeline {} begins at {}", timeline.id, timeline.first));
                }
                self.last_timeline = timeline.id;
                self.timelines.insert(timeline.id, timeline.clone());
            }
            Change::Add { timeline, chunk } => {
                let timeline = self.timeline(*timeline)?;
                let before = timeline.chunks.iter().take_while(|there| there.first < chunk.first).last();
                let follows = (timeline.first..=timeline.last + 1).contains(&chunk.first)
                    && chunk.last >= timeline.last
                    && before.is_none_or(|before| before.last < chunk.first)
                    && timeline.indexes.last().is_none_or(|index| index.last < chunk.first);
                if chunk.last < chunk.first || chunk.last > LSN_MAX || !follows {
                    return Err(format!("a chunk of {} to {} does not follow {}", chunk.first, chunk.last, timeline.last));
                }
                timeline.chunks.retain(|there| there.first < chunk.first);
                timeline.chunks.push(chunk.clone());
                timeline.last = chunk.last;
                if chunk.whole {
                    timeline.whole = chunk.last;
                }
            }
            Change::Gap { timeline, gap } => {
                let timeline = self.timeline(*timeline)?;
                if gap.first != timeline.last + 1 || gap.last < gap.first || gap.last > LSN_MAX {
                    return Err(format!("a gap of {} to {} does not follow {}", gap.first, gap.last, timeline.last));
                }
                (timeline.last, timeline.whole) = (gap.last, gap.last);
                timeline.gaps.push(gap.clone());
            }
            Change::Generation { timeline, generation } => self.timeline(*timeline)?.generation = *generation,
            Change::Index { timeline, index } => {
                let timeline = self.timeline(*timeline)?;
                if timeline.indexes.last().is_some_and(|before| before.last >= index.first) || index.last > timeline.last {
                    return Err(format!("an index of {} to {} does not follow", index.first, index.last));
                }
                timeline.chunks.retain(|chunk| chunk.first > index.last);
                timeline.indexes.push(index.clone());
            }
            Change::Expire { timeline, before } => {
                let timeline = self.timeline(*timeline)?;
                timeline.chunks.retain(|chunk| chunk.last >= *before);
                timeline.indexes.retain(|index| index.last >= *before);
                timeline.gaps.retain(|gap| gap.last >= *before);
            }
            Change::Backup { timeline, backup } => {
                let timeline = self.timeline(*timeline)?;
                if backup.consistent < backup.log_start || backup.consistent > LSN_MAX || backup.list.first != 1 {
                    return Err(format!("a backup from {} to {} cannot be", backup.log_start, backup.consistent));
                }
                timeline.backups.push(backup.clone());
            }
            Change::RemoveBackup { timeline, name } => {
                self.timeline(*timeline)?.backups.retain(|backup| backup.list.name != *name);
            }
            Change::Drop { timeline } => _ = self.timelines.remove(timeline),
            Change::Retire { log } => _ = self.retired.insert(log.clone()),
        }
        Ok(())
    }

    /// From the first to a timeline, the stretches of which its history up to an LSN consists:
    /// which timeline, from which LSN to which.
    pub(crate) fn history(&self, timeline: u32, up_to: u64) -> Vec<(u32, u64, u64)> {
        let (mut path, mut id, mut to) = (Vec::new(), timeline, up_to);
        while let Some(timeline) = self.timelines.get(&id) {
            if to >= timeline.first {
                path.push((id, timeline.first, to));
            }
            let Some(parent) = timeline.parent.filter(|parent| parent.timeline < id) else { break };
            (id, to) = (parent.timeline, parent.last.min(to).min(timeline.first - 1));
        }
        path.reverse();
        path
    }
}

/// The name of a manifest.
pub(crate) fn name(number: u64) -> String {
    format!("manifest/{number:020}")
}

/// The name of what says that an era is closed.
pub(crate) fn closed_name(era: u64) -> String {
    format!("closed/{era:020}")
}

impl Manifest {
    /// A line of JSON, and one with its hash: of the newest no other manifest has it.
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let invalid = |error: serde_json::Error| Error::Invalid { what: "manifest", why: error.to_string() };
        let mut line = serde_json::to_string(self).map_err(invalid)?;
        let hash = hex(&sha256(line.as_bytes()));
        line.extend(["\n", &hash, "\n"]);
        Ok(line.into())
    }

    pub(crate) fn decode(number: u64, bytes: &[u8]) -> Result<Manifest> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let name = name(number);
        let damaged = |error: serde_json::Error| Error::damaged(&name, format!("it is no manifest: {error}"));
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let (line, rest) = bytes.split_at(end);
        let Format { format } = serde_json::from_slice(line).map_err(damaged)?;
        if format > FORMAT {
            return Err(Error::Unsupported { object: name, format, newest: FORMAT });
        }
        if rest != format!("\n{}\n", hex(&sha256(line))).as_bytes() {
            return Err(Error::damaged(&name, "it is not what was written"));
        }
        let manifest: Manifest = serde_json::from_slice(line).map_err(damaged)?;
        if manifest.number != number {
            return Err(Error::damaged(&name, format!("it is manifest {}", manifest.number)));
        }
        Ok(manifest)
    }
}
