//! Python's sqlite3 module, which loads SQLite late and hidden from everybody else.

use crate::program::Program;
use crate::server::server;

/// Runs a script with the store's URL set; it must print "done" at its end.
fn python(name: &str, script: &str) {
    python_with(name, &[], script);
}

/// As [`python`], with more variables.
fn python_with(name: &str, variables: &[(&str, &str)], script: &str) {
    server().store.create(name);
    let script = format!("import sqlite3, sys\nNAME = {name:?}\n{script}\nprint('done')");
    let mut python =
        Program::new("python3", &["-c", &script]).env("MVSQLITE_DATA_PLANE", &server().url);
    for (variable, value) in variables {
        python = python.env(variable, value);
    }
    assert_eq!(python.run().printed(), "done");
    assert!(python.files().is_empty());
}

#[test]
fn a_module_loaded_with_dlopen_is_served() {
    python(
        "py-dlopen",
        "
c = sqlite3.connect(NAME)
c.execute('CREATE TABLE t(v)')
c.executemany('INSERT INTO t VALUES(?)', [(i,) for i in range(1000)])
c.commit()
d = sqlite3.connect(NAME)
assert d.execute('SELECT sum(v) FROM t').fetchone() == (499500,)
assert len(d.execute('SELECT mv_last_known_version(?)', ('main',)).fetchone()[0]) == 20
",
    );
}

#[test]
fn threads_that_open_their_first_database_at_the_same_moment_are_all_served() {
    python(
        "py-threads",
        "
import threading
barrier = threading.Barrier(8)
failures = []
def work(n):
    try:
        barrier.wait()
        c = sqlite3.connect(NAME, isolation_level=None)
        c.execute('SELECT count(*) FROM sqlite_schema').fetchall()
        for i in range(10):
            while True:
                try:
                    c.execute('CREATE TABLE IF NOT EXISTS t(v)')
                    c.execute('INSERT INTO t VALUES(?)', (n,))
                    break
                except sqlite3.OperationalError as e:
                    if 'locked' not in str(e): raise
    except BaseException as e:
        failures.append(e)
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert not failures, failures
c = sqlite3.connect(NAME)
assert c.execute('SELECT count(*) FROM t').fetchone() == (80,)
assert c.execute('PRAGMA integrity_check').fetchone() == ('ok',)
",
    );
}

#[test]
fn a_forked_child_opens_databases_of_its_own_and_the_parents_go_on() {
    python(
        "py-fork",
        "
import os
c = sqlite3.connect(NAME, isolation_level=None)
c.execute('CREATE TABLE t(v)')
children = []
for n in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            # The parent's connection has no transaction open. The three others may be faster.
            assert len(c.execute('SELECT v FROM t').fetchall()) <= 3
            d = sqlite3.connect(NAME, isolation_level=None)
            while True:
                try:
                    d.execute('INSERT INTO t VALUES(?)', (n,))
                    break
                except sqlite3.OperationalError as e:
                    if 'locked' not in str(e): raise
            os._exit(0)
        except BaseException as e:
            print(e, file=sys.stderr)
            os._exit(1)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
assert c.execute('SELECT count(*) FROM t').fetchone() == (4,)
while True:
    try:
        c.execute('INSERT INTO t VALUES(9)')
        break
    except sqlite3.OperationalError as e:
        if 'locked' not in str(e): raise
assert c.execute('SELECT count(*) FROM t').fetchone() == (5,)
",
    );
}

#[test]
fn a_transaction_open_across_a_fork_fails_in_the_child_and_commits_in_the_parent() {
    python(
        "py-fork-transaction",
        "
import os
c = sqlite3.connect(NAME, isolation_level=None)
c.execute('CREATE TABLE t(v)')
c.execute('BEGIN')
c.execute('INSERT INTO t VALUES(1)')
pid = os.fork()
if pid == 0:
    try:
        c.execute('COMMIT')
        os._exit(1)
    except sqlite3.OperationalError:
        os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
c.execute('COMMIT')
assert sqlite3.connect(NAME).execute('SELECT count(*) FROM t').fetchone() == (1,)
",
    );
}

#[test]
fn a_conflict_is_an_operational_error_after_which_the_transaction_can_be_run_again() {
    python(
        "py-conflict",
        "
a = sqlite3.connect(NAME, isolation_level=None)
b = sqlite3.connect(NAME, isolation_level=None)
a.execute('CREATE TABLE t(v)')
a.execute('INSERT INTO t VALUES(0)')
b.execute('BEGIN'); b.execute('UPDATE t SET v=v+1')
a.execute('UPDATE t SET v=v+10')
try:
    b.execute('COMMIT')
    raise SystemExit('no conflict')
except sqlite3.OperationalError as e:
    assert e.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT, e
assert not b.in_transaction
b.execute('BEGIN'); b.execute('UPDATE t SET v=v+1'); b.execute('COMMIT')
assert a.execute('SELECT v FROM t').fetchone() == (11,)
",
    );
}

