//! See `foreword_fuzz::segment`.
#![cfg_attr(fuzzing, no_main)]

foreword_fuzz::target!(segment);
