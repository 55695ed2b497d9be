//! What people see: colours where a terminal wants them and nowhere else, columns below one
//! another, completions, manual pages.

use std::fs;
use std::process::Command;

use crate::common;
use crate::common::{Dir, Said, dir, foreword, lsns, on_terminal, run, run_with};
use foreword::{Lsn, Options};

fn log() -> Dir {
    let dir = dir();
    run_with(&["append", dir.str(), "--quiet", "--segment-size", "64K"], lsns(1..=30_000).as_bytes()).status(0);
    dir
}

fn shown(args: &[&str], vars: &[(&str, &str)]) -> String {
    let mut command = foreword();
    command.args(args);
    shown_by(command, vars)
}

fn shown_by(mut command: Command, vars: &[(&str, &str)]) -> String {
    // What a terminal and its user would have, whatever the tests run in (`CI` makes even a dumb
    // terminal coloured).
    for var in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(var);
    }
    command.env("TERM", "xterm");
    command.envs(vars.iter().copied());
    on_terminal(command, |_| false).replace("\r\n", "\n")
}

/// Without its colours.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').unwrap().1)
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let dir = log();
    for command in ["stat", "verify", "dump"] {
        let args = [command, dir.str()];
        let piped = run(&args).status(0).text().to_owned();
        assert!(!piped.contains('\x1b'), "{command}");
        let coloured = shown(&args, &[]);
        assert!(coloured.contains('\x1b'), "{command}: {coloured:?}");
        // But for the colours they are the same, so what is aligned stays so.
        assert_eq!(plain(&coloured), piped, "{command}");
        assert_eq!(shown(&args, &[("NO_COLOR", "1")]), piped, "{command}");
        assert_eq!(shown(&args, &[("TERM", "dumb")]), piped, "{command}");
        assert_eq!(shown(&[&args[..], &["--color", "never"]].concat(), &[]), piped, "{command}");
        let forced = run(&[&["--color", "always"], &args[..]].concat()).status(0).text().to_owned();
        assert_eq!(forced, coloured, "{command}");
        let json = shown(&[command, dir.str(), "--json"], &[]);
        assert!(!json.contains('\x1b'), "{command}: {json}");
    }
    // Errors, too.
    let mut both = Command::new("sh");
    both.args(["-c", "exec \"$@\" 2>&1", "sh", env!("CARGO_BIN_EXE_foreword"), "stat", "/no/such/place"]);
    let missing = shown_by(both, &[]);
    assert!(missing.starts_with("\x1b[") && plain(&missing).starts_with("foreword: there is no log"), "{missing:?}");
    assert!(!run(&["stat", "/no/such/place"]).err.contains('\x1b'));
    assert!(shown(&["--help"], &[]).contains('\x1b') && !shown(&["--help"], &[("NO_COLOR", "1")]).contains('\x1b'));
    run(&["--color", "pink", "stat", dir.str()]).status(1);
}

#[test]
fn records_go_to_a_terminal_as_they_are() {
    let dir = dir();
    run_with(&["append", dir.str()], b"\x1b[31mred\x1b[0m\n").status(0);
    assert_eq!(run(&["cat", dir.str(), "--color", "never"]).status(0).out, b"\x1b[31mred\x1b[0m\n");
    assert_eq!(shown(&["cat", dir.str()], &[("NO_COLOR", "1")]), "\x1b[31mred\x1b[0m\n");
}

/// Moves the cursor, begins a line, turns the rest of the line around, hides, and clears the screen
/// (C1).
const HOSTILE: &str = "a\x1b[31m\r\nfake line\u{202e}b\u{200b}c\u{9b}2Jd\u{7f}\u{2066}é";
const HARMLESS: &str = r"a\u{1b}[31m\r\nfake line\u{202e}b\u{200b}c\u{9b}2Jd\u{7f}\u{2066}é";

