//! The ground that `doctor` and `bench` measure on: a directory of their own on the disk in question, an idle machine, and a bar that shows how far they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foreword_measure::Scratch;
use foreword_measure::idle::{CpuTimes, Idle, STEAL_MAX};
use foreword_measure::machine::{Machine, Place};
use foreword_measure::report::{Report, Unit};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::Failure;
use crate::units;

/// What both commands take.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// A directory on the disk to measure. Files are made in a new directory there, and removed; nothing else is touched
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Go on though the machine is busy: the figures are then those of a busy machine, and say so
    #[arg(long)]
    anyway: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the report, with plots, as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Where and when it was measured: part of every report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
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
                "{dir} has {free} free, and measuring takes {need}: name a directory on a disk with more"
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
                "the machine is busy: {why}. Times would not be the disk's. Try again when it is idle, or go on with --anyway"
            )));
        }
        for doubt in &doubts {
            crate::note(format_args!("the machine is busy: {doubt}"));
        }
        let setting = Setting { machine: Machine::here(), place, idle, doubts, seconds: 0.0 };
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

    /// A step is done; the error is that nobody wants another.
    pub(crate) fn step(&self) -> Result<(), Failure> {
        self.bar.inc(1);
        self.check()
    }

    /// Whether to go on.
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

/// A log's directory holds nothing but the log: what is measured beside it is the same disk.
fn beside_a_log(dir: &Path) -> Result<PathBuf, Failure> {
    if !dir.join("LOG").is_file() {
        return Ok(dir.to_owned());
    }
    let parent = dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
    let same_disk =
        |parent: &PathBuf| Place::of(parent).ok().map(|p| p.mount_point) == Place::of(dir).ok().map(|p| p.mount_point);
    parent.filter(same_disk).ok_or_else(|| {
        Failure::Wrong(format!(
            "{} is a log, and its parent is on another disk: name another directory on this one",
            dir.display()
        ))
    })
}

/// That the page can be written is better known before than after.
fn check_page(page: &Path) -> Result<(), Failure> {
    let dir = page.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match dir.is_dir() && !page.is_dir() {
        true => Ok(()),
        false => Err(Failure::Wrong(format!("{} cannot be written: no such directory, or it is one itself", page.display()))),
    }
}

/// Writes the page, if one is wanted, and says where it is.
pub(crate) fn write_page(args: &Args, report: impl FnOnce() -> Report) -> Result<(), Failure> {
    let Some(page) = &args.html else { return Ok(()) };
    std::fs::write(page, report().to_html()).map_err(Failure::io("write the report"))?;
    crate::note(format_args!("the report is {}", page.display()));
    Ok(())
}

impl Setting {
    /// The facts of a report: what was measured, and on what.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let Setting { machine, place, idle, .. } = self;
        let mut facts = vec![("directory", place.dir.display().to_string())];
        let name = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
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
        let Some(device) = &self.place.device else { return "none that the system names".to_owned() };
        let mut parts = vec![device.name.clone()];
        parts.extend(device.model.clone());
        if !device.parts.is_empty() {
            parts.push(format!("made of {}", device.parts.join(", ")));
        }
        parts.extend(device.rotational.map(|is| if is { "says that it rotates" } else { "does not rotate" }.to_owned()));
        parts.extend(device.volatile_cache.map(|is| if is { "volatile write cache" } else { "write-through" }.to_owned()));
        parts.extend(device.fua.map(|is| if is { "FUA" } else { "no FUA" }.to_owned()));
        parts.join(", ")
    }
}
