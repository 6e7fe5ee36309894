-- VACUUM after heavy deletion, inside and outside of what is allowed.
PRAGMA page_size = 4096;
CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB);
CREATE INDEX t_body ON t (length(body), id);
CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
INSERT INTO t SELECT i, zeroblob(i * 3) FROM n;
INSERT INTO w SELECT 'key ' || id, id FROM t;
PRAGMA page_count;
DELETE FROM t WHERE id % 5;
DELETE FROM w WHERE v > 200;
PRAGMA freelist_count;
VACUUM;
PRAGMA page_count;
PRAGMA freelist_count;
SELECT count(*), sum(length(body)) FROM t;
BEGIN;
VACUUM;
ROLLBACK;
INSERT INTO t SELECT id + 10000, body FROM t;
DELETE FROM t WHERE id > 10000;
VACUUM;
VACUUM;
PRAGMA page_count;
SELECT count(*), max(k) FROM w;
DROP TABLE t;
VACUUM;
PRAGMA page_count;