#[test]
fn single_statements_of_many_writers_all_succeed_within_the_busy_timeout() {
    python(
        "py-autocommit",
        "
import threading
sqlite3.connect(NAME).executescript('CREATE TABLE t(v); INSERT INTO t VALUES(0)')
failures = []
def work():
    try:
        c = sqlite3.connect(NAME, isolation_level=None, timeout=60)
        for i in range(20):
            c.execute('UPDATE t SET v=v+1')
    except BaseException as e:
        failures.append(e)
threads = [threading.Thread(target=work) for n in range(6)]
for t in threads: t.start()
for t in threads: t.join()
assert not failures, failures
assert sqlite3.connect(NAME).execute('SELECT v FROM t').fetchone() == (120,)
",
    );
}

#[test]
fn a_statement_is_not_run_again_when_the_program_could_notice() {
    python(
        "py-not-again",
        "
a = sqlite3.connect(NAME, isolation_level=None, timeout=60)
b = sqlite3.connect(NAME, isolation_level=None, timeout=60)
a.executescript('CREATE TABLE t(v); INSERT INTO t VALUES(0); CREATE TABLE u(v); INSERT INTO u VALUES(1), (2)')
runs = 0
def race(times):
    global runs
    runs += 1
    if runs <= times: a.execute('UPDATE t SET v=v+10')
    return 1
b.create_function('race', 1, race)
def conflicts(f):
    global runs
    runs = 0
    try:
        f()
    except sqlite3.OperationalError as e:
        assert e.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT, e
        return True
    return False
value = lambda: a.execute('SELECT v FROM t').fetchone()[0]
# Lost twice, then won: run three times.
assert not conflicts(lambda: b.execute('UPDATE t SET v=v+race(2)'))
assert (runs, value()) == (3, 21), (runs, value())
# Inside a transaction.
runs = 0
b.execute('BEGIN')
b.execute('UPDATE t SET v=v+race(1)')
assert conflicts(lambda: b.execute('COMMIT'))
assert value() == 31 and not b.in_transaction
# A row was returned.
assert conflicts(lambda: b.execute('UPDATE t SET v=v+race(1) RETURNING v').fetchall())
assert runs == 1
# Another statement keeps the old snapshot.
rows = b.execute('SELECT v FROM u')
assert rows.fetchone() == (1,)
assert conflicts(lambda: b.execute('UPDATE t SET v=v+race(1)'))
assert runs == 1
",
    );
}

#[test]
fn without_a_busy_timeout_a_statement_is_run_again_once() {
    python(
        "py-once",
        "
a = sqlite3.connect(NAME, isolation_level=None)
b = sqlite3.connect(NAME, isolation_level=None, timeout=0)
a.executescript('CREATE TABLE t(v); INSERT INTO t VALUES(0)')
runs = 0
def race():
    global runs
    runs += 1
    a.execute('UPDATE t SET v=v+10')
    return 1
b.create_function('race', 0, race)
try:
    b.execute('UPDATE t SET v=v+race()')
    raise SystemExit('no conflict')
except sqlite3.OperationalError as e:
    assert e.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT, e
assert runs == 2, runs
",
    );
}

#[test]
fn a_program_that_shuts_sqlite_down_and_starts_it_again_is_still_served() {
    python(
        "py-shutdown",
        "
import ctypes
c = sqlite3.connect(NAME)
c.execute('CREATE TABLE t(v)')
c.close()
library = ctypes.CDLL('libsqlite3.so.0')
assert library.sqlite3_shutdown() == 0
assert library.sqlite3_initialize() == 0
assert sqlite3.connect(NAME).execute('SELECT count(*) FROM t').fetchone() == (0,)
",
    );
}

#[test]
fn a_name_in_utf_16_is_served() {
    python(
        "py-utf16",
        "
import ctypes
everything = ctypes.CDLL(None)
db = ctypes.c_void_p()
name = (NAME + chr(0)).encode('utf-16-le')
assert everything.sqlite3_open16(name, ctypes.byref(db)) == 0
library = ctypes.CDLL('libsqlite3.so.0')
sql = b'CREATE TABLE t(v)'
assert library.sqlite3_exec(db, sql, None, None, None) == 0
assert library.sqlite3_close(db) == 0
assert sqlite3.connect(NAME).execute('SELECT count(*) FROM t').fetchone() == (0,)
",
    );
}

