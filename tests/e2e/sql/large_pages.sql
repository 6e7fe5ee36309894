-- The largest page size there is here, and text in UTF-16.
PRAGMA page_size = 32768;
PRAGMA encoding = 'UTF-16le';
CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO t VALUES (1, 'grüße'), (2, '日本語'), (3, '😀 and more'), (4, NULL);
WITH RECURSIVE n(i) AS (SELECT 5 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO t SELECT i, 'räksmörgås ' || i || substr(hex(zeroblob(400)), 1, i % 700) FROM n;
SELECT id, body, length(body), length(CAST(body AS BLOB)) FROM t WHERE id < 5;
SELECT count(*), sum(length(body)), max(body) FROM t;
CREATE INDEX t_body ON t (body);
SELECT id FROM t WHERE body >= '日' ORDER BY body;
DELETE FROM t WHERE id % 2;
UPDATE t SET body = upper(body) WHERE id % 4 = 0;
SELECT count(*), sum(length(body)) FROM t;
PRAGMA encoding;
PRAGMA page_count;
