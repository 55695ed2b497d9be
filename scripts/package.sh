#!/usr/bin/env bash
# The packages of what is to be published, and the proof that each is whole: libraries, commands,
# examples, unit tests and documentation, built from the packaged files alone, and every file that a
# packaged document leads to. Needs no network once the workspace was built.
#
#   scripts/package.sh [--list]    --list: also the files of each
source "$(dirname "$0")/common.sh"
list=
case ${1-} in
    "") ;;
    --list) list=1 ;;
    *) usage "unknown argument $1" ;;
esac
# In the order in which they can be published: each needs only what comes before it.
crates=(foreword foreword-sim foreword-command foreword-measure foreword-cli foreword-pages foreword-tree foreword-raft foreword-cluster foreword-archive)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

cargo package --offline --locked --allow-dirty --no-verify "${crates[@]/#/--package=}" 2>&1 | grep -v "ignoring test"

# They are unpacked into a workspace of their own, where each finds the others among them, and
# nothing else of this repository.
work=$(realpath -m "$target/packaged")
mkdir -p "$work"
rm -rf "${work:?}"/*-"$version"
{
    printf '[workspace]\nresolver = "3"\nmembers = ["*-%s"]\n[patch.crates-io]\n' "$version"
    printf '%s\n' "${crates[@]}" | sed "s|.*|& = { path = \"&-$version\" }|"
} >"$work/Cargo.toml"
cp Cargo.lock "$work/"
for crate in "${crates[@]}"; do
    # (As new: packages have one and the same old time in them, and cargo would take them for what
    # it has checked before.)
    tar -xzmf "$target/package/$crate-$version.crate" -C "$work"
    at=$work/$crate-$version
    [ -z "$list" ] || (cd "$work" && find "$crate-$version" -type f | sort)
    for file in README.md LICENSE; do
        [ -s "$at/$file" ] || { echo "$crate has no $file"; exit 1; }
    done
    while IFS=: read -r file link; do
        [ -e "$(dirname "$file")/$link" ] || { echo "${file#"$work"/} leads to $link, which is not in the package"; exit 1; }
    done < <(find "$at" -name '*.md' -exec grep -HoP '(\]\(|^\[[^]]*\]: |<img [^>]*src=")\K(?!https?:)[^)#\s"]+' {} +)
done
cd "$work"
export CARGO_TARGET_DIR=target
cargo check --offline --workspace --all-targets --all-features
# What the packages say they build with. (Not what only tests and examples need.)
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "foreword-$version/Cargo.toml")
if cargo "+$oldest" --version >/dev/null 2>&1; then
    cargo "+$oldest" check --offline --workspace --all-features --target-dir "target/$oldest"
else
    echo "SKIPPED: Rust $oldest is not installed (rustup toolchain install $oldest --profile minimal)"
fi
RUSTDOCFLAGS="-D warnings" cargo doc --offline --workspace --no-deps --all-features
echo "${#crates[@]} packages, each whole: $target/package"