#[test]
fn neighbouring_pages_do_not_conflict_at_any_page_size_of_this_sqlite() {
    for size in [512, 1024, 2048, 4096, 8192, 16_384, 32_768] {
        let script = "
a = sqlite3.connect(NAME, isolation_level=None)
a.execute('PRAGMA page_size=SIZE')
for table in 'tu':
    a.execute(f'CREATE TABLE {table}(v)')
    a.execute(f'INSERT INTO {table} VALUES(0)')
assert a.execute('PRAGMA page_size').fetchone() == (SIZE,)
b = sqlite3.connect(NAME, isolation_level=None)
a.execute('BEGIN'); a.execute('UPDATE t SET v=1')
b.execute('BEGIN'); b.execute('UPDATE u SET v=1')
a.execute('COMMIT'); b.execute('COMMIT')
assert a.execute('SELECT t.v, u.v FROM t, u').fetchone() == (1, 1)
assert a.execute('PRAGMA integrity_check').fetchone() == ('ok',)
";
        let script = script.replace("SIZE", &size.to_string());
        python(&format!("py-neighbours-{size}"), &script);
    }
}

/// A daemon closes its standard streams. The connection to the store then got their numbers, and
/// whatever the program printed went into a request.
#[test]
fn a_connection_never_takes_the_place_of_a_closed_standard_stream() {
    python(
        "py-streams",
        "
import os, stat
output = os.dup(1)
for number in range(3): os.close(number)
c = sqlite3.connect(NAME)
c.execute('CREATE TABLE t(v)')
def is_socket(number):
    try: return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError: return False
taken = [number for number in range(3) if is_socket(number)]
os.dup2(output, 1)
assert not taken, taken
",
    );
}

/// Such a name went to the ordinary files, though every database was to be in the store.
#[test]
fn a_name_that_is_not_utf8_is_refused_rather_than_a_local_file() {
    python(
        "py-not-utf8",
        "
try: sqlite3.connect(b'db-\\xff').execute('CREATE TABLE t(v)')
except sqlite3.OperationalError as e: assert 'unable to open' in str(e), e
else: raise AssertionError('opened')
",
    );
}

/// SQLite deleted the super-journal of an ordinary main database before ours was played back, and
/// then skipped that: a connection with an open statement went on to read what had failed.
#[test]
fn after_a_conflict_with_an_ordinary_main_database_nothing_of_it_is_read() {
    for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
        let script = "
import os, tempfile
d = tempfile.mkdtemp()
c = sqlite3.connect(f'file:{d}/main.db', uri=True, isolation_level=None)
c.execute('PRAGMA journal_mode=MODE')
c.execute('CREATE TABLE local(v)')
o = sqlite3.connect(NAME, isolation_level=None)
o.execute('CREATE TABLE t(id INTEGER PRIMARY KEY, v, pad)')
o.executemany('INSERT INTO t VALUES(?, 0, zeroblob(3000))', [(i,) for i in range(50)])
c.execute(f\"ATTACH '{NAME}' AS m\")
reader = c.execute('SELECT id FROM m.t'); reader.fetchone()
c.execute('BEGIN'); c.execute('INSERT INTO local VALUES(1)'); c.execute('UPDATE m.t SET v=1 WHERE id=1')
o.execute('UPDATE t SET v=2 WHERE id=1')
try: c.execute('COMMIT')
except sqlite3.OperationalError: pass
else: raise AssertionError('committed')
assert c.execute('SELECT v FROM m.t WHERE id=1').fetchone() == (0,)
assert c.execute('SELECT count(*) FROM local').fetchone() == (0,)
reader.fetchall()
assert c.execute('SELECT v FROM m.t WHERE id=1').fetchone() == (2,)
c.close()
assert os.listdir(d) in (['main.db'], ['main.db', 'main.db-journal'], ['main.db-journal', 'main.db']), os.listdir(d)
";
        let name = format!("py-playback-{}", mode.to_lowercase());
        server().store.create(&name);
        let script = script.replace("MODE", mode);
        let script = format!("import sqlite3\nNAME = '/mapped/{name}'\n{script}\nprint('done')");
        let map = format!("/mapped/{name}={name}");
        let mut python = Program::new("python3", &["-c", &script])
            .env("MVSQLITE_DATA_PLANE", &server().url)
            .env("MVSQLITE_ONLY_MAPPED", "1")
            .env("MVSQLITE_DB_NAME_MAP", &map);
        assert_eq!(python.run().printed(), "done", "{mode}");
    }
}

/// A program that becomes a daemon closes every descriptor it does not know. Our connection was
/// among them; its number went to a file of the program's, and the next request was written there.
#[test]
fn a_file_that_gets_the_number_of_our_closed_socket_is_left_alone() {
    python(
        "py-closed-socket",
        "
import os, tempfile
c = sqlite3.connect(NAME, isolation_level=None)
c.execute('CREATE TABLE t(v)')
os.closerange(3, 1000)
files = [tempfile.TemporaryFile() for _ in range(20)]
for f in files:
    f.write(b'mine')
    f.flush()
for i in range(10):
    c.execute('INSERT INTO t VALUES(?)', (i,))
del c
for f in files:
    f.seek(0)
    assert f.read() == b'mine'
    f.write(b'!')
    f.flush()
assert sqlite3.connect(NAME).execute('SELECT count(*) FROM t').fetchone() == (10,)
",
    );
}

