#!/usr/bin/env bash
# A cluster of real processes of foreword-raft, each in a network namespace and with a file system of
# its own, while the network between them is cut (also one way) and loses packets, processes are
# killed and stopped, disks fill up, the lead is handed over and nodes are replaced; and a judge of
# all that clients were told. Needs Linux, root, iproute2, and memory for the disks (up to 1 GiB each).
#
#   scripts/cluster-chaos.sh [--minutes M] [--nodes 3|5] [--seed N] [--out DIR]
#   scripts/cluster-chaos.sh --self-check    all nodes are put back to an earlier copy: must be reported
#
#   --minutes M   for how long (default 10)
#   --nodes N     how many nodes (default 3)
#   --seed N      what happens, to whom and for how long (default 1); not what the processes make of it
#   --out DIR     where the logs go (default target/cluster-chaos); the nodes' directories, too, if it failed
#
# Prints a line for each fault and a summary, as DIR/chaos.log has them. The exit status is 0 if all
# held, 1 if anything was lost or false or did not come back, 2 if it cannot run here. Whatever
# happens (Ctrl-C, too), no namespace, process or mount stays.
source "$(dirname "$0")/common.sh"

minutes=10 nodes=3 seed=1 out= roll_back=
while [ $# -gt 0 ]; do
    case $1 in
        --minutes) minutes=${2:?} && shift ;;
        --nodes) nodes=${2:?} && shift ;;
        --seed) seed=${2:?} && shift ;;
        --out) out=$(given "${2:?}") && shift ;;
        --self-check) roll_back=1 ;;
        *) usage "unknown argument $1" ;;
    esac
    shift
done
[[ $nodes = [35] ]] || usage "--nodes is 3 or 5"
seconds=$(awk -v minutes="$minutes" 'BEGIN { print int(minutes * 60) }')
[ "$seconds" -gt 0 ] || usage "--minutes is a number"
out=${out:-$(realpath -m "$target/cluster-chaos")}

cannot() {
    echo "cannot run here: $1"
    exit 2
}
[ "$(uname)" = Linux ] || cannot "this needs Linux"
[ "$(id -u)" = 0 ] || cannot "network namespaces and file systems need root: sudo $0"
PATH=$PATH:/usr/sbin:/sbin
for tool in ip tc; do
    command -v "$tool" >/dev/null || cannot "there is no $tool: apt-get install iproute2, or the package iproute of the distribution"
done
modprobe -aq veth bridge sch_ingress cls_bpf sch_tbf sch_netem 2>/dev/null || true # They may be built in.

mkdir -p "$out"
rm -rf "$out"/node-* "$out/chaos.log"
cargo build --quiet --release --locked -p foreword-cluster -p foreword-cli --bins --example chaos || cannot "the build failed"

name=fwchaos$$
work=$(mktemp -d "/tmp/$name.XXXXXX")
child=
spaces() { ip netns list | cut -d' ' -f1 | grep -x "$name-.*" || true; }
clean_up() {
    trap '' HUP INT TERM
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
    for space in $(spaces); do
        # What runs in there is ours.
        for process in $(ip netns pids "$space"); do kill -9 "$process" 2>/dev/null || true; done
        ip netns delete "$space" || true
    done
    for _ in $(seq 50); do # What still uses it is on its way out.
        for disk in "$work"/[0-9]; do
            mountpoint -q "$disk" && umount "$disk" 2>/dev/null
        done
        rm -f "$work"/bin/*
        rmdir "$work"/* "$work" 2>/dev/null || true
        [ -d "$work" ] || return 0
        sleep 0.1
    done
    echo "could not remove $work: see mount" >&2
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# What is built meanwhile is not what nodes are started with.
mkdir "$work/bin"
cp "$target"/release/{foreword,foreword-raft,examples/chaos} "$work/bin/"

# The clients are where the bridge is: what else this machine has for a network has no part in it.
{
    ip netns add "$name-hub" &&
        ip -n "$name-hub" link set lo up &&
        ip -n "$name-hub" link add bridge type bridge &&
        ip -n "$name-hub" address add 10.77.0.254/24 dev bridge &&
        ip -n "$name-hub" link set bridge up
} || cannot "no network namespace, or no bridge, can be made"
for node in $(seq "$nodes"); do
    {
        ip netns add "$name-$node" &&
            ip link add "n$node" netns "$name-hub" type veth peer name eth0 netns "$name-$node" &&
            ip -n "$name-hub" link set "n$node" master bridge up &&
            ip -n "$name-$node" address add "10.77.0.$node/24" dev eth0 &&
            ip -n "$name-$node" link set lo up &&
            ip -n "$name-$node" link set eth0 up
    } || cannot "no pair of virtual Ethernet devices can be made"
    mkdir "$work/$node"
    mount -t tmpfs -o size=1g "$name" "$work/$node" || cannot "no tmpfs can be mounted"
done

# In the background, so that a signal is heard at once.
ip netns exec "$name-hub" "$work/bin/chaos" --nodes "$nodes" --seconds "$seconds" --seed "$seed" \
    --spaces "$name-" --disks "$work" --out "$out" --foreword-raft "$work/bin/foreword-raft" --foreword "$work/bin/foreword" \
    ${roll_back:+--roll-back} > >(tee "$out/chaos.log") 2>&1 &
child=$!
status=0
wait "$child" || status=$?
child=
if [ "$roll_back" ]; then
    if [ "$status" = 1 ] && grep -q 'WRONG: lost' "$out/chaos.log"; then
        echo "the self-check passed: what was lost was reported"
        exit
    fi
    [ "$status" != 2 ] || exit 2
    echo "the self-check FAILED: all nodes forgot what they had acknowledged, and it was not reported (exit status $status)"
    exit 1
fi
if [ "$status" = 1 ]; then
    for node in $(seq "$nodes"); do cp -a "$work/$node" "$out/node-$node"; done
    echo "the nodes' directories are in $out"
fi
exit "$status"
