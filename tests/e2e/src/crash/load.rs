//! The loads: what runs while things go wrong, on which databases, and what must then hold.

/// A namespace and what is in it at first.
#[derive(Debug)]
pub(super) struct Database {
    /// The namespace.
    pub(super) name: &'static str,
    /// SQL that fills it.
    pub(super) schema: &'static str,
    /// Whether writers hold a lease.
    pub(super) exclusive: bool,
}

/// What is judged beyond journals, tables and sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Further {
    /// Nothing.
    Nothing,
    /// Lists: histories, by the checker.
    Histories,
    /// Growth: models of the writers, and versions that readers saw.
    ModelsAndSnapshots,
    /// Large transactions: all parts of each.
    Parts,
}

/// Processes of one kind on databases of their own.
#[derive(Debug)]
pub(super) struct Load {
    /// The databases; each process is given all of them.
    pub(super) databases: &'static [Database],
    /// The scripts of `python/` that run side by side. Only `..._worker.py` write.
    pub(super) processes: &'static [&'static str],
    /// Tables into which every transaction puts its number, with the place of their database.
    pub(super) tables: &'static [(usize, &'static str)],
    /// Queries, and what their values in all databases add up to.
    pub(super) sums: &'static [(&'static str, i64)],
    /// What else there is to judge.
    pub(super) further: Further,
}

const fn database(name: &'static str, schema: &'static str) -> Database {
    Database {
        name,
        schema,
        exclusive: false,
    }
}

/// 16 accounts, a page each, and numbers of transfers.
const BANK: &str = "
    CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, filler BLOB);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 15)
    INSERT INTO account SELECT i, 1000, zeroblob(5500) FROM n;
    CREATE TABLE transfer (worker, number, body, PRIMARY KEY (worker, number));";

/// Lists in rows of their own, and in rows for each element.
const LISTS: &str = "
    CREATE TABLE text (key INTEGER PRIMARY KEY, elements TEXT, filler BLOB);
    CREATE TABLE element (place INTEGER PRIMARY KEY, key INTEGER, element INTEGER);
    CREATE INDEX element_of_key ON element (key, place);";

/// All loads there are.
pub(super) const LOADS: &[Load] = &[
    Load {
        databases: &[database(
            "ledger",
            "CREATE TABLE left (worker, number, body, PRIMARY KEY (worker, number));
             CREATE TABLE right (worker, number, body, PRIMARY KEY (worker, number)) WITHOUT ROWID;
             CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER);
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 31)
             INSERT INTO account SELECT i, 1000 FROM n;",
        )],
        processes: &["ledger_worker.py", "ledger_worker.py"],
        tables: &[(0, "left"), (0, "right")],
        sums: &[("SELECT sum(amount) FROM account", 32 * 1000)],
        further: Further::Nothing,
    },
    Load {
        databases: &[database("bank-one", BANK), database("bank-other", BANK)],
        processes: &[
            "attached_worker.py",
            "attached_worker.py",
            "attached_reader.py",
        ],
        tables: &[(0, "transfer"), (1, "transfer")],
        sums: &[("SELECT sum(amount) FROM account", 2 * 16 * 1000)],
        further: Further::Nothing,
    },
    Load {
        databases: &[database("lists-one", LISTS), database("lists-other", LISTS)],
        processes: &["list_worker.py", "list_worker.py", "list_worker.py"],
        tables: &[],
        sums: &[],
        further: Further::Histories,
    },
    Load {
        databases: &[database(
            "growth",
            "PRAGMA auto_vacuum = INCREMENTAL;
             CREATE TABLE item (worker, id, generation, body, PRIMARY KEY (worker, id)) WITHOUT ROWID;
             CREATE INDEX item_length ON item (length(body));",
        )],
        processes: &[
            "growth_worker.py",
            "growth_worker.py",
            "snapshot_reader.py",
            "history_keeper.py",
        ],
        tables: &[],
        sums: &[],
        further: Further::ModelsAndSnapshots,
    },
    Load {
        databases: &[database(
            "large",
            "CREATE TABLE whole (worker, number, parts, PRIMARY KEY (worker, number));
             CREATE TABLE part (worker, number, part, checksum, body, PRIMARY KEY (worker, number, part));",
        )],
        processes: &["large_worker.py"],
        tables: &[(0, "whole")],
        sums: &[],
        further: Further::Parts,
    },
    Load {
        databases: &[database(
            "shell",
            "CREATE TABLE shell (worker, number, body, PRIMARY KEY (worker, number));",
        )],
        processes: &["shell_worker.py"],
        tables: &[(0, "shell")],
        sums: &[],
        further: Further::Nothing,
    },
    Load {
        databases: &[Database {
            name: "exclusive",
            schema: "CREATE TABLE counter (value INTEGER); INSERT INTO counter VALUES (0);
                     CREATE TABLE log (value INTEGER PRIMARY KEY, worker, number);",
            exclusive: true,
        }],
        processes: &["exclusive_worker.py", "exclusive_worker.py"],
        tables: &[(0, "log")],
        // Each value once, none left out.
        sums: &[
            ("SELECT value - (SELECT count(*) FROM log) FROM counter", 0),
            ("SELECT value - (SELECT coalesce(max(value), 0) FROM log) FROM counter", 0),
        ],
        further: Further::Nothing,
    },
];

/// Whether a script writes numbered transactions.
pub(super) fn writes(script: &str) -> bool {
    script.ends_with("_worker.py")
}
