//! A directory as bytes that a fuzzer can change: whatever they are, they say how a directory is
//! made.
//!
//! An input is a row of steps, each a byte that says which, and its arguments. They are about the
//! segment begun last.
//!
//! | | step | arguments | what |
//! |---|---|---|---|
//! | 0 | segment | two epochs | the segment that bears the first in its name, and whose frames are bound to the second; at first 16 blocks of zeros |
//! | 1 | bytes | u16 place in units of 8 bytes, u8 length, bytes | what stands there |
//! | 2 | seal | u8 block | what stands at this block becomes a frame whose tags and checksums hold |
//! | 3 | zero | u8 sector, u8 sectors | writes that never came |
//! | 4 | resize | u8 sectors | another length |
//! | 5 | identity | | `LOG` is that of the log that the segment's header names |
//! | 6 | file | u8 name, u8 length, bytes | any other file |

use crate::forge::{BLOCK, Binding, Files, epoch_of, identity, segment_name};

const SEGMENT: u8 = 0;
const BYTES: u8 = 1;
const SEAL: u8 = 2;
const ZERO: u8 = 3;
const RESIZE: u8 = 4;
const IDENTITY: u8 = 5;
const FILE: u8 = 6;
const STEPS: u8 = 7;

const UNIT: usize = 8;
const SECTOR: usize = 512;
/// The most that one step writes.
const PIECE: usize = 248;
const OTHERS: [&str; 6] = ["LOG", "LOCK", "LOG.tmp", "00000000000000000001.seg.tmp", "1.seg", "damaged"];

/// The directory that an input stands for, if it has a segment.
#[must_use]
pub fn directory(input: &[u8]) -> Option<Files> {
    let mut steps = Steps(input);
    let mut files = Files::new();
    let (mut name, mut bound) = (String::new(), 0);
    while let Some(step) = steps.byte() {
        let segment = files.get_mut(&name);
        match (step % STEPS, segment) {
            (SEGMENT, _) => {
                name = segment_name(epoch(steps.byte()?));
                bound = epoch(steps.byte()?);
                files.insert(name.clone(), vec![0; 16 * BLOCK]);
            }
            (BYTES, Some(segment)) => {
                let at = UNIT * usize::from(u16::from_le_bytes([steps.byte()?, steps.byte()?]));
                put(segment, at, steps.bytes());
            }
            (SEAL, Some(segment)) => Binding::of(segment, bound).seal(segment, usize::from(steps.byte()?)),
            (ZERO, Some(segment)) => {
                let from = (SECTOR * usize::from(steps.byte()?)).min(segment.len());
                let to = (from + SECTOR * usize::from(steps.byte()?)).min(segment.len());
                segment[from..to].fill(0);
            }
            (RESIZE, Some(segment)) => segment.resize(SECTOR * usize::from(steps.byte()?), 0),
            (IDENTITY, Some(segment)) => {
                let text = identity(Binding::of(segment, 0).uuid);
                files.insert("LOG".to_owned(), text);
            }
            (FILE, _) => {
                let which = usize::from(steps.byte()?) % OTHERS.len();
                files.insert(OTHERS[which].to_owned(), steps.bytes().to_vec());
            }
            (_, None) | (STEPS.., _) => {}
        }
    }
    (!name.is_empty()).then_some(files)
}

struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}

/// Small ones, those whose low 32 bits are small, and the largest.
fn epoch(byte: u8) -> u64 {
    match byte {
        0..0xe0 => u64::from(byte),
        0xe0..0xf0 => (1 << 32) + u64::from(byte & 15),
        0xf0.. => (u64::MAX >> 8) - u64::from(!byte & 7),
    }
}

fn put(segment: &mut [u8], at: usize, bytes: &[u8]) {
    let Some(place) = segment.get_mut(at..) else { return };
    let len = bytes.len().min(place.len());
    place[..len].copy_from_slice(&bytes[..len]);
}

/// The input that stands for a directory of small epochs.
#[must_use]
pub fn of(files: &Files) -> Vec<u8> {
    let mut input = Vec::new();
    for (name, segment) in files {
        match epoch_of(name) {
            Some(epoch) => add_segment(&mut input, epoch, segment),
            None => add_file(&mut input, files, name, segment),
        }
    }
    input
}

fn add_segment(input: &mut Vec<u8>, epoch: u64, segment: &[u8]) {
    input.extend([SEGMENT, epoch as u8, epoch as u8]);
    if segment.len() != 16 * BLOCK {
        input.extend([RESIZE, (segment.len() / SECTOR) as u8]);
    }
    let frames = Binding::of(segment, epoch).frames(segment);
    let mut plain = segment.to_vec();
    frames.iter().for_each(|frame| Binding::unseal(&mut plain[frame.bytes.clone()]));
    let used = |unit: &[u8]| unit.iter().any(|&byte| byte != 0);
    let mut at = 0;
    while at < plain.len() {
        let units = plain[at..].chunks(UNIT).take(PIECE / UNIT).take_while(|unit| used(unit)).count();
        if units > 0 {
            input.extend(bytes_at(at, &plain[at..at + units * UNIT]));
        }
        at += units.max(1) * UNIT;
    }
    frames.iter().for_each(|frame| input.extend([SEAL, (frame.bytes.start / BLOCK) as u8]));
}

/// The step that puts bytes, at most 248, at a place of the segment begun last.
#[must_use]
pub fn bytes_at(at: usize, bytes: &[u8]) -> Vec<u8> {
    [&[BYTES][..], &((at / UNIT) as u16).to_le_bytes(), &[bytes.len() as u8], bytes].concat()
}

fn add_file(input: &mut Vec<u8>, files: &Files, name: &str, bytes: &[u8]) {
    let newest = files.iter().rfind(|(name, _)| epoch_of(name).is_some());
    if name == "LOG" && newest.is_some_and(|(_, segment)| identity(Binding::of(segment, 0).uuid) == bytes) {
        return input.push(IDENTITY);
    }
    let Some(which) = OTHERS.iter().position(|other| *other == name) else { return };
    input.extend([FILE, which as u8, bytes.len() as u8]);
    input.extend(bytes);
}
