//! Exercise 1: a writer that buffers (chapter 2).
//!
//! Records are appended to a buffer in memory, each as `length u32, lsn u64, bytes`, little-endian.
//! When the buffer has `capacity` bytes or more, or when asked, all of it goes to the medium.
//! `sync` makes everything that was appended durable, so it must write first.
//!
//! A write may be cut short: the medium takes some bytes and says how many. And a medium that has
//! failed once is not to be trusted: from then on every call is an error.

use std::io;

/// What a file is to a writer.
pub trait Medium {
    /// Takes some of the bytes, at the end of what it has: how many. Taking none of some is a
    /// failure.
    ///
    /// # Errors
    /// Nothing is known of what was taken.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Makes durable what it took.
    ///
    /// # Errors
    /// Nothing is known of what is durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Writes records to a medium.
#[derive(Debug)]
pub struct Writer<M> {
    medium: M,
    capacity: usize,
    buffer: Vec<u8>,
    last: u64,
    durable: u64,
    failed: bool,
}

impl<M: Medium> Writer<M> {
    /// A writer to an empty medium.
    pub fn new(medium: M, capacity: usize) -> Writer<M> {
        Writer { medium, capacity, buffer: Vec::with_capacity(capacity), last: 0, durable: 0, failed: false }
    }

    /// The LSN that is durable, with all before it; 0 if none is.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The medium, to look at.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Appends a record: its LSN, from 1, without gaps.
    ///
    /// # Errors
    /// If the medium has failed, now or before.
    pub fn append(&mut self, record: &[u8]) -> io::Result<u64> {
        self.check()?;
        let length = u32::try_from(record.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.last += 1;
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&self.last.to_le_bytes());
        self.buffer.extend_from_slice(record);
        if self.buffer.len() >= self.capacity {
            self.flush()?;
        }
        Ok(self.last)
    }

    /// Gives the medium all that is in the buffer.
    ///
    /// # Errors
    /// If the medium has failed, now or before.
    pub fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            match self.medium.write(rest) {
                Ok(0) => {
                    self.failed = true;
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(taken) => rest = &rest[taken..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        self.buffer.clear();
        Ok(())
    }

    /// Makes everything that was appended durable: up to which LSN.
    ///
    /// # Errors
    /// If the medium has failed, now or before.
    pub fn sync(&mut self) -> io::Result<u64> {
        self.flush()?;
        if let Err(error) = self.medium.sync() {
            self.failed = true;
            return Err(error);
        }
        self.durable = self.last;
        Ok(self.durable)
    }

    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("the medium failed before")) } else { Ok(()) }
    }
}
