#!/usr/bin/env bash
# Counts the instructions of an append, a commit and a reader's step under valgrind, and fails where they are more than their limit
# (bench/instructions). Installs valgrind with apt-get, and gungraun's runner with cargo, if they are not there. About a minute.
#
#   scripts/instructions.sh [ARGUMENT...]    arguments of `cargo bench`
source "$(dirname "$0")/common.sh"
cd bench
if ! command -v valgrind >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq valgrind >/dev/null
fi
# The runner must be of the library's version.
version=$(sed -n '/^name = "gungraun"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
runner=$target/gungraun-$version
[ -x "$runner/bin/gungraun-runner" ] || cargo install --quiet --locked --debug --root "$runner" --version "=$version" gungraun-runner
export GUNGRAUN_RUNNER=$(realpath "$runner/bin/gungraun-runner")
cargo bench --quiet --locked -p foreword-instructions "$@"
