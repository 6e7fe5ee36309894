//! SQLite's own TCL tests over the VFS.
