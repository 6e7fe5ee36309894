//! `sqlite3_step`: a statement outside BEGIN and COMMIT that lost against another transaction is run
//! again.
//!
//! SQLite commits such a statement at its end, where a conflict comes out. Programs expect one
//! statement to wait for others and succeed, and what it read and wrote is known here in full: the
//! statement and its bindings. So it is run again on a new snapshot, until the busy timeout is over,
//! and at least once.
//!
//! Only if nothing can be noticed of it: autocommit before and after, no row given to the program by
//! this execution, no other statement of the connection under way (it would keep the old snapshot).
//! Functions of the program's own, and its update and rollback hooks, are called for each run.

use std::collections::hash_map::RandomState;
use std::ffi::c_int;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::scope::{Caller, Scope};
use crate::served;
use crate::statements::{Statement, Statements, Step};

/// `SQLITE_ERROR`.
const ERROR: c_int = 1;
/// `SQLITE_BUSY`, which a result is without extended codes.
const BUSY: c_int = 5;
/// `SQLITE_BUSY_SNAPSHOT`: a conflict.
const BUSY_SNAPSHOT: c_int = BUSY | 2 << 8;
/// Between two runs: doubled each time from the first to the second, and half of it by chance.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// What `sqlite3_step` does, for a call from `caller`.
///
/// # Safety
/// `statement` is what a program may give to SQLite's function.
pub(crate) unsafe fn step(statement: Statement, caller: Caller) -> c_int {
    if !served::any() {
        return unserved(statement, caller);
    }
    let Ok(Some(site)) = catch_unwind(|| Site::of(caller)) else {
        return ERROR;
    };
    let Some(statements) = site.library.and_then(served::statements) else {
        // SAFETY: the caller's.
        return unsafe { (site.step)(statement) };
    };
    mvsqlite_vfs::forget_failure();
    // SAFETY: the statement belongs to the library that the caller uses.
    let may_run_again = unsafe { statements.begins_own_transaction(statement) };
    // SAFETY: the caller's.
    let result = unsafe { (site.step)(statement) };
    if !may_run_again || result & 0xff != BUSY {
        return result;
    }
    let run_again = AssertUnwindSafe(|| {
        // SAFETY: as above.
        unsafe { run_until_committed(statements, site.step, statement, result) }
    });
    catch_unwind(run_again).unwrap_or(result)
}

/// What `sqlite3_step` does while no library of this process is served: the real one, and no more.
/// Nothing is remembered: a library that nobody keeps loaded may be another one the next time.
fn unserved(statement: Statement, caller: Caller) -> c_int {
    let found = catch_unwind(|| {
        let global = Scope::global(c"sqlite3_step");
        match global {
            Some(step) => (Some(step), None),
            None => {
                let scope = Scope::of(caller);
                (scope.find(c"sqlite3_step"), Some(scope))
            }
        }
    });
    let Ok((Some(step), _scope)) = found else {
        return ERROR;
    };
    // SAFETY: the symbol's type in SQLite's header.
    let step = unsafe { std::mem::transmute::<std::ptr::NonNull<std::ffi::c_void>, Step>(step) };
    // SAFETY: the caller's argument, passed on. The library is kept loaded during the call.
    unsafe { step(statement) }
}

/// Runs a statement again as long as it loses and the program has time.
///
/// # Safety
/// As [`step`]; the statement just ended with `result`.
unsafe fn run_until_committed(
    statements: &Statements,
    step: Step,
    statement: Statement,
    mut result: c_int,
) -> c_int {
    let mut deadline = None;
    let mut pause = PAUSE.0;
    loop {
        // SAFETY: the caller's.
        let lost = unsafe {
            result & 0xff == BUSY
                && statements.extended_code(statement) == BUSY_SNAPSHOT
                && statements.left_nothing_open(statement)
        };
        if !lost || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return result;
        }
        // From here on the statement must be run: its failure is forgotten.
        // SAFETY: the caller's.
        unsafe { statements.reset(statement) };
        if deadline.is_none() {
            // SAFETY: the caller's.
            let timeout = unsafe { statements.busy_timeout(step, statement) };
            deadline = Some(Instant::now() + timeout);
        } else {
            std::thread::sleep(pause / 2 + part_of(pause / 2));
            pause = PAUSE.1.min(pause * 2);
        }
        // SAFETY: the caller's.
        result = unsafe { step(statement) };
    }
}

/// A part of a duration, by chance, so that those who lost to each other do not meet again.
fn part_of(duration: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish();
    duration.mul_f64(chance as f64 / u64::MAX as f64)
}

/// A place that `sqlite3_step` is called from, and what that call means.
#[derive(Clone, Copy)]
struct Site {
    caller: usize,
    step: Step,
    /// The library, as [`served`] knows it.
    library: Option<usize>,
}

/// Programs step their statements at few places; more than this are found out at each call.
const SITES: usize = 256;

/// The places known so far, each at the first free entry from the one its address selects.
static KNOWN: [OnceLock<Site>; SITES] = [const { OnceLock::new() }; SITES];

/// How far from its own entry a place is looked for.
const PROBES: usize = 8;

impl Site {
    fn of(caller: Caller) -> Option<Self> {
        let address = caller.addr();
        let first = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - 8);
        let entries = (0..PROBES).map(|probe| &KNOWN[(first + probe) % SITES]);
        for entry in entries.clone() {
            match entry.get() {
                Some(site) if site.caller == address => return Some(*site),
                Some(_) => {}
                None => break,
            }
        }
        let site = Self::find(caller)?;
        for entry in entries {
            if entry.set(site).is_ok() {
                break;
            }
        }
        Some(site)
    }

    fn find(caller: Caller) -> Option<Self> {
        let scope = Scope::of(caller);
        let step = scope.find(c"sqlite3_step")?;
        let library = served::library(&scope);
        // What is remembered must stay true.
        scope.keep();
        Some(Self {
            caller: caller.addr(),
            // SAFETY: the symbol's type in SQLite's header.
            step: unsafe { std::mem::transmute::<std::ptr::NonNull<std::ffi::c_void>, Step>(step) },
            library,
        })
    }
}
