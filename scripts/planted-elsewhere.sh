#!/bin/bash
# Planted bugs that other tests find, and not the simulation or not soon enough: with the bug switched on the
# tests must fail, without it they must pass. Built as the unit tests are, which is with the switch.
set -euo pipefail

cargo=${CARGO:-cargo}
# What fails on purpose is no regression to keep.
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=true

run() {
  "$cargo" test --workspace --exclude mvsqlite-e2e --locked --quiet --test "$1" "$2" >"$log" 2>&1
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

prove() {
  local bug=$1 target=$2 test=$3
  if ! run "$target" "$test"; then
    cat "$log"
    echo "$bug: the tests fail without it" >&2
    return 1
  fi
  if MVSQLITE_PLANTED=$bug run "$target" "$test"; then
    echo "$bug: NOT FOUND by the test $target $test" >&2
    return 1
  fi
  if ! grep -q '^test result: FAILED' "$log"; then
    cat "$log"
    return 1
  fi
  printf '%-25s found by the test %s %s\n' "$bug" "$target" "$test"
}

prove ignore-failed-sync kv_crash power_losses_lose_nothing
prove lease-nonce-unchecked store lease::model
prove horizon-unchecked store mixture
prove read-set-per-transaction database rules::pages_that_sqlite_kept
prove read-set-dropped database rules::pages_written_by_a_commit
prove counter-kept database rules::a_commit_that_stays_at_shared
