#!/usr/bin/env bash
# Runs the long campaigns, which CI has no time for, one after the other, and sums up.
#
#   scripts/campaign.sh [--hours H] [--only NAME,...] [--out DIR] [--quick]
#   scripts/campaign.sh --list
#
#   --hours H        so much time for those that have no end of their own: fuzzing, seeds, schedules, kills (default 1)
#   --only NAME,...  these alone
#   --out DIR        where the logs are kept (default target/campaign)
#   --quick          a small part of each: whether the campaigns themselves work
#   --list           their names and what they do
#
# DIR/NAME.log is what a campaign said, DIR/summary.txt the table at the end, DIR/state what passed.
# Run again, it skips what passed with the same commit (uncommitted changes included) and the same
# command. Seeds are derived from the commit. A campaign that cannot run here (no root, no FUSE, no
# Chromium) is skipped, and the table says why. The exit status is 1 if one failed, 130 if it was
# interrupted.
source "$(dirname "$0")/common.sh"

hours=1 only= out= quick= list=
while [ $# -gt 0 ]; do
    case $1 in
        --hours) hours=${2:?} && shift ;;
        --only) only=${2:?} && shift ;;
        --out) out=$(given "${2:?}") && shift ;;
        --quick) quick=1 ;;
        --list) list=1 ;;
        *) usage "unknown argument $1" ;;
    esac
    shift
