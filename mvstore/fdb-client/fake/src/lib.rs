//! A stand-in for `libfdb_c.so`, for tests: FoundationDB's C API 7.3 over a cluster in memory.
//!
//! It implements what the crate `foundationdb` calls and mvstore's engine needs, and it decides
//! conflicts, versions and limits as FoundationDB documents them, so that the engine's tests go
//! through the real crate, the jumps and the loader. It is no model of FoundationDB's distribution:
//! one process, one lock, nothing durable.
//!
//! | module | what |
//! |---|---|
//! | `capi` | the functions of the C header, translating to the others |
//! | `code` | FoundationDB's error codes that the stand-in gives or knows |
//! | `future` | results that become ready on the network thread |
//! | `network` | the one thread on which everything happens, and its timers |
//! | `transaction` | what a client keeps until it commits |
//! | `cluster` | versions of keys, and who conflicts with whom |
//! | `control` | keys below `\xff\xff/fake/`, by which a test makes things go wrong |
//!
//! Each cluster file names a cluster of its own, so that tests of one process do not meet.

mod capi;
mod cluster;
mod code;
mod control;
mod future;
mod network;
mod transaction;
