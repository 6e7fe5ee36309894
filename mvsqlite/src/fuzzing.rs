//! What crate `mvsqlite-fuzz` calls: what decodes bytes from outside and is private here. Each
//! function takes any bytes and panics if a property does not hold. Not part of the interface.

pub use crate::config::fuzzing::server;
pub use crate::database::fuzzing::{disk_cache, page_cache, page_one, prefetch, read_set};
