//! The examples run to their end: their assertions are part of the tests.

#[allow(dead_code)]
#[path = "../examples/openraft.rs"]
mod openraft_example;

#[tokio::test]
async fn openraft() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    openraft_example::run(dir.path()).await
}
