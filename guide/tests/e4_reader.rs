//! Exercise 4: `guide/exercises/e4_reader.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use foreword_guide::e4_reader::{Scan, encode, scan};

const RECORDS: [&[u8]; 5] = [b"update page 1", b"", b"update page 2, with more to say", &[0; 40], b"commit"];

/// The log, and where its frames end.
fn log() -> (Vec<u8>, Vec<usize>) {
    let (mut log, mut ends) = (Vec::new(), vec![0]);
    for (record, lsn) in RECORDS.into_iter().zip(1..) {
        encode(lsn, record, &mut log);
        ends.push(log.len());
    }
    (log, ends)
}

fn whole(count: usize, end: usize, torn: bool) -> Scan {
    Scan { records: RECORDS[..count].iter().map(|r| r.to_vec()).collect(), end, torn }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 4: a reader that finds the torn tail")]
fn what_was_written_is_read() {
    let (log, ends) = log();
    assert_eq!(scan(&log), whole(5, ends[5], false));
    assert_eq!(scan(&[]), whole(0, 0, false));
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 4: a reader that finds the torn tail")]
fn zeros_behind_the_log_are_space_and_no_tear() {
    let (mut log, ends) = log();
    log.resize(log.len() + 1000, 0);
    assert_eq!(scan(&log), whole(5, ends[5], false));
    assert_eq!(scan(&[0; 100]), whole(0, 0, false));
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 4: a reader that finds the torn tail")]
fn cut_anywhere_the_whole_frames_remain() {
    let (log, ends) = log();
    for cut in 0..=log.len() {
        let count = ends.iter().filter(|&&end| end <= cut).count() - 1;
        // Of a file that had its length before, the rest is zeros.
        let mut filled = log[..cut].to_vec();
        filled.resize(log.len(), 0);
        let torn = log[ends[count]..cut].iter().any(|&byte| byte != 0);
        assert_eq!(scan(&log[..cut]), whole(count, ends[count], torn), "cut at {cut}");
        // (Behind a cut may have been zeros: then nothing is missing.)
        let filled = scan(&filled);
        assert!(filled.records.len() >= count && RECORDS.iter().zip(&filled.records).all(|(a, b)| a == b), "cut at {cut}");
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 4: a reader that finds the torn tail")]
fn a_flipped_bit_anywhere_ends_the_log_before_it() {
    let (log, ends) = log();
    for byte in 0..log.len() {
        for bit in 0..8 {
            let mut flipped = log.clone();
            flipped[byte] ^= 1 << bit;
            let count = ends.iter().filter(|&&end| end <= byte).count() - 1;
            assert_eq!(scan(&flipped), whole(count, ends[count], true), "bit {bit} of byte {byte}");
        }
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 4: a reader that finds the torn tail")]
fn a_length_is_believed_only_with_its_checksum() {
    let (mut log, ends) = log();
    for length in [u32::MAX, 1 << 31, log.len() as u32] {
        log.truncate(ends[5]);
        log.extend_from_slice(&length.to_le_bytes());
        log.extend_from_slice(&[1; 12]);
        assert_eq!(scan(&log), whole(5, ends[5], true));
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 4: a reader that finds the torn tail")]
fn a_whole_frame_of_another_time_does_not_count() {
    let (mut log, ends) = log();
    // What a reused file had here before: a sound frame, but not the one that is due.
    for lsn in [0, 5, 7, u64::MAX] {
        log.truncate(ends[5]);
        encode(lsn, b"an older life", &mut log);
        assert_eq!(scan(&log), whole(5, ends[5], true), "LSN {lsn}");
    }
}
