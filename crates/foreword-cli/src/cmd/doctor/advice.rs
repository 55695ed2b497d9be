//! What the findings mean: whether a flush can be believed, and which options fit.

use foreword_measure::floor::{FileState, Method};
use foreword_measure::report::Unit;
use serde::Serialize;

use super::examine::{Findings, Measured};
use crate::cmd::ground::Setting;

/// What to make of it.
#[derive(Debug, Serialize)]
pub(super) struct Advice {
    pub(super) flush: Flush,
    pub(super) words: Vec<String>,
    /// Whether writing past the page cache is faster than fdatasync.
    pub(super) direct_pays: Option<bool>,
    /// `None` where no log belongs.
    pub(super) options: Option<Options>,
}

/// Options of a log that fit the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Options {
    pub(super) segment_bytes: u64,
    pub(super) sync_interval_ms: u64,
}

impl Options {
    /// As they are written in Rust, and for the command.
    pub(super) fn lines(self) -> [String; 2] {
        let Options { segment_bytes, sync_interval_ms: ms } = self;
        let (number, shift, unit) =
            if segment_bytes < 1 << 30 { (segment_bytes >> 20, 20, 'M') } else { (segment_bytes >> 30, 30, 'G') };
        [
            format!("Options::new().segment_bytes({number} << {shift}).sync(SyncPolicy::interval(Duration::from_millis({ms})))"),
            format!("foreword append LOG --segment-size {number}{unit} --sync interval={ms}ms"),
        ]
    }
}

/// Whether a flush does anything.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Flush {
    pub(super) verdict: FlushVerdict,
    pub(super) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FlushVerdict {
    /// As long as such a medium takes.
    Plausible,
    /// Too short for it, or switched off: to be looked into.
    Suspicious,
    /// Nothing here survives the machine.
    Nothing,
}

impl FlushVerdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            FlushVerdict::Plausible => "plausible",
            FlushVerdict::Suspicious => "suspicious",
            FlushVerdict::Nothing => "nothing",
        }
    }

    fn what_to_do(self) -> Option<&'static str> {
        match self {
            FlushVerdict::Plausible => None,
            FlushVerdict::Suspicious => Some(
                "First find out what a flush does below this system: with a write cache that loses power, a log cannot keep its promises.",
            ),
            FlushVerdict::Nothing => {
                Some("This is no place for a log that is to survive the machine: name a directory on a disk.")
            }
        }
    }
}

/// No disk that turns is faster: half a turn at 15,000 a minute takes 2 ms.
const ROTATION_MIN: f64 = 1e-3;
/// No flash or its like answers a flush faster over any bus.
const FLASH_MIN: f64 = 5e-6;

impl Advice {
    pub(super) fn of(setting: &Setting, findings: &Findings) -> Advice {
        let flush = flush(setting, findings);
        let direct_pays = direct_ratio(findings).map(|ratio| ratio < 0.97);
        let mut words: Vec<String> = flush.verdict.what_to_do().map(str::to_owned).into_iter().collect();
        if flush.verdict == FlushVerdict::Nothing {
            return Advice { flush, words, direct_pays, options: None };
        }
        let options = Options { segment_bytes: segment_bytes(setting, findings), sync_interval_ms: sync_interval_ms(findings) };
        words.extend(commit_words(findings));
        words.extend(preparation_words(findings));
        words.extend(direct_words(findings));
        words.extend(overlap_words(findings));
        words.push(segment_words(options.segment_bytes, findings));
        words.push(format!(
            "A background sync every {} ms keeps this disk at most 2 % busy; a power failure loses the records that were appended, and not committed, in that time.",
            options.sync_interval_ms
        ));
        words.extend(mount_words(setting));
        Advice { flush, words, direct_pays, options: Some(options) }
    }
}

/// A median, in seconds.
fn median(measured: Option<&Measured>) -> Option<f64> {
    measured.map(|m| m.median_seconds.median)
}

fn time(seconds: f64) -> String {
    Unit::Seconds.text(seconds)
}

