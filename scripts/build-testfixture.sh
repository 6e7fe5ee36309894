#!/bin/bash
# Builds SQLite's testfixture, the Tcl interpreter of SQLite's own tests, from Debian's source package
# `sqlite3`, linked with libmvsqlite.a. The source is fetched once, with a private deb-src list: the
# system's apt is left as it is. Objects are kept, so a changed libmvsqlite.a costs a link.
#
#     build-testfixture.sh DIRECTORY LIBMVSQLITE
#
# leaves DIRECTORY/testfixture and DIRECTORY/src, with SQLite's test files in it.
set -euo pipefail
out=${1:?usage: build-testfixture.sh DIRECTORY LIBMVSQLITE}
library=$(realpath "${2:?usage: build-testfixture.sh DIRECTORY LIBMVSQLITE}")
root=$(realpath "$(dirname "$0")/..")
mkdir -p "$out"
out=$(realpath "$out")

fetch_source() {
    local work=$out/fetch
    rm -rf "$work" && mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work"/src
    # The sources lie where the system's own packages come from. Reading to the end (no `head`) keeps
    # `pipefail` from taking a closed pipe for a failure.
    . /etc/os-release
    local mirror
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v release="${VERSION_CODENAME:?}" '$2 == release && $3 == "main" { uri = $1 } END { print uri }')}
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "${mirror:?no Debian mirror is configured: run apt-get update, or set DEBIAN_MIRROR}" \
        "$VERSION_CODENAME main" >"$work/sources.list"
    private_apt() {
        apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
            -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User= \
            -o Acquire::Retries=3 "$@"
    }
    echo "Fetching Debian's source package sqlite3 for its tests"
    private_apt update
    (cd "$work" && private_apt source --download-only sqlite3)
    tar -xJf "$work"/sqlite3_*.orig.tar.xz -C "$work/src" --strip-components=1
    tar -xJf "$work"/sqlite3_*.debian.tar.xz -C "$work/src"
    local name
    while read -r name; do
        [[ -z $name || $name == \#* ]] || patch -s -p1 -d "$work/src" <"$work/src/debian/patches/$name"
    done <"$work/src/debian/patches/series"
    mv "$work/src" "$out/src"
    rm -rf "$work"
}

configure() {
    local tcl
    tcl=$(dirname "$(compgen -G '/usr/lib/*/tcl8.6/tclConfig.sh' | awk 'NR == 1')")
    rm -rf "$out/build" && mkdir -p "$out/build"
    echo "Configuring SQLite $(<"$out/src/VERSION") for its tests"
    # What the tests of full-text search, R-trees, sessions and UPDATE ... LIMIT need.
    (cd "$out/build" && "$out/src/configure" --with-tcl="$tcl" --enable-all --enable-update-limit) \
        >"$out/configure.log" 2>&1 || { tail "$out/configure.log" >&2; exit 1; }
    touch "$out/build/configured"
}

[[ -d $out/src ]] || fetch_source
[[ -e $out/build/configured ]] || configure
echo "Building SQLite's testfixture over mvSQLite"
suite=$root/tests/sqlite-suite/fixture
make -C "$out/build" -j"$(nproc)" -f "$suite/fixture.mk" SUITE="$suite" INCLUDE="$root/mvsqlite/library/include" \
    LIBMVSQLITE="$library" TARGET="$out/testfixture" fixture >"$out/build.log" 2>&1 ||
    { tail "$out/build.log" >&2; exit 1; }
