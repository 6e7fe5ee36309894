//! The functions of the C header, as far as the crate `foundationdb` refers to them.
//!
//! Pointers are trusted as the C API trusts them: to objects that were created here and not yet
//! destroyed, and to as many bytes as said. Objects are `Arc`s in disguise, so that work under way
//! on the network thread may outlive them.

use std::env;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::cluster::{self, AtomicOp, Cluster};
use crate::future::{Callback, Future, KeyValue, Outcome, Value};
use crate::transaction::Transaction;
use crate::{code, network};

/// The API version offered, unless the environment variable says another.
const MAX_API_VERSION: c_int = 730;
const MAX_API_VERSION_VARIABLE: &str = "FDB_FAKE_MAX_API_VERSION";

const TIMEOUT_OPTION: c_int = 500;
const NEXT_WRITE_NO_WRITE_CONFLICT_RANGE_OPTION: c_int = 30;
const READ_YOUR_WRITES_DISABLE_OPTION: c_int = 51;

/// An `FDBDatabase`.
pub(crate) struct Database {
    cluster: Arc<Cluster>,
    /// Of each transaction, in milliseconds; 0 for none.
    timeout: AtomicI64,
}

/// The bytes that a caller passed as pointer and length.
///
/// # Safety
///
/// `length` bytes at `start` must be readable during the call, unless it is 0.
unsafe fn bytes<'a>(start: *const u8, length: c_int) -> &'a [u8] {
    match usize::try_from(length) {
        Ok(length) if length > 0 => {
            // SAFETY: as the function demands.
            unsafe { std::slice::from_raw_parts(start, length) }
        }
        _ => &[],
    }
}

/// The transaction behind a pointer, with a count of its own.
///
/// # Safety
///
/// `transaction` must come from `fdb_database_create_transaction` and not be destroyed.
unsafe fn shared(transaction: *const Transaction) -> Arc<Transaction> {
    // SAFETY: the pointer holds one count, so the object is alive; this takes a second one.
    unsafe {
        Arc::increment_strong_count(transaction);
        Arc::from_raw(transaction)
    }
}

fn milliseconds(value: &[u8]) -> Option<i64> {
    value.try_into().map(i64::from_le_bytes).ok()
}

