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
