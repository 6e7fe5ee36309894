#!/usr/bin/env bash
# Adds to the committed corpora what `make fuzz` has found: the smallest inputs that cover what the
# corpus does not, at most so many in all for each target.
#
#   scripts/fuzz-corpus.sh [TARGET...]      MOST=40
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/fuzz.sh build
cache=${MVSQLITE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mvsqlite}/fuzz
program=${CARGO_TARGET_DIR:-$PWD/target}/fuzz/$(rustc -vV | sed -n 's/^host: //p')/release/fuzz

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(ls fuzz/corpus)
fi
small=$(mktemp -d)
trap 'rm -r "$small"' EXIT
for target in "${targets[@]}"; do
    found=$cache/corpus/$target
    [ -d "$found" ] || continue
    rm -rf "${small:?}"/*
    mkdir "$small/all" "$small/merged"
    find "$found" -type f -size -9 -exec cp -t "$small/all" {} +
    cp fuzz/corpus/"$target"/* "$small/merged"
    # What is there stays; of what was found, that which covers something new is added.
    MVSQLITE_FUZZ_TARGET=$target "$program" -merge=1 "$small/merged" "$small/all" 2>/dev/null
    room=$((${MOST:-40} - $(find fuzz/corpus/"$target" -type f | wc -l)))
    # Those that grew the most coverage come from far apart in size: an even choice by size.
    mapfile -t new < <(cd "$small/merged" && find . -type f -size -9 -printf '%s %f\n' | sort -n | awk '{ print $2 }' |
        while read -r name; do [ -e "$OLDPWD/fuzz/corpus/$target/$name" ] || echo "$name"; done)
    step=$(((${#new[@]} + room - 1) / (room > 0 ? room : 1)))
    added=0
    for ((at = 0; room > 0 && at < ${#new[@]}; at += step)); do
        cp "$small/merged/${new[at]}" "fuzz/corpus/$target/"
        added=$((added + 1))
    done
    printf '%-18s %4d found, %4d cover something new, %3d added\n' "$target" \
        "$(find "$found" -type f | wc -l)" ${#new[@]} $added
done
