#!/usr/bin/env bash
# The guide (guide/, an mdBook): builds it, measures for it, checks its exercises.
#
#   scripts/guide.sh            build it into guide/book (installs mdBook with cargo, if there is none)
#   scripts/guide.sh measure    measure anew what its chapters show of times: guide/output/measured,
#                               and the curve of group commit. A minute, on an idle machine;
#                               GUIDE_DISK=DIR says on which disk (default: where the repository
#                               is); --anyway goes on with a busy machine, and the page says so
#   scripts/guide.sh exercises  check that the solutions pass the exercises' tests, and that each
#                               test fails on the unsolved exercise
source "$(dirname "$0")/common.sh"

build() {
    if ! command -v mdbook >/dev/null; then
        cargo install mdbook --locked --version '^0.5' --no-default-features --features search
    fi
    # mdBook goes on, and says fine, when an include is missing.
    said=$(mdbook build guide 2>&1) && ! grep -E '^ *(ERROR|WARN)' <<<"$said" || { echo "$said"; exit 1; }
    echo "guide/book/index.html"
}

measure() {
    cargo build --release --locked -p foreword --examples
    cargo build --release --locked -p foreword-cli -p foreword-guide
    cargo build --release --locked -p foreword-tree --example graph
    cargo build --release --locked -p foreword-cluster --bin foreword-raft
    disk=$(mktemp -d "${GUIDE_DISK:-$PWD}/guide-measure.XXXXXX")
    trap 'rm -rf "$disk"' EXIT
    out=guide/output/measured
    mkdir -p "$out"
    for example in 00_costs 02_background_sync 03_recovery 04_group_commit 05_strategies; do
        # Temporary directories have other names each time.
        TMPDIR=$disk "$target/release/examples/$example" | sed "s|$disk/[^/]*|DIR|" >"$out/$example.txt"
    done
    graph "$disk" >"$out/graph.txt"
    TMPDIR=$disk "$target/release/foreword-raft" demo >"$out/raft_demo.txt"
    "$target/release/foreword" bench "$disk" --strategies each,group --threads 1,2,4,8,16,32,64 --records 128 --for 1500ms --rounds 3 --json "$@" >"$disk/bench.json"
    # Where it was measured is nobody's business.
    sed -e "s|$disk|DIR|g" -e 's/"host":"[^"]*"/"host":null/' "$disk/bench.json" >guide/output/bench.json
    "$target/release/curve" guide/output/bench.json guide/output/curve.svg guide/output/curve.md
    cat guide/output/curve.md
}

graph() { # loads a graph, is killed, and goes on
    graph=$target/release/examples/graph
    "$graph" load "$1/graph" crates/foreword-tree/examples/graph/excerpt.tsv 1 >/dev/null &
    sleep 0.07
    kill -9 $! || true # (It may be done: then the next line says so.)
    wait $! 2>/dev/null || true
    "$graph" load "$1/graph" crates/foreword-tree/examples/graph/excerpt.tsv 1
}

exercises() {
    # (As part of the workspace: what its tests have built serves here, too.)
    local all="--workspace --locked --test e[1-8]_*"
    cargo test --quiet --features foreword-guide/solutions $all
    said=$(timeout 300 cargo test --no-fail-fast $all -- --ignored 2>&1 || true)
    tests=$(grep -c 'cfg_attr(not(feature = "solutions"), ignore' guide/tests/e*.rs | awk -F: '{ n += $2 } END { print n }')
    red=$(grep -c '^test .* FAILED$' <<<"$said" || true)
    if [ "$red" -ne "$tests" ] || [ "$tests" -eq 0 ] || grep -q '^test .* ok$' <<<"$said"; then
        echo "$said"
        echo "of $tests tests $red fail on the exercises as they stand"
        exit 1
    fi
    echo "all $tests tests are red on the exercises and green on the solutions"
}

command=${1:-build}
shift || true
case $command in
    build | measure | exercises) "$command" "$@" ;;
    *) usage "unknown command $command" ;;
esac
