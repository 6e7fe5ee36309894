//! Interleavings that concurrency control by pages is known to get wrong, step by step: two
//! connections that take the same free page, pages that move, split, are freed and taken again
//! under somebody who has read them, snapshots over commits that are still being worked off.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use mvsqlite_e2e::{Client, Session, Store, StoreOptions, code, copy_out, until};
use serde_json::Value;

const NAME: &str = "interleaved";

/// Tables that share no page, one of them (`mark`) with a row that can be changed without taking
/// pages.
const SCHEMA: &str = "
    CREATE TABLE one (id INTEGER PRIMARY KEY, body TEXT);
    CREATE TABLE two (id INTEGER PRIMARY KEY, body TEXT);
    CREATE TABLE mark (id INTEGER PRIMARY KEY, value INTEGER);
    INSERT INTO mark VALUES (1, 0);";

/// A text of 50,000 characters, several pages long.
fn long(character: char) -> String {
    format!("printf('%.*c', 50000, '{character}')")
}

fn numbers(count: u32) -> String {
    format!("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1)")
}

/// A store with one database, and two connections in processes of their own.
struct Stage {
    store: Store,
    first: Session,
    second: Session,
}

impl Stage {
    fn new(setup: &str) -> Self {
        let store = Store::start();
        store.create_namespace(NAME);
        let client = Client::of(&store);
        client.query(NAME, SCHEMA);
        client.query(NAME, setup);
        let open = || Session::open(&client, NAME).unwrap();
        let (first, second) = (open(), open());
        Self {
            store,
            first,
            second,
        }
    }

    /// Both transactions begin on one version and make their steps, then the first commits. The
    /// second must be refused, and succeed when it is run again.
    fn second_is_refused(&mut self, first: &[&str], second: &[&str]) {
        self.second.ok("BEGIN");
        for step in second {
            self.second.ok(step);
        }
        self.first.ok("BEGIN");
        for step in first {
            self.first.ok(step);
        }
        self.first.ok("COMMIT");
        self.second.fails("COMMIT", code::BUSY_SNAPSHOT);
        self.second.ok("BEGIN");
        for step in second {
            self.second.ok(step);
        }
        self.second.ok("COMMIT");
    }

    /// An ordinary SQLite must find the database whole, and in it this.
    fn finish(self, query: &str, expected: &str) {
        let copy = copy_out(&self.store, NAME);
        assert_eq!(copy.value::<String>(query), expected);
        self.store.finish();
    }
}

/// What FrankenSQLite got wrong: two connections take the same page at the end of the file, and the
/// file has a "2nd reference to page".
#[test]
fn two_who_grow_the_file_do_not_take_the_same_page() {
    let mut stage = Stage::new("SELECT 1");
    let one = format!("INSERT INTO one VALUES (1, {})", long('a'));
    let two = format!("INSERT INTO two VALUES (1, {})", long('b'));
    stage.second_is_refused(&[&one], &[&two]);
    let left = "SELECT length(replace(one.body, 'a', '')) || ' ' || length(replace(two.body, 'b', '')) \
                FROM one, two";
    stage.finish(left, "0 0");
}

#[test]
fn two_who_take_from_the_freelist_do_not_take_the_same_page() {
    let setup = format!(
        "{} INSERT INTO mark SELECT i + 2, 0 FROM n; \
         INSERT INTO one VALUES (9, {body}); INSERT INTO one VALUES (8, {body}); DELETE FROM one;",
        numbers(10),
        body = long('x')
    );
    let mut stage = Stage::new(&setup);
    assert_ne!(stage.first.value("PRAGMA freelist_count"), "0");
    let one = format!("INSERT INTO one VALUES (1, {})", long('a'));
    let two = format!("INSERT INTO two VALUES (1, {})", long('b'));
    stage.second_is_refused(&[&one], &[&two]);
    let left = "SELECT length(replace(one.body, 'a', '')) || ' ' || length(replace(two.body, 'b', '')) \
                FROM one, two";
    stage.finish(left, "0 0");
}

#[test]
fn one_who_frees_pages_and_one_who_takes_pages_collide() {
    let setup = format!("INSERT INTO one VALUES (9, {})", long('x'));
    let mut stage = Stage::new(&setup);
    let two = format!("INSERT INTO two VALUES (1, {})", long('b'));
    stage.second_is_refused(&["DELETE FROM one"], &[&two]);
    let query =
        "SELECT count(*) || ' ' || (SELECT length(replace(body, 'b', '')) FROM two) FROM one";
    stage.finish(query, "0 0");
}

