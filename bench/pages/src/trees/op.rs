//! Operations, and what they write.

use crate::rng::Rng;

/// Rows of the transfers.
pub(crate) const ACCOUNTS: u64 = 10_000;
/// Bytes of a value: ten fields of a hundred, as YCSB has them.
pub(crate) const VALUE: usize = 1000;
const FIELD: usize = 100;

/// An operation on keys, by their numbers.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Read(u64),
    /// A value that names the write: [`value`].
    Put {
        n: u64,
        write: u64,
        value: Vec<u8>,
    },
    /// Changes the first field: [`change`].
    ReadAndPut(u64),
    /// From a key on, so many.
    Scan(u64, usize),
    /// Of 1 from an account to another: [`legs`].
    Transfer(u64, u64),
}

/// A key by its number.
pub(crate) fn key(n: u64) -> [u8; 16] {
    let mut key = *b"user000000000000";
    let (mut at, mut n) = (key.len(), n);
    while n > 0 && at > 4 {
        at -= 1;
        key[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    key
}

/// What a write gives a key, different for each; write 0 is the first filling.
pub(crate) fn value(n: u64, write: u64) -> Vec<u8> {
    let mut value = Rng(n << 40 ^ write).bytes(VALUE);
    value[FIELD..FIELD + 8].copy_from_slice(&write.to_le_bytes());
    value
}

/// The write that gave a value, also when it was changed since.
pub(crate) fn write_of(value: &[u8]) -> Option<u64> {
    value.get(FIELD..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// What [`Op::ReadAndPut`] makes of a value, so many times.
pub(crate) fn change(value: &mut [u8], times: u8) {
    value.iter_mut().take(FIELD).for_each(|byte| *byte = byte.wrapping_add(times));
}

/// The two changes of a transfer: the account's key, and what is added.
pub(crate) fn legs(from: u64, to: u64) -> [([u8; 8], u64); 2] {
    [(from.to_be_bytes(), u64::MAX), (to.to_be_bytes(), 1)]
}

/// An account's value after such a change.
pub(crate) fn sum(value: &[u8], added: u64) -> [u8; 8] {
    value.first_chunk().copied().map_or(0, u64::from_le_bytes).wrapping_add(added).to_le_bytes()
}