/// Whether a flush does anything, by how long it takes and what the system says of the device.
fn flush(setting: &Setting, findings: &Findings) -> Flush {
    let place = &setting.place;
    let says = |verdict, why: String| Flush { verdict, why };
    if place.is_memory() {
        let kind = place.file_system.clone().unwrap_or_default();
        return says(FlushVerdict::Nothing, format!("{kind} keeps files in memory: nothing here survives the machine"));
    }
    if let Some(option) = place.mount_options.iter().find(|o| matches!(o.as_str(), "nobarrier" | "barrier=0")) {
        let why = format!(
            "the file system is mounted with `{option}`: it does not flush the device's cache, so a commit survives a power failure only if that cache does"
        );
        return says(FlushVerdict::Suspicious, why);
    }
    let unflushed = |method| median(findings.unflushed.iter().find(|m| m.method == method));
    let (Some(durable), cached, device_only) =
        (median(findings.best()), unflushed(Method::Cached), unflushed(Method::DirectOnly))
    else {
        return says(FlushVerdict::Suspicious, "no durable write could be measured".to_owned());
    };
    if let Some(cached) = cached.filter(|cached| durable < 2.0 * cached) {
        let why = format!(
            "a durable write takes {}, and one into the page cache {}: the flush does nothing that takes time",
            time(durable),
            time(cached)
        );
        return says(FlushVerdict::Suspicious, why);
    }
    let device = place.device.as_ref();
    let is_virtual = setting.machine.hypervisor.is_some();
    let host = "; what the host does with a flush cannot be seen from inside a virtual machine";
    if device.and_then(|d| d.rotational) == Some(true) && durable < ROTATION_MIN {
        let why =
            format!("a durable write takes {}, and the device says that it rotates, which no disk does so fast", time(durable));
        return if is_virtual {
            says(FlushVerdict::Suspicious, format!("{why}: virtual disks often say so and are flash{host}"))
        } else {
            says(
                FlushVerdict::Suspicious,
                format!("{why}: a cache answers, and only a battery or capacitors would make that good"),
            )
        };
    }
    if durable < FLASH_MIN {
        return says(FlushVerdict::Suspicious, format!("a durable write takes {}, less than any medium needs", time(durable)));
    }
    if let Some(written) =
        device_only.filter(|written| device.and_then(|d| d.volatile_cache) == Some(true) && durable < 1.05 * written)
    {
        let why = format!(
            "the system takes the device's cache for volatile and flushes it, but that takes no time ({} with, {} without): a protected cache, or a flush that is ignored",
            time(durable),
            time(written)
        );
        return says(FlushVerdict::Suspicious, why);
    }
    let written = device_only.map_or(String::new(), |written| format!(" ({} without the flush)", time(written)));
    let host = if is_virtual { host } else { "" };
    says(FlushVerdict::Plausible, format!("a durable write takes {}{written}{host}", time(durable)))
}

fn commit_words(findings: &Findings) -> Option<String> {
    let best = findings.best()?;
    let seconds = best.median_seconds.median;
    Some(format!(
        "One commit takes {} at best ({:.0} a second from one thread); more threads share a flush, so there are more commits, and each waits as long.",
        time(seconds),
        1.0 / seconds
    ))
}

/// Growing or fallocated files against zero-filled ones.
fn preparation_words(findings: &Findings) -> Option<String> {
    let of = |state| median(findings.strategy(state, Method::Fdatasync));
    let (growing, zeroed) = (of(FileState::Growing)?, of(FileState::Zeroed)?);
    let allocated =
        of(FileState::Allocated).map_or(String::new(), |allocated| format!(", a fallocated one {:.2}", allocated / zeroed));
    Some(format!(
        "A growing file takes {:.2} times as long as a zero-filled one{allocated}: Foreword fills its segments with zeros before it uses them.",
        growing / zeroed
    ))
}

/// O_DIRECT + RWF_DSYNC to fdatasync.
fn direct_ratio(findings: &Findings) -> Option<f64> {
    Some(findings.strategy(FileState::Zeroed, Method::DirectDsync)?.to_base?.median)
}

fn direct_words(findings: &Findings) -> Option<String> {
    let ratio = direct_ratio(findings)?;
    let what = match ratio {
        _ if ratio < 0.97 => "pays",
        _ if ratio <= 1.03 => "makes no difference",
        _ => "does not pay",
    };
    Some(format!(
        "O_DIRECT + RWF_DSYNC {what}: {ratio:.2} of the time of write and fdatasync. Foreword writes its commits that way where the file system can."
    ))
}

fn overlap_words(findings: &Findings) -> Option<String> {
    let method = findings.best()?.method;
    let rate = |in_flight| {
        let at = findings.in_flight().find(|m| m.method == method && m.in_flight == in_flight)?;
        Some(at.writes_per_second.median)
    };
    let ratio = rate(8)? / rate(1)?;
    Some(if ratio > 1.5 {
        format!("Flushes overlap: 8 in flight make {ratio:.1} times as many durable writes as one at a time.")
    } else {
        format!(
            "Flushes do not overlap ({ratio:.1} times as many with 8 in flight): what counts here is how many records share a flush."
        )
    })
}

