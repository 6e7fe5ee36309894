//! State that belongs to one process and must not be met again in a forked child.
//!
//! `fork` copies memory but not threads: a lock that another thread held stays locked in the child
//! for ever, and a socket is shared with the parent. So the child gets a fresh value and never
//! touches the old one, not even to drop it. The swap itself takes no lock.

use std::sync::Arc;

use arc_swap::ArcSwap;

struct Owned<T> {
    process: u32,
    value: Arc<T>,
}

/// A value per process, made anew after `fork`.
pub struct PerProcess<T> {
    current: ArcSwap<Owned<T>>,
    make: Box<dyn Fn() -> T + Send + Sync>,
}

impl<T> PerProcess<T> {
    /// Makes the first value, for the process `process`; `make` makes those of its children.
    pub fn new(process: u32, make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let first = Owned {
            process,
            value: Arc::new(make()),
        };
        Self {
            current: ArcSwap::from_pointee(first),
            make: Box::new(make),
        }
    }

    /// The value of this process.
    pub fn get(&self, process: u32) -> Arc<T> {
        let seen = self.current.load_full();
        if seen.process == process {
            return Arc::clone(&seen.value);
        }
        let fresh = Arc::new(Owned {
            process,
            value: Arc::new((self.make)()),
        });
        self.current.compare_and_swap(&seen, fresh);
        // The parent's value is never dropped here: that would close its connections politely, or
        // lock what is locked for ever.
        std::mem::forget(seen);
        // Another thread of the child may have been quicker, so look again.
        Arc::clone(&self.current.load().value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_forked_child_gets_a_fresh_value_even_if_the_parents_is_locked() {
        let state = PerProcess::new(1, || Mutex::new(0));
        let parents = state.get(1);
        let _held_at_fork = parents.lock().unwrap();
        let childs = state.get(2);
        *childs.try_lock().expect("not the parent's lock") += 1;
        assert!(Arc::ptr_eq(&childs, &state.get(2)));
    }
}
