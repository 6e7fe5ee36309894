-- Views, common table expressions, window functions, aggregates, set operations.
PRAGMA page_size = 8192;
CREATE TABLE sale (id INTEGER PRIMARY KEY, region TEXT, day INTEGER, amount REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO sale SELECT i, substr('NESW', i % 4 + 1, 1), i / 10, (i * 37 % 101) + 0.25 FROM n;
CREATE VIEW by_region AS SELECT region, sum(amount) AS total, count(*) AS n FROM sale GROUP BY region;
SELECT * FROM by_region ORDER BY region;
SELECT day, region, total, rank() OVER (PARTITION BY day ORDER BY total DESC) AS place
FROM (SELECT day, region, sum(amount) AS total FROM sale GROUP BY 1, 2) WHERE day < 3 ORDER BY 1, 4, 2;
SELECT id, amount, avg(amount) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS moving,
    lag(amount, 1, 0) OVER w AS previous, ntile(4) OVER w AS quarter, first_value(id) OVER w AS first
FROM sale WINDOW w AS (PARTITION BY region ORDER BY day, id) ORDER BY id LIMIT 12;
WITH RECURSIVE fib(a, b) AS (SELECT 0, 1 UNION ALL SELECT b, a + b FROM fib WHERE b < 10000)
SELECT group_concat(a) FROM fib;
WITH big AS MATERIALIZED (SELECT * FROM sale WHERE amount > 90), small AS (SELECT * FROM sale WHERE amount < 10)
SELECT b.region, count(*) FROM big b JOIN small s ON b.region = s.region AND b.day < s.day GROUP BY 1 ORDER BY 1;
SELECT region FROM sale WHERE amount > 100 UNION SELECT 'none' EXCEPT SELECT 'N' ORDER BY 1;
SELECT region, total(amount) FILTER (WHERE day > 20), max(id), min(amount) FROM sale GROUP BY region HAVING count(*) > 10 ORDER BY 1;
SELECT s.id FROM sale s LEFT JOIN sale t ON t.id = s.id + 299 WHERE t.id IS NOT NULL;
SELECT count(*) FROM sale s WHERE EXISTS (SELECT 1 FROM sale t WHERE t.day = s.day AND t.amount > s.amount);
SELECT DISTINCT typeof(amount), typeof(day), quote(region) FROM sale ORDER BY 3;
SELECT CASE region WHEN 'N' THEN 'north' ELSE lower(region) END AS r, count(*) FROM sale GROUP BY r ORDER BY r LIMIT 2 OFFSET 1;
DROP VIEW by_region;
SELECT * FROM by_region;
