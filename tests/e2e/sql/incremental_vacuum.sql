-- Incremental auto-vacuum: free pages stay until they are asked for.
PRAGMA page_size = 2048;
PRAGMA auto_vacuum = INCREMENTAL;
CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
INSERT INTO t SELECT i, zeroblob(i * 23) FROM n;
PRAGMA page_count;
DELETE FROM t WHERE id % 4;
PRAGMA freelist_count;
PRAGMA incremental_vacuum(100);
PRAGMA freelist_count;
PRAGMA page_count;
BEGIN;
PRAGMA incremental_vacuum(50);
INSERT INTO t SELECT id + 1000, body FROM t WHERE id < 50;
ROLLBACK;
PRAGMA page_count;
INSERT INTO t SELECT id + 2000, body FROM t;
PRAGMA incremental_vacuum;
PRAGMA page_count;
SELECT count(*), sum(length(body)) FROM t;
PRAGMA auto_vacuum = FULL;
DELETE FROM t WHERE id > 2000;
PRAGMA page_count;
