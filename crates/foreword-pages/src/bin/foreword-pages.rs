//! `foreword-pages`: recovers a page store and shows how.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use foreword_pages::Options;

const USAGE: &str = "\
usage: foreword-pages recover DIR [--svg FILE] [--threads N] [--pool MIB]

Opens the page store in DIR, which recovers it if it was not closed, prints what that found and did, and closes it.

  --svg FILE    draw the picture of it, too
  --threads N   redo with so many threads (default: as many as there are processors)
  --pool MIB    the size of the buffer pool (default: 64)

exit status: 0 recovered, 1 it could not be, 2 the command was not understood";

struct Command {
    dir: PathBuf,
    svg: Option<PathBuf>,
    options: Options,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        say(USAGE)
    } else {
        match parse(&args) {
            Ok(command) => recover(&command),
            Err(why) => {
                complain(&format!("{why}\n\n{USAGE}"));
                return ExitCode::from(2);
            }
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| format!("standard output: {e}"))
}

fn complain(why: &str) {
    // If standard error cannot be written either, the exit status tells.
    let _ = writeln!(std::io::stderr(), "foreword-pages: {why}");
}

fn parse(args: &[String]) -> Result<Command, String> {
    let mut args = args.iter();
    if args.next().map(String::as_str) != Some("recover") {
        return Err("the command is `recover`".into());
    }
    let log = foreword::Options::new().create(false);
    let mut command = Command { dir: PathBuf::new(), svg: None, options: Options::new().log(log) };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: &String| text.parse::<usize>().map_err(|_| format!("{text} is not a number"));
        match arg.as_str() {
            "--svg" => command.svg = Some(value()?.into()),
            "--threads" => command.options = command.options.recovery_threads(number(value()?)?),
            "--pool" => command.options = command.options.pool_bytes(number(value()?)?.saturating_mul(1 << 20)),
            flag if flag.starts_with('-') => return Err(format!("what is {flag}?")),
            dir if command.dir.as_os_str().is_empty() => command.dir = dir.into(),
            more => return Err(format!("one directory, not also {more}")),
        }
    }
    if command.dir.as_os_str().is_empty() { Err("which directory?".into()) } else { Ok(command) }
}

fn recover(command: &Command) -> Result<(), String> {
    let store = command.options.open(&command.dir).map_err(|e| e.to_string())?;
    say(&store.recovery().to_string())?;
    if let Some(path) = &command.svg {
        std::fs::write(path, store.recovery().to_svg()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    store.close().map_err(|e| e.to_string())
}
