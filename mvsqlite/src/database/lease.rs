//! The write lease of one open database: asking for it, holding it, giving it back.
//!
//! In exclusive mode RESERVED takes the lease. Where another has it, RESERVED is refused with
//! `SQLITE_BUSY`; SQLite then drops its lock, lets its busy handler wait and comes back with a new
//! snapshot. The place in the store's queue outlives that drop. A lease that was granted too late for
//! the snapshot is kept for the retry, for a moment: see [`Keeper`](crate::keeper::Keeper).
//!
//! Invariants:
//! - What stands here decides nothing about commits: the store refuses a commit whose lease is lost.
//!   So it does no harm that a renewal in the background and a commit may overtake each other.
//! - A lease is in use from RESERVED to the end of the write transaction, and only then renewed.
//! - No lock is held while a request is under way.
//! - A claim belongs to the process that made it. A forked child has the memory of its parent's and
//!   leaves the lease alone.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mvsqlite_protocol::v2::{LeaseAction, LeaseReply, LeaseRequest};
use mvsqlite_protocol::{Code, LeaseNonce, NamespaceKey, ReadVersion, Version};

use super::cache::Identity;
use super::error::Cause;
use crate::client::CallError;
use crate::environment::Environment;
use crate::keeper::Keeper;

/// How long a lease is kept that nobody uses: the retry that it is kept for comes within the longest
/// sleep of SQLite's busy handler, 100 ms.
const KEPT_UNUSED: Duration = Duration::from_millis(250);
/// How long giving something back may take. The host waits for it at ROLLBACK and close.
const GIVING_UP: Duration = Duration::from_secs(1);
/// The longest pause between two questions of a sleep that waits for a lease.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A database's claim to its namespace's write lease.
pub(crate) struct Claim {
    key: NamespaceKey,
    process: u32,
    state: Mutex<State>,
}

/// What became of asking for the lease.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    Granted(Grant),
    Busy {
        /// When asking again is worth while.
        retry: Duration,
    },
}

/// What came with the lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    /// The newest commit: a snapshot has to be this to be written on.
    pub(super) head: Version,
    /// Commits have to see the grant.
    pub(super) read_version: ReadVersion,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Nothing,
    /// In the queue, or on the way there.
    Waiting {
        identity: Identity,
        nonce: LeaseNonce,
        place: Option<u64>,
        /// Until then the place is kept.
        until: Duration,
    },
    Held(Held),
}

#[derive(Debug, Clone, Copy)]
struct Held {
    identity: Identity,
    nonce: LeaseNonce,
    grant: Grant,
    ttl: Duration,
    /// When the request was sent that granted or renewed it.
    since: Duration,
    /// Since when nobody uses it; `None` while a write transaction does.
    unused_since: Option<Duration>,
}

impl Held {
    /// Whether more than this part of its time is over.
    fn is_older_than(&self, now: Duration, part: u32) -> bool {
        now.saturating_sub(self.since) > self.ttl / part
    }
}

impl Claim {
    pub(super) fn new(env: &Environment, key: &NamespaceKey) -> Arc<Self> {
        Arc::new(Self {
            key: key.clone(),
            process: env.process_id(),
            state: Mutex::new(State::Nothing),
        })
    }

