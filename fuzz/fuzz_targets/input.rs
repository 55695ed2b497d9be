//! See `foreword_fuzz::input`.
#![cfg_attr(fuzzing, no_main)]

foreword_fuzz::target!(input);
