//! The machine, file system and device of a measurement, as the operating system reports them.
//!
//! Unknown values are `None` or empty; on systems other than Linux most are.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Doing, Result};

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The operating system and its version: `Linux 6.12.1`.
    pub system: String,
    /// The processor's name, or else its architecture.
    pub cpu: String,
    /// How many processors this program may use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// The maker of the virtual machine that this is, if it is one.
    pub hypervisor: Option<String>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here() -> Machine {
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_default();
        let memory = field(&read("/proc/meminfo").unwrap_or_default(), "MemTotal");
        let virtual_machine = field(&cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
        Machine {
            system: format!("{} {kernel}", capitalized(std::env::consts::OS)).trim().to_owned(),
            cpu: field(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).map(|kib| kib << 10),
            hypervisor: virtual_machine
                .then(|| read("/sys/class/dmi/id/sys_vendor").unwrap_or_else(|| "of unknown make".to_owned())),
        }
    }
}

/// A directory: the file system that it is on, and the device below that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
    /// The kind of file system: `ext4`.
    pub file_system: Option<String>,
    /// Where it is mounted.
    pub mount_point: Option<PathBuf>,
    /// With which options, of the mount and of the file system.
    pub mount_options: Vec<String>,
    /// What is mounted: `/dev/vda`.
    pub source: Option<String>,
    /// Bytes that this user may still write.
    pub free_bytes: Option<u64>,
    /// The block device, if there is one.
    pub device: Option<Device>,
}

/// A block device, as sysfs describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The disk's name: `vda`, `nvme0n1`.
    pub name: String,
    /// Its maker's name for it.
    pub model: Option<String>,
    /// Devices that it is made of (LVM, RAID).
    pub parts: Vec<String>,
    /// Whether it has, or emulates, moving parts. Virtual disks often say so and have none.
    pub rotational: Option<bool>,
    /// Whether the kernel takes its write cache to be volatile (`write back`), so that it sends
    /// flushes; else (`write through`) a completed write is taken to be durable.
    pub volatile_cache: Option<bool>,
    /// Whether it can make a single write durable by itself (FUA), without a flush.
    pub fua: Option<bool>,
    /// What it says is written whole: bytes of a logical block.
    pub logical_block_bytes: Option<u64>,
    /// Bytes of a physical block.
    pub physical_block_bytes: Option<u64>,
    /// The I/O scheduler in use.
    pub scheduler: Option<String>,
}

impl Place {
    /// What a directory is on.
    ///
    /// # Errors
    /// If the directory is not there.
    pub fn of(dir: &Path) -> Result<Place> {
        let dir = dir.canonicalize().doing("find the directory", dir)?;
        let mounts = read("/proc/self/mountinfo").unwrap_or_default();
        // The last of those mounted there is the one that is seen.
        let deepest = |best: Option<Mount>, next: Mount| match best {
            Some(best) if best.point.components().count() > next.point.components().count() => Some(best),
            _ => Some(next),
        };
        let mount = mounts.lines().filter_map(Mount::parse).filter(|mount| dir.starts_with(&mount.point)).fold(None, deepest);
        let free_bytes = free_bytes(&dir);
        let Some(mount) = mount else {
            return Ok(Place {
                dir,
                file_system: None,
                mount_point: None,
                mount_options: Vec::new(),
                source: None,
                free_bytes,
                device: None,
            });
        };
        Ok(Place {
            device: mount.device(),
            dir,
            file_system: Some(mount.kind),
            mount_point: Some(mount.point),
            mount_options: mount.options,
            source: Some(mount.source),
            free_bytes,
        })
    }

    /// Whether the file system is one that keeps files in memory alone, so that nothing on it is
    /// ever durable.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.file_system.as_deref().is_some_and(|kind| matches!(kind, "tmpfs" | "ramfs" | "devtmpfs"))
    }
}

