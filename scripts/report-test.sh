#!/usr/bin/env bash
# Opens the reports of `foreword doctor` and `foreword bench` in a browser (Chromium, headless): no
# error, nothing fetched, every plot has its data, and nothing overlaps; on a desktop and a phone,
# light and dark. Installs Chromium with apt-get if there is none. About a minute.
#
#   scripts/report-test.sh [PICTURES]    leaves pictures of them in that directory, and a PDF as printed
source "$(dirname "$0")/common.sh"
case ${1-} in -*) usage "unknown argument $1" ;; esac
pictures=${1:+$(given "$1")}
if ! command -v chromium >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

browse() { # what the browser does, e.g. --dump-dom URL
    rm -rf "$work/profile"
    timeout 120 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --user-data-dir="$work/profile" --hide-scrollbars --enable-logging=stderr "$@" 2>"$work/said"
}

cargo build --quiet --locked -p foreword-cli
foreword="$target/debug/foreword"
mkdir "$work/disk"
"$foreword" doctor "$work/disk" --for 500ms --anyway --html "$work/doctor.html" >/dev/null
"$foreword" bench "$work/disk" --for 100ms --rounds 2 --threads 1,2,16 --records 128,16K --segment-size 4M --open-loop auto --anyway \
    --html "$work/bench.html" >/dev/null
[ -z "$(ls "$work/disk")" ] || { echo "files are left: $(ls "$work/disk")"; exit 1; }

for page in doctor bench; do
    # As it is: whatever it would say or ask for is an error.
    browse --dump-dom "file://$work/$page.html" >/dev/null
    if grep -E 'CONSOLE|net_error|Refused' "$work/said"; then echo "$page: the browser complains"; exit 1; fi
    if grep -oE '(src|href)="[^"]*"' "$work/$page.html" | grep -vx 'href="data:,"'; then echo "$page: refers to something else"; exit 1; fi
    # With the check in it, which the page's own policy would not let run.
    { grep -v Content-Security-Policy "$work/$page.html"; echo "<script>"; cat scripts/report-check.js; echo "</script>"; } >"$work/$page-check.html"
    for window in 1200,900 390,844; do
        for dark in "" --force-dark-mode; do
            found=$(browse --window-size=$window $dark --dump-dom "file://$work/$page-check.html" | grep -oE '(FINE|WRONG) .*' | sed 's/<.*//' || true)
            echo "$page, ${window/,/x}${dark:+, dark}: ${found:-the check did not run}"
            [[ $found == FINE* ]] || exit 1
        done
    done
    if [ -n "$pictures" ]; then
        mkdir -p "$pictures"
        browse --window-size=1000,7000 --screenshot="$pictures/$page-light.png" "file://$work/$page.html"
        browse --window-size=1000,7000 --force-dark-mode --screenshot="$pictures/$page-dark.png" "file://$work/$page.html"
        browse --window-size=390,9000 --screenshot="$pictures/$page-phone.png" "file://$work/$page.html"
        browse --print-to-pdf="$pictures/$page.pdf" --no-pdf-header-footer "file://$work/$page.html"
    fi
done
