//! History: which version a moment is, going back to one, and what may be forgotten.

mod expiry;
mod moment;
mod restore;
mod time;
mod truncate;
mod unreferenced;

pub(crate) use expiry::collect_expired;
pub(crate) use moment::resolve;
pub(crate) use restore::{restore, write_restore};
pub(crate) use time::{TimeRecorder, time_to_version};
pub(crate) use truncate::{forked_at, truncate};
pub(crate) use unreferenced::delete_unreferenced;
