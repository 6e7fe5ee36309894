//! Debian's Python, whose `sqlite3` module may load extensions.

use crate::program::{Program, library};
use crate::server::server;

/// Runs a script on a namespace of this name; it must print "done" at its end.
fn python(name: &str, script: &str) {
    server().store.create(name);
    let script = format!(
        "import sqlite3\nNAME = {name:?}\nLIBRARY = {:?}\n{script}\nprint('done')",
        library()
    );
    // Others, pyenv's for one, are built without the loading of extensions.
    let mut python = Program::new("/usr/bin/python3", &["-c", &script]);
    assert_eq!(python.run().printed(), "done");
    assert!(python.files().is_empty());
}

#[test]
fn a_module_that_loads_it_opens_databases_of_ours_beside_its_own() {
    python(
        "ext-python",
        "
own = sqlite3.connect(':memory:')
own.enable_load_extension(True)
own.load_extension(LIBRARY)
own.enable_load_extension(False)
def connect():
    return sqlite3.connect(f'file:{NAME}?vfs=mvsqlite', uri=True, isolation_level=None)
c = connect()
c.execute('CREATE TABLE t(v)')
c.execute('BEGIN')
c.executemany('INSERT INTO t VALUES(?)', [(i,) for i in range(1000)])
c.execute('COMMIT')
own.close()
d = connect()
assert d.execute('SELECT sum(v) FROM t').fetchone() == (499500,)
version = d.execute('SELECT mv_last_known_version(?)', ('main',)).fetchone()[0]
d.execute('DELETE FROM t')
past = sqlite3.connect(f'file:{NAME}@{version}?vfs=mvsqlite', uri=True)
assert past.execute('SELECT count(*) FROM t').fetchone() == (1000,)
",
    );
}

#[test]
fn many_connections_may_load_it_at_the_same_moment() {
    python(
        "ext-threads",
        "
import threading
barrier = threading.Barrier(8)
failures = []
def work(n):
    try:
        c = sqlite3.connect(':memory:')
        c.enable_load_extension(True)
        barrier.wait()
        c.load_extension(LIBRARY)
        d = sqlite3.connect(f'file:{NAME}?vfs=mvsqlite', uri=True)
        assert d.execute('SELECT count(*) FROM sqlite_schema').fetchone() == (0,)
        assert c.execute('SELECT mvsqlite_version()').fetchone()
    except BaseException as e:
        failures.append(e)
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert not failures, failures
",
    );
}
