#!/usr/bin/env bash
# Counts the instructions of an append, a commit and a reader's step under valgrind, and fails where
# they are more than their limit (bench/instructions). Installs valgrind with apt-get, if it is not
# there. About a minute.
#
#   scripts/instructions.sh [NAME...]    those whose names contain one of these (all)
source "$(dirname "$0")/common.sh"
if ! command -v valgrind >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq valgrind >/dev/null
fi
cd bench
cargo run --release --quiet --locked -p foreword-instructions -- "$@"
