#!/usr/bin/env bash
# Checks that the libraries compile for the other operating systems. A target that cannot be
# installed here is skipped, and said so.
#
#   scripts/check-targets.sh
source "$(dirname "$0")/common.sh"
host="$(rustc -vV | sed -n 's/^host: //p')"
for target in x86_64-unknown-linux-gnu aarch64-apple-darwin x86_64-pc-windows-gnu; do
    if [ "$target" = "$host" ]; then
        echo "$target is this machine: clippy has checked it"
        continue
    fi
    if ! rustup target list --installed 2>/dev/null | grep -qx "$target" && ! timeout 120 rustup target add "$target" >/dev/null 2>&1; then
        echo "skipped: $target cannot be installed here"
        continue
    fi
    echo "checking $target"
    cargo check --quiet --locked -p foreword -p foreword-measure --target "$target"
done
