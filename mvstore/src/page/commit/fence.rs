//! Whether a namespace's guard lets a commit through: the one place where commits meet namespace
//! locks and write leases.
//!
//! The guard was read serializably, so whatever is decided here still holds when the commit
//! happens. What else decides (a lease's expiry) has to be read serializably as well.

use super::request::{Effect, Member};
use crate::context::Failure;
use crate::layout::Guard;
use crate::namespace::{Access, admit};

/// Lets a commit's member through, or refuses it. Returns the guard with the horizon as it counts.
///
/// A namespace that was only read is let in like a reader: nothing of it is written, so the locks
/// and leases of others keep nothing from it.
pub(super) fn pass(member: &Member, guard: Option<Guard>) -> Result<Guard, Failure> {
    let access = match member.effect {
        Effect::Read => Access::Read,
        Effect::Write => Access::Write,
    };
    Ok(admit(&member.ns, member.id, guard, access)?)
}
