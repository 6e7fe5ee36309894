#!/usr/bin/env bash
# Fuzzes every target in turn, each for its share of the time.
#
#   scripts/fuzz.sh MINUTES [TARGET...]     "build" instead of MINUTES only builds
#
# Needs cargo and a C++ compiler; neither a nightly toolchain nor cargo-fuzz: the compiler of the
# rest of the repository can instrument too. What is new in coverage is kept between runs in
# MVSQLITE_CACHE/fuzz/corpus (the corpora in the repository are only read); what fails is put into
# MVSQLITE_CACHE/fuzz/failures/TARGET, and the exit status is 1.
#
# SANITIZER=address also builds with AddressSanitizer.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -ge 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
minutes=$1
shift

cache=${MVSQLITE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mvsqlite}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# What cargo-fuzz builds with, but for the sanitizer.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
features=()
if [ -n "${SANITIZER:-}" ]; then
    # An unstable option; the compiler and its runtime are those of the stable release all the same.
    export RUSTC_BOOTSTRAP=1
    flags+=" -Zsanitizer=$SANITIZER"
    features=(--features sanitizer)
    target_dir+=-$SANITIZER
    # A target that holds on to memory at its end, as a pool of threads does, is not broken.
    export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}
fi

# The versions of everything else; the little that is not there is added.
cp Cargo.lock fuzz/libfuzzer/Cargo.lock
# With --target the flags do not reach build scripts and macros.
RUSTFLAGS=$flags CARGO_TARGET_DIR=$target_dir cargo build --release \
    --manifest-path fuzz/libfuzzer/Cargo.toml --target "$host" "${features[@]}"
[ "$minutes" != build ] || exit 0
program=$target_dir/$host/release/fuzz

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(ls fuzz/corpus)
fi
share=$((minutes * 60 / ${#targets[@]}))
[ "$share" -ge 1 ] || { echo "fuzz.sh: less than a second for each of ${#targets[@]} targets" >&2; exit 2; }

failed=()
for target in "${targets[@]}"; do
    corpus=$cache/corpus/$target
    failures=$cache/failures/$target
    log=$cache/$target.log
    mkdir -p "$corpus" "$failures"
    committed=("fuzz/corpus/$target")
    if [ -d "fuzz/regressions/$target" ]; then
        committed+=("fuzz/regressions/$target")
    fi
    if MVSQLITE_FUZZ_TARGET=$target nice -n 10 "$program" "$corpus" "${committed[@]}" \
        -max_total_time="$share" -timeout=10 -rss_limit_mb=2048 -max_len="${MAX_LEN:-4096}" \
        -artifact_prefix="$failures/" -print_final_stats=1 >"$log" 2>&1; then
        state=ok
    else
        state=FAILED
        failed+=("$target")
    fi
    awk -v target="$target" -v state="$state" '
        match($0, /cov: [0-9]+ ft: [0-9]+/) {
            split(substr($0, RSTART, RLENGTH), words, " ")
            if (!first) first = words[2]
            last = words[2]
        }
        /stat::number_of_executed_units/ { runs = $2 }
        /stat::peak_rss_mb/ { rss = $2 }
        END {
            printf "%-18s %-6s %11d runs, edges %6d -> %6d, %4d MiB\n", target, state, runs, first, last, rss
        }' "$log"
    if [ $state = FAILED ]; then
        grep -m 3 -E 'panicked at|^==.*ERROR|SUMMARY|memory allocation' "$log" | sed 's/^/    /' || true
        echo "    inputs in $failures, log in $log"
    fi
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz.sh: failed: ${failed[*]}" >&2
    exit 1
fi
