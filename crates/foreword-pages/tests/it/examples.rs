//! The example `aries` runs to its end: its assertions are part of the tests.

#[allow(unreachable_pub)]
#[path = "../../examples/aries.rs"]
mod aries;

#[test]
fn aries() -> Result<(), Box<dyn std::error::Error>> {
    aries::main()
}
