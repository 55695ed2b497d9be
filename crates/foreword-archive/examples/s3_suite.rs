//! The tests that the crate `object_store` has for its own clients, against a server that speaks S3:
//! to know the server. The archive asks for much less. Needs an empty bucket, of which it deletes
//! all; endpoint and credentials come from the environment, as for the archive.
//!
//! ```sh
//! cargo run --release -p foreword-archive --example s3_suite -- BUCKET
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreword_archive::object_store::aws::{AmazonS3, AmazonS3Builder, Checksum, S3CopyIfNotExists};
use foreword_archive::object_store::{self, ObjectStore, integration as suite};
use futures_util::{StreamExt, TryStreamExt};

/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

type Tested = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What there is to be tested, by the names that the suite has for it.
fn tests(bucket: &str) -> object_store::Result<Vec<(&'static str, Tested)>> {
    let builder = || AmazonS3Builder::from_env().with_bucket_name(bucket);
    let build = |builder: AmazonS3Builder| builder.build().map(Arc::new);
    let s3 = build(builder())?;
    macro_rules! test {
        ($name:expr, $s3:expr, |$s:ident| $call:expr) => {{
            let $s: Arc<AmazonS3> = $s3.clone();
            let tested: Tested = Box::pin(async move { $call.await });
            ($name, tested)
        }};
    }
    let copies = build(builder().with_copy_if_not_exists(S3CopyIfNotExists::Multipart))?;
    let unsigned = build(builder().with_unsigned_payload(true))?;
    let sha256 = build(builder().with_checksum_algorithm(Checksum::SHA256))?;
    let crc64 = build(builder().with_checksum_algorithm(Checksum::CRC64NVME))?;
    Ok(vec![
        test!("put_get_delete_list", s3, |s| suite::put_get_delete_list(&*s)),
        test!("list_with_offset_exclusivity", s3, |s| suite::list_with_offset_exclusivity(&*s)),
        test!("list_uses_directories_correctly", s3, |s| suite::list_uses_directories_correctly(&*s)),
        test!("list_with_delimiter", s3, |s| suite::list_with_delimiter(&*s)),
        test!("list_paginated", s3, |s| suite::list_paginated(&*s, &*s)),
        test!("get_opts", s3, |s| suite::get_opts(&*s)),
        test!("get_nonexistent_object", s3, |s| async move {
            let read = suite::get_nonexistent_object(&*s, None).await;
            assert!(matches!(read, Err(object_store::Error::NotFound { .. })), "{read:?}");
        }),
        test!("put_get_attributes", s3, |s| suite::put_get_attributes(&*s)),
        test!("put_opts", s3, |s| suite::put_opts(&*s, true)),
        test!("rename_and_copy", s3, |s| suite::rename_and_copy(&*s)),
        test!("copy_rename_nonexistent_object", s3, |s| suite::copy_rename_nonexistent_object(&*s)),
        test!("copy_if_not_exists, by parts", copies, |s| suite::copy_if_not_exists(&*s)),
        test!("stream_get", s3, |s| suite::stream_get(&*s)),
        test!("multipart", s3, |s| suite::multipart(&*s, &*s)),
        test!("multipart_with_opts", s3, |s| suite::multipart_with_opts(&*s, &*s)),
        test!("multipart_put_part_out_of_order", s3, |s| suite::multipart_put_part_out_of_order(&*s, &*s)),
        test!("multipart_race_condition", s3, |s| suite::multipart_race_condition(&*s, true)),
        test!("multipart_out_of_order", s3, |s| suite::multipart_out_of_order(&*s)),
        test!("put_get_delete_list, payload not signed", unsigned, |s| suite::put_get_delete_list(&*s)),
        test!("put_get_delete_list, SHA-256", sha256, |s| suite::put_get_delete_list(&*s)),
        test!("put_get_delete_list, CRC-64", crc64, |s| suite::put_get_delete_list(&*s)),
    ])
}

#[tokio::main]
async fn main() -> object_store::Result<()> {
    let Some(bucket) = std::env::args().nth(1) else {
        eprintln!("s3_suite BUCKET (of which it deletes all)");
        std::process::exit(2);
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A test says by a panic what is wrong.
    std::panic::set_hook(Box::new(|_| ()));
    let (mut passed, mut failed) = (0, 0);
    let s3 = AmazonS3Builder::from_env().with_bucket_name(&bucket).build()?;
    for (name, test) in tests(&bucket)? {
        // (Of a test that failed, something may be left.)
        let left = s3.list(None).map_ok(|object| object.location).boxed();
        s3.delete_stream(left).try_for_each(|_| async { Ok(()) }).await?;
        let (began, test) = (Instant::now(), tokio::spawn(test));
        let stop = test.abort_handle();
        let outcome = match tokio::time::timeout(PATIENCE, test).await {
            Ok(Ok(())) => None,
            Ok(Err(panicked)) => Some(panicked.try_into_panic().map_or_else(|error| error.to_string(), |why| said(&*why))),
            Err(_) => Some(format!("not done in {PATIENCE:?}")),
        };
        stop.abort();
        (passed, failed) = (passed + u32::from(outcome.is_none()), failed + u32::from(outcome.is_some()));
        let outcome = outcome.map_or("passes".to_owned(), |why| format!("FAILS: {}", why.chars().take(600).collect::<String>()));
        println!("{name:<42} {:5.1} s  {outcome}", began.elapsed().as_secs_f64());
    }
    println!("{passed} passed, {failed} failed");
    Ok(())
}

/// What a panic says.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
