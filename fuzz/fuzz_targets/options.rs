//! See `foreword_fuzz::options`.
#![cfg_attr(fuzzing, no_main)]

foreword_fuzz::target!(options);
