//! What crate `mvsqlite-fuzz` calls: what decodes bytes from outside and is private here. Each
//! function takes any bytes and panics if a property does not hold. Not part of the interface.

pub use crate::kv::embedded::fuzzing::{format_file, journal};
pub use crate::layout::fuzzing::{
    changed_pages, changelog, guard, layout_key, layout_value, page_value,
};
pub use crate::page::fuzzing::{page_cache, page_one, read_set};
