-- Blobs and texts from nothing to megabytes: overflow chains, growing and shrinking in place.
PRAGMA page_size = 4096;
CREATE TABLE blob (id INTEGER PRIMARY KEY, body);
INSERT INTO blob VALUES (1, x''), (2, zeroblob(100)), (3, zeroblob(4061)), (4, zeroblob(4062)),
    (5, zeroblob(100000)), (6, zeroblob(3000000)), (7, NULL);
WITH RECURSIVE n(i) AS (SELECT 8 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
INSERT INTO blob SELECT i, substr(replace(hex(zeroblob(20000)), '00', 'abc' || i || ';'), 1, i * 173) FROM n;
SELECT count(*), sum(length(body)) FROM blob;
SELECT id, length(body), substr(body, -12) FROM blob WHERE id % 17 = 8 ORDER BY id;
UPDATE blob SET body = substr(body, 1, 10) WHERE id % 3 = 0;
UPDATE blob SET body = body || body || body || body WHERE id % 3 = 1 AND id > 7;
SELECT sum(length(body)), max(length(body)) FROM blob;
PRAGMA page_count;
PRAGMA freelist_count;
DELETE FROM blob WHERE id % 2 = 0;
PRAGMA freelist_count;
INSERT INTO blob SELECT id + 1000, body FROM blob;
SELECT count(*), sum(length(body)) FROM blob;
SELECT sum(instr(CAST(body AS TEXT), 'abc')) FROM blob;
DROP TABLE blob;
PRAGMA page_count;
VACUUM;
PRAGMA page_count;
