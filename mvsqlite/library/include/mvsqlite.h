/*
** mvSQLite for C programs: databases of an mvstore behind the program's own SQLite.
**
** Link with libmvsqlite.a (`make release` leaves it in target/release/) and with any SQLite from
** 3.31 on, as a library or as the amalgamation:
**
**     cc -I mvsqlite/library/include app.c target/release/libmvsqlite.a -lsqlite3 -lpthread -ldl -lm
**
** Call mvsqlite_register() once, then open databases through the VFS "mvsqlite":
**
**     if( mvsqlite_register(0, 0)!=SQLITE_OK ){
**       fprintf(stderr, "%s\n", mvsqlite_errmsg());
**       exit(1);
**     }
**     sqlite3_open_v2("orders", &db, SQLITE_OPEN_READWRITE, "mvsqlite");
**
** COMMIT fails with SQLITE_BUSY_SNAPSHOT (517) when another transaction changed what this one read:
** nothing was written, run the transaction again from its beginning. That holds for single
** statements outside BEGIN and COMMIT as well.
*/
#ifndef MVSQLITE_H
#define MVSQLITE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Flag for mvsqlite_register(): the VFS becomes the default, so that sqlite3_open() takes it too. */
#define MVSQLITE_MAKE_DEFAULT 1

/*
** Registers the VFS "mvsqlite", its variants "mvsqlite-4096", "mvsqlite-8192", "mvsqlite-16384" and
** "mvsqlite-32768" (by the page size, in bytes, of databases made through them) with the SQLite that
** the program is linked with. Connections opened from then on have the SQL functions.
**
** settings  NULL, or an array of "NAME=VALUE" strings with NULL at its end. Each takes the place of
**           the environment variable NAME; at least MVSQLITE_DATA_PLANE must be set one way or the
**           other. The strings are copied.
** flags     0 or MVSQLITE_MAKE_DEFAULT.
**
** Returns SQLITE_OK (0); SQLITE_ERROR (1) if a setting is malformed or SQLite refuses; SQLITE_MISUSE
** (21) for wrong arguments, and for settings when the VFS is registered already. Nothing is
** registered unless it returns SQLITE_OK or was so before. Does no I/O and starts no thread. May be
** called any number of times and by any thread; initializes SQLite.
*/
int mvsqlite_register(const char *const *settings, int flags);

/*
** Why the calling thread's last mvsqlite_register() failed, in one line; "" if it did not. Valid
** until the thread calls mvsqlite_register() again or ends.
*/
const char *mvsqlite_errmsg(void);

/* The version of this library, such as "0.1.0". */
const char *mvsqlite_version(void);

#ifdef __cplusplus
}
#endif

#endif /* MVSQLITE_H */
