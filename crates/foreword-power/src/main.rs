//! Power failures at the block level: what ext4, XFS and Btrfs send to a disk under a log, and what
//! the log is after any of it that was not flushed is lost.
//!
//! The disk is a file in user space. So it runs on Linux only.

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this needs Linux; see scripts/power-failure.sh");
    std::process::exit(2);
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    command::main()
}

#[cfg(target_os = "linux")]
mod campaign;
#[cfg(target_os = "linux")]
mod command;
#[cfg(target_os = "linux")]
mod drive;
#[cfg(target_os = "linux")]
mod fdatasync;
#[cfg(target_os = "linux")]
mod history;
#[cfg(target_os = "linux")]
mod image;
#[cfg(target_os = "linux")]
mod life;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod recording;
#[cfg(target_os = "linux")]
mod tally;
