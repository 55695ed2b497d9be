//! `doctor` and `bench`: what they print, what they refuse, and that they leave nothing behind.
//! Short runs: no figure is judged here.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod common;

use std::fs;

use common::{foreword, run, run_with, soon};
use serde_json::Value;

/// A directory with something in it that must stay as it is.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), b"precious").unwrap();
        Disk(dir)
    }

    fn str(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[track_caller]
    fn is_as_it_was(&self) {
        assert_eq!(self.names(), ["mine"]);
        assert_eq!(fs::read(self.0.path().join("mine")).unwrap(), b"precious");
    }
}

const SHORT_BENCH: [&str; 9] = ["--for", "100ms", "--rounds", "2", "--records", "128", "--segment-size", "1M", "--anyway"];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The page, and its data.
fn page(path: &str) -> (String, Value) {
    let html = fs::read_to_string(path).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    let json = html.split_once("application/json\">").unwrap().1.split_once("</script>").unwrap().0;
    let data = serde_json::from_str(json).unwrap();
    (html, data)
}

fn plots(data: &Value) -> Vec<String> {
    let sections = data["sections"].as_array().unwrap();
    let items = sections.iter().flat_map(|s| s["items"].as_array().unwrap());
    items.filter_map(|i| Some(i["plot"]["title"].as_str()?.to_owned())).collect()
}

#[test]
fn doctor_says_what_it_measured_and_leaves_nothing_behind() {
    let (disk, pages) = (Disk::new(), Disk::new());
    let html = pages.file("disk.html");
    let said = run(&["doctor", disk.str(), "--for", "100ms", "--anyway", "--json", "--html", &html]).status(0);
    disk.is_as_it_was();
    let found = said.json();
    let strategies = found["strategies"].as_array().unwrap();
    let of = |state: &str, method: &str| strategies.iter().find(|s| s["state"] == state && s["method"] == method);
    for state in ["growing", "zeroed", "recycled"] {
        for method in ["fdatasync", "fsync"] {
            let measured = of(state, method).unwrap_or_else(|| panic!("{state}, {method}: {said:?}"));
            assert!(number(&measured["latency"]["count"]) >= 5.0 && number(&measured["latency"]["p50_ns"]) > 0.0, "{measured}");
            assert!(number(&measured["to_base"]["median"]) > 0.0);
        }
    }
    assert_eq!(number(&of("zeroed", "fdatasync").unwrap()["to_base"]["median"]), 1.0);
    let shapes = found["shapes"].as_array().unwrap();
    for in_flight in [1, 2, 4, 8] {
        assert!(shapes.iter().any(|s| s["in_flight"] == in_flight && s["block_bytes"] == 4096), "{in_flight}");
    }
    assert!(shapes.iter().any(|s| s["block_bytes"] == 1 << 20));
    assert!(number(&found["write_bandwidth"]["median"]) > 0.0);
    // Nothing that is not durable is among the strategies.
    assert!(strategies.iter().all(|s| s["method"] != "cached" && s["method"] != "direct_only"));
    let advice = &found["advice"];
    assert!(["plausible", "suspicious", "nothing"].contains(&advice["flush"]["verdict"].as_str().unwrap()));
    // Where a log belongs, options are recommended.
    let options = &advice["options"];
    assert_eq!(options.is_null(), advice["flush"]["verdict"] == "nothing", "{advice}");
    if !options.is_null() {
        assert!(number(&options["segment_bytes"]) >= 4096.0 * 1024.0 && number(&options["sync_interval_ms"]) >= 5.0);
    }
    assert_eq!(plots(&page(&html).1).len(), 4);
}

#[test]
fn doctor_prints_tables_for_people_also_of_a_log() {
    let disk = Disk::new();
    let log = disk.file("log");
    run_with(&["append", &log, "--quiet", "--segment-size", "64K"], b"record\n").status(0);
    let before: Vec<_> = fs::read_dir(&log).unwrap().map(|e| e.unwrap().file_name()).collect();
    let said = run(&["doctor", &log, "--for", "50ms", "--anyway"]).status(0);
    for part in ["date ", "host ", "command ", "directory ", "zero-filled  fdatasync", "in flight", "Recommendation\n- "] {
        assert!(said.text().contains(part), "{part}: {}", said.text());
    }
    // Next to the log, not in it.
    let after: Vec<_> = fs::read_dir(&log).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!((before, disk.names()), (after, vec!["log".to_owned(), "mine".to_owned()]));
}

