//! The examples run to their end: their assertions are part of the tests.

macro_rules! examples {
    ($($name:ident = $path:literal),* $(,)?) => {$(
        #[allow(unreachable_pub)]
        #[path = $path]
        mod $name;

        #[test]
        fn $name() -> Result<(), Box<dyn std::error::Error>> {
            $name::main()
        }
    )*};
}

examples! {
    costs = "../examples/00_costs.rs",
    writer = "../examples/01_writer.rs",
    background_sync = "../examples/02_background_sync.rs",
    recovery = "../examples/03_recovery.rs",
    group_commit = "../examples/04_group_commit.rs",
    strategies = "../examples/05_strategies.rs",
    redo = "../examples/06_redo.rs",
    evidence = "../examples/07_evidence.rs",
    many_logs = "../examples/09_many_logs.rs",
}
