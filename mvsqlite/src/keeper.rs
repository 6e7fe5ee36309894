//! A thread of the process that keeps its write leases: renews those in use, and gives back those that
//! were kept for a retry that did not come.
//!
//! It is made when the first lease is granted and ends when there has been none for a while. It looks
//! around several times in a lease's life, whoever holds one then, so that a small transaction costs no
//! waking of a thread. A forked child has none and makes its own, since this belongs to what a process
//! does not inherit.
//!
//! Where no thread can be had, leases are not renewed: a write transaction that takes longer than its
//! lease fails at COMMIT, if another has taken it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::database::Claim;
use crate::environment::{Environment, Shared};
use crate::system::System;

/// How long the thread stays when there is nothing to do.
const LINGERS: Duration = Duration::from_secs(10);
/// How often it looks when it knows of no lease.
const IDLE_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Default)]
pub(crate) struct Keeper {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Vec<Kept>,
    runs: bool,
}

/// A claim, and by what its lease was granted: another database may be on another server, or open in
/// the name of another owner.
struct Kept {
    claim: Weak<Claim>,
    env: Weak<Environment>,
}

impl Keeper {
    /// Nothing that can panic runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease was granted: from now on it is looked after, whether or not it is taken up.
    pub(crate) fn watch(env: &Arc<Environment>, claim: &Arc<Claim>) {
        let shared = env.shared();
        {
            let mut state = shared.keeper.state();
            state.keep(env, claim);
            if std::mem::replace(&mut state.runs, true) {
                return;
            }
        }
        let weak = Arc::downgrade(&shared);
        let system = env.system();
        let thread = Arc::clone(system);
        let work = move || run(&weak, &*thread);
        let started = system.spawn("mvsqlite-lease", Box::new(work));
        if started.is_err() {
            shared.keeper.state().runs = false;
        }
    }

    /// Whether the thread may end: no lease was granted while it made up its mind.
    fn retire(&self) -> bool {
        // Whoever is granted a lease from here on makes a new thread; who was before is seen now.
        self.state().runs = false;
        let needed = self.tend().is_some();
        let mut state = self.state();
        let stays = needed && !state.runs;
        state.runs |= stays;
        !stays
    }

    /// Does what has to be done now. Returns when there is more to do, if there is.
    fn tend(&self) -> Option<Duration> {
        let kept: Vec<_> = {
            let state = self.state();
            state.kept.iter().filter_map(Kept::upgrade).collect()
        };
        kept.iter().filter_map(|(claim, env)| claim.tend(env)).min()
    }
}

impl State {
    fn keep(&mut self, env: &Arc<Environment>, claim: &Arc<Claim>) {
        let mut known = self.kept.iter_mut();
        match known.find(|kept| kept.claim.as_ptr() == Arc::as_ptr(claim)) {
            Some(kept) if kept.env.as_ptr() == Arc::as_ptr(env) => {}
            Some(kept) => kept.env = Arc::downgrade(env),
            None => {
                self.kept.retain(|kept| kept.claim.strong_count() > 0);
                self.kept.push(Kept {
                    claim: Arc::downgrade(claim),
                    env: Arc::downgrade(env),
                });
            }
        }
    }
}

impl Kept {
    fn upgrade(&self) -> Option<(Arc<Claim>, Arc<Environment>)> {
        Some((self.claim.upgrade()?, self.env.upgrade()?))
    }
}

/// The thread's life. It holds what belongs to the process for as long as it takes to look around.
fn run(shared: &Weak<Shared>, system: &dyn System) {
    let mut idle = Duration::ZERO;
    while let Some(shared) = shared.upgrade() {
        let next = shared.keeper.tend();
        idle = match next {
            Some(_) => Duration::ZERO,
            None => idle + IDLE_PAUSE,
        };
        if idle > LINGERS && shared.keeper.retire() {
            return;
        }
        drop(shared);
        system.sleep(next.unwrap_or(IDLE_PAUSE).max(Duration::from_millis(1)));
    }
}
