//! Bugs planted on purpose, to show that the checks would find them.
//!
//! A check that has never failed proves little. At the places named here the code asks
//! [`active`] whether to do the wrong thing. In every build but that of `tests/simulation` the answer
//! is a constant `false`, and nothing of it is left in the program.
//!
//! `arm` switches one on; so does `MVSQLITE_PLANTED=name` for whole test binaries that were built
//! with the feature, as all are that are built together with `tests/simulation`.
//!
//! Each is a mistake that an engineer might make: one or two lines at one place. One bug at a time,
//! for the whole process: whoever compares bugs runs a process for each.

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident = $number:literal, $name:literal, $damage:literal;)+) => {
        /// A bug that can be switched on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Bug {
            $($(#[doc = $what])+ $bug = $number,)+
        }

        impl Bug {
            /// Every bug there is.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }

            /// What the code does wrong, in a sentence.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($what),+).trim(),)+
                }
            }

            /// What comes of it, by which it is expected to be found.
            pub fn damage(self) -> &'static str {
                match self {
                    $(Self::$bug => $damage,)+
                }
            }
        }
    };
}

bugs! {
    // ---- the store: commits ----

    /// A commit leaves out a conflict range of what it read.
    SkipConflictRange = 1, "skip-conflict-range",
        "two commits at the same moment do not see each other: a cycle, a lost update";
    /// The conflict window is searched from one commit too late.
    WindowOffByOne = 2, "window-off-by-one",
        "a commit overlooks the one just before it: a cycle, a lost update";
    /// A page that a commit changed is left out of the changelog.
    DropFromChangelog = 3, "drop-from-changelog",
        "caches keep the old page, and nobody conflicts over it";
    /// Two commits that both allocate pages do not conflict over page 1.
    AllocationUnchecked = 4, "allocation-unchecked",
        "both take the same new page: integrity_check, a lost update";
    /// A page 1 that changed in its counters only is sent and stored.
    CountersStored = 5, "counters-stored",
        "an update in place undoes another's growth: integrity_check";
    /// What became of a commit is not written under its idempotency key.
    ForgetOutcome = 6, "forget-outcome",
        "a commit that is sent again conflicts with itself: refused, and yet visible";
    /// Settling a commit that did not happen leaves no abort marker.
    NoAbortMarker = 7, "no-abort-marker",
        "a sending that was under way arrives after it was settled: aborted, and yet visible";
    /// Of a commit over several namespaces only the first is compared with what others changed.
    GroupChecksFirst = 8, "group-checks-first",
        "what was read in a second database has changed: a cycle over both";
    /// A commit may bring any write lease as long as one is held.
    LeaseNonceUnchecked = 9, "lease-nonce-unchecked",
        "a holder whose lease went to another still commits: the other's COMMIT fails";
    /// A stage's count and sum are not compared with what its client put there.
    StageUnchecked = 10, "stage-unchecked",
        "a batch that arrives late, or twice, is committed with what it replaced: integrity_check";

    // ---- the store: reading ----

    /// The server's page cache keeps a page as current that the changelog names as changed.
    ServerCacheStale = 20, "server-cache-stale",
        "a page of an older version is served";
    /// A begin takes page 1 for unchanged if only the client's own commits changed it.
    PageOneStale = 21, "page-one-stale",
        "an old page 1 is served and commits are judged by it: integrity_check";
    /// A read below the horizon is let in.
    HorizonUnchecked = 22, "horizon-unchecked",
        "a transaction that stayed open over a truncation reads pages that are gone";
    /// A fork reads its base at the fork's version instead of the one that was forked.
    ForkSeesPresent = 23, "fork-sees-present",
        "later commits to the base show in the fork";

    // ---- the store: layers and history ----

    /// Folding writes pages as new versions instead of at the layer's.
    FoldAtNewVersion = 30, "fold-at-new-version",
        "a page of a large commit comes back over later ones";
    /// A fold takes a layer for done after its first step.
    FoldStopsEarly = 31, "fold-stops-early",
        "pages of a large commit are gone after it was folded";
    /// Collection removes the version that the horizon still sees.
    SweepTooFar = 32, "sweep-too-far",
        "pages are gone after a truncation";
    /// The horizon rises above what a fork of the namespace sees.
    ForkUnheld = 33, "fork-unheld",
        "pages of a fork are gone after its base was truncated";
    /// A restore's changelog entry names no pages.
    RestoreUnlisted = 34, "restore-unlisted",
        "caches keep what was there before the restore, and nobody conflicts with it";

    // ---- the engines ----

    /// The embedded engine takes a failed write or fsync for done.
    IgnoreFailedSync = 40, "ignore-failed-sync",
        "an acknowledged commit is lost in a crash";
    /// A commit is acknowledged before it is durable.
    AcknowledgeEarly = 41, "acknowledge-early",
        "an acknowledged commit is lost in a crash";
    /// A commit is visible before it is durable.
    PublishEarly = 42, "publish-early",
        "what others have read is lost in a crash";

    // ---- the client ----

    /// The page cache keeps a page as current that begin named as changed.
    ClientCacheStale = 50, "client-cache-stale",
        "a page of an older version is read";
    /// After an own COMMIT the change counter stays as it is.
    CounterKept = 51, "counter-kept",
        "SQLite keeps pages that others changed just before: a lost update";
    /// The read set begins anew with each transaction, though SQLite keeps its cache.
    ReadSetPerTransaction = 52, "read-set-per-transaction",
        "what SQLite had in its cache is not checked: write skew";
    /// After a COMMIT beside an open reader the read set is dropped.
    ReadSetDropped = 53, "read-set-dropped",
        "what SQLite had in its cache is not checked: a lost update";
    /// After a COMMIT beside an open reader nobody asks whether others committed just before it.
    OvertakenUnchecked = 54, "overtaken-unchecked",
        "the next write goes on from pages that others have changed: a lost update";
    /// An attached database begins at its newest version, whatever the first one shows.
    MomentIgnored = 55, "moment-ignored",
        "a transaction over two databases shows two moments";
    /// What was read from a connection's other databases is not sent with a commit.
    OthersUnchecked = 56, "others-unchecked",
        "what was read in an attached database has changed: write skew";
    /// A commit whose answers were all lost is taken for one that did not happen.
    TimeoutIsFailure = 57, "timeout-is-failure",
        "reported as failed, and yet visible";
    /// A commit is sent again under a new idempotency key.
    RetryUnderNewKey = 58, "retry-under-new-key",
        "a commit that is sent again conflicts with itself: refused, and yet visible";
}

