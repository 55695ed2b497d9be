//! Exercise 1: `guide/exercises/e1_writer.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;

use foreword_guide::e1_writer::{Medium, Writer};

/// Notes what it was asked, and does what it is told to.
#[derive(Debug, Default)]
struct Notes {
    bytes: Vec<u8>,
    writes: usize,
    durable: usize,
    /// How much it takes at a time.
    appetite: Option<usize>,
    interrupted: bool,
    fail_write: bool,
    fail_sync: bool,
}

impl Medium for Notes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if std::mem::take(&mut self.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if std::mem::take(&mut self.fail_write) {
            return Err(io::Error::other("broken"));
        }
        let taken = bytes.len().min(self.appetite.unwrap_or(usize::MAX));
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.fail_sync) {
            return Err(io::Error::other("broken"));
        }
        self.durable = self.bytes.len();
        Ok(())
    }
}

fn encoded(records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, record) in records.iter().enumerate() {
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(i as u64 + 1).to_le_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 1: a writer that buffers")]
fn lsns_are_dense_and_nothing_is_written_before_the_buffer_is_full() {
    let mut writer = Writer::new(Notes::default(), 100);
    assert_eq!((writer.append(b"one").unwrap(), writer.append(b"").unwrap()), (1, 2));
    assert_eq!((writer.medium().writes, writer.durable()), (0, 0));
    assert_eq!(writer.append(&[7; 80]).unwrap(), 3);
    assert_eq!(writer.medium().writes, 1, "one call for three records");
    assert_eq!(writer.medium().bytes, encoded(&[b"one", b"", &[7; 80]]));
    assert_eq!((writer.medium().durable, writer.durable()), (0, 0), "written is not durable");
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 1: a writer that buffers")]
fn sync_writes_first() {
    let mut writer = Writer::new(Notes::default(), 4096);
    writer.append(b"one").unwrap();
    writer.append(b"two").unwrap();
    assert_eq!(writer.sync().unwrap(), 2);
    assert_eq!(writer.medium().durable, encoded(&[b"one", b"two"]).len());
    assert_eq!(writer.durable(), 2);
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 1: a writer that buffers")]
fn what_is_cut_short_or_interrupted_goes_on() {
    let mut writer = Writer::new(Notes { appetite: Some(5), interrupted: true, ..Notes::default() }, 4096);
    writer.append(b"a record of some length").unwrap();
    writer.append(b"and another").unwrap();
    writer.sync().unwrap();
    assert_eq!(writer.medium().bytes, encoded(&[b"a record of some length", b"and another"]));
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 1: a writer that buffers")]
fn a_medium_that_takes_nothing_has_failed() {
    let mut writer = Writer::new(Notes { appetite: Some(0), ..Notes::default() }, 4096);
    writer.append(b"one").unwrap();
    assert!(writer.flush().is_err());
    assert!(writer.sync().is_err());
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 1: a writer that buffers")]
fn after_a_failure_nothing_is_claimed() {
    for (fail_write, fail_sync) in [(true, false), (false, true)] {
        let mut writer = Writer::new(Notes { fail_write, fail_sync, ..Notes::default() }, 4096);
        writer.append(b"one").unwrap();
        assert!(writer.sync().is_err());
        assert_eq!(writer.durable(), 0);
        // The medium would say yes now. Nobody knows what it has.
        assert!(writer.sync().is_err() && writer.append(b"two").is_err() && writer.flush().is_err());
        assert_eq!(writer.durable(), 0);
    }
}
