//! Is the machine idle? If not, figures are not the disk's alone.

use std::time::Duration;

use serde::Serialize;

/// If other programs use more of all processors than this, times cannot be trusted.
const BUSY_MAX: f64 = 0.10;
/// If the hypervisor gives more of all processors' time than this to other guests, times cannot be
/// trusted.
pub const STEAL_MAX: f64 = 0.05;

/// Where the processors' time went, since the machine started or between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuTimes {
    /// Used, by programs and by the kernel.
    pub busy: f64,
    /// Given by the hypervisor to other guests while a thread here was ready to run.
    pub steal: f64,
    /// Idle while a thread waited for a disk.
    pub iowait: f64,
    /// All of it.
    pub total: f64,
}

impl CpuTimes {
    /// As of now; `None` where the operating system does not say (all but Linux).
    #[must_use]
    pub fn now() -> Option<CpuTimes> {
        CpuTimes::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<CpuTimes> {
        let fields: Vec<f64> =
            stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|f| f.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is in user time already.
        let &[user, nice, system, idle, iowait, irq, softirq, steal] = fields.get(..8)? else { return None };
        let busy = user + nice + system + irq + softirq;
        Some(CpuTimes { busy, steal, iowait, total: busy + steal + idle + iowait })
    }

    /// Where it went since an earlier reading, as fractions of all processors' time (so `total` is
    /// 1).
    #[must_use]
    pub fn since(&self, before: &CpuTimes) -> CpuTimes {
        let total = (self.total - before.total).max(1e-9);
        let part = |now: f64, before: f64| ((now - before) / total).max(0.0);
        CpuTimes {
            busy: part(self.busy, before.busy),
            steal: part(self.steal, before.steal),
            iowait: part(self.iowait, before.iowait),
            total: 1.0,
        }
    }
}

/// What the machine was doing while this program slept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// How long it was looked at, in seconds.
    pub seconds: f64,
    /// Processors.
    pub cpus: usize,
    /// Fractions of all processors' time in that interval; `None` where the operating system does
    /// not say.
    pub cpu: Option<CpuTimes>,
    /// The load average of the last minute, if there is one.
    pub load: Option<f64>,
}

impl Idle {
    /// Sleeps for an interval (a second says much, 100 ms a little) and returns what other programs
    /// did meanwhile.
    #[must_use]
    pub fn look(interval: Duration) -> Idle {
        let before = CpuTimes::now();
        std::thread::sleep(interval);
        let cpu = CpuTimes::now().zip(before).map(|(now, before)| now.since(&before));
        let load = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse().ok());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Idle { seconds: interval.as_secs_f64(), cpus, cpu, load }
    }

    /// Why the machine is not idle enough for measurements of time; empty if it is. The interval
    /// decides. A load average above the number of processors counts as well, because the load may
    /// come back.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let mut why = Vec::new();
        if let Some(cpu) = self.cpu {
            if cpu.busy > BUSY_MAX {
                why.push(format!("other programs use {:.0} % of {} processors", cpu.busy * 100.0, self.cpus));
            }
            if cpu.steal > STEAL_MAX {
                why.push(format!("the hypervisor gives {:.0} % of the time to other guests (steal)", cpu.steal * 100.0));
            }
        }
        if let Some(load) = self.load.filter(|&load| load > self.cpus as f64) {
            why.push(format!("the load average of the last minute is {load:.2} on {} processors", self.cpus));
        }
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_stat_is_read_as_the_kernel_documents_it() {
        let before = CpuTimes::parse("cpu  100 0 50 800 40 0 5 5 7 0\ncpu0 ...").unwrap();
        assert_eq!((before.busy, before.total), (155.0, 1000.0), "guest time is not counted twice");
        let now = CpuTimes::parse("cpu  110 0 60 860 50 0 5 15 7 0\n").unwrap().since(&before);
        assert_eq!((now.busy, now.steal, now.iowait), (0.2, 0.1, 0.1));
        for wrong in ["", "cpu  1 2 3", "cpu0 1 2 3 4 5 6 7 8"] {
            assert_eq!(CpuTimes::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_reason_is_given_with_what_was_seen() {
        let idle = Idle { seconds: 1.0, cpus: 2, cpu: Some(CpuTimes { busy: 0.02, ..CpuTimes::default() }), load: Some(0.4) };
        assert_eq!(idle.objections(), Vec::<String>::new());
        let busy = Idle { cpu: Some(CpuTimes { busy: 0.5, steal: 0.08, ..CpuTimes::default() }), load: Some(3.0), ..idle };
        let why = busy.objections();
        assert_eq!(why.len(), 3);
        assert!(why[0].contains("50 %") && why[1].contains("8 %") && why[2].contains("3.00"), "{why:?}");
        let unknown = Idle { cpu: None, load: None, ..idle };
        assert!(unknown.objections().is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_busy_thread_is_seen() {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let seen = Idle::look(Duration::from_millis(300));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let cpu = seen.cpu.unwrap();
            assert!(cpu.busy > 0.3 / seen.cpus as f64, "{seen:?}");
        });
    }
}
