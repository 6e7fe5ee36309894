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
use crate::environment::Environment;

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
    claims: Vec<Weak<Claim>>,
    runs: bool,
}

impl Keeper {
    /// Nothing that can panic runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on looks after a claim, once for all leases that it will ever get.
    pub(crate) fn adopt(&self, claim: &Arc<Claim>) {
        let mut state = self.state();
        state.claims.retain(|claim| claim.strong_count() > 0);
        state.claims.push(Arc::downgrade(claim));
    }

    /// Sees to it that the thread runs.
    pub(crate) fn wake(env: &Arc<Environment>) {
        let shared = env.shared();
        {
            let mut state = shared.keeper.state();
            if state.runs {
                return;
            }
            state.runs = true;
        }
        let weak = Arc::downgrade(env);
        let started = env
            .system()
            .spawn("mvsqlite-lease", Box::new(move || run(&weak)));
        if started.is_err() {
            shared.keeper.state().runs = false;
        }
    }

    /// Whether the thread may end: no lease was granted while it made up its mind.
    fn retire(&self, env: &Environment) -> bool {
        // Whoever is granted a lease from here on makes a new thread; who was before is seen now.
        self.state().runs = false;
        let claims = self.claims();
        let needed = claims.iter().any(|claim| claim.tend(env).is_some());
        let mut state = self.state();
        let stays = needed && !state.runs;
        state.runs |= stays;
        !stays
    }

    /// The claims that are still there.
    fn claims(&self) -> Vec<Arc<Claim>> {
        let state = self.state();
        state.claims.iter().filter_map(Weak::upgrade).collect()
    }
}

/// The thread's life. It holds the environment for as long as it takes to look around.
fn run(env: &Weak<Environment>) {
    let mut idle = Duration::ZERO;
    while let Some(env) = env.upgrade() {
        let shared = env.shared();
        let claims = shared.keeper.claims();
        let next = claims.iter().filter_map(|claim| claim.tend(&env)).min();
        drop(claims);
        idle = match next {
            Some(_) => Duration::ZERO,
            None => idle + IDLE_PAUSE,
        };
        if idle > LINGERS && shared.keeper.retire(&env) {
            return;
        }
        drop((shared, env));
        std::thread::sleep(next.unwrap_or(IDLE_PAUSE).max(Duration::from_millis(1)));
    }
}
