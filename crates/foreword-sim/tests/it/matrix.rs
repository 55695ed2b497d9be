//! The table in `docs/GUARANTEES.md` is what the faults do.

#[test]
fn the_document_says_what_the_faults_do() {
    let matrix = foreword_sim::suite::matrix();
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/GUARANTEES.md")).unwrap();
    let missing: Vec<&str> = matrix.lines().filter(|row| !document.lines().any(|line| line == *row)).collect();
    assert!(
        document.contains(&matrix),
        "put what `cargo run -p foreword-sim -- --matrix` prints into docs/GUARANTEES.md; not there:\n{}",
        missing.join("\n")
    );
}