/// Nothing in it does anything to a terminal, but begin a line.
#[track_caller]
fn tame(said: &Said) {
    for text in [said.text(), &said.err] {
        let wild = |c: char| c != '\n' && c.is_control() || "\u{202e}\u{200b}\u{2066}".contains(c);
        assert!(!text.contains(wild) && !text.contains("\nfake line"), "{text:?}");
    }
}

#[test]
fn names_of_holds_do_nothing_to_a_terminal_and_are_exact_in_json() {
    let dir = dir();
    let log = Options::new().segment_bytes(64 << 10).open(dir.path()).unwrap();
    for _ in 0..9 {
        log.append(b"record").unwrap();
    }
    log.sync().unwrap();
    log.hold(HOSTILE, Lsn(3)).unwrap();
    common::soon("what the log says", || run(&["top", dir.str(), "--once", "--json"]).json()["holds"][HOSTILE] == 3);
    let top = run(&["top", dir.str(), "--once"]).status(0);
    let text = |args: &[&str]| {
        let said = run(args);
        tame(&said);
        format!("{}{}", said.text(), said.err)
    };
    tame(&top);
    assert!(top.text().contains(HARMLESS), "{top:?}");
    log.close().unwrap();
    for (args, status) in
        [(&["stat"][..], 0), (&["dump"], 0), (&["truncate", "--before", "6"], 0), (&["hold", "\x1b[2Jx", "--release"], 1)]
    {
        let args = [&[args[0], dir.str()], &args[1..]].concat();
        let said = text(&args);
        assert!(said.contains(if status == 0 { HARMLESS } else { r"\u{1b}[2Jx" }), "{args:?}: {said}");
    }
    let stat = run(&["stat", dir.str(), "--json"]).status(0);
    tame(&stat);
    assert_eq!(stat.json()["holds"][HOSTILE], 3, "exact");
    let dump = run(&["dump", dir.str(), "--json"]).status(0);
    tame(&dump);
    let holds = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["state"]["holds"][HOSTILE] == 3;
    assert!(dump.text().lines().any(holds));
    run(&["hold", dir.str(), HOSTILE, "--release"]).status(0);
}

#[test]
fn paths_and_what_strangers_wrote_do_nothing_to_a_terminal() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(HOSTILE);
    let log = path.to_str().unwrap();
    let text = |args: &[&str], status| {
        let said = run(args).status(status);
        tame(&said);
        format!("{}{}", said.text(), said.err)
    };
    for command in ["stat", "cat", "verify", "dump", "top", "repair"] {
        assert!(text(&[command, log], 1).contains(HARMLESS), "{command}");
    }
    for args in [&["stat", "x", HOSTILE][..], &["top", "x", "--interval", HOSTILE], &[HOSTILE]] {
        assert!(text(args, 1).contains(HARMLESS), "{args:?}");
    }
    let many = lsns(1..=20_000);
    run_with(&["append", log, "--quiet", "--segment-size", "64K"], many.as_bytes()).status(0);
    assert!(text(&["top", log, "--once"], 0).contains(HARMLESS));
    // The process that has the log open, as a file says that any user may write.
    let opened = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    fs::write(path.join("LOCK"), format!("process {HOSTILE}")).unwrap();
    assert!(text(&["truncate", log, "--before", "2"], 1).contains(HARMLESS));
    text(&["top", log, "--once"], 0);
    drop(opened);
    let (mut bytes, segment) = (Vec::new(), path.join(format!("{:020}.seg", 2)));
    bytes.extend(fs::read(&segment).unwrap());
    bytes[9000] ^= 0x10;
    fs::write(&segment, bytes).unwrap();
    for args in [&["verify", log][..], &["repair", log], &["cat", log]] {
        assert!(text(args, 3).contains(HARMLESS), "{args:?}");
    }
    assert!(text(&["repair", log, "--apply"], 1).contains(HARMLESS));
}