done
out=${out:-$(realpath -m "$target/campaign")}
# A tenth of the time, in seconds; a number of which so many fit into a second.
tenth=$(awk -v h="$hours" -v q="$quick" 'BEGIN { print q ? 5 : int(h * 360) + 1 }')
full() { if [ "$quick" ]; then echo "$2"; else echo "$1"; fi; }
commit=$(git rev-parse HEAD)-$(git diff HEAD | sha1sum | cut -c1-8)
seed=$((16#${commit:0:7}))

# Each says "cannot run here: WHY" with status 2 if it needs what is not there.
cannot() {
    echo "cannot run here: $1"
    return 2
}
with() { env "$@"; }
power() { scripts/power-failure.sh "$@"; }
chaos() {
    local disk
    disk=$(mktemp -d -p "$out")
    cargo run --quiet --release --locked -p foreword-cli -- chaos "$disk" "$@" && rm -rf "$disk"
}
chaos_full_disk() {
    [ "$(id -u)" = 0 ] || cannot "a file system of its own needs root" || return
    chaos --full-disk "$@"
}
# With three nodes and with five.
cluster_chaos() {
    for nodes in 3 5; do scripts/cluster-chaos.sh --nodes $nodes --out "$out/cluster-chaos-$nodes" "$@" || return; done
}
report() {
    command -v chromium >/dev/null || [ "$(id -u)" = 0 ] || cannot "Chromium is not there, and to install it needs root" || return
    scripts/report-test.sh "$@"
}
graph() {
    command -v apt-cache >/dev/null || cannot "there is no apt-cache" || return
    command -v python3 >/dev/null || cannot "there is no python3" || return
    scripts/graph-kills.sh "$@"
}
archive_server() {
    command -v python3 >/dev/null || cannot "there is no python3" || return
    scripts/archive-server.sh "$@"
}
install() {
    local prefix
    prefix=$(mktemp -d -p "$out")
    scripts/install.sh "$prefix" && "$prefix/bin/foreword" --version && scripts/install.sh --uninstall "$prefix" &&
        [ -z "$(find "$prefix" -name '*foreword*')" ] && rm -rf "$prefix"
}

campaigns() {
    local test="cargo test --release --locked" sim="cargo run --quiet --release --locked -p foreword-sim --"
    # A simulated cluster is the same each time if tokio's chance is given by the seed, too.
    local seeded="RUSTFLAGS=--cfg tokio_unstable" cluster="$test --target-dir $target/seeded -p foreword-cluster --lib"
    campaign flips "every bit flipped and every cut, read and verified" \
        with "FOREWORD_FLIPS=$(full full sampled)" $test -p foreword-tests --test flips
    campaign mutations "mutated golden logs, read by the second reader" \
        with FOREWORD_REQUIRE_PYTHON=1 "FOREWORD_MUTATIONS=$((tenth / 5 + 8))" $test -p foreword-tests --test it golden::
    campaign states "crash states of small workloads, more of each" \
        $sim --exhaustive --steps "$(full 3 2)" --states "$(full 1024 64)" --recovery-points "$(full 3 1)" --seed "$seed"
    campaign damage "damage in every sector, by another seed" $sim --damage --seed "$seed"
    campaign seeds "random workloads with faults on the simulated disk" \
        with "FOREWORD_SIM_SECONDS=$((tenth * 2))" "FOREWORD_SIM_SEED=$seed" $test -p foreword-sim --test it random:: -- --nocapture
    campaign matrix "what each fault does, as docs/GUARANTEES.md has it" $test -p foreword-sim --test it matrix::
    campaign bugs "each deliberate bug, and what catches it" scripts/bugs.sh
    campaign shuttle "thread schedules of the log, the pages and the trees" scripts/shuttle.sh $((tenth * 30))
    for it in segment directory options input; do
        campaign "fuzz-$it" "fuzzing of the target $it" scripts/fuzz.sh "$tenth" "$it"
    done
    campaign page-crashes "crashes of random work on pages" \
        with "FOREWORD_CRASHES=$((tenth * 30))" $test -p foreword-pages --test it -- crash:: nested::
    campaign page-bugs "each deliberate bug of the page store" \
        $test -p foreword-pages --features sabotage --test sabotage -- --nocapture
    campaign tree-crashes "crashes and threads on trees" \
        with "FOREWORD_CRASHES=$((tenth * 15))" $test -p foreword-tree --test it -- crash:: serial:: example::
    campaign tree-bugs "each deliberate bug of the trees" \
        $test -p foreword-tree --features sabotage --test it -- --ignored --nocapture every_bug
    campaign graph-kills "Debian's package graph, loaded through kills" graph "$((seed % 32768))"
    campaign chaos "kills of a writer on this disk" chaos --seconds "$tenth"
    campaign chaos-full "the same on a disk that is full" chaos_full_disk --seconds "$tenth"
    campaign power "power failures on ext4, XFS and Btrfs" power $(full "" --short)
    campaign power-bugs "a lying disk and deliberate bugs, which that must report" power --self-check
    campaign cluster "simulated clusters, with faults of disks, network and members" \
        with "$seeded" "FOREWORD_CLUSTER_SEEDS=$((tenth * 3))" "FOREWORD_CLUSTER_SEED=$((seed % 1000000))" \
        $cluster clusters_keep_their_promises -- --nocapture
    campaign cluster-bugs "each deliberate bug of the cluster, and what catches it" \
        with "$seeded" "FOREWORD_CLUSTER_SEEDS=$(full 1000 200)" $cluster each_deliberate_bug -- --ignored --nocapture
    campaign cluster-chaos "clusters of processes, on a network that is cut, with kills and full disks" \
        cluster_chaos --minutes "$(full $((tenth / 60 + 1)) 1)" --seed "$seed"
    campaign cluster-lost "the same, put back to an earlier copy, which must be reported" \
        scripts/cluster-chaos.sh --self-check --out "$out/cluster-lost"
    campaign archive "random histories of archived logs, each restored to 1,000 points" \
        with "FOREWORD_ARCHIVE_POINTS=$(full 1000 100)" $test -p foreword-archive --test it histories::
    campaign archive-server "an archive on SeaweedFS, through kills and take-overs" archive_server
    campaign archive-ceph "the same on a Ceph RADOS Gateway" archive_server ceph
    campaign report "the HTML reports in a browser" report "$out/pictures"
    campaign install "installing and uninstalling the command" install
    campaign packages "the packages, each built from what is in it alone" scripts/package.sh
    campaign book "the guide as a book" scripts/guide.sh
}

campaign() {
    local name=$1 what=$2 log=$out/$1.log started status
    shift 2
    if [ "$list" ]; then printf '%-14s %s\n' "$name" "$what" && return; fi
    if [ "$only" ] && [[ ,$only, != *,$name,* ]]; then return; fi
    if grep -qxF "$commit $name $*" "$out/state"; then
        row "$name" passed - "before, at this commit: $log"
        return
    fi
    [ ! -t 1 ] || printf '%-14s %s ...\r' "$name" "$what"
    started=$SECONDS status=0
    echo "\$ $*" >"$log"
    # (Not as a condition: in there strict mode would not hold.)
    set +e
    (set -e && "$@") </dev/null >>"$log" 2>&1
    status=$?
    set -e
    local took="$((SECONDS - started)) s"
    if [ $status = 0 ]; then
        echo "$commit $name $*" >>"$out/state"
        row "$name" passed "$took" "$log"
    elif [ $status = 2 ] && grep -q '^cannot run here: ' "$log"; then
        row "$name" skipped "$took" "$(sed -n 's/^cannot run here: //p' "$log" | tail -n 1)"
    else
        failed+=" $name"
        row "$name" FAILED "$took" "status $status: $log"
    fi
}

if [ "$list" ]; then campaigns && exit; fi
known=$(list=1 && campaigns | cut -d' ' -f1)
for name in ${only//,/ }; do
    grep -qx "$name" <<<"$known" || usage "no campaign is called $name"
done
failed=
mkdir -p "$out"
touch "$out/state"
rows=$out/rows
: >"$rows"
row() { printf '%-14s %-8s %7s  %s\n' "$@" | tee -a "$rows"; }

sum_up() {
    { echo "commit $commit, seed $seed"; cat "$rows"; echo "$1"; } >"$out/summary.txt"
    rm -f "$rows"
    echo "$1"
    echo "$out/summary.txt"
}

trap 'sum_up "interrupted; run it again to go on"; exit 130' INT TERM
campaigns
if [ "$failed" ]; then
    sum_up "FAILED:$failed"
    exit 1
fi
sum_up "nothing failed"
