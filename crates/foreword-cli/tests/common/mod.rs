//! Runs the built command.
#![allow(dead_code)] // Each test file uses its part.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn foreword() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foreword"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!err.contains("panicked"), "{err}");
        Said { status: output.status.code().unwrap(), out: output.stdout, err }
    }
}

impl Said {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// As it should have ended.
    #[track_caller]
    pub(crate) fn status(self, status: i32) -> Said {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

pub(crate) fn run(args: &[&str]) -> Said {
    foreword().args(args).output().unwrap().into()
}

/// With standard input.
pub(crate) fn run_with(args: &[&str], input: &[u8]) -> Said {
    let mut child = foreword().args(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // It need not read all of it.
        let _ = stdin.write_all(&input);
    });
    let said = child.wait_with_output().unwrap().into();
    writer.join().unwrap();
    said
}

/// A process that is killed with the test, if it does not end before.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(args: &[&str]) -> Running {
    Running(foreword().args(args).stdin(Stdio::piped()).spawn().unwrap())
}

/// The command, to be run without the right to write, even where the tests run as root. It is
/// copied to a place that anyone can reach.
#[cfg(unix)]
pub(crate) fn unprivileged(place: &Path) -> Command {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let program = place.join("foreword");
    // By another process: were it open for writing in this one, another test's child could have
    // inherited it, and it would be busy.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_foreword")).arg(&program).status();
    assert!(copied.unwrap().success());
    for path in [place, &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if std::fs::metadata(place).unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    command
}

/// What the command writes to a terminal, on standard output, until it ends or there is enough of
/// it; then it is killed.
#[cfg(unix)]
pub(crate) fn on_terminal(command: Command, enough: impl Fn(&str) -> bool) -> String {
    on_terminal_of(0, command, enough)
}

/// The same on a terminal of this many columns; 0 if it does not say.
#[cfg(unix)]
pub(crate) fn on_terminal_of(columns: u16, mut command: Command, enough: impl Fn(&str) -> bool) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::io::Read;
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let screen = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut size = rustix::termios::tcgetwinsize(&screen).unwrap();
    size.ws_col = columns;
    rustix::termios::tcsetwinsize(&screen, size).unwrap();
    command.stdout(screen).stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    drop(command); // It has the other end open.
    let (mut shown, mut some) = (String::new(), [0; 4096]);
    let mut terminal = std::fs::File::from(terminal);
    // When the other end is closed there is an error.
    while let Ok(n) = terminal.read(&mut some) {
        shown.push_str(&String::from_utf8_lossy(&some[..n]));
        if enough(&shown) {
            running.0.kill().unwrap();
        }
    }
    running.0.wait().unwrap();
    shown
}

pub(crate) struct Dir {
    _temp: tempfile::TempDir,
    path: PathBuf,
}

/// A place for a log.
pub(crate) fn dir() -> Dir {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("log");
    Dir { _temp: temp, path }
}

impl Dir {
    pub(crate) fn str(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn segment(&self, epoch: u64) -> PathBuf {
        self.path.join(format!("{epoch:020}.seg"))
    }

    /// Changes a byte of a segment, as rot does.
    pub(crate) fn flip(&self, epoch: u64, offset: usize) {
        let mut bytes = std::fs::read(self.segment(epoch)).unwrap();
        bytes[offset] ^= 0x10;
        std::fs::write(self.segment(epoch), bytes).unwrap();
    }
}

/// Waits for something that must come soon.
#[track_caller]
pub(crate) fn soon(what: &str, mut is: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `1\n2\n..`: what `append` prints.
pub(crate) fn lsns(range: std::ops::RangeInclusive<u64>) -> String {
    range.map(|lsn| format!("{lsn}\n")).collect()
}
