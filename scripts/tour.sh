#!/bin/bash
# A short tour of a store, printed as it happens; scripts/demo.sh starts the store. Two sqlite3
# shells, A and B, stay open, so that their transactions overlap. What the tour says it checks: it
# fails if something turns out otherwise.
set -euo pipefail
: "${DATA_PLANE:?run scripts/demo.sh}" "${ADMIN_API:?}" "${PRELOAD:?}"
pipes=''
trap 'jobs -p | xargs -r kill 2>/dev/null || true; if [[ -n $pipes ]]; then rm -rf "$pipes"; fi' EXIT
pipes=$(mktemp -d "${TMPDIR:-/tmp}/mvsqlite-tour-XXXXXX")

say() { printf '%s\n' "$@"; }
step() { say "" "$1" "$(printf '%*s' "${#1}" '' | tr ' ' -)"; }
shell() { MVSQLITE_DATA_PLANE=$DATA_PLANE LD_PRELOAD=$PRELOAD sqlite3 -batch -init /dev/null "$@" 2>&1; }

# Starts shell $1 on demo, reading from one pipe and answering through another.
open_shell() {
    mkfifo "$pipes/$1.in" "$pipes/$1.out"
    shell demo <"$pipes/$1.in" >"$pipes/$1.out" &
}

# Has shell $1 run the statement $2, prints both, and leaves the answer in $answer.
run() {
    local in=$1_in out=$1_out line
    answer=
    say "  $1> $2"
    printf '%s\n.print --\n' "$2" >&"${!in}"
    while IFS= read -r -t 60 line <&"${!out}" && [[ $line != -- ]]; do
        answer+=${answer:+$'\n'}$line
        say "     $line"
    done
}

expect() {
    if [[ $answer != $1 ]]; then
        say "The tour expected '$1' here and got '$answer'." >&2
        exit 1
    fi
}

say "mvSQLite, a short tour. A store runs on this machine, on the embedded engine; the programs" \
    "that use it are ordinary sqlite3 shells under LD_PRELOAD=libmvsqlite_preload.so."

step "1. A database is a namespace of the store"
say "  \$ curl $ADMIN_API/api/create_namespace -d '{\"key\":\"demo\"}'"
answer=$(curl -s "$ADMIN_API/api/create_namespace" -d '{"key":"demo"}')
say "     $answer"
expect created
say "  \$ MVSQLITE_DATA_PLANE=$DATA_PLANE LD_PRELOAD=... sqlite3 demo     (twice: A and B)"
open_shell A
open_shell B
exec {A_in}>"$pipes/A.in" {A_out}<"$pipes/A.out" {B_in}>"$pipes/B.in" {B_out}<"$pipes/B.out"
run A "CREATE TABLE account (name TEXT PRIMARY KEY, balance INTEGER);"
run A "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT);"
run A "INSERT INTO account VALUES ('ada', 100);"
run B "SELECT * FROM account;"
expect "ada|100"
say "  What A committed, B sees. Every commit makes a version; this is the last one now:"
run A "INSERT INTO account VALUES ('alan', 100);"
run A "SELECT mv_last_known_version('main');"
expect "$(printf '?%.0s' {1..20})"
version=$answer

step "2. Two writers at once"
say "  Both have a transaction open and have written; in a file, one would have to wait."
run A "BEGIN; UPDATE account SET balance = balance - 30 WHERE name = 'ada';"
run B "BEGIN; INSERT INTO orders VALUES (1, 'tea');"
run A "COMMIT;"
expect ""
run B "COMMIT;"
expect ""
run A "SELECT (SELECT balance FROM account WHERE name = 'ada'), (SELECT what FROM orders);"
expect "70|tea"
say "  They touched different pages, so both committed."

step "3. A conflict, and its retry"
say "  Now both change what the other has read: the later one must not overwrite the earlier one."
run A "BEGIN; UPDATE account SET balance = balance + 1 WHERE name = 'ada';"
run B "BEGIN; UPDATE account SET balance = balance + 10 WHERE name = 'ada';"
run A "COMMIT;"
expect ""
run B "COMMIT;"
expect "*database is locked*"
say "  That is SQLITE_BUSY_SNAPSHOT out of COMMIT: nothing of B's transaction was stored, and it is" \
    "  over. B runs it again from its beginning, on what A left:"
run B "BEGIN; UPDATE account SET balance = balance + 10 WHERE name = 'ada';"
run B "COMMIT;"
expect ""
run B "SELECT balance FROM account WHERE name = 'ada';"
expect 81
say "  70 + 1 + 10: no update is lost."

step "4. An earlier version, opened by its name"
say "  \$ ... sqlite3 demo@$version \"SELECT * FROM account\""
answer=$(shell "demo@$version" "SELECT * FROM account;")
say "${answer//$'\n'/$'\n'     }" | sed '1s/^/     /'
expect $'ada|100\nalan|100'
say "  The database as it was after the first step. It is read-only:"
say "  \$ ... sqlite3 demo@$version \"DELETE FROM account\""
answer=$(shell "demo@$version" "DELETE FROM account;" || true)
say "     $answer"
expect "*readonly*"
say "  Past and present in one query:"
run A "ATTACH 'demo@$version' AS past;"
run A "SELECT name, past.account.balance, main.account.balance FROM past.account JOIN main.account USING (name);"
expect $'ada|100|81\nalan|100|100'

step "5. It is SQLite all the way down"
run B "PRAGMA integrity_check;"
expect ok
say "" "That was the tour. With a terminal, \`make demo\` opens a shell for you to try this yourself."
