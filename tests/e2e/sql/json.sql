-- JSON functions, tables and indexes over JSON.
PRAGMA page_size = 8192;
CREATE TABLE event (id INTEGER PRIMARY KEY, body TEXT CHECK (json_valid(body)));
INSERT INTO event (body) VALUES ('{"kind":"login","user":{"name":"ada","roles":["admin","dev"]}}'),
    ('{"kind":"logout","user":{"name":"alan","roles":[]}}'), ('[1,2,{"deep":[true,null,1.5e3]}]');
INSERT INTO event (body) VALUES ('{broken');
SELECT id, json_extract(body, '$.kind'), body ->> '$.user.name' FROM event ORDER BY id;
SELECT event.id, each.key, each.value FROM event, json_each(event.body, '$.user.roles') AS each;
SELECT fullkey, type, atom FROM event, json_tree(event.body) WHERE event.id = 3 ORDER BY json_tree.id;
UPDATE event SET body = json_set(body, '$.user.seen', id * 10) WHERE json_type(body) = 'object';
SELECT body -> '$.user' FROM event WHERE id < 3;
CREATE INDEX event_kind ON event (json_extract(body, '$.kind'));
SELECT id FROM event WHERE json_extract(body, '$.kind') = 'logout';
SELECT json_group_array(id), json_group_object(id, body ->> '$.kind') FROM event;
SELECT json_patch('{"a":1,"b":2}', '{"b":null,"c":3}'), json_remove('[0,1,2]', '$[1]'), json_quote('a"b');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO event (body) SELECT json_object('kind', 'k' || (i % 9), 'list', json_array(i, i * i, 'x' || i)) FROM n;
SELECT body ->> '$.kind' AS kind, count(*), sum(body ->> '$.list[1]') FROM event GROUP BY 1 ORDER BY 1;
