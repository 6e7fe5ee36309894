//! The library that keeps the bytes, and the only file that names it: fjall, an LSM tree with a
//! journal, large values apart from the tree.
//!
//! What the rest of the engine relies on (read in its source, tried by `tests/kv_crash.rs`):
//! - A batch is written to the journal as one unit with a checksum, then fsynced, then put into the
//!   memtable, then published: nothing can be seen that is not durable, and nothing by halves.
//! - After a failed write or fsync it refuses every later batch before writing any of it. What the
//!   failed batch wrote may still turn up after a restart.
//! - Its recovery does not cope with a journal torn by a power loss; [`super::journal`] mends it
//!   beforehand.
//!
//! Keys are stored behind one byte: `0x00` the engine's own, `0x01` the user's (the library takes
//! no empty keys). All entries of a batch share one sequence number, so a batch must not name a key
//! twice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fjall::{
    AbstractTree, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
    Readable, Slice, Snapshot,
};

use super::EmbeddedOptions;
use super::directory::OpenError;
use crate::kv::{KeyRange, KvError, Pair};

const ENGINE: u8 = 0x00;
const USER: u8 = 0x01;

/// Under the engine's prefix: the highest commit version that may have been given out, 8 bytes,
/// big-endian.
const CEILING: &[u8] = b"\x00ceiling";

/// Smallest value kept apart from the tree, so that compaction does not copy it. A page is.
const SEPARATE_FROM_BYTES: u32 = 1 << 10;

/// A file of such values is rewritten when this part of it is no longer referred to, whatever its
/// age: page versions of any age are removed. (The library's own default spares the younger
/// three quarters of the files.) Measured in `docs/decisions/0001`.
const STALE_PART: f32 = 0.25;
const ANY_AGE: f32 = 1.0;
const VALUE_FILE_BYTES: u64 = 16 << 20;

/// Memtables on their way to tables; the library waits from 4 on.
const MOST_SEALED: usize = 3;

/// Runs of tables that no compaction has taken up; the library waits from 30 on.
const MOST_UNSORTED: usize = 24;

const BACKGROUND_POLL: Duration = Duration::from_millis(1);

/// An open database.
pub(super) struct Library {
    database: Database,
    data: Keyspace,
}

/// The content as of one batch; what is written later is not seen.
#[derive(Clone)]
pub(super) struct View {
    data: Keyspace,
    snapshot: Arc<Snapshot>,
}

/// What a batch leaves under each key; `None` removes it.
pub(super) type Contents = std::collections::BTreeMap<Vec<u8>, Option<Bytes>>;

/// Why a batch was not written, or perhaps was.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Refused before the first byte.
    Refused(String),
    /// Failed on the way: some or all of it may be found after a restart.
    Unknown(String),
}

impl Library {
    /// Opens what is there or makes it. The caller holds the directory's lock.
    pub(super) fn open(path: &Path, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let opened = catch_unwind(AssertUnwindSafe(|| Self::try_open(path, options)));
        match opened {
            Ok(Ok(library)) => Ok(library),
            Ok(Err(
                fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)),
            )) => Err(OpenError::Io {
                doing: "opening the database in",
                path: path.to_owned(),
                source,
            }),
            Ok(Err(fjall::Error::Locked)) => Err(OpenError::InUse {
                path: path.to_owned(),
            }),
            Ok(Err(error)) => Err(OpenError::corrupt(path, error.to_string())),
            // It asserts what it expects of its files.
            Err(_) => Err(OpenError::corrupt(
                path,
                "the files are not as the storage library left them",
            )),
        }
    }

    fn try_open(path: &Path, options: &EmbeddedOptions) -> fjall::Result<Self> {
        let database = Database::builder(path)
            .cache_size(options.cache_bytes)
            .open()?;
        let data = database.keyspace("data", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .with_kv_separation(Some(
                    KvSeparationOptions::default()
                        .separation_threshold(SEPARATE_FROM_BYTES)
                        .file_target_size(VALUE_FILE_BYTES)
                        .staleness_threshold(STALE_PART)
                        .age_cutoff(ANY_AGE),
                ))
        })?;
        Ok(Self { database, data })
    }

    /// What is durable now.
    pub(super) fn view(&self) -> View {
        View {
            data: self.data.clone(),
            snapshot: Arc::new(self.database.snapshot()),
        }
    }

    /// Writes user keys, and the ceiling if there is a new one; durable and visible on return.
    pub(super) fn write(&self, contents: Contents, ceiling: Option<u64>) -> Result<(), WriteError> {
        let written = catch_unwind(AssertUnwindSafe(|| self.try_write(contents, ceiling)));
        // A panic may come behind the write. Whoever waits for the batch has to be told.
        written.unwrap_or_else(|_| {
            Err(WriteError::Unknown(
                "the storage library panicked".to_owned(),
            ))
        })
    }

    fn try_write(&self, contents: Contents, ceiling: Option<u64>) -> Result<(), WriteError> {
        self.wait_for_background()?;
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (key, value) in contents {
            let key = stored_key(&key);
            match value {
                Some(value) => batch.insert(&self.data, key, value),
                None => batch.remove(&self.data, key),
            }
        }
        if let Some(ceiling) = ceiling {
            batch.insert(&self.data, CEILING, ceiling.to_be_bytes());
        }
        batch.commit().map_err(|error| match error {
            fjall::Error::Poisoned => WriteError::background(),
            error => WriteError::Unknown(error.to_string()),
        })
    }

    /// Waits while too much is on its way from memory to tables, or lies there unsorted.
    ///
    /// The library waits too, after each batch and a little later; but it goes on waiting for a
    /// background that has died of an error, and the commit would never be answered.
    fn wait_for_background(&self) -> Result<(), WriteError> {
        let tree = &self.data.tree;
        while tree.sealed_memtable_count() >= MOST_SEALED || tree.l0_run_count() >= MOST_UNSORTED {
            // Nothing is buffered: this only asks whether it has stopped.
            self.database
                .persist(PersistMode::Buffer)
                .map_err(|_| WriteError::background())?;
            std::thread::sleep(BACKGROUND_POLL);
        }
        Ok(())
    }
}

