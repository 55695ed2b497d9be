#!/usr/bin/env bash
# Power failures at the block level, on real file systems. Needs root, /dev/fuse and loop devices;
# installs the file systems' tools if they are missing.
#
#   scripts/power-failure.sh                 1,200 states each of ext4, XFS and Btrfs
#   scripts/power-failure.sh --short         50 states of ext4: a quick look
#   scripts/power-failure.sh --self-check    a lying disk, and deliberate bugs of the log: each must be reported
#   scripts/power-failure.sh ARGUMENT...     as given: see `cargo run -p foreword-power -- run --help`
#
# The exit status is 0 if all held, 1 if anything was lost or false, 2 if it cannot run here.
# Whatever happens (Ctrl-C, too), nothing stays mounted.
source "$(dirname "$0")/common.sh"

cannot() {
    echo "cannot run here: $1" >&2
    exit 2
}

[ "$(uname)" = Linux ] || cannot "this needs Linux"
[ "$(id -u)" = 0 ] || cannot "this needs root, to mount file systems: sudo $0"
modprobe -aq fuse loop xfs btrfs 2>/dev/null || true # They may be built in.
[ -e /dev/fuse ] || cannot "there is no /dev/fuse"
[ -e /dev/loop-control ] || cannot "there are no loop devices (/dev/loop-control)"
for tool in mkfs.ext4 mkfs.xfs mkfs.btrfs losetup blockdev; do
    command -v "$tool" >/dev/null || missing="${missing:-} $tool"
done
if [ -n "${missing:-}" ]; then
    { apt-get update -q && apt-get install -y -q e2fsprogs xfsprogs btrfs-progs mount util-linux; } >/dev/null 2>&1 ||
        cannot "not there, and not to be installed with apt-get:$missing"
fi

work=$(mktemp -d /tmp/foreword-power.XXXXXX)
child=

clean_up() {
    trap '' INT TERM
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    for _ in $(seq 50); do # What still uses it is on its way out.
        mountpoint -q "$work/mount" && umount "$work/mount" 2>/dev/null
        for device in $(losetup --noheadings --output NAME,BACK-FILE | awk -v file="$work/disk/disk" '$2 == file { print $1 }'); do
            losetup --detach "$device" 2>/dev/null || true
        done
        mountpoint -q "$work/disk" && umount "$work/disk" 2>/dev/null
        rmdir "$work/mount" "$work/disk" "$work" 2>/dev/null || true
        [ -d "$work" ] || return 0
        sleep 0.1
    done
    echo "could not remove $work: see mount and losetup" >&2
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# In the background, so that a signal is heard at once.
run() {
    "$target/release/foreword-power" run --work "$work" "$@" &
    child=$!
    local status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

build() {
    cargo build --quiet --release --locked -p foreword-power || cannot "the build failed"
}

# Passes if the run reports a violation, and nothing but that.
must_report() {
    local what=$1 status=0
    shift
    echo "== $what: must be reported"
    run --fs ext4 "$@" || status=$?
    [ "$status" = 1 ] || { echo "FAILED: $what was not reported (exit status $status)"; missed=1; }
}

case "${1:-}" in
--short)
    build
    run --fs ext4 --states 50 --lives 10 "${@:2}"
    ;;
--self-check)
    missed=0
    build
    must_report "a disk that lies about its flushes" --states 100 --lies 20
    target=$target/bug
    export RUSTFLAGS="--cfg foreword_bug" CARGO_TARGET_DIR=$target
    build
    for bug in AckBeforeFlush ForgetDirty SkipDirSync LinkBeforeCopies TrustCache; do
        export FOREWORD_BUG=$bug
        must_report "the log's deliberate bug $bug" --states 300
    done
    exit "$missed"
    ;;
*)
    build
    run "$@"
    ;;
esac
