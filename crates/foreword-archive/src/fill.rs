//! Fills a log with records of an archive: it downloads, decodes and appends at once, each in the
//! order of the LSNs, within bounds of memory.
//!
//! Pieces of objects are fetched several at once, each by one request. Their blocks are decoded on
//! as many threads as there are processors. One thread appends. A stage that is ahead waits for
//! room: so much may be fetched and not decoded, and so much decoded and not appended.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foreword::{Log, Lsn};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::archive::Archive;
use crate::chunk::{ArchiveId, Place};
use crate::decode::{Fetched, Opened, Stored, Table, fetch, fetch_table};
use crate::error::{Error, Result};
use crate::history::{Chunks, Wanted};
use crate::keys::Keys;
use crate::restore::ProgressHook;
use crate::store::Store;
use crate::tasks::{Task, blocking};

/// Bytes of objects that are on their way, or not decoded yet; a block that has more is alone.
const FETCHED: usize = 16 << 20;
/// Bytes of blocks that are decoded and not appended yet; the same.
const DECODED: usize = 4 << 20;
/// An object of up to so many bytes is fetched by one request.
const WHOLE: u64 = 4 << 20;
/// A larger one in parts of so many bytes.
const PART: u64 = 2 << 20;
/// Tables of larger ones that are fetched at once.
const TABLES: usize = 2;
/// Threads that decode, at most.
const DECODERS: usize = 8;
/// Blocks that wait for the thread that appends.
const READY: usize = 2;

/// What one request fetches.
enum Piece {
    Whole(Wanted),
    Part { blocks: Table, lsns: Range<u64>, of: u64 },
}

impl Piece {
    fn bytes(&self) -> u64 {
        match self {
            Piece::Whole(wanted) => wanted.chunk.bytes,
            Piece::Part { blocks, .. } => blocks.bytes(),
        }
    }
}

/// Where pieces come from.
struct Source {
    store: Store,
    keys: Keys,
    archive: ArchiveId,
}

impl Source {
    fn place(&self, timeline: u32) -> Place {
        Place { archive: self.archive, timeline }
    }

    /// What fetches the chunk.
    async fn pieces(self: Arc<Self>, wanted: Wanted) -> Result<VecDeque<Piece>> {
        let Wanted { timeline, chunk, lsns } = &wanted;
        let all = lsns.start <= chunk.first && lsns.end > chunk.last;
        if all && chunk.bytes <= WHOLE {
            return Ok([Piece::Whole(wanted)].into());
        }
        let table = fetch_table(&self.store, chunk, self.place(*timeline), &self.keys).await?.with(lsns);
        let mut parts: VecDeque<_> =
            table.split(PART).into_iter().map(|blocks| Piece::Part { blocks, lsns: lsns.clone(), of: 0 }).collect();
        if let Some(Piece::Part { of, .. }) = parts.back_mut() {
            *of = chunk.bytes;
        }
        Ok(parts)
    }

    /// Its blocks; of which LSNs; and the bytes of the chunk that is done with it.
    async fn fetch(self: Arc<Self>, piece: Piece) -> Result<(Fetched, Range<u64>, u64)> {
        match piece {
            Piece::Whole(Wanted { timeline, chunk, lsns }) => {
                let fetched = fetch(&self.store, &chunk, self.place(timeline), &self.keys).await?;
                Ok((fetched, lsns, chunk.bytes))
            }
            Piece::Part { blocks, lsns, of } => Ok((blocks.fetch(&self.store).await?, lsns, of)),
        }
    }
}

/// Room for so many bytes.
#[derive(Clone)]
struct Room {
    free: Arc<Semaphore>,
    size: usize,
}

impl Room {
    fn new(size: usize) -> Room {
        Room { free: Arc::new(Semaphore::new(size)), size }
    }

    /// Waits for it. What is larger than all of it takes all.
    async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        let bytes = bytes.clamp(1, self.size as u64) as u32;
        let taken = self.free.clone().acquire_many_owned(bytes).await;
        taken.map_err(|error| Error::io("wait", "for memory", std::io::Error::other(error)))
    }
}

