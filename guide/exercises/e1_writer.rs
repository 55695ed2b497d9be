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
        // The next LSN; length, LSN and bytes into the buffer; to the medium if it is full.
        todo!("exercise 1")
    }

    /// Gives the medium all that is in the buffer.
    ///
    /// # Errors
    /// If the medium has failed, now or before.
    pub fn flush(&mut self) -> io::Result<()> {
        // Until all is taken. Think of a write that takes less, takes nothing, or was interrupted.
        todo!("exercise 1")
    }

    /// Makes everything that was appended durable: up to which LSN.
    ///
    /// # Errors
    /// If the medium has failed, now or before.
    pub fn sync(&mut self) -> io::Result<u64> {
        // What comes first?
        todo!("exercise 1")
    }
}
