#!/usr/bin/env bash
# Loads the whole package dependency graph of Debian into the graph example, each time with up to
# four threads, killing it (SIGKILL) at random moments, and checks what came out of it: the edges are
# the input's, each once, and a shortest path is one. Needs apt-cache and python3.
#
#   scripts/graph-kills.sh [SEED]    when it is killed (1)
source "$(dirname "$0")/common.sh"
RANDOM=${1:-1}
cargo build --quiet --release -p foreword-tree --example graph
graph=$target/release/examples/graph
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
apt-cache dumpavail | crates/foreword-tree/examples/graph/debian.py > "$dir/debian.tsv"
echo "$(grep -c ^N "$dir/debian.tsv") packages, $(grep -c ^E "$dir/debian.tsv") dependencies"
kills=0
while true; do
  "$graph" load "$dir/store" "$dir/debian.tsv" 100 $((RANDOM % 4 + 1)) > "$dir/out" 2> "$dir/err" &
  load=$!
  sleep "0.$((RANDOM % 8 + 1))$((RANDOM % 10))" &
  wait -n $load $! || true
  kill -KILL $load 2>/dev/null || true
  # (The next one is to begin when this one is gone.) 137 is SIGKILL: anything else is a failure of
  # its own.
  status=0
  wait $load 2>/dev/null || status=$?
  [ $status = 0 ] && break
  [ $status = 137 ] || { cat "$dir/out" "$dir/err"; echo "failed by itself: $status"; exit 1; }
  kills=$((kills + 1))
done
echo "$kills kills; then: $(tail -n 2 "$dir/out" | head -n 1)"
grep ^E "$dir/debian.tsv" | sort > "$dir/expected"
"$graph" edges "$dir/store" | sort > "$dir/edges"
cmp "$dir/expected" "$dir/edges"
echo "all edges are equal"
for pair in "gimp zlib1g" "gnome libgcc-s1" "kde-full libselinux1"; do
  # shellcheck disable=SC2086
  "$graph" path "$dir/store" $pair | python3 -c '
import collections, sys
needs = collections.defaultdict(list)
for line in open(sys.argv[1]):
    _, package, need, *_ = line.split("\t")
    needs[package].append(need)
path = sys.stdin.read().strip().split(" -> ")
assert all(b in needs[a] for a, b in zip(path, path[1:])), path
far, queue = {path[0]: 0}, collections.deque(path[:1])
while queue:
    package = queue.popleft()
    for need in needs[package]:
        if need not in far:
            far[need] = far[package] + 1
            queue.append(need)
assert len(path) - 1 == far[path[-1]], (path, far[path[-1]])
print("shortest:", " -> ".join(path))' "$dir/expected"
done
