#!/usr/bin/env bash
# Explores thread schedules: of the log's commit path, of the pages' latches, and of the trees.
#
#   scripts/shuttle.sh [SCHEDULES]     so many schedules of each scenario (300)
#   scripts/shuttle.sh --self-check    the same with deliberate bugs: each must be caught, each
#                                      scenario must catch one; prints bug -> scenarios
source "$(dirname "$0")/common.sh"
job="${1:-300}"

# FLAGS PACKAGES [ARGUMENTS]: builds and runs the scenarios.
explore() { with_flags "$1" cargo test $2 --locked --test shuttle "${@:3}"; }
# Optimizing takes longer than it saves, but in a campaign.
quick="--config scripts/quick.toml"

if [ "$job" != --self-check ]; then
    [ "$job" -le 2000 ] || quick=
    SHUTTLE_SCHEDULES="$job" explore "--cfg shuttle" --workspace $quick "${@:2}"
    exit
fi

# Each in a process of its own: one that fails may abort it.
fails() { ! FOREWORD_BUG="$1" timeout 120 "$program" --exact "$2" >/dev/null 2>&1; }

# PACKAGE MODULE BUGS [ARGUMENTS]: each bug against each scenario of a module of a package's.
check() {
    echo "== $1 $2"
    program="$(explore "--cfg shuttle --cfg foreword_bug" "-p $1" $quick --no-run "${@:4}" 2>&1 | tee >(cat >&2) | sed -n 's/.*Executable.*(\(.*\))/\1/p')"
    local scenarios uncaught=() idle caught
    scenarios="$("$program" --list | sed -n "/^$2/s/: test\$//p")"
    idle="$scenarios"
    for bug in none $3; do
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
}

# Those that a package names as bugs of threads.
of_threads() {
    sed -n '/OF_THREADS/,/];/p' "crates/$1/src/sabotage.rs" | grep -o 'Bug::[A-Z][A-Za-z]*' | cut -c6-
}

check foreword-sim "" "TellAtOnce CloseUntold AppendWhileClosing LostWakeup ForgetOthers ChangeAtOnce CutInFlight FlushUncopied PrepareAtOnce AckBeforeFlush ForgetFailure"
check foreword-tree pages "$(of_threads foreword-pages)" --features sabotage,foreword-pages/sabotage
check foreword-tree trees "$(of_threads foreword-tree)" --features sabotage,foreword-pages/sabotage
echo "every bug is caught, and every scenario catches one"
