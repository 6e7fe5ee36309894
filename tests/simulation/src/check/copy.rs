//! A database copied page by page into an ordinary file, and looked at by an ordinary SQLite.

use std::io::Write;
use std::sync::Arc;

use mvsqlite::{DatabaseFile, LockLevel, OpenOptions, Read};
use rusqlite::{Connection, OpenFlags};

use crate::process::Process;
use crate::workload::{Database, Snapshot, Swarm};

/// Copies a database at a moment (`""`, or `@version`) and checks the copy.
pub(crate) fn check(
    process: &Process,
    database: Database,
    moment: &str,
    swarm: &Swarm,
) -> Result<(), String> {
    let name = format!("{}{moment}", database.key());
    let bytes = read(process, &name).map_err(|error| format!("copying '{name}': {error}"))?;
    let mut file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    file.write_all(&bytes).map_err(|error| error.to_string())?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags_and_vfs(file.path(), flags, c"unix")
        .map_err(|error| error.to_string())?;
    let problems = integrity(&connection).map_err(|error| format!("'{name}': {error}"))?;
    if problems != ["ok"] {
        return Err(format!(
            "integrity_check of '{name}' says: {}",
            problems.join("; ")
        ));
    }
    // The first database is `main` of every connection: the other's keys are its own all the same.
    Snapshot::read_copy(&connection, swarm)
        .map_err(|fault| format!("the copy of '{name}': {fault}"))?;
    Ok(())
}

fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// Every byte, as SQLite's pager would read them.
pub(super) fn read(process: &Process, name: &str) -> Result<Vec<u8>, String> {
    let text = |error: mvsqlite::Error| error.to_string();
    let parsed = name.parse().map_err(|_| format!("'{name}' is no name"))?;
    let options = OpenOptions {
        read_only: true,
        page_size: None,
    };
    let env = Arc::clone(&process.environment());
    let mut file = DatabaseFile::open(env, parsed, options).map_err(text)?;
    if !file.is_immutable() {
        file.lock(LockLevel::Shared).map_err(text)?;
    }
    let size = usize::try_from(file.size().map_err(text)?).map_err(|error| error.to_string())?;
    let mut bytes = vec![0; size];
    let page = file.page_size().unwrap_or(4096) as usize;
    for (index, chunk) in bytes.chunks_mut(page).enumerate() {
        let offset = (index * page) as u64;
        match file.read(offset, chunk).map_err(text)? {
            Read::Full => {}
            Read::Short(length) => return Err(format!("page {index} ends after {length} bytes")),
        }
    }
    Ok(bytes)
}
