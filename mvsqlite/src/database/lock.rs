//! SQLite's lock levels.

/// A lock on a database file, in SQLite's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LockLevel {
    /// No lock: no snapshot either.
    #[default]
    None,
    /// Reading: a snapshot is held.
    Shared,
    /// About to write. Excludes nobody.
    Reserved,
    /// As [`LockLevel::Reserved`].
    Pending,
    /// Writing. Excludes nobody.
    Exclusive,
}
