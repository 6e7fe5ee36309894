#!/bin/bash
# Starts a store of its own and lets you at it: a sqlite3 shell on a terminal, else the tour of
# scripts/tour.sh. Everything it starts and writes is gone when it ends, however it ends.
set -euo pipefail
scripts=$(dirname "$(readlink -f "$0")")
MVSTORE=${MVSTORE:-$scripts/../target/release/mvstore}
MVSQLITE_PRELOAD=${MVSQLITE_PRELOAD:-$scripts/../target/release/libmvsqlite_preload.so}

work='' store=''
clean_up() {
    trap - EXIT
    # A shell that is still open first, then the store under it.
    jobs -p | xargs -r kill 2>/dev/null || true
    if [[ -n $store ]]; then wait "$store" 2>/dev/null || true; fi
    if [[ -n $work ]]; then rm -rf "$work"; fi
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
work=$(mktemp -d "${TMPDIR:-/tmp}/mvsqlite-demo-XXXXXX")

# Below the ephemeral ports, so that no client of something else is given them meanwhile.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}
data_plane=127.0.0.1:$(free_port)
admin_api=127.0.0.1:$(free_port)

# In a session of its own: Ctrl-C in the shell is meant for the shell. It dies with this script
# even if that is killed.
setpriv --pdeathsig TERM setsid "$MVSTORE" --data-plane "$data_plane" --admin-api "$admin_api" \
    --data-dir "$work/data" >"$work/log" 2>&1 </dev/null &
store=$!
for ((tries = 0; ; tries++)); do
    if curl -sf "http://$admin_api/readyz" >/dev/null; then break; fi
    if ! kill -0 "$store" 2>/dev/null || ((tries == 300)); then
        echo "mvstore did not start:" >&2
        cat "$work/log" >&2
        exit 1
    fi
    sleep 0.1
done

export DATA_PLANE=http://$data_plane ADMIN_API=http://$admin_api
export PRELOAD; PRELOAD=$(readlink -f "$MVSQLITE_PRELOAD")
if [[ ! -t 0 || ! -t 1 ]]; then
    "$scripts/tour.sh"
    exit
fi

curl -sf "$ADMIN_API/api/create_namespace" -d '{"key":"demo"}' >/dev/null
cat <<BANNER

  mvSQLite: a sqlite3 shell on the database 'demo'. Its pages live in a store on
  $DATA_PLANE, and every commit makes a version that can be opened again:

      CREATE TABLE t (x);  INSERT INTO t VALUES (1);
      SELECT mv_last_known_version('main');     -- the version you are at
      UPDATE t SET x = 2;
      .open demo@<version>                      -- the database as it was
      .open demo                                -- and as it is

  From a second terminal, at the same time:

      MVSQLITE_DATA_PLANE=$DATA_PLANE LD_PRELOAD=$PRELOAD sqlite3 demo

  .quit ends the shell and removes everything.

BANNER
trap : INT # the shell's
MVSQLITE_DATA_PLANE=$DATA_PLANE LD_PRELOAD=$PRELOAD sqlite3 demo || true
