//! Bits of a small log flipped, and its files cut: never a panic, never a wrong record, and the
//! verdict that the table in `docs/FORMAT.md` asks for, which is computed here from the document and
//! the log's layout.
//!
//! By default `verify` is asked about every bit and every cut within a block's header, about bits of
//! the other bytes (each 13th) in every sector that was written, and about each 13th other cut; and
//! a `View` that reads all records about each 7th of them. Sampled, each 61st, are: bits
//! of sectors that were never written, and the segments of the closed log that are those of the
//! killed one. The strides are prime to 8, so that all bits of a byte have their turn, and each
//! place in a sector has. `FOREWORD_FLIPS=full` takes every bit and every cut for both.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use foreword::{Damage, DamageKind, Durability, Error, Log, Lsn, Verdict};
use foreword_tests::*;

const LINK_BLOCK: usize = 1;
/// Every bit of so many bytes of a block is flipped, and files are cut at each of these bytes: those
/// of any header, and of what a LINK says.
const HEADER: usize = 128;

/// A log, and what the document says of its layout.
struct Sample {
    files: Files,
    /// All that recovery would return, from LSN 1 on.
    records: Vec<(u64, Vec<u8>)>,
    verdict: Verdict,
    /// The chain: each segment's epoch and where the log leaves it; the last ends at X.
    chain: Vec<(u64, usize)>,
    frames: Vec<Frame>,
}

/// What a change must lead to.
#[derive(Debug, PartialEq, Eq)]
struct Expect {
    damage: Option<(DamageKind, bool, String, usize)>,
    last_lsn: u64,
    garbled: u64,
}

