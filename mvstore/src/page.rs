//! Pages: taking a snapshot, reading, staging, committing, settling.
//!
//! | module | what |
//! |---|---|
//! | `begin` | the newest version, and what changed since the client last looked |
//! | `read` | pages at a version |
//! | `stage` | content uploaded ahead of its commit |
//! | `commit` | one transaction: checks, page versions, changelog, outcome |
//! | `settle` | what became of a commit, made definite |
//! | `changes` | walking the changelog |
//! | `conflict` | when two commits collide: rules without a store |
//! | `page_one` | page 1: its header, and what a commit changed in it |
//! | `cache` | page 1 of recent versions |

mod begin;
mod cache;
mod changes;
mod commit;
mod conflict;
mod page_one;
mod read;
mod settle;
mod stage;

pub(crate) use begin::begin;
pub(crate) use cache::PageOneCache;
pub(crate) use changes::{MAX_CHUNKS, read_batch, successor};
pub(crate) use commit::commit;
pub(crate) use conflict::MAX_RANGES;
pub(crate) use page_one::Header;
pub(crate) use read::{page_one_at, read, version_unknown};
pub(crate) use settle::settle;
pub(crate) use stage::{
    expire_later as expire_stage_later, record as stage_record, stage, usage_of as staged_usage,
};
