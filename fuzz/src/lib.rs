//! One function for each decoder that takes bytes from outside.
//!
//! A [`Target`] takes any bytes and panics if a property does not hold: that the decoder does not
//! panic itself, and what is written at the target. Memory ([`MEMORY`]) and time are watched by
//! whoever runs it: libFuzzer (`fuzz/libfuzzer`, `make fuzz`), or the test that replays the corpora
//! on every `cargo test`.
//!
//! Targets are deterministic: the same bytes do the same. They keep nothing from one run to the
//! next.

mod honest;
mod input;
mod property;
mod seed;
mod targets;

pub use input::Input;
pub use targets::TARGETS;

/// Most bytes of memory that one input may make a target hold. Inputs have a few KiB, so a length
/// that is only claimed and believed stands out.
pub const MEMORY: usize = 64 << 20;

/// A decoder and its properties.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its corpus.
    pub name: &'static str,
    /// Panics if the bytes make a property fail.
    pub run: fn(&[u8]),
    /// What a corpus begins with: well-formed inputs by their names.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
}

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// All names, for a message.
    pub fn names() -> String {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        names.join(" ")
    }
}
