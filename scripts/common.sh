# Sourced by the scripts beside it, first of all: strict mode, `--help` (the comment a script begins
# with), and the repository's root as the directory.
set -euo pipefail
case "${1-}" in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit
        ;;
esac
came_from=$PWD
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

# Arguments that no script knows.
usage() {
    echo "$(basename "$0"): $1; see --help" >&2
    exit 2
}

# A path that the caller gave, from where the caller is.
given() { (cd "$came_from" && realpath -m "$1"); }

# FLAGS COMMAND: runs a command of cargo, in which the compiler gets flags for the workspace's own
# crates. Of all others, what is built without the flags serves, too. Cargo tells the builds apart by
# the name of the program that it runs as the compiler.
with_flags() {
    local compiler=$target/rustc${1//[ -]/_}
    if ! [ -x "$compiler" ]; then
        mkdir -p "$target"
        printf '#!/bin/sh\nrustc=$1\nshift\nexec "$rustc" "$@" %s\n' "$1" >"$compiler.new"
        chmod +x "$compiler.new"
        mv "$compiler.new" "$compiler"
    fi
    RUSTC_WORKSPACE_WRAPPER=$(realpath "$compiler") "${@:2}"
}