/// Four segments: one with most of a record, one with its end that a recovery left in its middle
/// (with superseded frames, and a seal), one with a MARK and with most of a batch that spans
/// segments, and the newest, with the rest of the batch and a record.
fn sample(closed: bool) -> Sample {
    let batch: Vec<Vec<u8>> = (4..8).map(|i| vec![i as u8; 7_500]).collect();
    let crashed = Files::crashed(|log| {
        // (It goes on in the second segment, which so begins within a record, and is not written
        // again by recovery.)
        log.commit(&[1; 28_800]).unwrap();
        log.append_with(&[2; 500], Durability::Written).unwrap();
    });
    let dir = crashed.dir();
    let log = small().open(dir.path()).unwrap();
    assert_eq!(log.commit(b"").unwrap(), Lsn(3));
    log.hold("a replica", Lsn(1)).unwrap();
    log.commit_batch(&batch).unwrap();
    log.commit(b"the last").unwrap();
    let records = collect(log.iter(Lsn::ZERO)).0;
    let close = |log: Log| log.close().unwrap();
    if closed {
        close(log);
    }
    let sample = Sample::new(Files::read(dir.path()), records, if closed { Verdict::Clean } else { Verdict::Unclosed });
    assert_eq!(sample.chain.iter().map(|c| c.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(sample.records.len(), 8);
    sample
}

impl Sample {
    fn new(files: Files, records: Vec<(u64, Vec<u8>)>, verdict: Verdict) -> Sample {
        let mut chain = Vec::new();
        let mut epoch = *files.epochs().last().unwrap();
        let newest = files.frames(epoch);
        let last = newest.iter().rev().find(|f| f.kind != SEAL).unwrap();
        let mut end = last.block + last.blocks;
        while epoch > 0 {
            chain.push((epoch, end));
            let link = &files.0[&segment_name(epoch)][BLOCK + header_len(LINK)..];
            epoch = u64::from_le_bytes(link[..8].try_into().unwrap());
            end = u32::from_le_bytes(link[8..12].try_into().unwrap()) as usize;
        }
        chain.reverse();
        let frames = files.epochs().into_iter().flat_map(|epoch| files.frames(epoch)).collect();
        Sample { files, records, verdict, chain, frames }
    }

    fn tip(&self) -> (u64, usize) {
        *self.chain.last().unwrap()
    }

    /// The last LSN that can be read if nothing from a position on can.
    fn last_before(&self, epoch: u64, block: usize) -> u64 {
        let mut last = 0;
        for &(segment, end) in &self.chain {
            // Without its successor's LINK, nothing says where the log left a segment: it is read
            // to its last frame (here, those of which a recovery made copies).
            let end = if block == LINK_BLOCK && segment + 1 == epoch { usize::MAX } else { end };
            for f in self.frames.iter().filter(|f| f.epoch == segment && (1..end).contains(&f.block)) {
                if f.kind == SEAL || (f.epoch, f.block) >= (epoch, block) {
                    break;
                }
                if f.flags & 1 == 0 || f.kind != DATA {
                    last = if f.kind == DATA { f.first_lsn + u64::from(f.records) - 1 } else { last };
                }
            }
        }
        last
    }

    /// Whether a frame behind a position promises that it was durable.
    fn promised(&self, epoch: u64, block: usize) -> bool {
        let behind = |f: &&Frame| (f.epoch, f.block) > (epoch, block);
        self.frames.iter().filter(behind).any(|f| f.promise > (epoch, block as u32))
    }

    fn unharmed(&self, garbled: u64) -> Expect {
        Expect { damage: None, last_lsn: self.records.len() as u64, garbled }
    }

    fn harmed(&self, kind: DamageKind, proven: bool, epoch: u64, offset: usize, block: usize) -> Expect {
        let damage = Some((kind, proven, segment_name(epoch), offset));
        Expect { damage, last_lsn: self.last_before(epoch, block), garbled: 0 }
    }

    fn flip(&self, epoch: u64, byte: usize) -> Expect {
        let (block, sector) = (byte / BLOCK, byte / SECTOR);
        let end = self.chain.iter().find(|c| c.0 == epoch).unwrap().1;
        let blocks = self.files.0[&segment_name(epoch)].len() / BLOCK;
        let first_sector = sector % (BLOCK / SECTOR) == 0;
        let is_tip = epoch == self.tip().0;
        if block == 0 {
            return self.harmed(DamageKind::Header, true, epoch, 0, 1);
        }
        if block < end {
            let holds = |f: &&Frame| f.epoch == epoch && (f.block..f.block + f.blocks).contains(&block);
            let frame = self.frames.iter().find(holds).unwrap();
            return self.harmed(DamageKind::Garbled, self.promised(epoch, frame.block), epoch, frame.block * BLOCK, frame.block);
        }
        match (is_tip, first_sector) {
            // Nothing of the log lies there, though something may be written.
            (false, _) => self.unharmed(0),
            (true, true) if block == end => self.harmed(DamageKind::Garbled, false, epoch, block * BLOCK, block),
            (true, true) if block == blocks - 1 => self.harmed(DamageKind::Seal, false, epoch, block * BLOCK, block),
            (true, _) => self.unharmed(1),
        }
    }

    fn cut(&self, epoch: u64, len: usize) -> Expect {
        let end = self.chain.iter().find(|c| c.0 == epoch).unwrap().1;
        if epoch != self.tip().0 && len >= end * BLOCK {
            return self.unharmed(0);
        }
        let holds = |f: &&Frame| f.epoch == epoch && f.block < end && (f.block + f.blocks) * BLOCK > len;
        let block = self.frames.iter().find(holds).map_or(end, |f| f.block.max(1));
        self.harmed(DamageKind::Size, true, epoch, len, block)
    }

    fn written(&self, epoch: u64, sector: usize) -> bool {
        self.frames.iter().any(|f| f.epoch == epoch && (f.block..f.block + f.blocks).contains(&(sector * SECTOR / BLOCK)))
    }

    fn damage<'a>(&self, expect: &Expect, verdict: Option<&'a Verdict>, what: &str) -> Option<&'a Damage> {
        let damage = match verdict {
            Some(Verdict::Corruption(damage)) => Some(damage),
            sound => {
                assert_eq!(sound, Some(&self.verdict), "{what}");
                None
            }
        };
        let found = damage.map(|d| {
            let file = d.path.file_name().unwrap().to_str().unwrap().to_owned();
            (d.kind, d.proven, file, d.offset as usize)
        });
        assert_eq!(found, expect.damage, "{what}: {damage:?}");
        damage
    }

    /// `verify` says what it must.
    fn check_verify(&self, disk: &MemDisk, expect: &Expect, what: &str) {
        let report = disk.verify();
        let damage = self.damage(expect, report.verdict.as_ref(), what);
        if let Some(damage) = damage {
            assert_eq!(damage.first_lsn, Lsn(expect.last_lsn + 1), "{what}: {damage:?}");
        } else {
            assert_eq!(report.garbled_sectors, expect.garbled, "{what}");
        }
        assert_eq!(report.last_lsn, Lsn(expect.last_lsn), "{what}");
    }

    /// A reader gets the records that it must, each as it was written, and then the reason why
    /// there are no more.
    fn check_view(&self, disk: &MemDisk, expect: &Expect, what: &str) {
        let (records, error) = collect(disk.view().iter(Lsn::ZERO));
        assert_eq!(records.len() as u64, expect.last_lsn, "{what}: {error:?}");
        assert!(records == self.records[..records.len()], "{what}: wrong records");
        match (&error, &expect.damage) {
            (None, None) => {}
            (Some(Error::Corruption(damage)), Some(_)) => assert_eq!(damage.first_lsn, Lsn(expect.last_lsn + 1), "{what}"),
            // Nothing but the end of what is readable tells of damage where no record is.
            (None, Some(_)) if expect.last_lsn == self.records.len() as u64 => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn full() -> bool {
    std::env::var_os("FOREWORD_FLIPS").is_some_and(|v| v == "full")
}

/// Does pieces of work on all processors, each with a disk of its own.
fn shared_out(files: &Files, pieces: usize, work: impl Fn(&MemDisk, usize) + Sync) {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|s| {
        for _ in 0..workers {
            s.spawn(|| {
                let disk = MemDisk::new(files);
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    if piece >= pieces {
                        break;
                    }
                    work(&disk, piece);
                }
            });
        }
    });
}

/// `fresh`: segments that no other test takes every bit of.
fn flip_all(sample: &Sample, fresh: &[u64]) {
    let (view_stride, payload_stride, sampled_stride) = if full() { (1, 1, 1) } else { (7, 13, 61) };
    let epochs = sample.files.epochs();
    let sectors = sample.files.0[&segment_name(1)].len() / SECTOR;
    shared_out(&sample.files, epochs.len() * sectors, |disk, piece| {
        let (epoch, sector) = (epochs[piece / sectors], piece % sectors);
        let fresh = sample.written(epoch, sector) && fresh.contains(&epoch);
        let stride = |byte: usize| match fresh {
            true if byte % BLOCK < HEADER => 1,
            true => payload_stride,
            false => sampled_stride,
        };
        let bytes = disk.bytes(&segment_name(epoch));
        let bits = sector * SECTOR * 8..(sector + 1) * SECTOR * 8;
        for bit in bits.filter(|bit| bit % stride(bit / 8) == 0) {
            let turn = || bytes.write().unwrap()[bit / 8] ^= 1 << (bit % 8);
            turn();
            let what = format!("bit {} of byte {} of segment {epoch}", bit % 8, bit / 8);
            let expect = sample.flip(epoch, bit / 8);
            sample.check_verify(disk, &expect, &what);
            if (bit / stride(bit / 8)) % view_stride == 0 {
                sample.check_view(disk, &expect, &what);
            }
            turn();
        }
    });
}

fn cut_all(sample: &Sample, fresh: &[u64]) {
    let (view_stride, payload_stride, sampled_stride) = if full() { (1, 1, 1) } else { (7, 13, 61) };
    let epochs = sample.files.epochs();
    let blocks = sample.files.0[&segment_name(1)].len() / BLOCK;
    shared_out(&sample.files, epochs.len() * blocks, |disk, piece| {
        let (epoch, block) = (epochs[piece / blocks], piece % blocks);
        let whole = sample.files.0[&segment_name(epoch)].clone();
        let bytes = disk.bytes(&segment_name(epoch));
        let stride = |len: usize| match fresh.contains(&epoch) {
            true if len % BLOCK <= HEADER => 1,
            true => payload_stride,
            false => sampled_stride,
        };
        for len in (block * BLOCK..(block + 1) * BLOCK).rev().filter(|len| len % stride(*len) == 0) {
            bytes.write().unwrap().resize(len, 0);
            bytes.write().unwrap().copy_from_slice(&whole[..len]);
            let what = format!("segment {epoch} cut to {len} bytes");
            let expect = sample.cut(epoch, len);
            sample.check_verify(disk, &expect, &what);
            if (len / stride(len)) % view_stride == 0 {
                sample.check_view(disk, &expect, &what);
            }
        }
        *bytes.write().unwrap() = whole;
    });
}

#[test]
fn the_sample_is_as_it_should_be() {
    for closed in [false, true] {
        let sample = sample(closed);
        let disk = MemDisk::new(&sample.files);
        let expect = sample.unharmed(0);
        assert_eq!(expect.last_lsn, 8);
        sample.check_verify(&disk, &expect, "nothing was changed");
        sample.check_view(&disk, &expect, "nothing was changed");
        assert!(sample.frames.iter().any(|f| f.kind == DATA && f.flags == 1), "a frame that continues");
        assert!(sample.frames.iter().any(|f| f.epoch == 1 && f.kind == SEAL));
    }
}

#[test]
fn every_flipped_bit_of_a_log_that_was_killed() {
    flip_all(&sample(false), &[1, 2, 3, 4]);
}

#[test]
fn every_flipped_bit_of_a_log_that_was_closed() {
    // The newest segment alone differs from that of the log that was killed.
    flip_all(&sample(true), &[4]);
}

#[test]
fn every_cut_of_a_log_that_was_killed() {
    cut_all(&sample(false), &[1, 2, 3, 4]);
}

#[test]
fn every_cut_of_a_log_that_was_closed() {
    cut_all(&sample(true), &[4]);
}

#[test]
fn every_flipped_bit_and_every_cut_of_the_identity() {
    let sample = sample(false);
    let good = sample.files.0["LOG"].clone();
    let disk = MemDisk::new(&sample.files);
    let bytes = disk.bytes("LOG");
    let check = |what: &str| {
        let expect = Expect {
            damage: Some((DamageKind::Identity, true, "LOG".into(), 0)),
            last_lsn: sample.records.len() as u64,
            garbled: 0,
        };
        sample.check_verify(&disk, &expect, what);
        sample.check_view(&disk, &expect, what);
    };
    for bit in 0..good.len() * 8 {
        bytes.write().unwrap()[bit / 8] ^= 1 << (bit % 8);
        check(&format!("bit {bit}"));
        bytes.write().unwrap()[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..good.len() {
        *bytes.write().unwrap() = good[..len].to_vec();
        check(&format!("cut to {len}"));
    }
}
