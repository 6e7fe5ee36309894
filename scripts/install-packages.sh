#!/bin/bash
# Installs the Debian packages that are missing for `demo`, `test` or `fuzz`, and nothing else. Does
# nothing at all, and needs no network, when everything is there.
set -euo pipefail
purpose=${1:?usage: install-packages.sh demo|test|fuzz}

missing=()
need_command() { command -v "$1" >/dev/null || missing+=("$2"); }
need_library() { [[ $(/sbin/ldconfig -p) == *"$1"* ]] || missing+=("$2"); }
# bindgen loads libclang at build time, from LIBCLANG_PATH or from where LLVM keeps it.
need_libclang() {
    [[ -n ${LIBCLANG_PATH:-} ]] && return
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && return
    missing+=(libclang-dev)
}

need_command cc gcc
need_command curl curl
need_command sqlite3 sqlite3
need_library libsqlite3.so.0 libsqlite3-0
[[ -e /usr/include/stdlib.h ]] || missing+=(libc6-dev)
need_libclang
if [[ $purpose == test ]]; then
    need_command python3 python3
    need_command script bsdutils
    need_command xz xz-utils
    # SQLite's own tests are built from its source package and run by Tcl.
    need_command make make
    need_command patch patch
    compgen -G '/usr/lib/*/tcl8.6/tclConfig.sh' >/dev/null || missing+=(tcl-dev)
    [[ -e /usr/include/zlib.h ]] || missing+=(zlib1g-dev)
fi
if [[ $purpose == fuzz ]]; then
    need_command c++ g++
fi

if ((${#missing[@]})); then
    as_root=()
    if ((EUID != 0)); then as_root=(sudo); fi
    if ! command -v apt-get >/dev/null || { ((EUID != 0)) && ! command -v sudo >/dev/null; }; then
        echo "Please install these Debian packages or what your system calls them: ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing ${missing[*]} with ${as_root[*]:+${as_root[*]} }apt-get"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust (https://rustup.rs), then run this again" >&2
    exit 1
fi
if [[ $purpose == test ]]; then
    for component in rustfmt clippy; do
        subcommand=${component#rust}
        cargo "$subcommand" --version >/dev/null 2>&1 && continue
        echo "Installing the Rust component $component with rustup"
        rustup component add "$component"
    done
fi