/// The rows a reader counted in an index page come to lie on a page it never saw, and others join
/// them there: what it counted is no longer so, and its page alone need not tell.
#[test]
fn rows_that_appear_on_a_page_split_off_from_one_that_was_read_are_a_conflict() {
    let setup = format!(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, k INTEGER, filler TEXT); \
         CREATE INDEX item_k ON item (k, filler); \
         {} INSERT INTO item SELECT i, i * 10, printf('%.*c', 100, 'x') FROM n;",
        numbers(2000)
    );
    let mut stage = Stage::new(&setup);
    let counted = "(SELECT count(*) FROM item INDEXED BY item_k WHERE k BETWEEN 5000 AND 5100)";
    let note = format!("UPDATE mark SET value = {counted} WHERE id = 1");
    stage.second.ok("BEGIN");
    stage.second.ok(&note);
    let fill = |first: u32, count: u32, k: u32| {
        format!(
            "{} INSERT INTO item SELECT {first} + i, {k}, printf('%.*c', 100, 'y') FROM n",
            numbers(count)
        )
    };
    // Beside the range, until pages have split; then into it, when the range may lie elsewhere.
    stage.first.ok(&fill(10_000, 300, 4_999));
    stage.first.ok(&fill(20_000, 1, 5_050));
    stage.second.fails("COMMIT", code::BUSY_SNAPSHOT);
    stage.second.ok(&note);
    stage.finish("SELECT value || '' FROM mark WHERE id = 1", "12");
}

#[test]
fn a_row_that_appears_in_an_empty_range_is_a_conflict() {
    let mut stage = Stage::new("CREATE TABLE item (k INTEGER PRIMARY KEY) WITHOUT ROWID");
    // (A value that is what it was before would be no write.)
    let note = "UPDATE mark SET value = (SELECT 10 + count(*) FROM item WHERE k > 5)";
    stage.second_is_refused(&["INSERT INTO item VALUES (7)"], &[note]);
    stage.finish("SELECT value || '' FROM mark", "11");
}

#[test]
fn a_page_that_was_read_freed_and_taken_for_another_table_is_a_conflict() {
    let setup = format!(
        "{} INSERT INTO one SELECT i, printf('%.*c', 1000, 'x') FROM n",
        numbers(300)
    );
    let mut stage = Stage::new(&setup);
    stage.second.ok("BEGIN");
    stage
        .second
        .ok("UPDATE mark SET value = (SELECT length(body) FROM one WHERE id = 150) WHERE id = 1");
    stage
        .first
        .ok("DELETE FROM one WHERE id BETWEEN 100 AND 200");
    stage
        .first
        .ok(&format!("INSERT INTO two VALUES (1, {})", long('b')));
    // Its snapshot is as it was.
    assert_eq!(stage.second.value("SELECT count(*) FROM one"), "300");
    assert_eq!(stage.second.value("SELECT count(*) FROM two"), "0");
    stage.second.fails("COMMIT", code::BUSY_SNAPSHOT);
    stage.finish("SELECT value || '' FROM mark WHERE id = 1", "0");
}

#[test]
fn a_page_cut_off_by_a_vacuum_and_there_again_is_a_conflict() {
    let setup = format!(
        "INSERT INTO one VALUES (1, {}); \
         {} INSERT INTO two SELECT i, printf('%.*c', 1000, 'x') FROM n; DELETE FROM one",
        long('a'),
        numbers(200)
    );
    let mut stage = Stage::new(&setup);
    let pages = stage.first.value("PRAGMA page_count");
    stage.second.ok("BEGIN");
    stage
        .second
        .ok("UPDATE mark SET value = (SELECT sum(length(body)) FROM two) WHERE id = 1");
    stage.first.ok("VACUUM");
    assert_ne!(stage.first.value("PRAGMA page_count"), pages);
    stage.first.ok(&format!(
        "INSERT INTO one VALUES (1, {}), (2, {0})",
        long('a')
    ));
    assert_eq!(
        stage.second.value("SELECT sum(length(body)) FROM two"),
        "200000"
    );
    stage.second.fails("COMMIT", code::BUSY_SNAPSHOT);
    stage.finish("SELECT sum(length(body)) || '' FROM two", "200000");
}