/// A function of the C API: exported, and unsafe as every call through a C header is.
macro_rules! c_api {
    ($(fn $name:ident($($parameter:ident: $kind:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(
            // SAFETY: no other object of the library defines this name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($parameter: $kind),*) $(-> $result)? $body
        )*
    };
}

c_api! {
    fn fdb_get_max_api_version() -> c_int {
        env::var(MAX_API_VERSION_VARIABLE)
            .ok()
            .and_then(|version| version.parse().ok())
            .unwrap_or(MAX_API_VERSION)
    }

    fn fdb_select_api_version_impl(runtime: c_int, header: c_int) -> c_int {
        if runtime > header || header > MAX_API_VERSION {
            return code::API_VERSION_NOT_SUPPORTED;
        }
        0
    }

    fn fdb_get_error(code: c_int) -> *const c_char {
        code::message(code).as_ptr()
    }

    fn fdb_error_predicate(predicate: c_int, code: c_int) -> c_int {
        c_int::from(match predicate {
            50000 => code::is_retryable(code),
            50001 => code::is_maybe_committed(code),
            50002 => code::is_retryable_not_committed(code),
            _ => false,
        })
    }

    fn fdb_network_set_option(_option: c_int, _value: *const u8, _length: c_int) -> c_int {
        0
    }

    fn fdb_setup_network() -> c_int {
        network::set_up()
    }

    fn fdb_run_network() -> c_int {
        network::run()
    }

    fn fdb_stop_network() -> c_int {
        network::stop()
    }
}

c_api! {
    fn fdb_create_database(cluster_file: *const c_char, out: *mut *const Database) -> c_int {
        // SAFETY: the caller passes a C string.
        let file = unsafe { CStr::from_ptr(cluster_file) }.to_string_lossy();
        let database = Arc::new(Database {
            cluster: cluster::named(&file),
            timeout: AtomicI64::new(0),
        });
        // SAFETY: the caller passes a place for the result.
        unsafe { *out = Arc::into_raw(database) };
        0
    }

    fn fdb_database_destroy(database: *const Database) {
        // SAFETY: takes back the count that `fdb_create_database` gave away.
        drop(unsafe { Arc::from_raw(database) });
    }

    fn fdb_database_set_option(
        database: *const Database,
        option: c_int,
        value: *const u8,
        length: c_int
    ) -> c_int {
        // SAFETY: the database is alive, the value as long as said.
        let (database, value) = unsafe { (&*database, bytes(value, length)) };
        match (option, milliseconds(value)) {
            (TIMEOUT_OPTION, Some(timeout)) => database.timeout.store(timeout, Ordering::Relaxed),
            _ => return code::INVALID_OPTION,
        }
        0
    }

    fn fdb_database_create_transaction(
        database: *const Database,
        out: *mut *const Transaction
    ) -> c_int {
        // SAFETY: the database is alive.
        let database = unsafe { &*database };
        let has_timeout = database.timeout.load(Ordering::Relaxed) > 0;
        let transaction = Transaction::new(database.cluster.clone(), has_timeout);
        // SAFETY: the caller passes a place for the result.
        unsafe { *out = Arc::into_raw(transaction) };
        0
    }
}

c_api! {
    fn fdb_transaction_destroy(transaction: *const Transaction) {
        // SAFETY: takes back the count that `fdb_database_create_transaction` gave away.
        drop(unsafe { Arc::from_raw(transaction) });
    }

    fn fdb_transaction_cancel(transaction: *const Transaction) {
        // SAFETY: the transaction is alive.
        unsafe { shared(transaction) }.cancel();
    }

    fn fdb_transaction_reset(transaction: *const Transaction) {
        // SAFETY: the transaction is alive.
        unsafe { shared(transaction) }.reset();
    }

    fn fdb_transaction_set_option(
        transaction: *const Transaction,
        option: c_int,
        value: *const u8,
        length: c_int
    ) -> c_int {
        // SAFETY: the transaction is alive, the value as long as said.
        let (transaction, value) = unsafe { (shared(transaction), bytes(value, length)) };
        match (option, milliseconds(value)) {
            (READ_YOUR_WRITES_DISABLE_OPTION, _) => transaction.disable_read_your_writes(),
            (NEXT_WRITE_NO_WRITE_CONFLICT_RANGE_OPTION, _) => {
                transaction.next_write_without_conflict();
            }
            (TIMEOUT_OPTION, Some(_)) => transaction.set_timeout(),
            _ => return code::INVALID_OPTION,
        }
        0
    }

    fn fdb_transaction_set_read_version(transaction: *const Transaction, version: i64) {
        // SAFETY: the transaction is alive.
        unsafe { shared(transaction) }.set_read_version(version);
    }

    fn fdb_transaction_get_read_version(transaction: *const Transaction) -> *const Future {
        // SAFETY: the transaction is alive.
        Arc::into_raw(unsafe { shared(transaction) }.get_read_version())
    }

    fn fdb_transaction_get(
        transaction: *const Transaction,
        key: *const u8,
        key_length: c_int,
        snapshot: c_int
    ) -> *const Future {
        // SAFETY: the transaction is alive, the key as long as said.
        let (transaction, key) = unsafe { (shared(transaction), bytes(key, key_length)) };
        Arc::into_raw(transaction.get(key, snapshot != 0))
    }

    fn fdb_transaction_get_range(
        transaction: *const Transaction,
        begin: *const u8,
        begin_length: c_int,
        begin_or_equal: c_int,
        begin_offset: c_int,
        end: *const u8,
        end_length: c_int,
        end_or_equal: c_int,
        end_offset: c_int,
        limit: c_int,
        _target_bytes: c_int,
        _mode: c_int,
        _iteration: c_int,
        snapshot: c_int,
        reverse: c_int
    ) -> *const Future {
        if begin_offset != 1 || end_offset != 1 {
            return failed();
        }
        // SAFETY: the transaction is alive, the keys as long as said.
        let (transaction, begin, end) = unsafe {
            (shared(transaction), bytes(begin, begin_length), bytes(end, end_length))
        };
        // The first key at or above, or above, the given one.
        let selected = |key: &[u8], above: c_int| match above {
            0 => key.to_vec(),
            _ => cluster::single(key).1,
        };
        let range = (selected(begin, begin_or_equal), selected(end, end_or_equal));
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        Arc::into_raw(transaction.get_range(range, limit, reverse != 0, snapshot != 0))
    }

    fn fdb_transaction_set(
        transaction: *const Transaction,
        key: *const u8,
        key_length: c_int,
        value: *const u8,
        value_length: c_int
    ) {
        // SAFETY: the transaction is alive, key and value as long as said.
        let (transaction, key, value) = unsafe {
            (shared(transaction), bytes(key, key_length), bytes(value, value_length))
        };
        transaction.set(key, value);
    }

    fn fdb_transaction_clear(transaction: *const Transaction, key: *const u8, key_length: c_int) {
        // SAFETY: the transaction is alive, the key as long as said.
        let (transaction, key) = unsafe { (shared(transaction), bytes(key, key_length)) };
        let (begin, end) = cluster::single(key);
        transaction.clear_range(&begin, &end);
    }

    fn fdb_transaction_clear_range(
        transaction: *const Transaction,
        begin: *const u8,
        begin_length: c_int,
        end: *const u8,
        end_length: c_int
    ) {
        // SAFETY: the transaction is alive, the keys as long as said.
        let (transaction, begin, end) = unsafe {
            (shared(transaction), bytes(begin, begin_length), bytes(end, end_length))
        };
        transaction.clear_range(begin, end);
    }

    fn fdb_transaction_atomic_op(
        transaction: *const Transaction,
        key: *const u8,
        key_length: c_int,
        operand: *const u8,
        operand_length: c_int,
        operation: c_int
    ) {
        // SAFETY: the transaction is alive, key and operand as long as said.
        let (transaction, key, operand) = unsafe {
            (shared(transaction), bytes(key, key_length), bytes(operand, operand_length))
        };
        match operation {
            2 => transaction.atomic(AtomicOp::Add, key, operand),
            8 => transaction.atomic(AtomicOp::Xor, key, operand),
            12 => transaction.atomic(AtomicOp::Max, key, operand),
            14 => transaction.set_versionstamped_key(key, operand),
            15 => transaction.set_versionstamped_value(key, operand),
            _ => transaction.refuse(code::UNSUPPORTED_OPERATION),
        }
    }

    fn fdb_transaction_add_conflict_range(
        transaction: *const Transaction,
        begin: *const u8,
        begin_length: c_int,
        end: *const u8,
        end_length: c_int,
        kind: c_int
    ) -> c_int {
        // SAFETY: the transaction is alive, the keys as long as said.
        let (transaction, begin, end) = unsafe {
            (shared(transaction), bytes(begin, begin_length), bytes(end, end_length))
        };
        transaction.add_conflict(begin, end, kind == 1)
    }

    fn fdb_transaction_commit(transaction: *const Transaction) -> *const Future {
        // SAFETY: the transaction is alive.
        Arc::into_raw(unsafe { shared(transaction) }.commit())
    }

    fn fdb_transaction_get_committed_version(
        transaction: *const Transaction,
        out: *mut i64
    ) -> c_int {
        // SAFETY: the transaction is alive; the caller passes a place for the result.
        unsafe { *out = shared(transaction).committed_version() };
        0
    }

    fn fdb_transaction_get_versionstamp(transaction: *const Transaction) -> *const Future {
        // SAFETY: the transaction is alive.
        Arc::into_raw(unsafe { shared(transaction) }.get_versionstamp())
    }

    fn fdb_transaction_on_error(transaction: *const Transaction, code: c_int) -> *const Future {
        // SAFETY: the transaction is alive.
        Arc::into_raw(unsafe { shared(transaction) }.on_error(code))
    }
}

c_api! {
    fn fdb_future_destroy(future: *const Future) {
        // SAFETY: takes back the count that came with the pointer.
        let future = unsafe { Arc::from_raw(future) };
        // Whoever waits is told, because what the callback owns is freed by calling it.
        future.complete(Err(code::OPERATION_CANCELLED));
    }

    fn fdb_future_is_ready(future: *const Future) -> c_int {
        // SAFETY: the future is alive.
        c_int::from(unsafe { &*future }.outcome().is_some())
    }

    fn fdb_future_set_callback(
        future: *const Future,
        callback: Callback,
        parameter: *mut c_void
    ) -> c_int {
        // SAFETY: the future is alive, and this takes a count for the duration of the call.
        let future = unsafe {
            Arc::increment_strong_count(future);
            Arc::from_raw(future)
        };
        future.on_ready(callback, parameter);
        0
    }

    fn fdb_future_get_error(future: *const Future) -> c_int {
        // SAFETY: the future is alive.
        match unsafe { &*future }.outcome() {
            Some(Err(code)) => *code,
            Some(Ok(_)) => 0,
            None => code::CLIENT_INVALID_OPERATION,
        }
    }

    fn fdb_future_get_int64(future: *const Future, out: *mut i64) -> c_int {
        // SAFETY: the future is alive; the caller passes a place for the result.
        unsafe {
            with(future, |value| match value {
                Value::Version(version) => {
                    *out = *version;
                    true
                }
                _ => false,
            })
        }
    }

    fn fdb_future_get_key(
        future: *const Future,
        out_key: *mut *const u8,
        out_length: *mut c_int
    ) -> c_int {
        // SAFETY: the future is alive and owns the key; the caller passes places for the results.
        unsafe {
            with(future, |value| match value {
                Value::Key(key) => {
                    *out_key = key.as_ptr();
                    *out_length = key.len() as c_int;
                    true
                }
                _ => false,
            })
        }
    }

    fn fdb_future_get_value(
        future: *const Future,
        out_present: *mut c_int,
        out_value: *mut *const u8,
        out_length: *mut c_int
    ) -> c_int {
        // SAFETY: the future is alive and owns the value; the caller passes places for the results.
        unsafe {
            with(future, |value| match value {
                Value::Found(value) => {
                    *out_present = c_int::from(value.is_some());
                    *out_value = value.as_ref().map_or(ptr::null(), |value| value.as_ptr());
                    *out_length = value.as_ref().map_or(0, Vec::len) as c_int;
                    true
                }
                _ => false,
            })
        }
    }

    fn fdb_future_get_keyvalue_array(
        future: *const Future,
        out_pairs: *mut *const KeyValue,
        out_count: *mut c_int,
        out_more: *mut c_int
    ) -> c_int {
        // SAFETY: the future is alive and owns the pairs; the caller passes places for the results.
        unsafe {
            with(future, |value| match value {
                Value::Pairs(pairs) => {
                    *out_pairs = pairs.array().as_ptr();
                    *out_count = pairs.array().len() as c_int;
                    *out_more = c_int::from(pairs.more());
                    true
                }
                _ => false,
            })
        }
    }
}

/// Hands the value of a future that is ready to `take`, which says whether it is of the right kind.
///
/// # Safety
///
/// The future must be alive.
unsafe fn with(future: *const Future, take: impl FnOnce(&Value) -> bool) -> c_int {
    // SAFETY: as the function demands.
    let outcome: Option<&Outcome> = unsafe { &*future }.outcome();
    match outcome {
        Some(Ok(value)) if take(value) => 0,
        Some(Err(code)) => *code,
        _ => code::CLIENT_INVALID_OPERATION,
    }
}

/// A future that is ready and says that the stand-in does not do that.
fn failed() -> *const Future {
    let future = Future::new();
    future.complete(Err(code::UNSUPPORTED_OPERATION));
    Arc::into_raw(future)
}

/// Calls that the crate refers to, but that mvstore never makes: each is answered by a failed
/// future. They ignore their parameters, which the C calling conventions allow.
macro_rules! unsupported {
    ($($name:ident)*) => {
        c_api! { $(fn $name() -> *const Future { failed() })* }
    };
}

unsupported! {
    fdb_database_get_client_status
    fdb_transaction_get_addresses_for_key
    fdb_transaction_get_approximate_size
    fdb_transaction_get_estimated_range_size_bytes
    fdb_transaction_get_key
    fdb_transaction_get_mapped_range
    fdb_transaction_get_range_split_points
    fdb_transaction_watch
}

/// Results of those, which therefore no future ever has.
macro_rules! never_had {
    ($($name:ident)*) => {
        c_api! { $(fn $name() -> c_int { code::UNSUPPORTED_OPERATION })* }
    };
}

never_had! {
    fdb_future_get_key_array
    fdb_future_get_mappedkeyvalue_array
    fdb_future_get_string_array
}
