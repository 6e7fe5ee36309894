//! SQLite over the VFS, once for each simulated process.
//!
//! All processes of a run share one SQLite library, so each has a VFS of its own name, with an
//! environment of its own: caches, clock, randomness, network. There is a pool of names, whose
//! environments are replaced from run to run; one that is not used keeps the last until then.
//!
//! What SQLite itself shares between its connections decides nothing here: its random numbers go into
//! names of super-journals and headers of private journals, which no store ever sees, as long as no
//! statement calls `random()`; and connections are told apart by their addresses, never ordered by them.
//! Nothing here may ask SQLite for the time.

use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mvsqlite::Environment;
use mvsqlite_linked::Vfs;
use rusqlite::{Connection, OpenFlags};

/// A name of a VFS, and the VFS.
struct Registered {
    name: &'static CStr,
    vfs: &'static Vfs,
}

/// Names that no process uses now.
static FREE: Mutex<Vec<Registered>> = Mutex::new(Vec::new());
/// How many names were ever made.
static MADE: Mutex<u32> = Mutex::new(0);

/// SQLite as one process has it.
pub(crate) struct Sqlite {
    /// `None` only while it is dropped.
    registered: Option<Registered>,
    name: &'static CStr,
}

impl Sqlite {
    /// With the environment of a process.
    ///
    /// # Panics
    /// If SQLite takes no further VFS: it is out of memory.
    pub(crate) fn new(environment: Arc<Environment>) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let registered = match free {
            Some(free) => {
                free.vfs.replace_environment(environment);
                free
            }
            None => register(environment),
        };
        Self {
            name: registered.name,
            registered: Some(registered),
        }
    }

    /// Opens a database by its namespace's key, perhaps with `@` and a version.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn open(&self, name: &str, busy_timeout: Duration) -> rusqlite::Result<Connection> {
        let connection =
            Connection::open_with_flags_and_vfs(name, OpenFlags::default(), self.name)?;
        connection.busy_timeout(busy_timeout)?;
        Ok(connection)
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.registered.take());
    }
}

/// Makes one more name, for ever.
fn register(environment: Arc<Environment>) -> Registered {
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    *made += 1;
    let name = CString::new(format!("simulated-{made}")).expect("it has no NUL");
    let name: &'static CStr = Box::leak(name.into_boxed_c_str());
    let vfs = mvsqlite_linked::register_as(name, environment).expect("SQLite takes any VFS");
    Registered { name, vfs }
}