/// Bytes that this user may still write to the file system of a directory, if the operating system
/// says.
#[must_use]
pub fn free_bytes(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::statvfs(dir).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    #[cfg(not(unix))]
    return None::<u64>.filter(|_| dir.exists());
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    point: PathBuf,
    options: Vec<String>,
    kind: String,
    source: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        // 27 1 254:0 / /home rw,relatime shared:1 - ext4 /dev/vda rw,discard
        let (mount, file_system) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let (&device, &point, &of_mount) = (mount.get(2)?, mount.get(4)?, mount.get(5)?);
        let mut file_system = file_system.split(' ');
        let (kind, source, of_file_system) = (file_system.next()?, file_system.next()?, file_system.next().unwrap_or(""));
        let mut options: Vec<String> = Vec::new();
        for option in of_mount.split(',').chain(of_file_system.split(',')).filter(|o| !o.is_empty()) {
            if !options.iter().any(|o| o == option) {
                options.push(option.to_owned());
            }
        }
        let point = PathBuf::from(unescaped(point));
        Some(Mount { device: device.to_owned(), point, options, kind: kind.to_owned(), source: unescaped(source) })
    }

    /// The whole disk below. File systems of several devices (btrfs) have a number that is no
    /// device's: there the source's name helps.
    fn device(&self) -> Option<Device> {
        let by_number = Path::new("/sys/dev/block").join(&self.device).canonicalize();
        let by_name = || Path::new("/sys/class/block").join(Path::new(&self.source).file_name()?).canonicalize().ok();
        let mut node = by_number.ok().or_else(by_name)?;
        if node.join("partition").exists() {
            node.pop();
        }
        Some(Device::of(&node))
    }
}

impl Device {
    fn of(node: &Path) -> Device {
        let text = |name: &str| read(node.join(name)).filter(|text| !text.is_empty());
        let flag = |name: &str| Some(text(name)? == "1");
        let number = |name: &str| text(name)?.parse().ok();
        let chosen = |text: String| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned());
        let parts = std::fs::read_dir(node.join("slaves")).into_iter().flatten().flatten();
        Device {
            name: node.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            model: text("device/model"),
            parts: parts.map(|part| part.file_name().to_string_lossy().into_owned()).collect(),
            rotational: flag("queue/rotational"),
            volatile_cache: text("queue/write_cache").map(|cache| cache == "write back"),
            fua: flag("queue/fua"),
            logical_block_bytes: number("queue/logical_block_size"),
            physical_block_bytes: number("queue/physical_block_size"),
            scheduler: text("queue/scheduler").and_then(chosen),
        }
    }

    /// Bytes written to it since the machine started, by any program; `None` where the operating
    /// system does not say.
    #[must_use]
    pub fn written_bytes(&self) -> Option<u64> {
        // Fields of stat: reads, merged, sectors, ms; writes, merged, sectors (of 512 bytes).
        let stat = read(Path::new("/sys/class/block").join(&self.name).join("stat"))?;
        Some(stat.split_whitespace().nth(6)?.parse::<u64>().ok()? * 512)
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn capitalized(name: &str) -> String {
    match name {
        "linux" => "Linux".to_owned(),
        "macos" => "macOS".to_owned(),
        "windows" => "Windows".to_owned(),
        other => other.to_owned(),
    }
}

/// Blanks and their like are written as octal numbers there.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_the_options_of_both_sides() {
        let mount =
            Mount::parse("27 1 254:0 / /my\\040disk rw,relatime shared:1 master:2 - ext4 /dev/vda rw,data=ordered").unwrap();
        assert_eq!((mount.point, mount.kind.as_str(), mount.source.as_str()), ("/my disk".into(), "ext4", "/dev/vda"));
        assert_eq!(mount.options, ["rw", "relatime", "data=ordered"]);
        for wrong in ["", "27 1 254:0", "27 1 254:0 / / rw", "1 - "] {
            assert_eq!(Mount::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sysfs_is_read_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("sdz");
        std::fs::create_dir_all(node.join("queue")).unwrap();
        for (name, text) in
            [("write_cache", "write back"), ("rotational", "0"), ("fua", "1"), ("scheduler", "none [mq-deadline] bfq")]
        {
            std::fs::write(node.join("queue").join(name), format!("{text}\n")).unwrap();
        }
        let device = Device::of(&node);
        assert_eq!(
            (device.name.as_str(), device.volatile_cache, device.rotational, device.fua),
            ("sdz", Some(true), Some(false), Some(true))
        );
        assert_eq!((device.scheduler.as_deref(), device.logical_block_bytes, device.model), (Some("mq-deadline"), None, None));
        std::fs::write(node.join("queue/write_cache"), "write through\n").unwrap();
        assert_eq!(Device::of(&node).volatile_cache, Some(false));
    }

    #[test]
    fn this_place_is_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path()).unwrap();
        assert!(Machine::here().cpus > 0);
        #[cfg(target_os = "linux")]
        assert!(place.file_system.is_some() && place.free_bytes.is_some(), "{place:?}");
        assert!(Place::of(&place.dir.join("no")).is_err());
    }
}