#[test]
fn damage_is_red() {
    let dir = log();
    dir.flip(2, 9000);
    let verify = shown(&["verify", dir.str()], &[]);
    assert!(verify.contains("\x1b[1m\x1b[31mcorruption, proven"), "{verify:?}");
    let dump = shown(&["dump", dir.str(), "2"], &[]);
    assert!(dump.contains("\x1b[1m\x1b[31mDAMAGED"), "{dump:?}");
    let repair = shown(&["repair", dir.str()], &[]);
    assert!(repair.contains("\x1b[33mLSN"), "{repair:?}");
}

#[test]
fn the_columns_of_a_table_are_below_one_another() {
    let dir = log();
    let text = run(&["stat", dir.str()]).status(0).text().to_owned();
    let table: Vec<&str> = text.lines().skip_while(|line| !line.contains("first LSN")).collect();
    assert!(table.len() > 3, "{text}");
    for head in ["first LSN", "last LSN", "used", "file", "fill"] {
        let end = table[0].find(head).unwrap() + head.len();
        for line in &table[1..] {
            assert!(line[..end].ends_with(|c: char| c != ' ') && line[end..].starts_with(' '), "{head}: {line}");
        }
    }
}

#[test]
fn a_shell_completes_the_command() {
    let place = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).status(0).text().to_owned();
        for word in ["append", "truncate", "segment-size"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("worker"), "{shell}: what is hidden stays so");
        fs::write(place.path().join(shell), script).unwrap();
    }
    run(&["completions", "csh"]).status(1);
    // In a shell that is there wherever the tests are.
    let complete = |words: &str| -> String {
        let script = format!(
            "source {}; complete -p foreword; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _foreword foreword \"${{COMP_WORDS[$COMP_CWORD]}}\" \"${{COMP_WORDS[$COMP_CWORD - 1]}}\"; echo ${{COMPREPLY[@]}}",
            place.path().join("bash").display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = complete("foreword tr");
    assert!(
        said.starts_with("complete ") && said.contains(" -F _foreword foreword\n") && said.ends_with("\ntruncate\n"),
        "{said}"
    );
    assert!(complete("foreword cat --fo").ends_with("--follow --format\n"));
    assert!(complete("foreword cat --format ''").contains("length-prefixed"));
}

#[test]
fn each_subcommand_has_a_manual_page() {
    let place = tempfile::tempdir().unwrap();
    let man = place.path().join("share/man/man1");
    run(&["man", man.to_str().unwrap()]).status(0);
    let mut names: Vec<String> = fs::read_dir(&man).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(
        names.contains(&"foreword.1".to_owned()) && names.len() >= 14 && !names.iter().any(|n| n.contains("worker")),
        "{names:?}"
    );
    for name in
        ["append", "cat", "verify", "repair", "stat", "top", "truncate", "hold", "dump", "doctor", "bench", "demo", "chaos"]
    {
        let page = fs::read_to_string(man.join(format!("foreword-{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains(&format!("foreword {name} ")), "{page}");
    }
    let page = |name: &str| fs::read_to_string(man.join(name)).unwrap();
    let all = page("foreword.1");
    assert!(all.contains(".SH EXIT STATUS") && all.contains(".SH EXAMPLE\n") && !all.contains(".SH EXTRA"), "{all}");
    // An example that is copied is what was written; and what an option takes is named.
    let append = page("foreword-append.1");
    let (_, examples) = append.split_once(".SH EXAMPLES\n.nf\n").unwrap();
    let examples = examples.split_once("\n.fi").unwrap().0.replace("\\-", "-");
    let help = run(&["append", "--help"]).status(0);
    let shown = help.text().split_once("Examples:\n").unwrap().1.lines().map(str::trim_start);
    assert!(examples.lines().eq(shown), "{examples}");
    for part in ["[\\-\\-segment\\-size <SIZE>]", "[\\-q|\\-\\-quiet]", "<DIR>"] {
        assert!(append.split_once(".SH DESCRIPTION").unwrap().0.contains(part), "{part}: {append}");
    }
    // A directory cannot be made where a file is.
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(run(&["man", file.to_str().unwrap()]).status(1).err.contains("make the directory"));
}
