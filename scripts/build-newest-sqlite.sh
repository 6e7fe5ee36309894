#!/bin/bash
# Builds the newest SQLite as a shared libsqlite3.so.0, from the amalgamation inside the crate
# libsqlite3-sys: programs get it by LD_LIBRARY_PATH instead of Debian's older one.
set -euo pipefail
out=${1:?usage: build-newest-sqlite.sh DIRECTORY}
cd "$(dirname "$0")/.."

manifest=$(cargo metadata --format-version 1 --locked --filter-platform "$(rustc -vV | sed -n "s/^host: //p")" |
    grep -o '"manifest_path":"[^"]*/libsqlite3-sys-[^"]*/Cargo.toml"' | awk -F'"' 'NR == 1 { print $4 }')
source=$(dirname "${manifest:?libsqlite3-sys is not among the dependencies}")/sqlite3
echo "Building $(grep -m1 -o 'SQLITE_VERSION  *"[^"]*"' "$source/sqlite3.h") as a shared library"
mkdir -p "$out"
options=(-DSQLITE_THREADSAFE=1 -DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_RTREE
    -DSQLITE_ENABLE_COLUMN_METADATA -DSQLITE_ENABLE_DBSTAT_VTAB -DSQLITE_ENABLE_MATH_FUNCTIONS)
cc -O2 -w -fPIC -shared -Wl,-soname,libsqlite3.so.0 "${options[@]}" \
    "$source/sqlite3.c" -o "$out/libsqlite3.so.0.new" -lm -lpthread -ldl
mv "$out/libsqlite3.so.0.new" "$out/libsqlite3.so.0"
