//! Fuzz targets: each a function that takes any bytes, and panics if the log or its command does
//! with them what it must not.
//!
//! The log's checksums would keep a fuzzer out. So [`recipe`] makes a directory of the bytes in
//! which frames are sealed again after they were changed, by [`forge`], which was written from
//! `docs/FORMAT.md`; what lies behind the checksums then meets every value there is. [`oracle`]
//! asks everything that can be asked of such a directory.

pub mod directory;
pub mod forge;
pub mod input;
pub mod options;
pub mod oracle;
pub mod recipe;
pub mod segment;

/// The command's own modules: it is a program and has no library. Of its errors they need one.
#[path = "../../crates/foreword-cli/src/decode.rs"]
#[allow(dead_code)]
mod decode;
#[path = "../../crates/foreword-cli/src/encode.rs"]
#[allow(dead_code)]
mod encode;
mod exit;
mod targets;

use foreword_command::units;
pub use targets::{TARGETS, Target};

/// The program of a target: libFuzzer under `--cfg fuzzing`; else it tries the files that it is
/// given.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| foreword_fuzz::$name::run(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            std::env::args_os().skip(1).try_for_each(|file| std::fs::read(file).map(|data| foreword_fuzz::$name::run(&data)))
        }
    };
}
