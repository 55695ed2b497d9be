//! What `doctor` and `bench` share: a directory of their own on the disk, an idle machine, a
//! progress bar, and the report's facts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use foreword_measure::Scratch;
use foreword_measure::idle::{CpuTimes, Idle, STEAL_MAX};
use foreword_measure::machine::{Machine, Place};
use foreword_measure::report::{Report, Unit};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::baseline::{Baseline, Quantities};
use crate::exit::Failure;
use foreword_command::units;

/// What both commands take.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// A directory on the disk to measure. Files are created in a new directory there and removed;
    /// nothing else is touched
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Measure even if the machine is busy; the report then says so
    #[arg(long)]
    anyway: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the report, with plots, as one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Compare with an earlier report of this command, a file with what `--json` printed
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

impl Args {
    /// The report to compare with, if one is named. Read before anything is measured.
    pub(super) fn baseline(&self, quantities: Quantities) -> Result<Option<Baseline>, Failure> {
        self.baseline.as_ref().map(|file| Baseline::read(file, quantities)).transpose()
    }
}

/// Where and when it was measured: part of every report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    /// When it began, in UTC.
    pub(crate) started: String,
    /// The name of the machine, if the system tells it.
    pub(crate) host: Option<String>,
    /// The command line, as a shell takes it.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) place: Place,
    /// Before it began.
    pub(crate) idle: Idle,
    /// Why the figures are to be doubted; empty if the machine was idle.
    pub(crate) doubts: Vec<String>,
    pub(crate) seconds: f64,
}

pub(crate) struct Ground {
    scratch: Scratch,
    setting: Setting,
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
    started: Instant,
    cpu: Option<CpuTimes>,
}

impl Ground {
    /// Looks at the machine and the disk, and makes a directory. `need` bytes must be free.
    pub(crate) fn enter(args: &Args, name: &str, need: u64) -> Result<Ground, Failure> {
        let place = Place::of(&beside_a_log(&args.dir)?)?;
        if let Some(free) = place.free_bytes.filter(|&free| free < need) {
            let (dir, need, free) = (place.dir.display(), units::human(need), units::human(free));
            return Err(Failure::Wrong(format!(
                "{dir} has {free} free, but measuring needs {need}: name a directory on a disk with more"
            )));
        }
        if let Some(page) = &args.html {
            check_page(page)?;
        }
        let scratch = Scratch::new(&place.dir, name)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // A second one does not wait for the files to be removed.
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())
                .and_then(|_| signal_hook::flag::register(signal, interrupted.clone()))
                .map_err(Failure::io("handle signals"))?;
        }
        let idle = Idle::look(Duration::from_secs(1));
        let doubts = idle.objections();
        if !doubts.is_empty() && !args.anyway {
            let why = doubts.join("; ");
            return Err(Failure::Wrong(format!(
                "the machine is busy: {why}. The times would not be the disk's. Try again when it is idle, or measure with --anyway"
            )));
        }
        for doubt in &doubts {
            crate::output::note(format_args!("the machine is busy: {doubt}"));
        }
        let setting = Setting {
            started: units::timestamp_seconds(SystemTime::now()),
            host: host(),
            command: command_line(std::env::args_os()),
            machine: Machine::here(),
            place,
            idle,
            doubts,
            seconds: 0.0,
        };
        let bar = ProgressBar::new(0);
        Ok(Ground { scratch, setting, bar, interrupted, started: Instant::now(), cpu: CpuTimes::now() })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn place(&self) -> &Place {
        &self.setting.place
    }

    /// How many steps there will be.
    pub(crate) fn expect(&self, steps: usize) {
        self.bar.set_length(steps as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %, {eta} to go  {msg}") {
            self.bar.set_style(style);
        }
    }

    /// What is being done now.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// A step is done. Fails if the measurement was interrupted.
    pub(crate) fn step(&self) -> Result<(), Failure> {
        self.bar.inc(1);
        self.check()
    }

    /// Whether to continue.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.interrupted.load(Ordering::Relaxed) {
            true => Err(Failure::Wrong("interrupted; the files are removed".to_owned())),
            false => Ok(()),
        }
    }

    /// The end: how it was while it was measured.
    pub(crate) fn leave(self) -> Setting {
        self.bar.finish_and_clear();
        let mut setting = self.setting;
        setting.seconds = self.started.elapsed().as_secs_f64();
        let steal = CpuTimes::now().zip(self.cpu).map_or(0.0, |(now, before)| now.since(&before).steal);
        if steal > STEAL_MAX {
            setting
                .doubts
                .push(format!("while it was measured, the hypervisor gave {:.0} % of the time to other guests", steal * 100.0));
        }
        setting
    }
}

