-- R-tree: shadow tables written by the extension itself.
PRAGMA page_size = 4096;
CREATE VIRTUAL TABLE place USING rtree (id, minx, maxx, miny, maxy, +name TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
INSERT INTO place SELECT i, i % 37, i % 37 + 2, i % 53, i % 53 + 1, 'place ' || i FROM n;
SELECT count(*), min(name) FROM place WHERE minx >= 10 AND maxx <= 15 AND miny >= 10 AND maxy <= 20;
DELETE FROM place WHERE id % 3 = 0;
UPDATE place SET maxx = maxx + 10 WHERE id < 100;
SELECT count(*), sum(id) FROM place WHERE maxx > 40;
SELECT rtreecheck('place');
DROP TABLE place;
PRAGMA freelist_count;
