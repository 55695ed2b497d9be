#!/usr/bin/env bash
# Checks the checks: builds the library with its deliberate bugs, switches them on one by one, and shows by which part of the suite each is
# caught. Fails if one is not.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg foreword_bug" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/bug"
cargo run --quiet --release -p foreword-sim -- --bugs