/// The table, the page and the recommendation are about the same write, and name the same time.
#[test]
fn doctor_gives_a_quantity_one_value() {
    let (disk, pages) = (Disk::new(), Disk::new());
    let html = pages.file("page.html");
    let said = run(&["doctor", disk.str(), "--for", "50ms", "--anyway", "--html", &html]).status(0);
    let (_, table) = said.text().split_once("one at a time (median: the median of 5 rounds' medians)\n").unwrap();
    let columns = |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = table.lines().take_while(|line| !line.is_empty()).map(columns).collect();
    let (_, data) = page(&html);
    let sections = data["sections"].as_array().unwrap();
    let items = sections.iter().flat_map(|section| section["items"].as_array().unwrap());
    let drawn = items.map(|item| &item["plot"]).find(|plot| plot["title"] == "A durable write of 4 KiB").unwrap();
    let (mut compared, bars) = (0, &drawn["body"]["bars"]);
    for group in bars["groups"].as_array().unwrap() {
        for (method, bar) in bars["names"].as_array().unwrap().iter().zip(group["bars"].as_array().unwrap()) {
            let Some(seconds) = bar["value"].as_f64() else { continue };
            let row = rows.iter().find(|row| group["name"] == *row[0] && *method == *row[1]).unwrap();
            assert_eq!(row[2], foreword_measure::report::Unit::Seconds.text(seconds), "{row:?}: {}", said.text());
            compared += 1;
        }
    }
    assert!(compared >= 6, "{}", said.text());
    match said.text().split_once("- One commit takes ") {
        None => assert!(said.text().contains("no place for a log"), "{}", said.text()),
        Some((_, rest)) => {
            let best = rest.split_once(" at best").unwrap().0;
            assert!(rows.iter().any(|row| row[0] == "zero-filled" && row[2] == best), "{best}: {}", said.text());
        }
    }
    assert!(said.text().contains("measured after the table above"), "what differs in the second table is said");
}

#[test]
fn a_report_says_when_where_and_how_it_was_made() {
    let (disk, pages) = (Disk::new(), Disk::new());
    let html = pages.file("a page.html");
    let found = run(&["doctor", disk.str(), "--for", "50ms", "--anyway", "--json", "--html", &html]).status(0).json();
    let setting = &found["setting"];
    let started = setting["started"].as_str().unwrap();
    assert!(started.len() == 20 && started.ends_with('Z') && started.as_bytes()[10] == b'T', "{started}");
    let command = format!("foreword doctor {} --for 50ms --anyway --json --html '{html}'", disk.str());
    assert_eq!(setting["command"], *command);
    let facts = page(&html).1["facts"].clone();
    for fact in [["date", started], ["command", &command]] {
        assert!(facts.as_array().unwrap().contains(&serde_json::json!(fact)), "{fact:?}: {facts}");
    }
    #[cfg(target_os = "linux")]
    {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(setting["host"], name.trim());
    }
}