    /// A forked child must not touch it: its parent may have held the lock.
    pub(super) fn is_of(&self, process: u32) -> bool {
        self.process == process
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the lease. One that is held for a retry is granted without a question as long as
    /// there is no doubt that it lives.
    pub(super) fn ask(&self, env: &Environment, identity: Identity) -> Result<Asked, Cause> {
        let now = env.system().now();
        let state = *self.state();
        let (nonce, place) = match state {
            State::Held(held) if held.identity == identity => {
                if !held.is_older_than(now, 2) && self.touch(held.nonce, now) {
                    return Ok(Asked::Granted(held.grant));
                }
                (held.nonce, None)
            }
            State::Waiting {
                identity: of,
                nonce,
                place,
                until,
            } if of == identity => (nonce, place.filter(|_| now < until)),
            _ => (new_nonce(env)?, None),
        };
        let waiting = |place, until| State::Waiting {
            identity,
            nonce,
            place,
            until,
        };
        // A question whose answer gets lost may have brought the lease: it is asked again by the same
        // name.
        *self.state() = waiting(place, now);
        let reply = self.call(env, identity, nonce, LeaseAction::Acquire { place })?;
        match reply {
            LeaseReply::Granted {
                ttl_millis,
                head,
                read_version,
            } => {
                let grant = Grant { head, read_version };
                *self.state() = State::Held(Held {
                    identity,
                    nonce,
                    grant,
                    ttl: Duration::from_millis(ttl_millis),
                    since: now,
                    unused_since: Some(now),
                });
                Ok(Asked::Granted(grant))
            }
            LeaseReply::Busy {
                place,
                retry_millis,
                place_millis,
            } => {
                let until = now + Duration::from_millis(place_millis);
                *self.state() = waiting(Some(place), until);
                let retry = Duration::from_millis(retry_millis.max(1)).min(LONGEST_PAUSE);
                Ok(Asked::Busy { retry })
            }
            LeaseReply::Released => Err(unexpected_reply()),
        }
    }

    /// Keeps an unused lease for another moment; false if it was given back just now.
    fn touch(&self, nonce: LeaseNonce, now: Duration) -> bool {
        match &mut *self.state() {
            State::Held(held) if held.nonce == nonce => {
                held.unused_since = Some(now);
                true
            }
            _ => false,
        }
    }

    /// A write transaction goes on with the lease that was granted; false if that was given back
    /// meanwhile.
    #[must_use]
    pub(super) fn put_to_use(&self) -> bool {
        match &mut *self.state() {
            State::Held(held) => {
                held.unused_since = None;
                true
            }
            _ => false,
        }
    }

    /// What a commit has to bring; `None` if no lease is in use.
    pub(super) fn in_use(&self) -> Option<LeaseNonce> {
        match &*self.state() {
            State::Held(held) if held.unused_since.is_none() => Some(held.nonce),
            _ => None,
        }
    }

    /// The commit gave it back.
    pub(super) fn returned(&self) {
        *self.state() = State::Nothing;
    }

    /// Hands the lease in use over to a commit group, which will commit later. `None` without one.
    pub(super) fn hand_over(&self, env: &Arc<Environment>) -> Option<GroupLease> {
        self.in_use()?;
        let state = std::mem::replace(&mut *self.state(), State::Nothing);
        let claim = Arc::new(Self {
            key: self.key.clone(),
            process: self.process,
            state: Mutex::new(state),
        });
        Keeper::watch(env, &claim);
        Some(GroupLease {
            claim,
            env: Arc::clone(env),
        })
    }

    /// The write transaction has ended without a commit: others are let in at once.
    pub(super) fn end_use(&self, env: &Environment) {
        if self.in_use().is_some() {
            self.give_up(env);
        }
    }

    /// Gives back the lease, or the place in the queue. Tried once, and not for long: what is not given
    /// back ends by itself.
    pub(super) fn give_up(&self, env: &Environment) {
        let state = std::mem::replace(&mut *self.state(), State::Nothing);
        let (identity, nonce, place) = match state {
            State::Nothing => return,
            State::Held(held) => (held.identity, held.nonce, None),
            State::Waiting {
                identity,
                nonce,
                place,
                ..
            } => (identity, nonce, place),
        };
        let request = request(identity, nonce, LeaseAction::Release { place });
        // What the answer is changes nothing.
        let _ = env.plane().lease_once(&self.key, &request, GIVING_UP);
    }

    /// What has to be done in the background: renewing what is in use, giving back what was kept for
    /// a retry that did not come. Returns whether there is anything to come back for, and how soon.
    pub(crate) fn tend(&self, env: &Environment) -> Option<Duration> {
        let now = env.system().now();
        let State::Held(held) = *self.state() else {
            return None;
        };
        match held.unused_since {
            None if held.is_older_than(now, 3) => self.renew(env, held),
            Some(since) if now.saturating_sub(since) > KEPT_UNUSED => {
                self.give_up_unused(env);
                return None;
            }
            _ => {}
        }
        Some((held.ttl / 8).min(KEPT_UNUSED))
    }

    fn renew(&self, env: &Environment, held: Held) {
        let sent = env.system().now();
        let request = request(held.identity, held.nonce, LeaseAction::Renew);
        // Once, and not for long: there are other leases to renew, and another attempt soon.
        let plane = env.plane();
        let reply = plane.lease_once(&self.key, &request, held.ttl / 4);
        let mut state = self.state();
        // The transaction may have ended meanwhile, and another begun.
        let State::Held(current) = &mut *state else {
            return;
        };
        if current.nonce != held.nonce {
            return;
        }
        match reply {
            Ok(LeaseReply::Granted { .. }) => current.since = sent,
            // Lost: the store refuses the commit, which says so. Renewing it is of no use.
            Err(CallError::Refused(problem)) if problem.code == Code::Locked => {
                current.ttl = Duration::MAX;
            }
            // Tried again soon.
            _ => {}
        }
    }

    /// Gives back a lease that nobody has taken up in this very moment.
    fn give_up_unused(&self, env: &Environment) {
        let held = {
            let mut state = self.state();
            let State::Held(held) = *state else {
                return;
            };
            if held.unused_since.is_none() {
                return;
            }
            *state = State::Nothing;
            held
        };
        let action = LeaseAction::Release { place: None };
        let request = request(held.identity, held.nonce, action);
        // What the answer is changes nothing.
        let _ = env.plane().lease_once(&self.key, &request, GIVING_UP);
    }

    fn call(
        &self,
        env: &Environment,
        identity: Identity,
        nonce: LeaseNonce,
        action: LeaseAction,
    ) -> Result<LeaseReply, Cause> {
        let request = request(identity, nonce, action);
        Ok(env.plane().lease(&self.key, &request)?)
    }
}

/// The lease of a COMMIT that a commit group keeps back. It is renewed until the group ends, and given
/// back then unless the group's commit has done that.
pub(super) struct GroupLease {
    claim: Arc<Claim>,
    env: Arc<Environment>,
}

impl GroupLease {
    /// The group's commit gave it back.
    pub(super) fn returned(&self) {
        self.claim.returned();
    }
}

impl Drop for GroupLease {
    fn drop(&mut self) {
        if self.claim.is_of(self.env.process_id()) {
            // A group may end with its thread, where a panic would end the host.
            let give_up = || self.claim.give_up(&self.env);
            let _ = catch_unwind(AssertUnwindSafe(give_up));
        }
    }
}

fn request(identity: Identity, nonce: LeaseNonce, action: LeaseAction) -> LeaseRequest {
    LeaseRequest {
        namespace: identity.namespace,
        incarnation: Some(identity.incarnation),
        nonce,
        action,
    }
}

fn new_nonce(env: &Environment) -> Result<LeaseNonce, Cause> {
    let mut nonce = [0; LeaseNonce::LEN];
    env.system().fill_random(&mut nonce)?;
    Ok(LeaseNonce::from_bytes(nonce))
}

fn unexpected_reply() -> Cause {
    let text = "the answer to a question for the write lease is another than was asked for";
    Cause::Call(CallError::BadReply(text.to_owned()))
}

// ---- the sleep of SQLite's busy handler ----

/// What this thread was refused last: its busy handler sleeps next, if it has one.
struct Refused {
    env: Arc<Environment>,
    claim: Weak<Claim>,
    identity: Identity,
    retry: Duration,
}

thread_local! {
    static REFUSED: RefCell<Option<Refused>> = const { RefCell::new(None) };
}

/// Notes that RESERVED is refused to the calling thread, for [`sleep_for_lease`].
pub(super) fn note_refusal(
    env: &Arc<Environment>,
    claim: &Arc<Claim>,
    identity: Identity,
    retry: Duration,
) {
    let refused = Refused {
        env: Arc::clone(env),
        claim: Arc::downgrade(claim),
        identity,
        retry,
    };
    // At the end of a thread its locals are gone, and nobody sleeps any more.
    let _ = REFUSED.try_with(|place| *place.borrow_mut() = Some(refused));
}

/// The longest sleep of SQLite's busy handler. Who sleeps longer is the program itself.
const LONGEST_BUSY_SLEEP: Duration = Duration::from_millis(100);

/// Sleeps in the place of `xSleep` if that is SQLite's busy handler waiting for a write lease that the
/// calling thread was just refused: as long as asked for, or until the lease is granted, which is then
/// kept for the retry that follows. Otherwise `false`, and nothing was slept.
///
/// The busy handler's sleeps grow to 100 ms, while the lease of a small transaction is free again after
/// a few: whoever is next in the queue and sleeps on keeps everybody else waiting.
pub fn sleep_for_lease(duration: Duration) -> bool {
    let refused = REFUSED.try_with(|place| place.borrow_mut().take());
    let Some(refused) = refused.ok().flatten() else {
        return false;
    };
    let Some(claim) = refused.claim.upgrade() else {
        return false;
    };
    let env = refused.env;
    if duration > LONGEST_BUSY_SLEEP || !claim.is_of(env.process_id()) {
        return false;
    }
    let system = env.system();
    let end = system.now() + duration;
    let mut retry = refused.retry;
    loop {
        let left = end.saturating_sub(system.now());
        if left.is_zero() {
            return true;
        }
        system.sleep(retry.min(left));
        if retry >= left {
            return true;
        }
        match claim.ask(&env, refused.identity) {
            Ok(Asked::Granted(_)) => {
                // The program may sleep for another reason, and never try again.
                Keeper::watch(&env, &claim);
                return true;
            }
            Ok(Asked::Busy { retry: next }) => retry = next,
            // The retry will meet the same failure and report it.
            Err(_) => retry = left,
        }
    }
}
