//! Chooses, opens and closes the engine. The only place outside `kv` that knows which ones there
//! are.

use std::sync::Arc;

use tokio::task::{JoinError, spawn_blocking};

use crate::config::Storage;
use crate::kv::Engine;
use crate::kv::embedded::{self, EmbeddedEngine, EmbeddedOptions};
use crate::kv::foundationdb;
use crate::kv::memory::MemoryEngine;

/// The engine cannot be opened. One line: what, where, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The data directory cannot be served.
    #[error(transparent)]
    Embedded(#[from] embedded::OpenError),
    /// FoundationDB's client library or the cluster file cannot be used.
    #[error(transparent)]
    FoundationDb(#[from] foundationdb::OpenError),
    /// Opening it panicked; the log has the message.
    #[error("opening the engine failed: {0}")]
    Panic(#[from] JoinError),
}

/// An engine and how it is closed.
pub(super) enum Opened {
    Embedded(Arc<EmbeddedEngine>),
    /// Has nothing to close.
    Other(Arc<dyn Engine>),
}

impl Opened {
    /// FoundationDB with a cluster file, memory if asked for, else the embedded engine.
    pub(super) async fn open(storage: &Storage) -> Result<Self, EngineError> {
        if let Some(cluster) = storage.cluster.clone() {
            let engine = spawn_blocking(move || foundationdb::open(&cluster));
            return Ok(Self::Other(engine.await??));
        }
        if storage.in_memory {
            return Ok(Self::Other(Arc::new(MemoryEngine::new())));
        }
        let path = storage.data_dir.clone();
        let engine = spawn_blocking(|| EmbeddedEngine::open(path, EmbeddedOptions::default()));
        Ok(Self::Embedded(Arc::new(engine.await??)))
    }

    pub(super) fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Self::Embedded(engine) => Arc::clone(engine) as Arc<dyn Engine>,
            Self::Other(engine) => Arc::clone(engine),
        }
    }

    /// Waits until what was acknowledged lies in files that are closed.
    pub(super) async fn close(self) {
        if let Self::Embedded(engine) = self {
            // Closing does not fail; a panic is in the log.
            let _ = spawn_blocking(move || engine.close()).await;
        }
    }
}
