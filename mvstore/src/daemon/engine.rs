//! Chooses and opens the engine. The only place outside `kv` that knows which engines there are.

use std::sync::Arc;

use crate::config::Storage;
use crate::kv::Engine;
use crate::kv::memory::MemoryEngine;

/// The engine cannot be opened. One line: what, where, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// This build does not have it.
    #[error("the {0} engine is not in this build")]
    NotBuilt(&'static str),
}

/// FoundationDB with a cluster file, memory if asked for, else the embedded engine.
pub(super) async fn open(storage: &Storage) -> Result<Arc<dyn Engine>, EngineError> {
    if storage.cluster.is_some() {
        return Err(EngineError::NotBuilt("FoundationDB"));
    }
    if storage.in_memory {
        return Ok(Arc::new(MemoryEngine::new()));
    }
    Err(EngineError::NotBuilt("embedded"))
}