/// As above, of a connection to which a socket of the program's became the successor: our request
/// would have gone to whoever is at its other end.
#[test]
fn a_socket_that_gets_the_number_of_ours_is_left_alone() {
    python(
        "py-other-socket",
        "
import os, socket
c = sqlite3.connect(NAME, isolation_level=None)
c.execute('CREATE TABLE t(v)')
os.closerange(3, 1000)
pairs = [socket.socketpair() for _ in range(10)]
c.execute('INSERT INTO t VALUES(1)')
for a, b in pairs:
    for end in (a, b):
        end.setblocking(False)
        try:
            assert not end.recv(1)
            raise AssertionError('closed')
        except BlockingIOError:
            pass
assert c.execute('SELECT count(*) FROM t').fetchone() == (1,)
",
    );
}

#[test]
fn a_file_that_gets_the_number_of_a_spilled_journal_is_left_alone() {
    python_with(
        "py-closed-journal",
        &[("MVSQLITE_JOURNAL_BYTES", "65536")],
        "
import os, tempfile
c = sqlite3.connect(NAME, isolation_level=None)
c.execute('CREATE TABLE t(v, body)')
c.execute('WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000)'
          ' INSERT INTO t SELECT i, zeroblob(1000) FROM n')
c.execute('BEGIN')
c.execute('UPDATE t SET v = -v WHERE v <= 1000')
os.closerange(3, 1000)
files = [tempfile.TemporaryFile() for _ in range(20)]
for f in files:
    f.write(b'mine')
    f.flush()
try:
    c.execute('UPDATE t SET v = -v WHERE v > 1000')
    raise AssertionError('the journal is gone')
except sqlite3.OperationalError as e:
    pass
if c.in_transaction:
    c.execute('ROLLBACK')
for f in files:
    f.seek(0)
    assert f.read() == b'mine'
assert c.execute('SELECT min(v), count(*) FROM t').fetchone() == (1, 2000)
c.execute('UPDATE t SET v = -v')
assert sqlite3.connect(NAME).execute('SELECT min(v) FROM t').fetchone() == (-2000,)
for f in files:
    f.write(b'!')
    f.flush()
",
    );
}

#[test]
fn threads_and_batches_that_are_under_way_end_with_the_process() {
    python_with(
        "py-quiet-end",
        &[("MVSQLITE_UPLOAD_BYTES", "262144")],
        "
c = sqlite3.connect(NAME, isolation_level=None)
c.execute('PRAGMA cache_size=10')
c.execute('CREATE TABLE t(body)')
c.execute('BEGIN')
c.executemany('INSERT INTO t VALUES(?)', ((bytes(5000),) for _ in range(1000)))
assert sqlite3.connect(NAME).execute('SELECT count(*) FROM t').fetchone() == (0,)
",
    );
}

#[test]
fn a_child_forked_in_a_large_transaction_is_refused_and_goes_on_with_its_own() {
    python_with(
        "py-large-fork",
        &[
            ("MVSQLITE_UPLOAD_BYTES", "262144"),
            ("MVSQLITE_JOURNAL_BYTES", "65536"),
        ],
        "
import os
c = sqlite3.connect(NAME, isolation_level=None)
c.execute('PRAGMA cache_size=10')
c.execute('CREATE TABLE t(v, body)')
insert = 'INSERT INTO t VALUES(?, zeroblob(5000))'
c.executemany(insert, ((i,) for i in range(500)))
c.execute('BEGIN')
c.execute('UPDATE t SET v = v + 1')
pid = os.fork()
if pid == 0:
    try:
        c.execute('UPDATE t SET v = v + 1')
        c.execute('COMMIT')
        os._exit(1)
    except sqlite3.Error:
        pass
    try:
        d = sqlite3.connect(NAME, isolation_level=None)
        d.execute('PRAGMA cache_size=10')
        d.execute('CREATE TABLE IF NOT EXISTS u(body)')
        d.execute('BEGIN')
        d.executemany('INSERT INTO u VALUES(?)', ((bytes(5000),) for _ in range(300)))
        d.execute('ROLLBACK')
        os._exit(0)
    except BaseException as e:
        print(e, file=sys.stderr)
        os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
c.execute('UPDATE t SET v = v + 1')
c.execute('ROLLBACK')
assert c.execute('SELECT sum(v) FROM t').fetchone() == (sum(range(500)),)
",
    );
}
