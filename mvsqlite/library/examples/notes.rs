//! Notes that any number of programs on any number of machines write into one database.
//!
//!     MVSQLITE_DATA_PLANE=http://localhost:7000 cargo run -p mvsqlite --example notes -- test "buy milk"
//!
//! adds a note to the namespace `test`, which must exist, and prints all of them.

use std::error::Error;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(namespace), note) = (arguments.next(), arguments.next()) else {
        return Err("usage: notes NAMESPACE [NOTE]".into());
    };

    mvsqlite::register()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
    let mut notes = Connection::open_with_flags_and_vfs(namespace, flags, mvsqlite::VFS_NAME)?;

    if let Some(note) = note {
        until_committed(&mut notes, |transaction| {
            transaction.execute("CREATE TABLE IF NOT EXISTS note(text)", [])?;
            transaction.execute("INSERT INTO note VALUES (?1)", [&note])?;
            Ok(())
        })?;
    }
    let mut all = notes.prepare("SELECT rowid, text FROM note ORDER BY rowid")?;
    let lines = all.query_map([], |row| {
        Ok(format!(
            "{} {}",
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?
        ))
    })?;
    for line in lines {
        println!("{}", line?);
    }
    Ok(())
}

/// Runs a transaction from its beginning until nobody else changed what it read.
fn until_committed(
    connection: &mut Connection,
    run: impl Fn(&Transaction<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match run(&transaction).and_then(|()| transaction.commit()) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            done => return done,
        }
    }
}
