#!/bin/bash
# Fetches SQLite's speedtest1.c from Debian's source package `sqlite3` and compiles it against the
# installed libsqlite3.so.0. A private deb-src list is used: the system's apt is left as it is.
set -euo pipefail
out=${1:?usage: build-speedtest1.sh DIRECTORY}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The sources lie where the system's own packages come from. Reading to the end (no `head`) keeps
# `pipefail` from taking a closed pipe for a failure.
. /etc/os-release
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v release="${VERSION_CODENAME:?}" '$2 == release && $3 == "main" { uri = $1 } END { print uri }')}
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
    "${mirror:?no Debian mirror is configured: run apt-get update, or set DEBIAN_MIRROR}" \
    "$VERSION_CODENAME main" >"$work/sources.list"
private_apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User= \
        -o Acquire::Retries=3 "$@"
}

echo "Fetching Debian's source package sqlite3 for speedtest1.c"
private_apt update
(cd "$work" && private_apt source --download-only sqlite3)
tar -xJf "$work"/sqlite3_*.orig.tar.xz -C "$work" --strip-components=1 --wildcards \
    '*/test/speedtest1.c' '*/src/sqlite.h.in' '*/ext/rtree/sqlite3rtree.h' '*/VERSION'

# All that speedtest1 wants of a configured sqlite3.h is the version, and the R-tree behind it.
version=$(cat "$work/VERSION")
sed -e "s/--VERS--/$version/; s/--VERSION-NUMBER--/0/; s/--SOURCE-ID--/debian/" \
    "$work/src/sqlite.h.in" "$work/ext/rtree/sqlite3rtree.h" >"$work/sqlite3.h"
library=$(/sbin/ldconfig -p | awk '/libsqlite3\.so\.0 / && !found++ { print $NF }')
mkdir -p "$out"
cc -O2 -w -DSQLITE_ENABLE_RTREE -I"$work" "$work/test/speedtest1.c" -o "$work/speedtest1" "${library:?libsqlite3.so.0 is not installed}"
mv "$work/speedtest1" "$out/speedtest1"
echo "Built $out/speedtest1 (SQLite $version)"
