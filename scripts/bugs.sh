#!/usr/bin/env bash
# Checks the checks: builds the library with its deliberate bugs, switches them on one by one, and shows by which part of the suite each is
# caught. Fails if one is not.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg foreword_bug" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/bug"
cargo run --quiet --release -p foreword-sim -- --bugs

# The fuzz targets: replaying the kept corpus shows bugs in reading, and nothing without one.
replay() { FOREWORD_BUG="$1" cargo test --quiet --release --locked -p foreword-fuzz --test replay >/dev/null 2>&1; }
replay none || { echo "FAILED: the fuzz corpus does not replay"; exit 1; }
for bug in TrustBody IgnoreEpoch AcceptPartialUnit; do
    if replay "$bug"; then echo "FAILED: replaying the fuzz corpus does not show $bug"; exit 1; fi
    echo "$bug: caught by replaying the fuzz corpus"
done
