//! Pages: taking a snapshot, reading, staging, committing, settling.
//!
//! | module | what |
//! |---|---|
//! | `begin` | the newest version, and what changed since the client last looked |
//! | `read` | pages at a version, as a client asks for them |
//! | `view` | pages at a version: own page versions, layers, base |
//! | `lineage` | a namespace and those below it, as one transaction sees them |
//! | `stage` | content uploaded ahead of its commit |
//! | `commit` | one transaction over one namespace or several: checks, page versions, changelog, outcome |
//! | `waiting` | pages of protocol v1, by the hash of their content |
//! | `settle` | what became of a commit, made definite |
//! | `changes` | walking the changelog |
//! | `conflict` | when two commits collide: rules without a store |
//! | `page_one` | page 1: its header, and what a commit changed in it |
//! | `fold` | writing layers out as page versions |
//! | `cache` | page 1 of recent versions |
//! | `page_cache` | pages that were read lately, and what cold clients want first |
//! | `catch_up` | the page cache, brought up to a version by the changelog |

mod begin;
mod cache;
mod catch_up;
mod changes;
mod commit;
mod conflict;
mod fold;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod lineage;
mod page_cache;
mod page_one;
mod read;
mod settle;
mod stage;
mod view;
mod waiting;

pub(crate) use begin::{begin, changes_between};
pub(crate) use cache::PageOneCache;
pub(crate) use changes::{MAX_CHUNKS, newest_until, predecessor, read_batch, successor};
pub(crate) use commit::{Commit, ConflictRule, Dialect, Effect, Member, commit_members};
pub(crate) use commit::{commit, commit_group};
pub(crate) use conflict::MAX_RANGES;
pub(crate) use fold::{fold_layers, make_room};
pub(crate) use lineage::Lineage;
pub(crate) use page_cache::PageCache;
pub(crate) use page_one::Header;
pub(crate) use read::{is_commit, page_one_at, pages_at, read, version_unknown};
pub(crate) use settle::{forget_later, outcome, settle, settle_group};
pub(crate) use stage::Turns as StageTurns;
pub(crate) use stage::{
    expire_later as expire_stage_later, record as stage_record, stage, stage_as,
    usage_of as staged_usage,
};
pub(crate) use view::{Found, View};
pub(crate) use waiting::{
    collect as collect_waiting, find as find_waiting, hash_of, keep as keep_waiting,
    sweep as sweep_waiting, upload as upload_waiting,
};
