//! The command `foreword-archive`.
fn main() {}
