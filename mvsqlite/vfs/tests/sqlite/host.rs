//! The host of the VFS in these tests: the SQLite that is linked into this binary, with its error
//! log captured.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use mvsqlite::system::Os;
use mvsqlite::{Config, Environment};
use mvsqlite_vfs::{Api, Vfs};
use rusqlite::{Connection, OpenFlags, ffi};

use crate::model_store::ModelStore;

/// The store that all databases of this process live in.
pub fn store() -> &'static ModelStore {
    &Host::get().store
}

/// Opens a database read-write.
pub fn open(name: &str) -> Connection {
    try_open(name).unwrap()
}

/// As [`open`], for what may fail.
pub fn try_open(name: &str) -> rusqlite::Result<Connection> {
    open_with(name, OpenFlags::default())
}

pub fn open_with(name: &str, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let vfs = Host::get().vfs;
    let connection = Connection::open_with_flags_and_vfs(name, flags, c"mvsqlite")?;
    // SAFETY: just opened, by the library that the VFS is registered with.
    unsafe { vfs.add_functions(connection.handle().cast()) };
    Ok(connection)
}

/// A VFS of another name, over an environment of its own.
pub fn register_as(name: &'static CStr, environment: Arc<Environment>) -> &'static Vfs {
    Host::get();
    // SAFETY: the functions of the SQLite that is linked in.
    let api = unsafe { Api::from_symbols(linked) }.unwrap();
    Vfs::register_as(api, name, environment).unwrap()
}

/// An environment as that of the host, with caches of its own.
pub fn another_environment() -> Arc<Environment> {
    let store = Host::get().store.clone();
    Environment::with_transport(Config::default(), store, Arc::new(Os::new()))
}

/// Makes a namespace and opens it.
pub fn create(name: &str) -> Connection {
    store().create(name);
    open(name)
}

/// Messages of SQLite's error log that hold this text.
pub fn logged(text: &str) -> Vec<(c_int, String)> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let found = log.iter().filter(|entry| entry.message.contains(text));
    found
        .map(|entry| (entry.code, entry.message.clone()))
        .collect()
}

/// The extended result code of an error.
pub fn code<T: std::fmt::Debug>(result: rusqlite::Result<T>) -> c_int {
    match result.expect_err("this should have failed") {
        rusqlite::Error::SqliteFailure(error, _) => error.extended_code,
        other => panic!("not an error of SQLite: {other}"),
    }
}

/// One value as text.
pub fn text(connection: &Connection, sql: &str) -> String {
    use rusqlite::types::ValueRef;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(match row.get_ref(0)? {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Blob(blob) => format!("{} bytes", blob.len()),
        })
    };
    connection
        .query_row(sql, [], read)
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// A message of SQLite's error log, put together from its lines.
struct Entry {
    thread: ThreadId,
    code: c_int,
    message: String,
}

static LOG: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

unsafe extern "C" fn log(_: *mut c_void, code: c_int, line: *const c_char) {
    // SAFETY: SQLite gives a C string.
    let line = unsafe { CStr::from_ptr(line) }.to_string_lossy();
    let thread = std::thread::current().id();
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let continued = line.strip_prefix("... ");
    let before = log.iter_mut().rev().find(|entry| entry.thread == thread);
    match (continued, before) {
        (Some(more), Some(entry)) => entry.message.push_str(more),
        _ => log.push(Entry {
            thread,
            code,
            message: line.into_owned(),
        }),
    }
}

struct Host {
    store: Arc<ModelStore>,
    vfs: &'static Vfs,
}

impl Host {
    fn get() -> &'static Self {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(|| {
            let callback: unsafe extern "C" fn(*mut c_void, c_int, *const c_char) = log;
            // SAFETY: nothing has used SQLite before; the callback takes what this option gives.
            let set = unsafe {
                ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOG, callback, ptr::null_mut::<c_void>())
            };
            assert_eq!(set, ffi::SQLITE_OK);
            let store = Arc::new(ModelStore::new());
            let system = Arc::new(Os::new());
            let config = Config {
                // So little that these tests take the way of large transactions too.
                upload_bytes: 256 << 10,
                journal_bytes: 64 << 10,
                // No test is to push out what another one has fetched.
                cache_bytes: 1 << 30,
                // The model answers at once or never.
                timeout: Duration::from_millis(300),
                ..Config::default()
            };
            let environment = Environment::with_transport(config, store.clone(), system);
            // SAFETY: the functions of the SQLite that is linked in.
            let api = unsafe { Api::from_symbols(linked) }.unwrap();
            let vfs = Vfs::register(api, Ok(environment), false).unwrap();
            Self { store, vfs }
        })
    }
}

/// The address of a function of the SQLite that is linked into this binary.
fn linked(symbol: &CStr) -> *const c_void {
    macro_rules! functions {
        ($($name:ident),*) => {
            match symbol.to_str().unwrap() {
                $(stringify!($name) => ffi::$name as *const c_void,)*
                _ => ptr::null(),
            }
        };
    }
    functions!(
        sqlite3_auto_extension,
        sqlite3_context_db_handle,
        sqlite3_create_function_v2,
        sqlite3_db_filename,
        sqlite3_file_control,
        sqlite3_log,
        sqlite3_malloc64,
        sqlite3_result_error,
        sqlite3_result_error_code,
        sqlite3_result_null,
        sqlite3_result_text,
        sqlite3_uri_boolean,
        sqlite3_value_int64,
        sqlite3_value_text,
        sqlite3_vfs_find,
        sqlite3_vfs_register
    )
}
