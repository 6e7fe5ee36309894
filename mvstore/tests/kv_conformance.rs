//! The engines of this crate against the key-value contract.

#[path = "conformance/suite.rs"]
mod conformance;

use std::sync::Arc;
use std::time::Duration;

use mvstore::kv::clock::ManualClock;
use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions};
use mvstore::kv::memory::{MemoryEngine, MemoryOptions};
use mvstore::kv::{Engine, Limits};

#[test]
fn the_memory_engine_keeps_the_contract() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    conformance::check_engine(&engine, 500);
}

#[test]
fn the_memory_engine_keeps_the_contract_under_foundationdbs_limits() {
    let clock = Arc::new(ManualClock::default());
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::with_options(MemoryOptions {
        limits: Limits::FOUNDATIONDB,
        clock: clock.clone(),
        ..MemoryOptions::default()
    }));
    conformance::check_engine(&engine, 100);
    conformance::check_too_old(&engine, || clock.advance(Duration::from_millis(5_001)));
    conformance::check_engine(&engine, 10);
}

#[test]
fn a_restarted_memory_engine_keeps_its_content() {
    let engine = MemoryEngine::new();
    let shared = engine.clone();
    conformance::check_reopened(
        move |engine| {
            shared.restart();
            engine
        },
        Arc::new(engine),
    );
}

#[test]
fn the_embedded_engine_keeps_the_contract() {
    let home = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let options = EmbeddedOptions {
        clock: clock.clone(),
        ..EmbeddedOptions::default()
    };
    let engine = EmbeddedEngine::open(home.path(), options.clone()).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(engine);
    conformance::check_engine(&engine, 60);
    conformance::check_too_old(&engine, || {
        clock.advance(options.limits.transaction_age + Duration::from_millis(1));
    });
}

#[test]
fn the_embedded_engine_keeps_the_contract_under_foundationdbs_limits() {
    let home = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        limits: Limits::FOUNDATIONDB,
        ..EmbeddedOptions::default()
    };
    let engine: Arc<dyn Engine> = Arc::new(EmbeddedEngine::open(home.path(), options).unwrap());
    conformance::check_engine(&engine, 10);
}

#[test]
fn a_reopened_embedded_engine_keeps_its_content() {
    let home = tempfile::tempdir().unwrap();
    let open = || EmbeddedEngine::open(home.path(), EmbeddedOptions::default());
    let first = Arc::new(open().unwrap());
    let closing = first.clone();
    conformance::check_reopened(
        move |_| {
            closing.close();
            Arc::new(open().unwrap())
        },
        first,
    );
}