/// Large enough that going on in another segment (some three flushes) costs less than a hundredth
/// at full bandwidth; small enough to be read in half a second when the log is opened after a
/// crash; and the disk has room for many.
fn segment_bytes(setting: &Setting, findings: &Findings) -> u64 {
    let flush = median(findings.best()).unwrap_or(1e-3);
    let write = findings.write_bandwidth.median;
    let read = findings.read_bandwidth.map_or(write, |read| read.median);
    let room = setting.place.free_bytes.unwrap_or(u64::MAX) as f64 / 32.0;
    let wanted = (300.0 * flush * write).min(0.5 * read).min(room);
    ((wanted.max(1.0) as u64).next_power_of_two()).clamp(4 << 20, 1 << 30)
}

fn segment_words(bytes: u64, findings: &Findings) -> String {
    let read = findings.read_bandwidth.unwrap_or(findings.write_bandwidth).median;
    format!(
        "Segments of {}: going on in the next one costs under 1 % at full bandwidth, and opening after a crash reads at most one ({}).",
        Unit::Bytes.text(bytes as f64),
        time(bytes as f64 / read)
    )
}

/// So that flushes take at most 2 % of the time: a round number of milliseconds, from 5 to 1000.
fn sync_interval_ms(findings: &Findings) -> u64 {
    let flush = findings.best().map_or(1e-3, |best| best.latency.quantile(0.9).as_secs_f64());
    let wanted = (flush * 50.0 * 1e3).round() as u64;
    [5, 10, 20, 50, 100, 200, 500].into_iter().find(|&ms| ms >= wanted).unwrap_or(1000)
}