impl WriteError {
    fn background() -> Self {
        Self::Refused("the storage library stopped after an error in the background".to_owned())
    }
}

impl View {
    /// The ceiling last written; `None` before the first.
    pub(super) fn ceiling(&self) -> Result<Option<u64>, KvError> {
        let Some(stored) = self.snapshot.get(&self.data, CEILING).map_err(reading)? else {
            return Ok(None);
        };
        let bytes = stored[..].try_into().map_err(|_| KvError::Corrupt {
            reason: format!("the version ceiling has {} bytes, not 8", stored.len()),
        })?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.snapshot.get(&self.data, stored_key(key));
        Ok(value.map_err(reading)?.map(Bytes::from))
    }

    pub(super) fn get_range(
        &self,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, KvError> {
        let guards = self.range(range);
        let pair = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(reading)?;
            Ok((user_key(key), Bytes::from(value)))
        };
        if reverse {
            guards.rev().take(limit).map(pair).collect()
        } else {
            guards.take(limit).map(pair).collect()
        }
    }

    /// The keys of a range, without reading their values.
    pub(super) fn keys(
        &self,
        range: &KeyRange,
    ) -> impl Iterator<Item = Result<Vec<u8>, KvError>> + use<> {
        self.range(range).map(|guard| {
            let key = guard.key().map_err(reading)?;
            Ok(user_key(key).to_vec())
        })
    }

    fn range(&self, range: &KeyRange) -> fjall::Iter {
        self.snapshot
            .range(&self.data, stored_key(&range.begin)..stored_key(&range.end))
    }
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + key.len());
    stored.push(USER);
    stored.extend_from_slice(key);
    stored
}

fn user_key(stored: Slice) -> Bytes {
    Bytes::from(stored).slice(1..)
}

fn reading(error: fjall::Error) -> KvError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            KvError::Unavailable {
                reason: format!("reading failed: {error}; look at the disk and the kernel's log"),
            }
        }
        error => KvError::Corrupt {
            reason: error.to_string(),
        },
    }
}

const _: () = assert!(CEILING[0] == ENGINE && ENGINE < USER);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_stored_as_these_bytes() {
        assert_eq!(stored_key(b"key"), b"\x01key");
        assert_eq!(stored_key(b""), b"\x01");
        assert_eq!(user_key(Slice::from(b"\x01key")), b"key"[..]);
        assert_eq!(CEILING, b"\x00ceiling");
    }

    #[test]
    fn the_ceiling_is_stored_as_eight_bytes_big_endian() {
        let home = tempfile::tempdir().unwrap();
        let library = Library::open(home.path(), &EmbeddedOptions::default()).unwrap();
        assert_eq!(library.view().ceiling(), Ok(None));
        library.write(Contents::new(), Some(1_000_000)).unwrap();
        assert_eq!(library.view().ceiling(), Ok(Some(1_000_000)));
        let stored = library.data.get(b"\x00ceiling").unwrap().unwrap();
        assert_eq!(stored[..], [0, 0, 0, 0, 0, 0x0f, 0x42, 0x40]);
    }
}
