-- Full auto-vacuum: the file shrinks at COMMIT, pages move.
PRAGMA page_size = 1024;
PRAGMA auto_vacuum = FULL;
CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB);
CREATE TABLE u (id INTEGER PRIMARY KEY, body TEXT);
CREATE INDEX u_body ON u (body);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
INSERT INTO t SELECT i, zeroblob(i * 11) FROM n;
INSERT INTO u SELECT id, printf('%050d', id) FROM t;
PRAGMA page_count;
DELETE FROM t WHERE id % 3;
PRAGMA page_count;
PRAGMA freelist_count;
BEGIN;
DELETE FROM t;
INSERT INTO u SELECT id + 1000, body FROM u;
ROLLBACK;
PRAGMA page_count;
BEGIN;
DROP TABLE t;
CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB);
INSERT INTO t VALUES (1, zeroblob(50000));
COMMIT;
PRAGMA page_count;
UPDATE t SET body = x'01';
PRAGMA page_count;
SELECT count(*), sum(length(body)) FROM u;
DELETE FROM u;
PRAGMA page_count;