#[test]
fn a_report_is_compared_with_an_earlier_one() {
    let (disk, pages) = (Disk::new(), Disk::new());
    let (before, html) = (pages.file("before.json"), pages.file("now.html"));
    let bench = ["bench", disk.str(), "--threads", "1", "--strategies", "group,buffered"];
    let bench = [&bench[..], &SHORT_BENCH].concat();
    let report = run(&[&bench[..], &["--json"]].concat()).status(0);
    // As if the disk had been a million times as slow, and of another machine: no other work on this
    // one makes it as slow.
    let mut slow = report.json();
    for part in ["min", "q1", "median", "q3", "max"] {
        let rate = &mut slow["closed"][0]["rate"][part];
        *rate = (number(rate) / 1e6).into();
    }
    slow["setting"]["host"] = "elsewhere".into();
    fs::write(&before, slow.to_string()).unwrap();
    let more = ["--baseline", &before, "--html", &html];
    let text = run(&[&bench[..], &more].concat()).status(0);
    let row = text.text().lines().find(|line| line.starts_with("records/s, group, 1 threads, 128 B")).unwrap().to_owned();
    assert!(row.ends_with("  better"), "{row}");
    for part in ["Compared with ", "F, 128 B records", "not the same: host: elsewhere, now "] {
        assert!(text.text().contains(part), "{part}: {}", text.text());
    }
    let sections = page(&html).1["sections"].clone();
    assert!(sections[0]["title"].as_str().unwrap().starts_with("Compared with "), "{sections}");
    let json = run(&[&bench[..], &more, &["--json"]].concat()).status(0).json();
    let change = &json["baseline"]["changes"][2];
    let ratio = number(&change["now"]) / number(&change["before"]);
    assert!(change["verdict"] == "better" && (number(&change["ratio"]) / ratio - 1.0).abs() < 1e-9, "{change}");
    // One of the other command, and no report at all.
    let doctor = run(&["doctor", disk.str(), "--baseline", &before, "--anyway"]).status(1);
    assert!(doctor.err.contains("not a report that this command printed"), "{}", doctor.err);
    let missing = run(&["bench", disk.str(), "--baseline", &pages.file("no"), "--anyway"]).status(1);
    assert!(missing.err.contains("--baseline"), "{}", missing.err);
    disk.is_as_it_was();
}

