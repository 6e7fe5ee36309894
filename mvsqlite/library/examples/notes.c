/*
** Notes that any number of programs on any number of machines write into one database: the C twin
** of notes.rs.
**
**     MVSQLITE_DATA_PLANE=http://localhost:7000 ./notes test "buy milk"
*/
#include <stdio.h>

#include "mvsqlite.h"
#include "sqlite3.h"

static int print_note(void *unused, int columns, char **values, char **names){
  (void)unused; (void)columns; (void)names;
  printf("%s %s\n", values[0], values[1]);
  return 0;
}

static int add_note(sqlite3 *db, const char *text){
  sqlite3_stmt *insert = 0;
  int rc = sqlite3_exec(db, "CREATE TABLE IF NOT EXISTS note(text)", 0, 0, 0);
  if( rc==SQLITE_OK ){
    rc = sqlite3_prepare_v2(db, "INSERT INTO note VALUES (?1)", -1, &insert, 0);
  }
  if( rc==SQLITE_OK ) rc = sqlite3_bind_text(insert, 1, text, -1, SQLITE_STATIC);
  if( rc==SQLITE_OK ) sqlite3_step(insert);
  /* The outcome of a single statement is that of its end. */
  return rc==SQLITE_OK ? sqlite3_finalize(insert) : rc;
}

int main(int argc, char **argv){
  sqlite3 *db = 0;
  int rc;
  if( argc<2 || argc>3 ){
    fprintf(stderr, "usage: %s NAMESPACE [NOTE]\n", argv[0]);
    return 2;
  }
  if( mvsqlite_register(0, 0)!=SQLITE_OK ){
    fprintf(stderr, "%s\n", mvsqlite_errmsg());
    return 1;
  }
  rc = sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE, "mvsqlite");
  if( rc==SQLITE_OK && argc==3 ){
    /* Somebody else may have changed what this read: then nothing was written. */
    do{ rc = add_note(db, argv[2]); }while( (rc & 0xff)==SQLITE_BUSY );
  }
  if( rc==SQLITE_OK ){
    rc = sqlite3_exec(db, "SELECT rowid, text FROM note ORDER BY rowid", print_note, 0, 0);
  }
  if( rc!=SQLITE_OK ) fprintf(stderr, "%s: %s\n", argv[1], sqlite3_errmsg(db));
  sqlite3_close(db);
  return rc!=SQLITE_OK;
}