fn mount_words(setting: &Setting) -> Vec<String> {
    let place = &setting.place;
    let kind = place.file_system.as_deref().unwrap_or("");
    let has = |option: &str| place.mount_options.iter().any(|o| o == option);
    let mut words = Vec::new();
    if matches!(kind, "btrfs" | "zfs" | "bcachefs") {
        words.push(format!("{kind} writes each block to a new place, so zero-filled segments gain nothing; `chattr +C` on the (empty) directory helps on btrfs."));
    }
    if matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs") || kind.starts_with("fuse") {
        words.push(format!("{kind}: the lock and the flush depend on the server; see docs/GUARANTEES.md."));
    }
    if kind == "overlay" {
        words.push("An overlay is a container's own file system, and vanishes with it: a log belongs on a volume.".to_owned());
    }
    if has("sync") {
        words.push("The mount option `sync` makes each write a flush, also writes that need none: leave it out; the log flushes by itself.".to_owned());
    }
    if has("data=journal") {
        words.push("With `data=journal` everything is written twice: `data=ordered` keeps the log's guarantees, for it syncs before it relies on anything.".to_owned());
    }
    if has("discard") {
        words.push("With the mount option `discard` removing a segment makes the disk discard its blocks at once, which may delay commits: let truncation recycle segments, or use fstrim instead.".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use foreword_measure::idle::Idle;
    use foreword_measure::machine::{Device, Machine, Place};
    use foreword_measure::sample::{Latencies, Spread};

    use super::super::examine::BLOCK;
    use super::*;

    fn setting(device: Option<Device>, kind: &str, options: &[&str], hypervisor: Option<&str>) -> Setting {
        let machine = Machine {
            system: String::new(),
            cpu: String::new(),
            cpus: 2,
            memory_bytes: None,
            hypervisor: hypervisor.map(str::to_owned),
        };
        let place = Place {
            dir: "/d".into(),
            file_system: Some(kind.to_owned()),
            mount_point: None,
            mount_options: options.iter().map(|o| (*o).to_owned()).collect(),
            source: None,
            free_bytes: Some(1 << 40),
            device,
        };
        let idle = Idle { seconds: 1.0, cpus: 2, cpu: None, load: None };
        Setting {
            started: String::new(),
            host: None,
            command: String::new(),
            machine,
            place,
            idle,
            doubts: Vec::new(),
            seconds: 1.0,
        }
    }

    fn measured(state: FileState, method: Method, micros: f64, base: f64, in_flight: usize, rate: f64) -> Measured {
        let mut latency = Latencies::new();
        latency.record(Duration::from_secs_f64(micros / 1e6));
        let one = |value: f64| Spread::of(&[value]).unwrap();
        Measured {
            state,
            method,
            block_bytes: BLOCK,
            in_flight,
            latency,
            median_seconds: one(micros / 1e6),
            writes_per_second: one(rate),
            to_base: Some(one(micros / base)),
        }
    }

    /// Of a disk with such a durable write, in microseconds, a write without a flush to the device,
    /// and one to the page cache.
    fn findings(durable: f64, device_only: f64, cached: f64) -> Findings {
        use FileState::{Growing, Zeroed};
        let of = |state, method, micros| measured(state, method, micros, durable * 1.1, 1, 1e6 / micros);
        Findings {
            strategies: vec![
                of(Zeroed, Method::Fdatasync, durable * 1.1),
                of(Zeroed, Method::DirectDsync, durable),
                of(Growing, Method::Fdatasync, durable * 2.2),
            ],
            unavailable: Vec::new(),
            unflushed: vec![of(Zeroed, Method::DirectOnly, device_only), of(Zeroed, Method::Cached, cached)],
            shapes: [1, 8].map(|n| measured(Zeroed, Method::DirectDsync, durable, durable, n, n as f64 * 1e6 / durable)).into(),
            write_bandwidth: Spread::of(&[1e9]).unwrap(),
            read_bandwidth: Spread::of(&[2e9]),
        }
    }

    fn device(rotational: bool, volatile_cache: bool) -> Option<Device> {
        Some(Device { rotational: Some(rotational), volatile_cache: Some(volatile_cache), ..Device::default() })
    }

    #[test]
    fn a_flush_is_believed_only_if_it_takes_as_long_as_the_medium_needs() {
        use FlushVerdict::{Nothing, Plausible, Suspicious};
        let ssd = || setting(device(false, true), "ext4", &[], None);
        let cases = [
            (ssd(), findings(100.0, 20.0, 1.0), Plausible, "100 µs (20 µs without the flush)"),
            (setting(None, "tmpfs", &[], None), findings(2.0, 2.0, 1.0), Nothing, "memory"),
            (setting(device(false, true), "ext4", &["nobarrier"], None), findings(100.0, 20.0, 1.0), Suspicious, "nobarrier"),
            (ssd(), findings(1.5, 1.2, 1.0), Suspicious, "page cache"),
            (setting(device(true, true), "ext4", &[], None), findings(100.0, 20.0, 1.0), Suspicious, "battery"),
            (setting(device(true, true), "ext4", &[], Some("QEMU")), findings(100.0, 20.0, 1.0), Suspicious, "virtual"),
            (setting(device(true, true), "ext4", &[], None), findings(8000.0, 20.0, 1.0), Plausible, "8 ms"),
            (ssd(), findings(4.0, 1.0, 1.0), Suspicious, "less than any medium"),
            (ssd(), findings(20.0, 20.0, 1.0), Suspicious, "takes no time"),
            (setting(device(false, false), "ext4", &[], None), findings(20.0, 20.0, 1.0), Plausible, "20 µs"),
        ];
        for (setting, findings, verdict, part) in cases {
            let flush = flush(&setting, &findings);
            assert_eq!(flush.verdict, verdict, "{flush:?}");
            assert!(flush.why.contains(part), "{part}: {flush:?}");
        }
    }

    #[test]
    fn the_options_fit_the_disk() {
        let fast = Advice::of(&setting(device(false, true), "ext4", &[], None), &findings(100.0, 20.0, 1.0));
        let options = fast.options.unwrap();
        assert_eq!((options.segment_bytes, options.sync_interval_ms, fast.direct_pays), (32 << 20, 5, Some(true)));
        let [code, command] = options.lines();
        assert!(code.contains("segment_bytes(32 << 20)") && command.contains("--segment-size 32M --sync interval=5ms"));
        assert!(fast.words.iter().any(|w| w.contains("2.00 times as long as a zero-filled one")), "{:?}", fast.words);
        assert!(fast.words.iter().any(|w| w.contains("8.0 times as many")), "{:?}", fast.words);
        let mut slow = findings(8000.0, 20.0, 1.0);
        slow.write_bandwidth = Spread::of(&[150e6]).unwrap();
        slow.read_bandwidth = Spread::of(&[150e6]);
        let slow = Advice::of(&setting(device(true, true), "ext4", &["discard", "sync"], None), &slow);
        assert_eq!(slow.options, Some(Options { segment_bytes: 128 << 20, sync_interval_ms: 500 }));
        assert!(slow.words.iter().any(|w| w.contains("`discard`")) && slow.words.iter().any(|w| w.contains("`sync`")));
        let mut full = setting(device(false, true), "ext4", &[], None);
        full.place.free_bytes = Some(64 << 20);
        let full = Advice::of(&full, &findings(100.0, 20.0, 1.0)).options.unwrap();
        assert_eq!(full.segment_bytes, 4 << 20, "the disk has room for many");
        let none = Advice::of(&setting(None, "tmpfs", &[], None), &findings(2.0, 2.0, 1.0));
        assert_eq!((none.options, none.words.len()), (None, 1));
        assert!(none.words[0].contains("no place for a log"), "{:?}", none.words);
    }
}