#[test]
fn bench_compares_the_strategies_with_the_limits() {
    let (disk, pages) = (Disk::new(), Disk::new());
    let html = pages.file("bench.html");
    let more = ["bench", disk.str(), "--threads", "1,4,1", "--open-loop", "200,500", "--json", "--html", &html];
    let found = run(&[&more[..], &SHORT_BENCH].concat()).status(0).json();
    disk.is_as_it_was();
    let cells = found["closed"].as_array().unwrap();
    assert_eq!(cells.len(), 5 * 2, "what is said twice is measured once");
    for cell in cells {
        let (strategy, threads) = (cell["strategy"].as_str().unwrap(), number(&cell["threads"]));
        let rate = number(&cell["rate"]["median"]);
        assert!(rate > 0.0 && number(&cell["latency"]["count"]) > 0.0, "{cell}");
        assert!(number(&cell["eta"]["median"]) > 0.0 && number(&cell["ceiling"]["median"]) > 0.0);
        assert_eq!(cell["rate"]["n"], 2);
        assert_eq!(cell["waits"], strategy == "each" || strategy == "group");
        let group = number(&cell["records_per_flush"]);
        let flushed: f64 = cell["groups"].as_array().unwrap().iter().map(|g| number(&g["flushes"])).sum();
        assert_eq!(flushed, number(&cell["flushes"]));
        match strategy {
            // A mark of the idle log may be a flush, too.
            "each" => assert!((0.5..=1.0).contains(&group), "{cell}"),
            "group" => assert!(group <= threads, "{cell}"),
            "every=100" => assert!(group > 1.0, "{cell}"),
            _ => assert!(group > 10.0, "{cell}"),
        }
        // Each record alone takes a block of 4 KiB; together they take little more than they are.
        let written = number(&cell["log_bytes_per_byte"]);
        assert!(if strategy == "each" { written > 31.0 } else { written >= 1.0 }, "{cell}");
    }
    let limits = &found["limits"][0];
    assert_eq!((&limits["record_bytes"], &limits["floor"]["block_bytes"]), (&128.into(), &4096.into()));
    assert!((129.0..140.0).contains(&number(&limits["framed_bytes"])), "{limits}");
    let open = found["open_loop"].as_array().unwrap();
    assert_eq!(open.len(), 2 * 2);
    assert!(open.iter().all(|cell| cell["threads"] == 4 && number(&cell["latency"]["count"]) > 0.0), "{open:?}");
    let (text, data) = page(&html);
    // Figures of calls that do not wait for the disk are marked wherever they stand next to those
    // that do.
    assert!(text.contains("buffered (not durable)") && !data.to_string().contains(r#""name":"buffered""#), "{data}");
    let titles = plots(&data);
    for title in [
        "Records a second by threads",
        "What part of the ceiling was reached",
        "Latency with 4 threads",
        "Records that share a flush",
        "Latency by load, 4 threads",
    ] {
        assert!(titles.iter().any(|t| t == title), "{title}: {titles:?}");
    }
}

#[test]
fn bench_prints_a_table_for_each_size() {
    let disk = Disk::new();
    let args =
        ["bench", disk.str(), "--threads", "2", "--strategies", "group,every=5", "--for", "60ms", "--rounds", "1", "--anyway"];
    let said = run(&[&args[..], &["--records", "10,5K", "--segment-size", "1M"]].concat()).status(0);
    let text = said.text();
    assert_eq!(text.matches("strategy  ").count(), 2, "{text}");
    for part in ["\n10 B records. F ", "\n5 KiB records. F ", "\nevery=5   after 5 ", "\ngroup     on return "] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn wrong_arguments_are_told() {
    let disk = Disk::new();
    let cases: [(&[&str], &str); 10] = [
        (&["bench", "--threads", "0"], "from 1 to 1024"),
        (&["bench", "--records", "2M"], "1 byte to 1M"),
        (&["bench", "--strategies", "fsync"], "each, every[=N], group"),
        (&["bench", "--for", "3"], "unit"),
        (&["bench", "--open-loop", "fast"], "auto, or rates"),
        (&["bench", disk.str(), "--strategies", "buffered", "--open-loop", "100"], "`each` or `group`"),
        (&["bench", disk.str(), "--segment-size", "1K", "--anyway", "--for", "10ms"], "segment_bytes"),
        (&["doctor", "/no/such/dir"], "cannot find the directory (/no/such/dir)"),
        (&["doctor", disk.str(), "--html", "/no/such/dir/page.html"], "/no/such/dir/page.html cannot be written"),
        (&["doctor", disk.str(), "--for", "0"], "unit"),
    ];
    for (args, why) in cases {
        let said = run(args).status(1);
        assert!(said.err.contains(why), "{args:?}: {}", said.err);
    }
    disk.is_as_it_was();
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_to_is_named() {
    let said = run(&["doctor", "/proc", "--anyway"]).status(1);
    assert!(said.err.contains("/proc"), "{}", said.err);
    let file = Disk::new();
    let said = run(&["bench", &file.file("mine"), "--anyway"]).status(1);
    assert!(said.err.contains("cannot create the directory") && said.err.contains("mine"), "{}", said.err);
}

#[cfg(target_os = "linux")]
#[test]
fn a_busy_machine_is_refused_with_what_was_seen() {
    let disk = Disk::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let refused = run(&["doctor", disk.str()]);
        let anyway = run(&["doctor", disk.str(), "--for", "20ms", "--anyway", "--json"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let said = refused.status(1).err;
        assert!(said.contains("the machine is busy: other programs use") && said.contains("--anyway"), "{said}");
        let doubts = &anyway.status(0).json()["setting"]["doubts"];
        assert!(doubts[0].as_str().unwrap().contains("other programs"), "{doubts}");
    });
    disk.is_as_it_was();
}

#[cfg(unix)]
#[test]
fn an_interrupted_measurement_removes_its_files() {
    let disk = Disk::new();
    let mut child = foreword().args(["bench", disk.str(), "--for", "100s", "--threads", "2", "--anyway"]).spawn().unwrap();
    soon("the log", || {
        disk.names().iter().any(|name| name.starts_with("foreword-bench.") && disk.0.path().join(name).join("log").exists())
    });
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    soon("the end", || child.try_wait().unwrap().is_some());
    let said = common::Said::from(child.wait_with_output().unwrap()).status(1);
    assert!(said.err.contains("interrupted"), "{}", said.err);
    disk.is_as_it_was();
}
