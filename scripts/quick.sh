#!/usr/bin/env bash
# The quick loop, after each change: formatting, and all tests of the log but the few that take
# their time, built as fast as can be.
#
#   scripts/quick.sh [ARGUMENT...]    arguments of `cargo test`: -p PACKAGE, --workspace, --test NAME,
#                                     a test's name
#
# What it leaves out is listed below; docs/TESTING.md says what those tests are for. `cargo test
# --workspace` runs all.
source "$(dirname "$0")/common.sh"
export RUST_TEST_THREADS=$(($(nproc) * 2))

long=(
    every_flipped_bit_of_a_log every_cut_of_a_log                     # foreword, flips
    the_independent_reader_agrees_on_mutated_logs                     # foreword, golden
    growth:: cuts::                                                   # foreword
    doctor_ bench_ a_report_ a_busy_machine an_interrupted_measurement # foreword-cli, measure
    top:: operations:: chaos::                                        # foreword-cli
    every_crash_state_of_small_workloads damage_is_reported_or_costs  # foreword-sim
    random_cases_for_a_while a_full_disk what_threads_were_told       # foreword-sim
    random_work a_crash_at_every_write money_is_neither_made_nor_lost # foreword-pages, crash
    pool_and_recovery_keep_within_their_memory                        # foreword-pages, memory
)
cargo fmt --all --check
cargo test --config scripts/quick.toml --locked --all-targets "$@" -- "${long[@]/#/--skip=}"
echo "$SECONDS s"