impl Bug {
    /// The bug of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// Whether the calling code shall do the wrong thing.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub const fn active(_bug: Bug) -> bool {
    false
}

// A constant, so that the compiler leaves nothing of it.
#[cfg(not(feature = "armed"))]
const _: () = assert!(!active(Bug::SkipConflictRange));

#[cfg(feature = "armed")]
pub use armed::{active, arm};

#[cfg(feature = "armed")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// Names the bug to switch on in tests that know nothing of planted bugs.
    const VARIABLE: &str = "MVSQLITE_PLANTED";

    /// The bug that is switched on; 0 for none.
    static ARMED: AtomicU8 = AtomicU8::new(0);
    static NAMED: OnceLock<Option<Bug>> = OnceLock::new();

    /// Whether the calling code shall do the wrong thing.
    pub fn active(bug: Bug) -> bool {
        let named = || Bug::from_name(&std::env::var(VARIABLE).ok()?);
        ARMED.load(Ordering::Relaxed) == bug as u8 || *NAMED.get_or_init(named) == Some(bug)
    }

    /// Switches a bug on, or all off.
    pub fn arm(bug: Option<Bug>) {
        ARMED.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own_by_which_it_is_found() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for bug in Bug::ALL {
            assert_eq!(Bug::from_name(bug.name()), Some(*bug));
        }
    }
}
