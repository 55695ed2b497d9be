//! See `foreword_fuzz::directory`.
#![cfg_attr(fuzzing, no_main)]

foreword_fuzz::target!(directory);
