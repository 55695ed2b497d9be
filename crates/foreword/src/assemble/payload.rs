//! What a call appends: the bytes of a unit, where the caller has them. **No I/O.**

/// Records, each in as many slices as the others. Frames gather the bytes from here: they are copied
/// once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<'a> {
    slices: &'a [&'a [u8]],
    records: usize,
    bytes: u64,
}

impl<'a> Payload<'a> {
    /// A record in each slice.
    #[inline]
    pub(crate) fn records(slices: &'a [&'a [u8]]) -> Payload<'a> {
        Payload { slices, records: slices.len(), bytes: sum(slices) }
    }

    /// One record, in parts. Without any it is empty.
    pub(crate) fn parts(slices: &'a [&'a [u8]]) -> Payload<'a> {
        const NONE: &[&[u8]] = &[&[]];
        let slices = if slices.is_empty() { NONE } else { slices };
        Payload { slices, records: 1, bytes: sum(slices) }
    }

    /// So many records, each in as many parts as the others.
    pub(crate) fn batch_parts(slices: &'a [&'a [u8]], records: usize) -> Payload<'a> {
        Payload { slices, records, bytes: sum(slices) }
    }

    /// How many records there are.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.records
    }

    /// Their bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Their bytes in frames, each behind its length.
    #[inline]
    pub(crate) fn framed(&self) -> u64 {
        self.bytes + 4 * self.records as u64
    }

    /// Each record, as its parts.
    #[inline]
    pub(crate) fn each(&self) -> impl Iterator<Item = &'a [&'a [u8]]> + use<'a> {
        // (The append of a single record divides nothing.)
        let parts = |records: usize| (self.slices.len() / records.max(1)).max(1);
        self.slices.chunks(if self.records == 1 { self.slices.len() } else { parts(self.records) })
    }
}

/// The bytes of all slices: of a record, if they are its parts.
#[inline]
pub(crate) fn sum(slices: &[&[u8]]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}
