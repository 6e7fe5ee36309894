//! Named points at which the process ends at once, for tests that look at what a crash leaves.
//!
//! `MVSTORE_CRASH_AT=fold-step` ends it at the first pass through the point of that name,
//! `fold-step:3` at the third. Without the variable a point costs one comparison. The end is an
//! abort: nothing is flushed, closed or answered, as after `kill -9`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable.
pub const VARIABLE: &str = "MVSTORE_CRASH_AT";

/// Every point there is: those of a large transaction, in the order in which it passes them.
pub const POINTS: [&str; 6] = [
    STAGED,
    LAYER_BEFORE_COMMIT,
    LAYER_COMMITTED,
    FOLD_STEP,
    FOLD_BEFORE_DROP,
    FOLD_DROPPED,
];

/// A batch of a stage is durable; its client does not know yet.
pub(crate) const STAGED: &str = "staged";
/// A commit that makes a layer is written down, but not committed.
pub(crate) const LAYER_BEFORE_COMMIT: &str = "layer-before-commit";
/// A commit that made a layer is durable; its client does not know yet.
pub(crate) const LAYER_COMMITTED: &str = "layer-committed";
/// A step of folding is durable.
pub(crate) const FOLD_STEP: &str = "fold-step";
/// Nothing of a layer is left to fold, but it is still there.
pub(crate) const FOLD_BEFORE_DROP: &str = "fold-before-drop";
/// A layer is gone.
pub(crate) const FOLD_DROPPED: &str = "fold-dropped";

/// Where to end, and how many passes before that.
struct Trap {
    point: String,
    passes: AtomicU32,
}

static TRAP: OnceLock<Option<Trap>> = OnceLock::new();

/// Ends the process if this is the point it was told to end at.
pub(crate) fn pass(point: &str) {
    let trap = TRAP.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| parse(&text)));
    let Some(trap) = trap else {
        return;
    };
    if trap.point == point && trap.passes.fetch_sub(1, Ordering::Relaxed) == 1 {
        tracing::warn!(point, "ended on purpose, as {VARIABLE} says");
        std::process::abort();
    }
}

fn parse(text: &str) -> Trap {
    let (point, passes) = text.split_once(':').unwrap_or((text, "1"));
    Trap {
        point: point.to_owned(),
        passes: AtomicU32::new(passes.parse().unwrap_or(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_a_point_and_a_number_of_passes() {
        for (text, point, passes) in [("fold-step", "fold-step", 1), ("staged:3", "staged", 3)] {
            let trap = parse(text);
            assert_eq!(trap.point, point);
            assert_eq!(trap.passes.load(Ordering::Relaxed), passes);
        }
    }
}
