//! The blocking client of data plane v2.
//!
//! No thread, no TLS yet, no lock held while a request is under way.

mod error;
mod transport;

pub use error::CallError;
pub use transport::{Reply, Request, Transport, TransportError};
