-- Indexes over enough rows that pages split and merge, with small pages.
PRAGMA page_size = 512;
CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT, c REAL);
CREATE INDEX t_a ON t (a);
CREATE INDEX t_b ON t (b COLLATE NOCASE, a);
CREATE INDEX t_expression ON t (a % 10, length(b));
CREATE INDEX t_partial ON t (c) WHERE c > 0.5;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
INSERT INTO t SELECT i, (i * 7919) % 4001, printf('row %05d', (i * 104729) % 9973), (i * 31 % 1000) / 1000.0 FROM n;
SELECT count(*), sum(a), min(b), max(b) FROM t;
SELECT id, b FROM t WHERE a BETWEEN 100 AND 110 ORDER BY a;
SELECT count(*) FROM t WHERE b LIKE 'ROW 00%';
SELECT count(*) FROM t WHERE a % 10 = 3 AND length(b) = 9;
SELECT count(*) FROM t WHERE c > 0.9;
EXPLAIN QUERY PLAN SELECT id FROM t WHERE a = 5;
DELETE FROM t WHERE id BETWEEN 500 AND 3500;
SELECT count(*), sum(a) FROM t;
UPDATE t SET a = a + 100000, b = upper(b) WHERE id % 5 = 0;
SELECT sum(a), max(b), count(DISTINCT b) FROM t;
INSERT INTO t SELECT id + 10000, a, b, c FROM t;
DELETE FROM t WHERE id % 2;
DROP INDEX t_b;
SELECT count(*), sum(a) FROM t INDEXED BY t_a WHERE a > 0;
PRAGMA page_count;
PRAGMA freelist_count;
