#!/usr/bin/env bash
# Explores thread schedules of the commit path.
#
#   scripts/shuttle.sh [SCHEDULES]     so many schedules of each scenario (500)
#   scripts/shuttle.sh --self-check    the same with deliberate bugs: each must be caught, each
#                                      scenario must catch one; prints bug -> scenarios
source "$(dirname "$0")/common.sh"
job="${1:-500}"
export RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR="$target/shuttle"
if [ "$job" != --self-check ]; then
    SHUTTLE_SCHEDULES="$job" exec cargo test -p foreword-sim --test shuttle "${@:2}"
fi

RUSTFLAGS+=" --cfg foreword_bug"
CARGO_TARGET_DIR+="-bug"
program="$(cargo test -p foreword-sim --test shuttle --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*Executable.*(\(.*\))/\1/p')"
scenarios="$("$program" --list | sed -n 's/: test$//p')"
# Each in a process of its own: one that fails may abort it.
fails() { ! FOREWORD_BUG="$1" timeout 120 "$program" --exact "$2" >/dev/null 2>&1; }

uncaught=() idle="$scenarios"
for bug in none TellAtOnce CloseUntold AppendWhileClosing LostWakeup ForgetOthers ChangeAtOnce CutInFlight FlushUncopied PrepareAtOnce AckBeforeFlush ForgetFailure; do
    caught=()
    for scenario in $scenarios; do
        if fails "$bug" "$scenario"; then caught+=("$scenario"); fi
    done
    echo "$bug -> ${caught[*]:-nothing}"
    if [ "$bug" = none ]; then
        [ ${#caught[@]} = 0 ] || { echo "FAILED: without a bug, too"; exit 1; }
        continue
    fi
    [ ${#caught[@]} -gt 0 ] || uncaught+=("$bug")
    idle="$(grep -vxF -f <(printf '%s\n' "${caught[@]}") <<<"$idle" || true)"
done
if [ ${#uncaught[@]} -gt 0 ]; then echo "FAILED: not caught: ${uncaught[*]}"; exit 1; fi
if [ -n "$idle" ]; then echo "FAILED: fails with no bug:" $idle; exit 1; fi
echo "every bug is caught, and every scenario catches one"
