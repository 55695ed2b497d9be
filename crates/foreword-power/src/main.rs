//! Power failures at the block level: what ext4, XFS and Btrfs send to a disk under a log, and what
//! the log is after any of it that was not flushed is lost.

//!
//! The disk is a file in user space: the feature `fuse`, off by default, since nothing else here
//! needs what that brings with it.

#[cfg(not(all(target_os = "linux", feature = "fuse")))]
fn main() {
    eprintln!("this needs Linux and `--features fuse`; see scripts/power-failure.sh");
    std::process::exit(2);
}

#[cfg(all(target_os = "linux", feature = "fuse"))]
fn main() -> std::process::ExitCode {
    command::main()
}

#[cfg(all(target_os = "linux", feature = "fuse"))]
mod campaign;
#[cfg(all(target_os = "linux", feature = "fuse"))]
mod command;
#[cfg(all(target_os = "linux", feature = "fuse"))]
mod drive;
#[cfg(all(target_os = "linux", feature = "fuse"))]
mod fdatasync;
#[cfg(all(target_os = "linux", feature = "fuse"))]
mod life;
#[cfg(all(target_os = "linux", feature = "fuse"))]
mod machine;
#[cfg(all(target_os = "linux", feature = "fuse"))]
mod tally;

// Their tests run without a disk.
#[cfg(all(target_os = "linux", any(test, feature = "fuse")))]
#[cfg_attr(not(feature = "fuse"), allow(dead_code))]
mod history;
#[cfg(all(target_os = "linux", any(test, feature = "fuse")))]
#[cfg_attr(not(feature = "fuse"), allow(dead_code))]
mod image;
#[cfg(all(target_os = "linux", any(test, feature = "fuse")))]
#[cfg_attr(not(feature = "fuse"), allow(dead_code))]
mod recording;
