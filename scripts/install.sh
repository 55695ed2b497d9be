#!/usr/bin/env bash
# Installs the command, its manual pages and its completions for bash, zsh and fish. Needs Rust.
# Whatever is there already is replaced.
#
#   scripts/install.sh [PREFIX]                into PREFIX (~/.local)
#   scripts/install.sh --uninstall [PREFIX]    removes it again
source "$(dirname "$0")/common.sh"
uninstall=
if [ "${1-}" = --uninstall ]; then
    uninstall=1
    shift
fi
case ${1-} in -*) usage "unknown argument $1" ;; esac
prefix=$(given "${1-$HOME/.local}")
man=$prefix/share/man/man1
bash=$prefix/share/bash-completion/completions/foreword
zsh=$prefix/share/zsh/site-functions/_foreword
fish=$prefix/share/fish/vendor_completions.d/foreword.fish
if [ -n "$uninstall" ]; then
    cargo uninstall --root "$prefix" foreword-cli
    rm -f "$man"/foreword.1 "$man"/foreword-*.1 "$bash" "$zsh" "$fish"
    exit
fi
cargo install --locked --path crates/foreword-cli --root "$prefix" --force
foreword=$prefix/bin/foreword
mkdir -p "$man" "$(dirname "$bash")" "$(dirname "$zsh")" "$(dirname "$fish")"
"$foreword" man "$man"
"$foreword" completions bash > "$bash"
"$foreword" completions zsh > "$zsh"
"$foreword" completions fish > "$fish"
echo "installed: $foreword, $(ls "$man"/foreword*.1 | wc -l) manual pages in $man, completions for bash, zsh and fish"
case ":$PATH:" in
*":$prefix/bin:"*) ;;
*) echo "note: $prefix/bin is not in PATH" ;;
esac
