//! SQLite's functions on statements, as far as running one again needs them.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

/// A prepared statement; opaque.
pub(crate) type Statement = *mut c_void;
type Connection = *mut c_void;
type Mutex = *mut c_void;

pub(crate) type Step = unsafe extern "C" fn(Statement) -> c_int;

/// Declares the table, and its constructor from a symbol look-up.
macro_rules! statement_functions {
    ($($field:ident = $symbol:literal: fn($($arg:ty),*) -> $ret:ty;)*) => {
        /// The functions of one SQLite library.
        #[derive(Clone, Copy)]
        pub(crate) struct Statements {
            $($field: unsafe extern "C" fn($($arg),*) -> $ret,)*
        }

        impl Statements {
            /// Finds the functions; `None` if the library lacks one.
            ///
            /// # Safety
            /// `find` gives the addresses of SQLite's functions by their names, all from one
            /// library that stays loaded.
            pub(crate) unsafe fn from_symbols(
                find: impl Fn(&CStr) -> Option<NonNull<c_void>>,
            ) -> Option<Self> {
                Some(Self {
                    $($field: {
                        let address = find($symbol)?;
                        // SAFETY: the caller's; the type is that of SQLite's header.
                        unsafe {
                            std::mem::transmute::<
                                NonNull<c_void>,
                                unsafe extern "C" fn($($arg),*) -> $ret,
                            >(address)
                        }
                    },)*
                })
            }
        }
    };
}

statement_functions! {
    reset = c"sqlite3_reset": fn(Statement) -> c_int;
    stmt_busy = c"sqlite3_stmt_busy": fn(Statement) -> c_int;
    stmt_readonly = c"sqlite3_stmt_readonly": fn(Statement) -> c_int;
    db_handle = c"sqlite3_db_handle": fn(Statement) -> Connection;
    next_stmt = c"sqlite3_next_stmt": fn(Connection, Statement) -> Statement;
    db_mutex = c"sqlite3_db_mutex": fn(Connection) -> Mutex;
    get_autocommit = c"sqlite3_get_autocommit": fn(Connection) -> c_int;
    extended_errcode = c"sqlite3_extended_errcode": fn(Connection) -> c_int;
    errstr = c"sqlite3_errstr": fn(c_int) -> *const c_char;
    prepare_v2 = c"sqlite3_prepare_v2":
        fn(Connection, *const c_char, c_int, *mut Statement, *mut *const c_char) -> c_int;
    column_int = c"sqlite3_column_int": fn(Statement, c_int) -> c_int;
    finalize = c"sqlite3_finalize": fn(Statement) -> c_int;
    mutex_enter = c"sqlite3_mutex_enter": fn(Mutex) -> ();
    mutex_leave = c"sqlite3_mutex_leave": fn(Mutex) -> ();
}

/// `SQLITE_ROW`.
const ROW: c_int = 100;

impl Statements {
    /// Whether stepping this statement now begins a write transaction of its own.
    ///
    /// # Safety
    /// `statement` is null or a statement of this library, as for all functions here.
    pub(crate) unsafe fn begins_own_transaction(&self, statement: Statement) -> bool {
        // SAFETY: the caller's.
        unsafe {
            !statement.is_null()
                && (self.stmt_busy)(statement) == 0
                && (self.stmt_readonly)(statement) == 0
                && (self.get_autocommit)((self.db_handle)(statement)) != 0
        }
    }

    /// Whether the connection is back where it was before the statement, which is the only one
    /// that it runs: no transaction, and nobody else who keeps a snapshot.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn left_nothing_open(&self, statement: Statement) -> bool {
        // SAFETY: the caller's. Under the connection's mutex (null if it has none, which is allowed)
        // no other thread can finalize a statement while it is looked at.
        unsafe {
            let db = (self.db_handle)(statement);
            let mutex = (self.db_mutex)(db);
            (self.mutex_enter)(mutex);
            let mut other = (self.next_stmt)(db, ptr::null_mut());
            while !other.is_null() && (other == statement || (self.stmt_busy)(other) == 0) {
                other = (self.next_stmt)(db, other);
            }
            let alone = other.is_null() && (self.get_autocommit)(db) != 0;
            (self.mutex_leave)(mutex);
            alone
        }
    }

    /// The extended code of the connection's last failure.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn extended_code(&self, statement: Statement) -> c_int {
        // SAFETY: the caller's.
        unsafe { (self.extended_errcode)((self.db_handle)(statement)) }
    }

    /// The extended code of a connection's last failure, and SQLite's text for that code.
    ///
    /// # Safety
    /// `db` is a connection of this library, or null.
    pub(crate) unsafe fn code_and_its_text(
        &self,
        db: Connection,
    ) -> (c_int, Option<&'static CStr>) {
        // SAFETY: the caller's; the texts of codes are constants of the library.
        unsafe {
            let code = (self.extended_errcode)(db);
            let text = (self.errstr)(code);
            (code, (!text.is_null()).then(|| CStr::from_ptr(text)))
        }
    }

    /// # Safety
    /// As above.
    pub(crate) unsafe fn reset(&self, statement: Statement) {
        // Its result is the failure that is known already.
        // SAFETY: the caller's.
        unsafe { (self.reset)(statement) };
    }

    /// How long the program wants to wait for others: its busy timeout.
    ///
    /// # Safety
    /// As above; `step` is the library's own.
    pub(crate) unsafe fn busy_timeout(&self, step: Step, statement: Statement) -> Duration {
        let mut pragma: Statement = ptr::null_mut();
        let mut milliseconds = 0;
        // SAFETY: the caller's; the pragma's statement is used here only, and finalized.
        unsafe {
            let db = (self.db_handle)(statement);
            let sql = c"PRAGMA busy_timeout".as_ptr();
            (self.prepare_v2)(db, sql, -1, &mut pragma, ptr::null_mut());
            if !pragma.is_null() {
                if step(pragma) == ROW {
                    milliseconds = (self.column_int)(pragma, 0);
                }
                (self.finalize)(pragma);
            }
        }
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
    }
}
