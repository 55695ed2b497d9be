#!/usr/bin/env bash
# Explores thread schedules of the commit path. The argument: how many schedules for each scenario (500).
set -euo pipefail
cd "$(dirname "$0")/.."
export SHUTTLE_SCHEDULES="${1:-500}"
export RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/shuttle"
cargo test -p foreword --test shuttle --release "${@:2}"
