//! The wire types of mvSQLite: what the data planes (protocol v2, and v1, the original's), the admin
//! API and the database names are made of.
//!
//! This crate does no I/O and decides nothing: the server (`mvstore`) and the client (`mvsqlite`)
//! meet here and nowhere else. Everything that is decoded here may come from a hostile peer, so
//! every decoder returns an error and none panics.
//!
//! | module | what |
//! |---|---|
//! | [`version`] | versions, namespace ids, store read versions, the incarnation |
//! | [`name`] | namespace keys, moments, and `namespace@moment` names |
//! | [`page`] | page indexes, runs of pages, page images, checksums |
//! | [`v1`] | the messages of the original's data plane and how they are framed |
//! | [`v2`] | the messages of data plane v2 and how they are framed |
//! | [`problem`] | refusals: stable codes as problem+json |
//! | [`admin`] | bodies of the admin API |

pub mod admin;
pub mod name;
pub mod page;
pub mod problem;
pub mod v1;
pub mod v2;
pub mod version;

pub use name::{DatabaseName, Moment, NamespaceKey};
pub use page::{PageData, PageImage, PageIndex, PageRun, PageSet};
pub use problem::{Code, Problem};
pub use version::{
    IdempotencyKey, Incarnation, LeaseNonce, NamespaceId, ReadVersion, StageId, Version,
};
