//! The bytes that are written: incompressible, the same for every contestant and in every run.

use std::sync::LazyLock;

/// Small enough for a processor's cache, so that it is the logs that are measured.
const POOL: usize = 1 << 20;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    (0..POOL / 8).flat_map(|_| next()).collect()
});

/// The `i`-th record of a size (at most 64 KiB).
pub fn record(size: usize, i: usize) -> &'static [u8] {
    let slots = POOL / size.max(1);
    let at = (i % slots) * size;
    &BYTES[at..at + size]
}

/// All of them: 1 MiB.
pub fn all() -> &'static [u8] {
    &BYTES
}
