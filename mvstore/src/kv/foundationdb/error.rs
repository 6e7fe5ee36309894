//! FoundationDB's error codes, as the contract's errors. The one place where codes are known.
//!
//! What matters most is what a code says about a commit. A code that is not in the table was made
//! by a newer FoundationDB; of those, only the 2000s, which the client gives before it sends
//! anything, say for sure that nothing was written.

use std::path::Path;

use mvstore_fdb_client::foundationdb::FdbError;

use crate::kv::{KvError, Limits};

const LIMITS: Limits = Limits::FOUNDATIONDB;

/// An error of FoundationDB's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    code: i32,
    message: String,
}

impl From<FdbError> for Failure {
    fn from(error: FdbError) -> Self {
        Self {
            code: error.code(),
            message: error.message().to_owned(),
        }
    }
}

/// What an error means for a commit; reads differ in [`Meaning::Unknown`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Conflict,
    TooOld,
    /// It may have been committed, or still be.
    Unknown,
    TransactionTooLarge,
    KeyTooLarge,
    ValueTooLarge,
    /// Refused by the client: the engine asked for something that makes no sense.
    Misuse,
    /// Nothing was written, and another try may succeed.
    Unavailable,
}

impl Failure {
    fn meaning(&self) -> Meaning {
        match self.code {
            1007 => Meaning::TooOld,
            1020 => Meaning::Conflict,
            // future_version, process_behind, database_locked, the proxies' memory, throttling of
            // batches, tags and hot shards, permissions: all decided before the commit.
            1009 | 1037 | 1038 | 1042 | 1051 | 1078 | 1213 | 1223 | 1235 | 6000 | 6001 => {
                Meaning::Unavailable
            }
            // commit_unknown_result (and its fatal kind), transaction_cancelled,
            // request_maybe_delivered, transaction_timed_out, cluster_version_changed,
            // operation_cancelled.
            1021 | 1022 | 1025 | 1030 | 1031 | 1039 | 1101 => Meaning::Unknown,
            2101 => Meaning::TransactionTooLarge,
            2102 => Meaning::KeyTooLarge,
            2103 => Meaning::ValueTooLarge,
            2000..3000 => Meaning::Misuse,
            _ => Meaning::Unknown,
        }
    }

    /// FoundationDB's words and number, for those who look them up.
    fn describe(&self) -> String {
        format!("{} (FoundationDB's error {})", self.message, self.code)
    }
}

/// The cluster, as errors name it.
#[derive(Debug)]
pub(super) struct Cluster {
    file: String,
}

/// Why a commit failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommitFailure {
    /// Nothing was written.
    Refused(KvError),
    /// Nobody knows yet. Says why.
    Unknown(String),
}

impl Cluster {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.display().to_string(),
        }
    }

    /// Why a read, or the question for a read version, failed.
    pub(super) fn read_failure(&self, failure: &Failure) -> KvError {
        match self.commit_failure(failure, 0) {
            CommitFailure::Refused(error) => error,
            CommitFailure::Unknown(_) => self.unavailable(failure),
        }
    }

    /// Why a commit of so many bytes failed.
    pub(super) fn commit_failure(&self, failure: &Failure, bytes: u64) -> CommitFailure {
        // FoundationDB does not say how large it found what it refused: larger than allowed.
        let too_large = |what, bytes: u64, limit: u64| KvError::TooLarge {
            what,
            bytes: bytes.max(limit + 1),
            limit,
        };
        CommitFailure::Refused(match failure.meaning() {
            Meaning::Conflict => KvError::Conflict,
            Meaning::TooOld => KvError::TooOld,
            Meaning::TransactionTooLarge => {
                too_large("a transaction", bytes, LIMITS.transaction_bytes)
            }
            Meaning::KeyTooLarge => too_large("a key", 0, LIMITS.key_bytes as u64),
            Meaning::ValueTooLarge => too_large("a value", 0, LIMITS.value_bytes as u64),
            Meaning::Misuse => KvError::BadKey {
                reason: failure.describe(),
            },
            Meaning::Unavailable => self.unavailable(failure),
            Meaning::Unknown => return CommitFailure::Unknown(failure.describe()),
        })
    }

    /// That the cluster cannot serve, and what to do about it.
    pub(super) fn unavailable(&self, failure: &Failure) -> KvError {
        let file = &self.file;
        let advice = match failure.code {
            1038 => "the database is locked, by a restore, by disaster recovery or by \
                 `fdbcli --exec lock`; it serves again when they are done"
                .to_owned(),
            1051 | 1213 | 1223 | 1235 => {
                "the cluster has more to do than it can, or was told to limit this".to_owned()
            }
            _ => format!(
                "is the cluster of {file} running, can it be reached from here, and is its version \
                 that of the client library? `fdbcli -C {file} --exec status` tells"
            ),
        };
        KvError::Unavailable {
            reason: format!("{}; {advice}", failure.describe()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Failure {
        Failure {
            code,
            message: format!("message {code}"),
        }
    }

    fn cluster() -> Cluster {
        Cluster::new(Path::new("/etc/fdb.cluster"))
    }

    fn refused(code: i32) -> KvError {
        match cluster().commit_failure(&failure(code), 10_000_321) {
            CommitFailure::Refused(error) => error,
            CommitFailure::Unknown(reason) => panic!("{code} is unknown: {reason}"),
        }
    }

    fn too_large(what: &'static str, bytes: u64, limit: u64) -> KvError {
        KvError::TooLarge { what, bytes, limit }
    }

    #[test]
    fn each_definite_refusal_of_a_commit_has_its_error() {
        for (code, expected) in [
            (1007, KvError::TooOld),
            (1020, KvError::Conflict),
            (2101, too_large("a transaction", 10_000_321, 10_000_000)),
            (2102, too_large("a key", 10_001, 10_000)),
            (2103, too_large("a value", 100_001, 100_000)),
        ] {
            assert_eq!(refused(code), expected);
        }
        for code in [2000, 2004, 2005, 2017] {
            let KvError::BadKey { reason } = refused(code) else {
                panic!("{code} is no misuse");
            };
            assert!(reason.contains(&code.to_string()), "{reason}");
        }
        for code in [1009, 1037, 1038, 1042, 1051, 1078, 1213, 1223, 6000] {
            let error = refused(code);
            assert!(matches!(error, KvError::Unavailable { .. }), "{code}");
        }
    }

    #[test]
    fn a_commit_that_may_have_happened_is_never_called_refused_known_code_or_not() {
        for code in [1021, 1022, 1025, 1030, 1031, 1039, 1101, 1500, 4100, 9999] {
            let unknown = cluster().commit_failure(&failure(code), 0);
            assert!(
                matches!(unknown, CommitFailure::Unknown(reason) if reason.contains(&code.to_string())),
                "{code}"
            );
        }
    }

    #[test]
    fn a_read_that_got_no_answer_says_which_cluster_and_how_to_look_at_it() {
        for code in [1031, 1039, 9999] {
            let KvError::Unavailable { reason } = cluster().read_failure(&failure(code)) else {
                panic!("{code} is no unavailability");
            };
            assert_eq!(
                reason,
                format!(
                    "message {code} (FoundationDB's error {code}); is the cluster of \
                     /etc/fdb.cluster running, can it be reached from here, and is its version \
                     that of the client library? `fdbcli -C /etc/fdb.cluster --exec status` tells"
                )
            );
        }
        assert_eq!(cluster().read_failure(&failure(1007)), KvError::TooOld);
    }

    #[test]
    fn a_locked_database_is_called_that() {
        assert!(refused(1038).to_string().contains("is locked"));
    }
}
