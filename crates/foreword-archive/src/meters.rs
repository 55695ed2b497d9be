//! What an archiver counts, for the facade `metrics`, if the feature of that name is on; nothing at
//! all if it is off. Each metric carries the log's directory, for several may run in one process.

#[cfg(feature = "metrics")]
mod on {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

    /// A name, a unit, and what it is.
    type Described = (&'static str, Unit, &'static str);

    const RECORDS: Described = ("foreword_archive_records_total", Unit::Count, "Records archived");
    const CHUNKS: Described =
        ("foreword_archive_chunks_total", Unit::Count, "Chunks confirmed, those that take the place of smaller ones included");
    const CHUNK_BYTES: Described =
        ("foreword_archive_chunk_bytes_total", Unit::Bytes, "Bytes of these chunks, as they are stored");
    const RETRIES: Described = ("foreword_archive_retries_total", Unit::Count, "Times that the store was asked again");
    const SKIPPED: Described = ("foreword_archive_skipped_records_total", Unit::Count, "Records that the archive will not have");
    const ARCHIVED: Described = ("foreword_archive_archived_lsn", Unit::Count, "The last LSN that is archived");
    const BEHIND: Described = ("foreword_archive_behind_records", Unit::Count, "Records durable in the log and not archived");
    const CONFIRMED: Described = (
        "foreword_archive_confirmed_timestamp_seconds",
        Unit::Seconds,
        "When the archive was last confirmed to have all up to there",
    );
    const FAILING: Described =
        ("foreword_archive_failing_seconds", Unit::Seconds, "For how long the store has not done what it was asked");
    const STOPPED: Described =
        ("foreword_archive_stopped", Unit::Count, "1 if the archiver came to an end that needs a decision: fenced, say");
    const UPLOAD: Described = ("foreword_archive_upload_seconds", Unit::Seconds, "How long a chunk took to the store");
    const CONFIRM: Described = ("foreword_archive_confirm_seconds", Unit::Seconds, "How long a manifest took");

    #[derive(Clone, Debug)]
    pub(crate) struct Meters {
        log: String,
        archived: Arc<AtomicU64>,
    }

    impl Meters {
        pub(crate) fn new(log: &Path) -> Meters {
            for (name, unit, what) in [RECORDS, CHUNKS, CHUNK_BYTES, RETRIES, SKIPPED] {
                describe_counter!(name, unit, what);
            }
            for (name, unit, what) in [ARCHIVED, BEHIND, CONFIRMED, FAILING, STOPPED] {
                describe_gauge!(name, unit, what);
            }
            for (name, unit, what) in [UPLOAD, CONFIRM] {
                describe_histogram!(name, unit, what);
            }
            let meters = Meters { log: log.display().to_string(), archived: Arc::default() };
            for (name, ..) in [RECORDS, CHUNKS, CHUNK_BYTES, RETRIES, SKIPPED] {
                meters.count(name, 0);
            }
            for (name, ..) in [BEHIND, FAILING, STOPPED] {
                meters.set(name, 0.0);
            }
            meters
        }

        fn count(&self, name: &'static str, more: u64) {
            counter!(name, "log" => self.log.clone()).increment(more);
        }

        fn set(&self, name: &'static str, value: f64) {
            gauge!(name, "log" => self.log.clone()).set(value);
        }

        pub(crate) fn uploaded(&self, took: Duration) {
            histogram!(UPLOAD.0, "log" => self.log.clone()).record(took);
        }

        pub(crate) fn confirmed(&self, took: Duration, records: u64, chunks: u64, bytes: u64) {
            histogram!(CONFIRM.0, "log" => self.log.clone()).record(took);
            self.count(RECORDS.0, records);
            self.count(CHUNKS.0, chunks);
            self.count(CHUNK_BYTES.0, bytes);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.set(CONFIRMED.0, now.as_secs_f64());
            self.set(FAILING.0, 0.0);
        }

        pub(crate) fn retrying(&self, since: Duration) {
            self.count(RETRIES.0, 1);
            self.set(FAILING.0, since.as_secs_f64());
        }

        pub(crate) fn skipped(&self, records: u64) {
            self.count(SKIPPED.0, records);
        }

        pub(crate) fn stopped(&self) {
            self.set(STOPPED.0, 1.0);
        }

        pub(crate) fn archived(&self, lsn: u64) {
            self.archived.store(lsn, Ordering::Relaxed);
            self.set(ARCHIVED.0, lsn as f64);
        }

        pub(crate) fn durable(&self, lsn: u64) {
            self.set(BEHIND.0, lsn.saturating_sub(self.archived.load(Ordering::Relaxed)) as f64);
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use std::path::Path;
    use std::time::Duration;

    #[derive(Clone, Debug)]
    pub(crate) struct Meters;

    impl Meters {
        pub(crate) fn new(_log: &Path) -> Meters {
            Meters
        }

        pub(crate) fn uploaded(&self, _took: Duration) {}

        pub(crate) fn confirmed(&self, _took: Duration, _records: u64, _chunks: u64, _bytes: u64) {}

        pub(crate) fn retrying(&self, _since: Duration) {}

        pub(crate) fn skipped(&self, _records: u64) {}

        pub(crate) fn stopped(&self) {}

        pub(crate) fn archived(&self, _lsn: u64) {}

        pub(crate) fn durable(&self, _lsn: u64) {}
    }
}

#[cfg(not(feature = "metrics"))]
pub(crate) use off::Meters;
#[cfg(feature = "metrics")]
pub(crate) use on::Meters;
