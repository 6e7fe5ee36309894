//! The mvSQLite server.
//!
//! | module | what |
//! |---|---|
//! | [`kv`] | the ordered transactional key-value contract, and its engines |

pub mod kv;
