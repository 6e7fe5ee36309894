//! Named points at which a store ends at once, for tests that look at what a crash leaves.
//!
//! `MVSTORE_CRASH_AT=fold-step` ends the process at the first pass through the point of that name,
//! `fold-step:3` at the third. Without the variable a point costs two comparisons. The end is an
//! abort: nothing is flushed, closed or answered, as after `kill -9`.
//!
//! Where a process is simulated, its thread has a [`hook`] that ends it there in its own way.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable.
pub const VARIABLE: &str = "MVSTORE_CRASH_AT";

/// Those that a large transaction passes, in this order.
pub const LARGE_TRANSACTION: [&str; 6] = [
    STAGED,
    LAYER_BEFORE_COMMIT,
    LAYER_COMMITTED,
    FOLD_STEP,
    FOLD_BEFORE_DROP,
    FOLD_DROPPED,
];

/// Those that a commit passes whose pages are written as page versions at once.
pub const SMALL_TRANSACTION: [&str; 2] = [BEFORE_COMMIT, COMMITTED];

/// Those that other work passes.
pub const OTHERS: [&str; 8] = [
    SETTLED,
    RESTORED,
    FORKED,
    LEASED,
    LOCK_RELEASED,
    TRUNCATE_MARKED,
    TRUNCATE_STEP,
    COLLECT_STEP,
];

/// A commit is written down, but not committed.
pub(crate) const BEFORE_COMMIT: &str = "before-commit";
/// A commit is durable; its client does not know yet.
pub(crate) const COMMITTED: &str = "committed";
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
/// A commit is settled as aborted; its client does not know yet.
pub(crate) const SETTLED: &str = "settled";
/// A namespace is restored; its caller does not know yet.
pub(crate) const RESTORED: &str = "restored";
/// A fork is made; its caller does not know yet.
pub(crate) const FORKED: &str = "forked";
/// A write lease is granted or renewed; its holder does not know yet.
pub(crate) const LEASED: &str = "leased";
/// A namespace's lock is given back or marked for its rollback; its owner does not know yet.
pub(crate) const LOCK_RELEASED: &str = "lock-released";
/// A truncation is announced, and the horizon raised.
pub(crate) const TRUNCATE_MARKED: &str = "truncate-marked";
/// A step of a truncation is durable.
pub(crate) const TRUNCATE_STEP: &str = "truncate-step";
/// A step of the collection of what has expired is durable.
pub(crate) const COLLECT_STEP: &str = "collect-step";

/// Where to end, and how many passes before that.
struct Trap {
    point: String,
    passes: AtomicU32,
}

static TRAP: OnceLock<Option<Trap>> = OnceLock::new();

/// What a thread does at each point.
pub type Hook = Rc<dyn Fn(&'static str)>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Has the calling thread run this at each point that it passes from now on, or nothing. It may
/// unwind: then the caller of the store sees to it that nothing of the store is used any more.
pub fn hook(hook: Option<Hook>) {
    HOOK.set(hook);
}

/// Ends the process if this is the point it was told to end at.
pub(crate) fn pass(point: &'static str) {
    let hook = HOOK.with_borrow(Clone::clone);
    if let Some(hook) = hook {
        hook(point);
    }
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
    fn a_hook_sees_each_point_that_its_thread_passes() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let notes = Rc::clone(&seen);
        hook(Some(Rc::new(move |point| notes.borrow_mut().push(point))));
        pass(STAGED);
        std::thread::spawn(|| pass(COMMITTED)).join().unwrap();
        hook(None);
        pass(FOLD_STEP);
        assert_eq!(*seen.borrow(), [STAGED]);
    }

    #[test]
    fn a_trap_is_a_point_and_a_number_of_passes() {
        for (text, point, passes) in [("fold-step", "fold-step", 1), ("staged:3", "staged", 3)] {
            let trap = parse(text);
            assert_eq!(trap.point, point);
            assert_eq!(trap.passes.load(Ordering::Relaxed), passes);
        }
    }
}
