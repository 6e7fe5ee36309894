//! How a failure leaves the VFS: as an SQLite result code, a line in SQLite's error log, and the
//! text that `xGetLastError` gives. All three are made here and nowhere else.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use mvsqlite::SqliteCode;

use crate::api::Api;
use crate::ffi::code;

/// What SQLite and its error log are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// SQLite's result code, extended where there is an extended one.
    pub(crate) code: c_int,
    /// What went wrong, with what, and what to do, in one line.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: c_int, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A panic caught at the boundary: a bug of ours, of which the host must not die.
    fn from_panic(call: &str, payload: &(dyn Any + Send)) -> Self {
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self::new(
            code::IOERR,
            format!(
                "mvsqlite: bug in {call}: {what}; this handle is closed to further use, please report it"
            ),
        )
    }
}

impl From<mvsqlite::Error> for Failure {
    fn from(error: mvsqlite::Error) -> Self {
        Self::new(error.sqlite_code().number(), error.to_string())
    }
}

thread_local! {
    /// SQLite asks for the text in a call of its own, on the same thread, right after a failure.
    static LAST_MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
    /// The code of the last failure since [`forget_failure`].
    static LAST_CODE: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// This thread's last failure since [`forget_failure`]: its result code and its message.
pub fn last_failure() -> Option<(c_int, String)> {
    let code = LAST_CODE.try_with(Cell::get).ok().flatten()?;
    Some((code, last_message()))
}

/// What failed up to here is of no interest any more.
pub fn forget_failure() {
    let _ = LAST_CODE.try_with(|last| last.set(None));
}

/// The message of this thread's last failure.
pub(crate) fn last_message() -> String {
    LAST_MESSAGE
        .try_with(|last| last.borrow().clone())
        .unwrap_or_default()
}

impl From<mvsqlite::CommitGroupError> for Failure {
    /// The codes are the original's, but for an outcome that is not known.
    fn from(error: mvsqlite::CommitGroupError) -> Self {
        let code = match &error {
            mvsqlite::CommitGroupError::Conflict => code::PERM,
            mvsqlite::CommitGroupError::Unknown(_) => SqliteCode::IoErrCommitAtomic.number(),
            _ => code::ERROR,
        };
        Self::new(code, error.to_string())
    }
}

/// How a guarded call ended.
pub(crate) enum Ended<T> {
    Returned(T),
    Failed(Failure),
    Panicked(Failure),
}

/// Runs the body of one callback; nothing unwinds out of it.
///
/// Every function that SQLite or a host program may call goes through here. The failure is logged
/// here, once.
pub(crate) fn ffi_guard<T>(
    api: &Api,
    call: &str,
    body: impl FnOnce() -> Result<T, Failure>,
) -> Ended<T> {
    let ended = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Ended::Returned(value),
        Ok(Err(failure)) => Ended::Failed(failure),
        Err(payload) => Ended::Panicked(Failure::from_panic(call, payload.as_ref())),
    };
    if let Ended::Failed(failure) | Ended::Panicked(failure) = &ended {
        report(api, failure);
    }
    ended
}

/// As [`ffi_guard`], for a callback whose only answer is a result code.
pub(crate) fn guarded_code(
    api: &Api,
    call: &str,
    body: impl FnOnce() -> Result<c_int, Failure>,
) -> c_int {
    match ffi_guard(api, call, body) {
        Ended::Returned(code) => code,
        Ended::Failed(failure) | Ended::Panicked(failure) => failure.code,
    }
}

fn report(api: &Api, failure: &Failure) {
    // At the end of a thread its locals are gone; the log line below is still written.
    let _ = LAST_MESSAGE.try_with(|last| last.borrow_mut().clone_from(&failure.message));
    // SQLite does not log what its busy handler waits for either.
    if failure.code == code::BUSY {
        return;
    }
    let _ = LAST_CODE.try_with(|last| last.set(Some(failure.code)));
    api.log(failure.code, &failure.message);
    if echoed() {
        // Whoever asked for it may have closed it.
        let _ = writeln!(std::io::stderr(), "mvsqlite: {}", failure.message);
    }
}

/// Whether `MVSQLITE_LOG=stderr` asks for failures on standard error too: few programs show what is
/// in SQLite's error log.
fn echoed() -> bool {
    static ECHOED: OnceLock<bool> = OnceLock::new();
    *ECHOED.get_or_init(|| std::env::var_os("MVSQLITE_LOG").is_some_and(|value| value == "stderr"))
}
