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
    transfer = "../../examples/transfer.rs",
    failed_flush = "../../examples/failed_flush.rs",
    store = "../../examples/store.rs",
}
