-- Triggers of each kind, views that can be written to, RAISE, recursion.
PRAGMA page_size = 8192;
CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE audit (n INTEGER PRIMARY KEY, what TEXT);
CREATE TRIGGER account_insert AFTER INSERT ON account BEGIN
    INSERT INTO audit (what) VALUES ('insert ' || new.id || ' ' || new.balance);
END;
CREATE TRIGGER account_update BEFORE UPDATE OF balance ON account WHEN new.balance <> old.balance BEGIN
    INSERT INTO audit (what) VALUES ('update ' || old.balance || ' to ' || new.balance);
    SELECT RAISE(ABORT, 'no debts here') WHERE new.balance < 0;
END;
CREATE TRIGGER account_delete AFTER DELETE ON account BEGIN
    INSERT INTO audit (what) VALUES ('delete ' || old.id);
    SELECT RAISE(IGNORE) WHERE old.id = 2;
END;
INSERT INTO account VALUES (1, 100), (2, 50), (3, 0);
UPDATE account SET balance = balance - 60;
SELECT * FROM account;
UPDATE account SET balance = balance + 1;
DELETE FROM account WHERE id = 2;
CREATE VIEW rich AS SELECT id, balance FROM account WHERE balance > 10;
CREATE TRIGGER rich_insert INSTEAD OF INSERT ON rich BEGIN
    INSERT INTO account VALUES (new.id, new.balance * 2);
END;
INSERT INTO rich VALUES (10, 500), (11, 1);
SELECT * FROM rich ORDER BY id;
SELECT * FROM audit ORDER BY n;
PRAGMA recursive_triggers = ON;
CREATE TABLE countdown (n INTEGER);
CREATE TRIGGER countdown_on AFTER INSERT ON countdown WHEN new.n > 0 BEGIN
    INSERT INTO countdown VALUES (new.n - 1);
END;
INSERT INTO countdown VALUES (200);
SELECT count(*), sum(n) FROM countdown;
INSERT OR FAIL INTO account VALUES (20, 1), (1, 1), (21, 1);
SELECT count(*) FROM account;
DROP TRIGGER account_update;
UPDATE account SET balance = -1 WHERE id = 1;
SELECT * FROM account ORDER BY id;
