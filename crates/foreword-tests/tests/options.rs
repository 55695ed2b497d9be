//! What the options that trade something do, and what they leave.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use foreword::disk::OsDisk;
use foreword::{Error, Lsn, Options, SyncPolicy};

use foreword_tests::hooked::{Op, hooked};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

#[test]
fn a_lone_commit_is_one_flush_without_the_idle_mark_and_two_with_it() {
    for (after, flushes) in [(None, 5), (Some(Duration::from_millis(5)), 10)] {
        let dir = tempfile::tempdir().unwrap();
        let log = options().idle_mark(after).open(dir.path()).unwrap();
        for n in 1..=5 {
            log.commit("alone").unwrap();
            let start = std::time::Instant::now();
            while after.is_some() && log.stats().flushes < 2 * n && start.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(40));
        }
        assert_eq!(log.stats().flushes, flushes, "{after:?}");
        drop(log);
        assert_eq!(options().open(dir.path()).unwrap().last_lsn(), Lsn(5));
    }
    for after in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let refused = options().idle_mark(Some(after)).open(dir.path());
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{after:?}");
    }
}

#[test]
fn without_zero_filling_only_records_are_written() {
    let zeros = |fill| {
        let dir = tempfile::tempdir().unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counted = steps.clone();
        let disk = hooked(OsDisk::new(), move |op, name| {
            counted.fetch_add(u64::from(op == Op::Zero && name.ends_with(".seg")), SeqCst);
            Ok(())
        });
        let log = options().segment_bytes(1 << 20).zero_fill(fill).background(false).disk(disk).open(dir.path()).unwrap();
        for _ in 0..30 {
            log.commit([7; 100_000]).unwrap();
        }
        log.close().unwrap();
        assert_eq!(options().open(dir.path()).unwrap().last_lsn(), Lsn(30));
        steps.load(SeqCst)
    };
    assert!(zeros(true) > 0);
    assert_eq!(zeros(false), 0);
}

#[test]
fn without_a_reserve_none_is_made_and_one_that_is_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let reserve = || ["RESERVE-1", "RESERVE-2"].map(|name| dir.path().join(name).exists());
    options().reserve(false).open(dir.path()).unwrap().close().unwrap();
    assert_eq!(reserve(), [false, false]);
    options().open(dir.path()).unwrap().commit("one").unwrap();
    options().reserve(false).open(dir.path()).unwrap().commit("two").unwrap();
    assert_eq!(reserve(), [true, true]);
    fs::remove_file(dir.path().join("RESERVE-1")).unwrap();
    options().reserve(false).open(dir.path()).unwrap().commit("three").unwrap();
    assert_eq!(reserve(), [false, true]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_buffered_disk_writes_nothing_past_the_page_cache() {
    use std::os::unix::fs::MetadataExt;
    let direct = |disk: OsDisk| {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let log = options().disk(Arc::new(disk)).background(false).open(dir.path()).unwrap();
        log.commit("a record").unwrap();
        let inodes: Vec<u64> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().ino()).collect();
        // Flags of open files are octal; the bit's place differs between processors.
        let opened = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
            let fd = fd.unwrap();
            let is_ours = fs::metadata(fd.path()).is_ok_and(|file| inodes.contains(&file.ino()));
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.file_name().to_str()?)).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            is_ours.then(|| u32::from_str_radix(flags.trim(), 8).unwrap())
        });
        opened.filter(|flags| flags & libc::O_DIRECT as u32 != 0).count()
    };
    assert_eq!(direct(OsDisk::buffered()), 0);
    assert_eq!(direct(OsDisk::new()), 1, "or this disk has no direct I/O");
}

#[test]
fn what_is_appended_while_a_log_waits_to_be_idle_is_synced_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_bytes(64 << 10).sync(SyncPolicy::interval(Duration::from_millis(1)));
    let log = options.idle_mark(Some(Duration::from_secs(60))).open(dir.path()).unwrap();
    log.commit("one").unwrap();
    std::thread::sleep(Duration::from_millis(50)); // The thread that syncs sleeps until the MARK is due.
    let lsn = log.append("two").unwrap();
    assert!(log.wait_durable(lsn, Some(Duration::from_secs(10))).unwrap());
}