/// A block, and which of its records.
struct Decoded {
    opened: Opened,
    first: u64,
    lsns: Range<u64>,
    /// The bytes of the object that is done with it.
    done: u64,
    _room: OwnedSemaphorePermit,
}

impl Archive {
    /// Appends the records of chunks, which begin with the log's next.
    pub(crate) async fn fill_from(
        &self,
        log: &Arc<Log>,
        chunks: Chunks,
        downloads: usize,
        told: Option<(ProgressHook, u64)>,
    ) -> Result<()> {
        let (ready, blocks) = mpsc::channel(READY);
        let log = log.clone();
        let appending = tokio::spawn(blocking(move || append(&log, blocks, told)));
        let decoded = async {
            let mut decoded = std::pin::pin!(self.decoded(chunks, downloads.max(1)));
            while let Some(block) = decoded.try_next().await? {
                if ready.send(block).await.is_err() {
                    break; // It has failed, and says why.
                }
            }
            Ok::<_, Error>(())
        };
        let decoded = decoded.await;
        drop(ready);
        let appended = appending.await.map_err(|error| Error::io("run", "a task", std::io::Error::other(error)))?;
        appended??;
        decoded
    }

    fn decoded(&self, chunks: Chunks, downloads: usize) -> impl Stream<Item = Result<Decoded>> {
        let source = Arc::new(Source { store: self.store.clone(), keys: self.keys.clone(), archive: self.id });
        let (fetched_room, decoded_room) = (Room::new(FETCHED), Room::new(DECODED));
        let decoders = std::thread::available_parallelism().map_or(1, usize::from).min(DECODERS);
        let wanted = stream::try_unfold(chunks, async |mut chunks| {
            Ok::<_, Error>(chunks.next(self).await?.map(|wanted| (wanted, chunks)))
        });
        let tables = source.clone();
        let pieces = wanted
            .map_ok(move |wanted| tables.clone().pieces(wanted))
            .try_buffered(TABLES)
            .map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok::<_, Error>)))
            .try_flatten();
        let fetched = pieces
            .and_then(move |piece| {
                let room = fetched_room.clone();
                async move { Ok((room.take(piece.bytes()).await?, piece)) }
            })
            .map(move |piece| {
                let source = source.clone();
                async move {
                    let (room, piece) = piece?;
                    let (fetched, lsns, of) = Task::spawn(source.fetch(piece)).end().await??;
                    Ok::<_, Error>((fetched, lsns, of, Arc::new(room)))
                }
            })
            .buffered(downloads);
        let blocks = fetched.map_ok(|(fetched, lsns, of, room)| {
            let mut blocks: Vec<_> =
                fetched.blocks().map(|stored| Ok::<_, Error>((stored?, lsns.clone(), 0, room.clone()))).collect();
            if let Some(Ok((_, _, done, _))) = blocks.last_mut() {
                *done = of;
            }
            stream::iter(blocks)
        });
        blocks
            .try_flatten()
            .and_then(move |block| {
                let room = decoded_room.clone();
                async move { Ok((room.take(u64::from(block.0.block.raw)).await?, block)) }
            })
            .map(|block| async move {
                let (room, (stored, lsns, done, fetched)) = block?;
                let decode = move |stored: Stored| {
                    let first = stored.block.first.max(lsns.start);
                    let opened = stored.open()?;
                    drop((stored, fetched));
                    Ok::<_, Error>(Decoded { opened, first, lsns, done, _room: room })
                };
                Task(tokio::task::spawn_blocking(move || decode(stored))).end().await?
            })
            .buffered(decoders)
    }
}

fn append(log: &Log, mut blocks: mpsc::Receiver<Decoded>, told: Option<(ProgressHook, u64)>) -> Result<()> {
    let mut sum = 0;
    while let Some(block) = blocks.blocking_recv() {
        let time = |micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
        let copies = block.opened.within(&block.lsns).map(|(micros, data)| (time(micros), data));
        log.append_copies(Lsn(block.first), copies)?;
        sum += block.done;
        if let Some((hook, bytes)) = told.as_ref().filter(|_| block.done > 0) {
            hook(sum, sum.max(*bytes));
        }
    }
    Ok(())
}
