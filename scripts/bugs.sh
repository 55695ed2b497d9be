#!/usr/bin/env bash
# Checks the checks: builds the library with its deliberate bugs, switches them on one by one, and shows by which part of the suite each is
# caught. Fails if one is not.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg foreword_bug" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/bug"
cargo run --quiet --release -p foreword-sim -- --bugs

# The fuzz targets: what the kept corpus shows of bugs in reading.
cargo test --quiet --release --locked -p foreword-fuzz --test replay --no-run
replay() { FOREWORD_BUG="$1" cargo test --quiet --release --locked -p foreword-fuzz --test replay 2>&1; }
replay none >/dev/null || { echo "FAILED: the corpus does not replay without a bug"; exit 1; }
for bug in TrustHeader TrustBody IgnoreEpoch IgnorePromises AcceptPartialUnit; do
    if found="$(replay "$bug")"; then
        echo "FAILED: replaying the corpus does not show $bug"
        exit 1
    fi
    echo "$bug: caught by fuzz targets $(grep -oE '^test (segment|directory|options|input) .*FAILED|^    (segment|directory|options|input)$' <<<"$found" | grep -oE 'segment|directory|options|input' | sort -u | tr '\n' ' ')"
done
