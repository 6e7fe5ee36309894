-- Small caches, spills, secure deletion, checks.
PRAGMA page_size = 8192;
CREATE TABLE t (x);
INSERT INTO t VALUES (1);
INSERT INTO t VALUES (2);
PRAGMA cache_size = 5;
PRAGMA cache_spill = 2;
PRAGMA secure_delete = ON;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO t SELECT printf('%0300d', i) FROM n;
DELETE FROM t WHERE rowid % 2;
SELECT count(*), sum(length(x)) FROM t;
PRAGMA quick_check;
PRAGMA optimize;
PRAGMA shrink_memory;
SELECT total_changes() > 0, changes(), last_insert_rowid();
