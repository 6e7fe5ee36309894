//! The blocking client of data plane v2.
//!
//! No thread of its own, no TLS yet, and no lock held while a request is under way. Time is bounded: see
//! [`crate::Config::timeout`].

mod commit;
mod data_plane;
mod error;
mod http;
mod lease;
mod namespace_lock;
mod retry;
mod socket;
mod stage;
mod token;
mod transport;

pub(crate) use commit::CommitOutcome;
pub(crate) use data_plane::DataPlane;
pub use error::CallError;
pub use http::HttpTransport;
pub(crate) use namespace_lock::OWNER_HEADER;
pub use namespace_lock::{LockError, Release};
pub(crate) use stage::{StagePage, StageUpload};
pub use transport::{PlainReply, PlainRequest, Reply, Request, Transport, TransportError};
