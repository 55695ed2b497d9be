#!/usr/bin/env bash
# Fuzzes the targets with libFuzzer, from the kept corpus. New inputs are gathered in fuzz/found;
# one that fails stops the run and is kept in fuzz/artifacts.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]    each target (segment, directory, options, input) for so
#                                            many seconds (60)
#   scripts/fuzz.sh --keep [TARGET...]       makes the kept corpus anew, of it and what was found: the
#                                            fewest and smallest inputs that reach as much
#
# Needs a C++ compiler (installed with apt-get if there is none) and nothing else: the flags are
# those of `cargo fuzz --sanitizer none`, and stable Rust knows them. The log has no unsafe code, so
# that there is little for a sanitizer to find.
source "$(dirname "$0")/common.sh"
command -v c++ >/dev/null || apt-get install --yes g++

job="${1:-60}"
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(segment directory options input)

coverage="-Cpasses=sancov-module"
for arg in level=4 inline-8bit-counters pc-table trace-compares; do coverage+=" -Cllvm-args=-sanitizer-coverage-$arg"; done
export RUSTFLAGS="--cfg fuzzing $coverage -Cdebug-assertions -Ccodegen-units=1 ${RUSTFLAGS:-}"
# With --target, build scripts and macros are built without those flags.
host="$(rustc -vV | sed -n 's/^host: //p')"
export CARGO_TARGET_DIR="$target/fuzz"
cargo build --quiet --release --locked --package foreword-fuzz --target "$host" $(printf -- '--bin %s ' "${targets[@]}")

keep() {
    local kept
    kept="$(mktemp --directory)"
    "$program" -merge=1 -max_len=2048 "$kept" "fuzz/corpus/$1" "fuzz/found/$1" 2>&1 | tail -n 1
    rm -rf "fuzz/corpus/$1"
    cp -r "$kept" "fuzz/corpus/$1" && rm -r "$kept"
}

fuzz() {
    echo "$1: $job s"
    "$program" -max_total_time="$job" -timeout=10 -rss_limit_mb=1024 -artifact_prefix="fuzz/artifacts/$1/" \
        -print_final_stats=1 -verbosity=0 "fuzz/found/$1" "fuzz/corpus/$1"
}

# All at once; what each says comes as a whole.
said="$(mktemp --directory)"
trap 'rm -rf "$said"' EXIT
declare -A running
for it in "${targets[@]}"; do
    program="$CARGO_TARGET_DIR/$host/release/$it"
    mkdir -p "fuzz/found/$it" "fuzz/corpus/$it" "fuzz/artifacts/$it"
    if [ "$job" = --keep ]; then
        keep "$it"
    else
        fuzz "$it" >"$said/$it" 2>&1 &
        running[$it]=$!
    fi
done
failed=
for it in "${!running[@]}"; do
    wait "${running[$it]}" || failed+=" $it"
    cat "$said/$it"
done
[ -z "$failed" ] || { echo "FAILED:$failed"; exit 1; }
