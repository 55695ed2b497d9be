#!/usr/bin/env bash
# Fuzzes the targets with libFuzzer, from the kept corpus. New inputs are gathered in fuzz/found; one that fails stops the run and is kept in fuzz/artifacts.
#
#   fuzz.sh [SECONDS [TARGET...]]    each target (segment, directory, options, input) for so many seconds (60)
#   fuzz.sh --keep [TARGET...]       makes the kept corpus anew, of it and what was found: the fewest and smallest inputs that reach as much
#
# Needs a C++ compiler (installed with apt-get if there is none) and nothing else: the flags are those of `cargo fuzz --sanitizer none`, and stable
# Rust knows them. The log has no unsafe code, so that there is little for a sanitizer to find.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v c++ >/dev/null || apt-get install --yes g++

job="${1:-60}"
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(segment directory options input)

coverage="-Cpasses=sancov-module"
for arg in level=4 inline-8bit-counters pc-table trace-compares; do coverage+=" -Cllvm-args=-sanitizer-coverage-$arg"; done
export RUSTFLAGS="--cfg fuzzing $coverage -Cdebug-assertions -Ccodegen-units=1 ${RUSTFLAGS:-}"
# With --target, build scripts and macros are built without those flags.
host="$(rustc -vV | sed -n 's/^host: //p')"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/fuzz"
cargo build --quiet --release --locked --package foreword-fuzz --target "$host" $(printf -- '--bin %s ' "${targets[@]}")

for target in "${targets[@]}"; do
    program="$CARGO_TARGET_DIR/$host/release/$target"
    mkdir -p "fuzz/found/$target" "fuzz/corpus/$target" "fuzz/artifacts/$target"
    if [ "$job" = --keep ]; then
        kept="$(mktemp --directory)"
        "$program" -merge=1 -max_len=2048 "$kept" "fuzz/corpus/$target" "fuzz/found/$target" 2>&1 | tail -n 1
        rm -rf "fuzz/corpus/$target"
        cp -r "$kept" "fuzz/corpus/$target" && rm -r "$kept"
    else
        echo "$target: $job s"
        "$program" -max_total_time="$job" -timeout=10 -rss_limit_mb=1024 -artifact_prefix="fuzz/artifacts/$target/" \
            -print_final_stats=1 -verbosity=0 "fuzz/found/$target" "fuzz/corpus/$target"
    fi
done