#[test]
fn a_tree_that_grew_deeper_under_an_insert_is_a_conflict() {
    let mut stage = Stage::new("INSERT INTO one VALUES (1, 'x')");
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'one'";
    let before = stage.first.value(root);
    let deeper = format!(
        "{} INSERT INTO one SELECT i + 10, printf('%.*c', 1000, 'x') FROM n",
        numbers(50)
    );
    stage.second_is_refused(&[&deeper], &["INSERT INTO one VALUES (2, 'y')"]);
    assert_eq!(stage.first.value(root), before);
    stage.finish("SELECT count(*) || '' FROM one", "52");
}

#[test]
fn two_inserts_do_not_get_the_same_row_number() {
    let mut stage = Stage::new("SELECT 1");
    let insert = "INSERT INTO one (body) VALUES ('x')";
    stage.second_is_refused(&[insert], &[insert]);
    stage.finish("SELECT group_concat(id) FROM one", "1,2");
}

#[test]
fn what_stands_in_the_header_can_be_read_and_conflict_like_a_row() {
    let mut stage = Stage::new("PRAGMA user_version = 3");
    let note =
        "UPDATE mark SET value = (SELECT user_version FROM pragma_user_version) WHERE id = 1";
    stage.second_is_refused(&["PRAGMA user_version = 4"], &[note]);
    stage.finish("SELECT value || '' FROM mark WHERE id = 1", "4");
}

#[test]
fn an_index_made_meanwhile_has_the_rows_of_everybody() {
    let mut stage = Stage::new("INSERT INTO one VALUES (1, 'x'), (2, 'y')");
    let update = "UPDATE one SET body = 'z' WHERE id = 2";
    stage.second_is_refused(&["CREATE INDEX one_body ON one (body)"], &[update]);
    let query = "SELECT group_concat(body) FROM one INDEXED BY one_body WHERE body > ''";
    stage.finish(query, "x,z");
}

/// Write skew in a ring over three databases: each reads the next one and writes its own.
#[test]
fn a_ring_of_reads_and_writes_over_attached_databases_is_broken() {
    let store = Store::start();
    let names = ["ring-0", "ring-1", "ring-2"];
    let client = Client::of(&store);
    for name in names {
        store.create_namespace(name);
        client.query(name, "CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (0)");
    }
    let mut sessions: Vec<_> = (0..3)
        .map(|at| {
            let mut session = Session::open(&client, names[at]).unwrap();
            session.ok(&format!("ATTACH '{}' AS next", names[(at + 1) % 3]));
            session.ok("BEGIN");
            session.ok("UPDATE main.t SET v = 1 WHERE (SELECT v FROM next.t) = 0");
            session
        })
        .collect();
    // Any two of them can be put in an order, all three cannot.
    sessions[1].ok("COMMIT");
    sessions[0].fails("COMMIT", code::BUSY_SNAPSHOT);
    sessions[2].ok("COMMIT");
    let values = names.map(|name| client.query(name, "SELECT v FROM t").trim().to_owned());
    assert_eq!(values, ["0", "1", "1"]);
    store.finish();
}

