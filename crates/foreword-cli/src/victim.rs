//! A process of this program that is killed while it works.

use std::io::{BufReader, Stdout, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use crate::exit::Failure;

/// What a worker process is to do
#[derive(clap::Args)]
pub(crate) struct Args {
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) threads: u64,
    #[arg(long)]
    pub(crate) round: u64,
    #[arg(long)]
    pub(crate) seed: u64,
    /// Open the log by a relative path, and go to this directory then
    #[arg(long)]
    pub(crate) leave: Option<PathBuf>,
}

/// A worker process. Dropping this kills it.
pub(crate) struct Victim<T> {
    child: Child,
    /// Hears all that it says, until it is dead.
    listener: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Victim<T> {
    /// Starts this program as one of its workers. What the process says comes to `listen`, in a
    /// thread of its own.
    pub(crate) fn start(
        worker: &str,
        args: &Args,
        listen: impl FnOnce(BufReader<ChildStdout>) -> T + Send + 'static,
    ) -> Result<Victim<T>, Failure> {
        let mut command = Command::new(std::env::current_exe().map_err(Failure::io("find this program"))?);
        command.arg(worker);
        match (&args.leave, args.dir.parent(), args.dir.file_name()) {
            (Some(leave), Some(parent), Some(name)) => command.arg(name).arg("--leave").arg(leave).current_dir(parent),
            _ => command.arg(&args.dir),
        };
        for (name, value) in [("--threads", args.threads), ("--round", args.round), ("--seed", args.seed)] {
            command.arg(name).arg(value.to_string());
        }
        // In a group of its own: an interrupt from the terminal is for us alone.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(Failure::io("start the child process"))?;
        let mut victim = Victim { child, listener: None };
        let pipe = victim.child.stdout.take().ok_or_else(|| Failure::Wrong("the child process has no output".to_owned()))?;
        victim.listener = Some(std::thread::spawn(move || listen(BufReader::new(pipe))));
        Ok(victim)
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        self.child.try_wait().map_err(Failure::io("look after the child process"))
    }

    /// Kills it (SIGKILL): what the listener has made of all that it said.
    pub(crate) fn kill(mut self) -> Result<T, Failure> {
        self.child.kill().and_then(|()| self.child.wait()).map_err(Failure::io("kill the child process"))?;
        let heard = self.listener.take().and_then(|listener| listener.join().ok());
        heard.ok_or_else(|| Failure::Wrong("the listening thread panicked".to_owned()))
    }
}

impl<T> Drop for Victim<T> {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the victim says: one line in one write, which a pipe takes whole or not at all.
pub(crate) fn say(out: &Stdout, line: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = out.lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
}
