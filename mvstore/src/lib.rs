//! The mvSQLite server.
//!
//! | module | what |
//! |---|---|
//! | [`kv`] | the ordered transactional key-value contract, and its engines |
//! | [`store`] | versioned pages over it: what the HTTP server calls |
//! | [`error`] | why the store refuses, and how that reads on the wire |
//! | [`environment`] | time and randomness, behind seams |

pub mod environment;
pub mod error;
pub mod kv;
pub mod store;