/// The name of this machine, where the system tells it.
fn host() -> Option<String> {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    Some(name).filter(|name| !name.is_empty())
}

/// The arguments as a line that a shell takes for the same. The program is named without its
/// directory.
fn command_line(args: impl Iterator<Item = OsString>) -> String {
    let mut words: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let Some(program) = words.first_mut() {
        *program = "foreword".to_owned();
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || "-_=./:,+@%".contains(c);
    match !word.is_empty() && word.chars().all(harmless) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A log's directory contains nothing but the log, so the measurement uses a directory next to it,
/// on the same disk.
fn beside_a_log(dir: &Path) -> Result<PathBuf, Failure> {
    if !dir.join("LOG").is_file() {
        return Ok(dir.to_owned());
    }
    let parent = dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
    let same_disk =
        |parent: &PathBuf| Place::of(parent).ok().map(|p| p.mount_point) == Place::of(dir).ok().map(|p| p.mount_point);
    parent.filter(same_disk).ok_or_else(|| {
        Failure::Wrong(format!(
            "{} is a log, and its parent directory is on another disk: name another directory on this disk",
            dir.display()
        ))
    })
}

/// Checks before the measurement that the page can be written after it.
fn check_page(page: &Path) -> Result<(), Failure> {
    let dir = page.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match dir.is_dir() && !page.is_dir() {
        true => Ok(()),
        false => Err(Failure::Wrong(format!(
            "{} cannot be written: its directory does not exist, or it is a directory itself",
            page.display()
        ))),
    }
}

/// Writes the page, if one is wanted, and says where it is.
pub(crate) fn write_page(args: &Args, report: impl FnOnce() -> Report) -> Result<(), Failure> {
    let Some(page) = &args.html else { return Ok(()) };
    std::fs::write(page, report().to_html()).map_err(Failure::io("write the report"))?;
    crate::output::note(format_args!("the report is {}", page.display()));
    Ok(())
}

impl Setting {
    /// The facts of a report: what was measured, and on what.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let Setting { machine, place, idle, .. } = self;
        let name = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let mut facts = vec![("date", self.started.clone()), ("host", name(&self.host)), ("command", self.command.clone())];
        facts.push(("directory", place.dir.display().to_string()));
        facts.push(("file system", format!("{} on {}", name(&place.file_system), name(&place.source))));
        facts.push(("mount options", place.mount_options.join(", ")));
        facts.push(("device", self.device()));
        let memory = machine.memory_bytes.map_or(String::new(), |bytes| format!(", {} of memory", units::human(bytes)));
        facts.push(("machine", format!("{}, {} processors{memory}", machine.cpu, machine.cpus)));
        let hypervisor = machine.hypervisor.as_ref().map_or(String::new(), |name| format!(", in a virtual machine ({name})"));
        facts.push(("system", format!("{}{hypervisor}", machine.system)));
        let cpu = idle.cpu.map_or("unknown".to_owned(), |cpu| {
            format!("others used {:.1} % of the processors, steal {:.1} %", cpu.busy * 100.0, cpu.steal * 100.0)
        });
        let load = idle.load.map_or(String::new(), |load| format!("; load average {load:.2}"));
        facts.push(("before it began", format!("{cpu}{load}")));
        facts.push(("measured", format!("by foreword {}, in {}", env!("CARGO_PKG_VERSION"), Unit::Seconds.text(self.seconds))));
        facts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn device(&self) -> String {
        let Some(device) = &self.place.device else { return "unknown".to_owned() };
        let mut parts = vec![device.name.clone()];
        parts.extend(device.model.clone());
        if !device.parts.is_empty() {
            parts.push(format!("made of {}", device.parts.join(", ")));
        }
        parts.extend(device.rotational.map(|is| if is { "rotational, as the system says" } else { "not rotational" }.to_owned()));
        parts.extend(device.volatile_cache.map(|is| if is { "volatile write cache" } else { "write-through" }.to_owned()));
        parts.extend(device.fua.map(|is| if is { "FUA" } else { "no FUA" }.to_owned()));
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_copied() {
        let line = |args: &[&str]| command_line(args.iter().map(OsString::from));
        assert_eq!(line(&["/usr/bin/foreword", "doctor", "/var/lib/db", "--for", "1s"]), "foreword doctor /var/lib/db --for 1s");
        assert_eq!(line(&["f", "bench", "my disk", "it's", ""]), r"foreword bench 'my disk' 'it'\''s' ''");
    }
}
