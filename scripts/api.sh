#!/usr/bin/env bash
# The public API of the published libraries, an item a line, in docs/api: no change of it goes
# unseen.
#
#   scripts/api.sh                 compare it with docs/api; what changed is shown, as a diff
#   scripts/api.sh --update        write docs/api anew, to be committed with the change
#   scripts/api.sh --semver REV    ask cargo-semver-checks (cargo install --locked
#                                  cargo-semver-checks) whether what changed since a revision, the
#                                  tag of the last release, breaks a user's program. Before the
#                                  first release there is nothing to compare with
#
# Versions of Rust list one and the same API differently. With another than docs/api was written
# with, comparing is left out.
source "$(dirname "$0")/common.sh"
crates=(foreword foreword-sim foreword-pages foreword-tree foreword-raft)
target=$(realpath -m "$target")
out=$target/api
# With all features; foreword-raft without its adapters, whose API is that of other crates.
features() { [ "$1" = foreword-raft ] || echo --all-features; }

# CRATE: rustdoc describes it as JSON, which it does not promise yet to do in the same way in each
# version. Only rustdoc is told so: build scripts that heard of it would all run again.
list() {
    RUSTDOC=$out/rustdoc RUSTDOCFLAGS="-D warnings" cargo rustdoc --quiet --locked -p "$1" --lib $(features "$1") \
        --target-dir "$target" -- -Z unstable-options --output-format json
    echo "# cargo rustdoc -p $1$(features "$1" | sed 's/^/ /'), $rust"
    # (What is only there for reading is no API.)
    "$target/debug/api" "$target/doc/${1//-/_}.json" | grep -v '::_docs'
}

update=
case ${1-} in
    "") ;;
    --update) update=1 ;;
    --semver)
        [ $# = 2 ] || usage "--semver needs a revision"
        breaks=
        for crate in "${crates[@]}"; do
            all=$(features "$crate")
            cargo semver-checks check-release --baseline-rev "$2" "${all:---default-features}" --package "$crate" || breaks="$breaks $crate"
        done
        [ -z "$breaks" ] || { echo "not compatible with $2, or not to be compared:$breaks"; exit 1; }
        exit
        ;;
    *) usage "unknown argument $1" ;;
esac
rust=$(rustc --version | cut -d. -f1,2)
if [ -z "$update" ] && ! grep -q ", $rust\$" docs/api/foreword.txt; then
    echo "SKIPPED: this is $rust; docs/api: $(head -n 1 docs/api/foreword.txt)"
    exit
fi
cargo build --quiet --locked --manifest-path scripts/api/Cargo.toml --target-dir "$target"
mkdir -p docs/api "$out"
printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n' >"$out/rustdoc"
chmod +x "$out/rustdoc"
changed=
for crate in "${crates[@]}"; do
    list "$crate" >"$out/$crate.txt"
    if [ -n "$update" ]; then
        cp "$out/$crate.txt" "docs/api/$crate.txt"
    else
        diff -U 0 "docs/api/$crate.txt" "$out/$crate.txt" || changed="$changed $crate"
    fi
done
[ -z "$changed" ] || { echo "the public API changed:$changed. Is that meant? Then scripts/api.sh --update, and CHANGELOG.md says it"; exit 1; }