fn layers(store: &Store) -> u64 {
    let (status, body) = store.admin("stat_namespace", &format!(r#"{{"key":"{NAME}"}}"#));
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let layers = &body["layers"];
    layers
        .as_u64()
        .unwrap_or_else(|| layers.as_array().unwrap().len() as u64)
}

/// A large commit is one record at first, and its pages are put in their places afterwards, here one
/// at a time. Whoever reads before, meanwhile and after must not notice.
#[test]
fn snapshots_hold_while_a_large_commit_is_worked_off() {
    let store = Store::start_with(StoreOptions {
        arguments: ["--knob-layer-bytes", "2000", "--knob-fold-pages", "1"]
            .map(str::to_owned)
            .to_vec(),
        ..StoreOptions::default()
    });
    store.create_namespace(NAME);
    // Next to nothing is kept by the clients, so that the store answers the reads; small pages are
    // more to work off. What is uploaded before COMMIT becomes a layer.
    let client = Client::of(&store)
        .env("MVSQLITE_PAGE_CACHE_SIZE", "16")
        .env("MVSQLITE_UPLOAD_BYTES", "65536");
    let setup = format!(
        "PRAGMA page_size = 1024; {SCHEMA} {} INSERT INTO one SELECT i, printf('%.*c', 1000, 'x') FROM n",
        numbers(2000)
    );
    client.query(NAME, &setup);
    let worked_off = || (layers(&store) == 0).then_some(());
    until("no layers", Duration::from_secs(60), worked_off);
    // The work may be done before anybody has looked.
    let looked = (0..10).any(|_| snapshots_hold_over_a_large_commit(&store, &client));
    assert!(looked, "no commit was a layer: nothing was tested");
    store.finish();
}

/// Answers whether anybody has read while it was being worked off.
fn snapshots_hold_over_a_large_commit(store: &Store, client: &Client) -> bool {
    let open = || {
        let mut session = Session::open(client, NAME).unwrap();
        session.ok("PRAGMA cache_size = 4");
        session
    };
    let sum = "SELECT count(*) || ' ' || sum(unicode(body)) || ' ' || sum(length(body)) FROM one";
    let (mut before, mut writer, mut after) = (open(), open(), open());
    before.ok("BEGIN");
    let old = before.value(sum);
    writer.ok("UPDATE one SET body = replace(body, 'x', 'y')");
    after.ok("BEGIN");
    let new = after.value(sum);
    assert_ne!(new, old);
    // One more commit, into the midst of it.
    writer.ok("UPDATE one SET body = replace(body, 'y', 'z') WHERE id = 1000");
    let newest = writer.value(sum);
    assert_ne!(newest, new);
    let mut looked = false;
    until("the work to end", Duration::from_secs(60), || {
        let begun_before = layers(store) > 0;
        assert_eq!(before.value(sum), old);
        assert_eq!(after.value(sum), new);
        assert_eq!(writer.value(sum), newest);
        looked |= begun_before;
        (!begun_before).then_some(())
    });
    before.ok("UPDATE mark SET value = (SELECT count(*) FROM one WHERE id < 10)");
    before.fails("COMMIT", code::BUSY_SNAPSHOT);
    assert_eq!(before.value(sum), newest);
    after.ok("COMMIT");
    writer.ok("UPDATE one SET body = replace(replace(body, 'y', 'x'), 'z', 'x')");
    looked
}

/// Pages that a savepoint undid had been uploaded. What is read afterwards, and committed, is what
/// was there before the savepoint.
#[test]
fn after_a_savepoint_uploaded_pages_are_read_and_committed_as_they_were_before_it() {
    let mut stage = Stage::new(&format!(
        "{} INSERT INTO one SELECT i, printf('%.*c', 1000, 'x') FROM n",
        numbers(3000)
    ));
    let client = Client::of(&stage.store).env("MVSQLITE_UPLOAD_BYTES", "65536");
    let mut session = Session::open(&client, NAME).unwrap();
    session.ok("PRAGMA cache_size = 4");
    let letters = "SELECT group_concat(letter || times, ' ') FROM \
                   (SELECT substr(body, 1, 1) AS letter, count(*) AS times FROM one GROUP BY 1)";
    session.ok("BEGIN");
    session.ok("UPDATE one SET body = replace(body, 'x', 'a')");
    session.ok("SAVEPOINT undone");
    session.ok("UPDATE one SET body = replace(body, 'a', 'b')");
    assert_eq!(session.value(letters), "b3000");
    session.ok("SAVEPOINT inner");
    session.ok("DELETE FROM one WHERE id % 2 = 0");
    session.ok(&format!("INSERT INTO one VALUES (-1, {})", long('c')));
    session.ok("ROLLBACK TO inner");
    assert_eq!(session.value(letters), "b3000");
    session.ok("ROLLBACK TO undone");
    assert_eq!(session.value(letters), "a3000");
    session.ok("UPDATE one SET body = replace(body, 'a', 'd') WHERE id < 100");
    assert_eq!(session.value(letters), "a2900 d100");
    // Nobody else has seen any of it, nor is in the way.
    assert_eq!(stage.first.value(letters), "x3000");
    stage.first.ok("UPDATE mark SET value = 1");
    session.ok("COMMIT");
    assert_eq!(stage.first.value(letters), "a2900 d100");
    stage.finish(letters, "a2900 d100");
}
