-- UPSERT, RETURNING, generated columns, conflict clauses, WITHOUT ROWID, STRICT, AUTOINCREMENT.
PRAGMA page_size = 8192;
CREATE TABLE word (word TEXT PRIMARY KEY, n INTEGER DEFAULT 1) WITHOUT ROWID;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
INSERT INTO word (word) SELECT 'w' || (i * 31 % 97) FROM n WHERE true ON CONFLICT (word) DO UPDATE SET n = n + 1;
SELECT count(*), sum(n), max(n) FROM word;
INSERT INTO word VALUES ('w1', 0), ('new', 0) ON CONFLICT DO NOTHING RETURNING word;
CREATE TABLE box (
    id INTEGER PRIMARY KEY AUTOINCREMENT, w REAL, h REAL,
    area REAL GENERATED ALWAYS AS (w * h) STORED, label TEXT AS ('box ' || id) VIRTUAL);
CREATE INDEX box_area ON box (area);
INSERT INTO box (w, h) VALUES (2, 3), (4, 5) RETURNING id, area, label;
UPDATE box SET w = 10 WHERE id = 1 RETURNING *;
DELETE FROM box WHERE area > 30 RETURNING id;
INSERT INTO box (w, h, area) VALUES (1, 1, 1);
INSERT INTO box (w, h) VALUES (1, 1);
SELECT id, area, label FROM box ORDER BY id;
SELECT * FROM sqlite_sequence;
CREATE TABLE strict (i INTEGER, t TEXT, a ANY) STRICT;
INSERT INTO strict VALUES (1, 'x', x'00'), ('7', 5, 2.5);
INSERT INTO strict VALUES ('seven', 'x', 1);
SELECT typeof(i), typeof(t), typeof(a) FROM strict;
CREATE TABLE r (k INTEGER PRIMARY KEY ON CONFLICT REPLACE, v UNIQUE ON CONFLICT IGNORE);
INSERT INTO r VALUES (1, 'a'), (2, 'b'), (1, 'c'), (3, 'b');
SELECT * FROM r ORDER BY k;
INSERT OR ROLLBACK INTO word VALUES ('w1', 1);
REPLACE INTO word VALUES ('w1', -1);
SELECT n FROM word WHERE word = 'w1';
UPDATE word SET n = n + other.id FROM (SELECT id FROM box) AS other WHERE word = 'w2';
SELECT n FROM word WHERE word = 'w2';
