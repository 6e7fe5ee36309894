//! Bugs planted on purpose, to show that the checks would find them.
//!
//! A check that has never failed proves little. At the places named here the code asks
//! [`active`] whether to do the wrong thing. In every build but that of `tests/simulation` the answer
//! is a constant `false`, and nothing of it is left in the program.
//!
//! One bug at a time, for the whole process: whoever compares bugs runs a process for each.

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Bug {
    /// A commit leaves out the conflict ranges of what it read.
    SkipConflictRange = 1,
}

impl Bug {
    /// Every bug there is.
    pub const ALL: &[Self] = &[Self::SkipConflictRange];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipConflictRange => "skip-conflict-range",
        }
    }

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

#[cfg(feature = "armed")]
pub use armed::{active, arm};

#[cfg(feature = "armed")]
mod armed {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// The bug that is switched on; 0 for none.
    static ARMED: AtomicU8 = AtomicU8::new(0);

    /// Whether the calling code shall do the wrong thing.
    pub fn active(bug: Bug) -> bool {
        ARMED.load(Ordering::Relaxed) == bug as u8
    }

    /// Switches a bug on, or all off.
    pub fn arm(bug: Option<Bug>) {
        ARMED.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }
}
