//! libFuzzer over one target, which `MVSQLITE_FUZZ_TARGET` names. `make fuzz` runs it.
//!
//! One program for all targets: it takes minutes to link all of the store and the client.
#![no_main]

use std::alloc::System;
use std::sync::OnceLock;

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use mvsqlite_fuzz::{MEMORY, Target};

/// An allocation beyond this ends the process, also one of memory that would never be touched.
#[cfg(not(feature = "sanitizer"))]
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

static TARGET: OnceLock<&Target> = OnceLock::new();

fn target() -> &'static Target {
    let name = std::env::var("MVSQLITE_FUZZ_TARGET").unwrap_or_default();
    let found = Target::named(&name);
    found.unwrap_or_else(|| {
        eprintln!(
            "MVSQLITE_FUZZ_TARGET={name}: expected one of {}",
            Target::names()
        );
        std::process::exit(2);
    })
}

fuzz_target!(
    init: {
        TARGET.get_or_init(target);
    },
    |bytes: &[u8]| {
        #[cfg(not(feature = "sanitizer"))]
        ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY).ok();
        (TARGET.get_or_init(target).run)(bytes);
        #[cfg(not(feature = "sanitizer"))]
        ALLOCATOR.set_limit(usize::MAX).ok();
    }
);
