-- Full text search: shadow tables, merges, triggers that keep an external-content index.
PRAGMA page_size = 8192;
CREATE VIRTUAL TABLE doc USING fts5 (title, body, tokenize = 'porter unicode61');
INSERT INTO doc VALUES
    ('Storage', 'Pages are written when a transaction commits'),
    ('Conflict', 'Two writers change the same page and one of them conflicts'),
    ('Café', 'Crème brûlée is served at the café');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 800)
INSERT INTO doc SELECT 'number ' || i, 'the ' || i || 'th document mentions ' ||
    CASE WHEN i % 7 = 0 THEN 'seven ' ELSE '' END || CASE WHEN i % 11 = 0 THEN 'eleven' ELSE 'nothing' END FROM n;
SELECT title FROM doc WHERE doc MATCH 'write OR commit' ORDER BY rowid;
SELECT count(*) FROM doc WHERE doc MATCH 'seven AND eleven';
SELECT title, snippet(doc, 1, '[', ']', '...', 5) FROM doc WHERE doc MATCH 'conflict' ORDER BY rank;
SELECT highlight(doc, 1, '<', '>') FROM doc WHERE doc MATCH 'cafe';
DELETE FROM doc WHERE rowid % 3 = 0;
UPDATE doc SET body = body || ' seven' WHERE rowid % 10 = 1;
SELECT count(*) FROM doc WHERE doc MATCH 'seven';
INSERT INTO doc (doc) VALUES ('optimize');
INSERT INTO doc (doc) VALUES ('integrity-check');
SELECT count(*), group_concat(rowid) FROM (SELECT rowid FROM doc WHERE doc MATCH '"nothing seven"' LIMIT 5);
CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT);
CREATE VIRTUAL TABLE note_index USING fts5 (text, content = 'note', content_rowid = 'id');
CREATE TRIGGER note_insert AFTER INSERT ON note BEGIN
    INSERT INTO note_index (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER note_delete AFTER DELETE ON note BEGIN
    INSERT INTO note_index (note_index, rowid, text) VALUES ('delete', old.id, old.text);
END;
INSERT INTO note (text) VALUES ('red green'), ('green blue'), ('blue red');
DELETE FROM note WHERE id = 2;
SELECT rowid, text FROM note_index WHERE note_index MATCH 'green OR blue';
BEGIN;
DROP TABLE doc;
ROLLBACK;
SELECT count(*) FROM doc;
DROP TABLE note_index;
