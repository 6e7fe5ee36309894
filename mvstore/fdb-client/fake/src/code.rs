//! FoundationDB's error codes, as far as the stand-in gives or classifies them.

use std::ffi::CStr;

pub(crate) const TRANSACTION_TOO_OLD: i32 = 1007;
pub(crate) const FUTURE_VERSION: i32 = 1009;
pub(crate) const NOT_COMMITTED: i32 = 1020;
pub(crate) const COMMIT_UNKNOWN_RESULT: i32 = 1021;
pub(crate) const TRANSACTION_CANCELLED: i32 = 1025;
pub(crate) const TRANSACTION_TIMED_OUT: i32 = 1031;
pub(crate) const PROCESS_BEHIND: i32 = 1037;
pub(crate) const DATABASE_LOCKED: i32 = 1038;
pub(crate) const CLUSTER_VERSION_CHANGED: i32 = 1039;
pub(crate) const OPERATION_CANCELLED: i32 = 1101;
pub(crate) const TAG_THROTTLED: i32 = 1213;
pub(crate) const CLIENT_INVALID_OPERATION: i32 = 2000;
pub(crate) const KEY_OUTSIDE_LEGAL_RANGE: i32 = 2004;
pub(crate) const INVERTED_RANGE: i32 = 2005;
pub(crate) const INVALID_OPTION: i32 = 2007;
pub(crate) const NETWORK_NOT_SETUP: i32 = 2008;
pub(crate) const NETWORK_ALREADY_SETUP: i32 = 2009;
pub(crate) const NO_COMMIT_VERSION: i32 = 2021;
pub(crate) const TRANSACTION_TOO_LARGE: i32 = 2101;
pub(crate) const KEY_TOO_LARGE: i32 = 2102;
pub(crate) const VALUE_TOO_LARGE: i32 = 2103;
pub(crate) const UNSUPPORTED_OPERATION: i32 = 2108;
pub(crate) const API_VERSION_NOT_SUPPORTED: i32 = 2203;

/// Whether the commit may have happened nevertheless.
pub(crate) fn is_maybe_committed(code: i32) -> bool {
    matches!(code, COMMIT_UNKNOWN_RESULT | CLUSTER_VERSION_CHANGED)
}

/// Whether to run the transaction again, because nothing was committed.
pub(crate) fn is_retryable_not_committed(code: i32) -> bool {
    matches!(
        code,
        TRANSACTION_TOO_OLD
            | FUTURE_VERSION
            | NOT_COMMITTED
            | PROCESS_BEHIND
            | DATABASE_LOCKED
            | TAG_THROTTLED
    )
}

/// Whether to run the transaction again.
pub(crate) fn is_retryable(code: i32) -> bool {
    is_maybe_committed(code) || is_retryable_not_committed(code)
}

/// FoundationDB's words.
pub(crate) fn message(code: i32) -> &'static CStr {
    match code {
        0 => c"Success",
        TRANSACTION_TOO_OLD => c"Transaction is too old to perform reads or be committed",
        FUTURE_VERSION => c"Request for future version",
        NOT_COMMITTED => c"Transaction not committed due to conflict with another transaction",
        COMMIT_UNKNOWN_RESULT => c"Transaction may or may not have committed",
        TRANSACTION_CANCELLED => c"Operation aborted because the transaction was cancelled",
        TRANSACTION_TIMED_OUT => c"Operation aborted because the transaction timed out",
        PROCESS_BEHIND => c"Storage process does not have recent mutations",
        DATABASE_LOCKED => c"Database is locked",
        CLUSTER_VERSION_CHANGED => c"The protocol version of the cluster has changed",
        OPERATION_CANCELLED => c"Asynchronous operation cancelled",
        TAG_THROTTLED => c"Transaction tag is being throttled",
        CLIENT_INVALID_OPERATION => c"Invalid API call",
        KEY_OUTSIDE_LEGAL_RANGE => c"Key outside legal range",
        INVERTED_RANGE => c"Range begin key larger than end key",
        INVALID_OPTION => c"Option not valid in this context",
        NETWORK_NOT_SETUP => c"Action not possible before the network is configured",
        NETWORK_ALREADY_SETUP => c"Network can be configured only once",
        NO_COMMIT_VERSION => {
            c"Transaction is read-only and therefore does not have a commit version"
        }
        TRANSACTION_TOO_LARGE => c"Transaction exceeds byte limit",
        KEY_TOO_LARGE => c"Key length exceeds limit",
        VALUE_TOO_LARGE => c"Value length exceeds limit",
        UNSUPPORTED_OPERATION => c"Operation not supported",
        API_VERSION_NOT_SUPPORTED => c"API version not supported",
        _ => c"UNKNOWN_ERROR",
    }
}
