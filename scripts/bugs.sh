#!/usr/bin/env bash
# Checks the checks: builds the library with its deliberate bugs, switches them on one by one, and
# shows by which part of the suite each is caught. Fails if one is not.
#
#   scripts/bugs.sh
source "$(dirname "$0")/common.sh"
# What the table at the end leaves to others is named there.
for bug in $(sed -n '/^impl Bug {/,/^}/p' crates/foreword/src/bug.rs | grep -o 'Bug::[A-Z][A-Za-z]*' | cut -c6-); do
    grep -qw "$bug" scripts/bugs.sh scripts/shuttle.sh || { echo "FAILED: nothing is to show $bug"; exit 1; }
done
# Those that need several threads. (It has a build of its own.)
scripts/shuttle.sh --self-check

cargo_with_bugs() { with_flags "--cfg foreword_bug" cargo "$@"; }
# A test (its program, and which in that) shows bugs, and nothing without one.
shows() {
    local what="$1" package="$2" test="$3"
    holds() { FOREWORD_BUG="$1" cargo_with_bugs test --quiet --locked -p "$package" --test $test >/dev/null 2>&1; }
    holds none || { echo "FAILED: $what fails without a bug, too"; exit 1; }
    for bug in "${@:4}"; do
        if holds "$bug"; then echo "FAILED: $what does not show $bug"; exit 1; fi
        echo "$bug: caught by $what"
    done
}
shows "the table of faults and outcomes" foreword-sim "it matrix::" RetryFlush ForgetFailure
shows "a process that was forked" foreword-tests process WriteInFork WaitInFork
shows "crash loops and cuts without records" foreword-tests "it full_disk::" NeverAbsorb AbsorbAllOrNone LoseBegun GiveReserveBack \
    RemoveKept CutAtOnce ReserveLast TakeLastReserve RecycleFirst ForgetLarger ForgetUrgent
shows "a flush that is held up while a closed log goes on" foreword-tests "it corners::" OvertakeReopening
shows "holds, limits and retention" foreword-tests "it holds::" ForgetHolds IgnoreOutside UnlockOutside ForgetLimit
shows "what hooks are told" foreword-tests "it strangers::" TellEarly WaitForHooks CloseUntold
shows "many logs on a few threads" foreword-tests "runtime many_logs" ForgetTask
shows "what the suite once found" foreword-sim "it regressions::" SealLate TrustBegun MoveFirst ResumeSealed
shows "openings and repairs that died" foreword-sim "it reopened::" TrustZeros ForkBeside HideLost FollowNoLinks DropUnfinished ClearVouched ForgetPromised \
    NoRoomAside CopyAgain LoseUnmade TrustStaleStart LeaveShrunk GoOutOfReach
shows "the table of verdicts on real files" foreword-tests "it verdicts::" NameSuperseded ForgetDropped
shows "replaying the fuzz corpus" foreword-fuzz replay TrustBody IgnoreEpoch AcceptPartialUnit

cargo_with_bugs run --quiet --release --locked -p foreword-sim -- --bugs
