//! The suite as a command: random cases, every crash state of small workloads, damage, and the
//! deliberate bugs.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use foreword_sim::suite::{Bounds, Case, Summary, damages, exhaustive, matrix};

/// As the standard one, which panics where nobody reads standard output any more (`| head`).
macro_rules! print {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($text)*);
    }};
}

/// Likewise.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

const USAGE: &str = "\
Tests the log on a simulated disk.

  foreword-sim [--seeds N] [--seed S]        N random cases (1000), from seed S (1) on
  foreword-sim --exhaustive [--steps N] [--states N] [--recovery-points N] [--seed S]
                                             every crash state of all workloads of up to N steps (3)
  foreword-sim --damage [--seed S]           damage of every kind in every sector of several logs
  foreword-sim --matrix                      what each fault does: the table in docs/GUARANTEES.md
  foreword-sim --bugs                        whether each deliberate bug is caught that one thread can show (built with --cfg foreword_bug)

The exit status is 0 if every invariant held, 1 if one did not, 2 for wrong arguments.";

/// The arguments: `--name` or `--name number`.
struct Arguments(Vec<(String, Option<u64>)>);

impl Arguments {
    fn parse() -> Option<Arguments> {
        let mut arguments: Vec<(String, Option<u64>)> = Vec::new();
        for argument in std::env::args().skip(1) {
            match (argument.strip_prefix("--"), arguments.last_mut()) {
                (Some(name), _) => arguments.push((name.to_owned(), None)),
                (None, Some((_, value @ None))) => *value = Some(argument.parse().ok()?),
                _ => return None,
            }
        }
        let known = ["seeds", "seed", "exhaustive", "steps", "states", "recovery-points", "damage", "matrix", "bugs", "bug"];
        arguments.iter().all(|(name, _)| known.contains(&name.as_str())).then_some(Arguments(arguments))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.0.iter().find(|(n, _)| n == name).and_then(|(_, value)| *value).unwrap_or(default)
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let seed = arguments.number("seed", 1);
    let held = if arguments.has("bugs") {
        bugs::table()
    } else if arguments.has("bug") {
        bugs::hunt()
    } else if arguments.has("exhaustive") {
        all_states(&arguments, seed)
    } else if arguments.has("matrix") {
        print!("{}", matrix());
        true
    } else if arguments.has("damage") {
        report(damages(seed).map(|tally| format!("{tally:?}")).map_err(|failure| failure.to_string()))
    } else {
        random(seed, arguments.number("seeds", 1000))
    };
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(result: Result<String, String>) -> bool {
    match &result {
        Ok(summary) => println!("{summary}"),
        Err(failure) => println!("FAILED: {failure}"),
    }
    result.is_ok()
}

/// A line that is overwritten, for a terminal only.
fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
        let _ = std::io::stderr().flush();
    }
}

fn all_states(arguments: &Arguments, seed: u64) -> bool {
    let steps = arguments.number("steps", 3) as usize;
    let bounds = Bounds {
        steps,
        steps_aged: steps.saturating_sub(1),
        states: arguments.number("states", 256) as usize,
        recovery_points: arguments.number("recovery-points", 1) as usize,
        seed,
        ..Bounds::default()
    };
    println!("{bounds:?}");
    let result = exhaustive(&bounds, &|done| progress(&format!("{:3.0} %", done * 100.0)));
    progress("");
    report(result.map(|tally| format!("{tally:?}")).map_err(|failure| failure.to_string()))
}

fn random(first: u64, count: u64) -> bool {
    let started = Instant::now();
    let mut sum = Summary::default();
    for seed in first..first.saturating_add(count) {
        let case = Case::new(seed);
        match case.run() {
            Ok(summary) => sum += summary,
            Err(violation) => {
                progress("");
                let shrunken = case.shrink();
                let again = shrunken.run().err();
                println!("FAILED: seed {seed}: {violation}");
                println!("shrunken to {} of {} events, which give: {again:?}", shrunken.events.len(), case.events.len());
                println!("{shrunken:#?}");
                return false;
            }
        }
        if seed % 16 == 0 {
            progress(&format!("seed {seed}: {} of {count} cases, {:.0} s", seed - first, started.elapsed().as_secs_f64()));
        }
    }
    progress("");
    println!("seeds {first} to {}: {sum:?}, {:.1} s", first + count - 1, started.elapsed().as_secs_f64());
    true
}

#[cfg(not(foreword_bug))]
mod bugs {
    pub(super) fn table() -> bool {
        eprintln!("this build has no deliberate bugs: see scripts/bugs.sh");
        false
    }

    pub(super) fn hunt() -> bool {
        table()
    }
}

#[cfg(foreword_bug)]
mod bugs {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use foreword::bug::Bug;
    use foreword_sim::suite::PARTS;

    /// The longest that a bug may take: a suite that hangs has caught the bug.
    const LIMIT: Duration = Duration::from_secs(300);

    /// Runs each bug in a process of its own, and one process without a bug.
    pub(super) fn table() -> bool {
        let mut all = true;
        println!("| deliberate bug | what it does | caught by |\n|---|---|---|");
        let bugs = Bug::ALL.iter().filter(|(bug, _)| ![Bug::OF_THREADS, Bug::OF_TESTS].concat().contains(bug));
        for (name, what) in std::iter::once(("none".to_owned(), "")).chain(bugs.map(|(bug, what)| (format!("{bug:?}"), *what))) {
            let caught = hunt_in_process(&name);
            all &= (name == "none") == (caught == "nothing");
            println!("| {name} | {} | {caught} |", what.trim());
        }
        println!(
            "{}",
            if all {
                "every bug is caught, and nothing else"
            } else {
                "FAILED: a bug is not caught, or something is that is none"
            }
        );
        all
    }

    fn hunt_in_process(name: &str) -> String {
        let run = || -> std::io::Result<String> {
            let mut command = Command::new(std::env::current_exe()?);
            let mut child =
                command.arg("--bug").env("FOREWORD_BUG", name).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
            let started = Instant::now();
            while child.try_wait()?.is_none() {
                if started.elapsed() > LIMIT {
                    child.kill()?;
                    return Ok("a run that does not end".to_owned());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(String::from_utf8_lossy(&child.wait_with_output()?.stdout).trim().to_owned())
        };
        run().unwrap_or_else(|error| error.to_string())
    }

    /// Names the first part of the suite that catches the active bug.
    pub(super) fn hunt() -> bool {
        for (part, run) in PARTS {
            match std::panic::catch_unwind(|| run(1)) {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    println!("{part}: {}", failure.replace('\n', " ").chars().take(200).collect::<String>());
                    return true;
                }
                Err(_) => {
                    println!("{part}: a panic");
                    return true;
                }
            }
        }
        println!("nothing");
        false
    }
}
