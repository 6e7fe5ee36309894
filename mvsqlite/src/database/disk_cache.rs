//! Pages kept on disk, over restarts and for other processes (`MVSQLITE_DISK_CACHE`).
//!
//! One file per namespace, named by a hash of its key: pages that are all as they are at one version,
//! to which the page cache of some process had followed them. A process that opens the namespace takes
//! the file's rows into its own page cache as entries good through that version, and tells the server so
//! at `begin`: what changed since stops being good, the rest is good further on, exactly as for pages
//! in memory. A page is read from the file when it is wanted.
//!
//! Invariants:
//! - a file is never changed: it is written beside and renamed, and whoever has it open goes on
//!   reading what it was;
//! - nothing read is believed without its checksum, which covers where it belongs; a file of another
//!   user's, or that others may write, is not read at all;
//! - whatever goes wrong is a miss. Nothing here reports an error to anybody.
//!
//! Nothing is synced: what a crash leaves of a file does not have its checksums.

mod format;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use mvsqlite_protocol::page::{MAX_PAGE_SIZE, MIN_PAGE_SIZE};
use mvsqlite_protocol::{NamespaceKey, PageIndex, Version};
use xxhash_rust::xxh3::xxh3_128;

use super::cache::Identity;
use format::{HEADER, Header, ROW, Row, page_checksum};

/// The ends of the names of finished files and of those being written.
const FINISHED: &str = "mvpages";
const UNFINISHED: &str = "tmp";
/// After this time nobody is still writing a file.
const ABANDONED: Duration = Duration::from_secs(600);
/// Most pages of one file: their rows are read when a namespace is opened.
const MOST_PAGES: u32 = 1 << 20;

/// The disk cache of a process.
#[derive(Debug)]
pub(crate) struct DiskCache {
    directory: PathBuf,
    /// Most bytes of all files together.
    budget: u64,
    /// Tells the files that this process writes at once apart.
    written: AtomicU64,
}

/// A file that is open for reading.
#[derive(Debug)]
pub(crate) struct SavedPages {
    file: File,
    header: Header,
    rows: Vec<Row>,
}

/// A page in a file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pages: Arc<SavedPages>,
    row: usize,
}

/// A page that is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Unsaved {
    pub(crate) page: PageIndex,
    pub(crate) from: Version,
    pub(crate) content: Source,
}

/// Where a page's content is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Memory(Arc<[u8]>),
    Disk(Stored),
}

impl Source {
    /// Size of the page, in bytes.
    fn size(&self) -> u32 {
        match self {
            Self::Memory(content) => u32::try_from(content.len()).unwrap_or(u32::MAX),
            Self::Disk(stored) => stored.pages.header.page_size,
        }
    }
}

impl Stored {
    /// The page, if it is what was written.
    pub(crate) fn read(&self) -> Option<Arc<[u8]>> {
        let row = self.pages.rows.get(self.row)?;
        let header = &self.pages.header;
        let size = header.page_size as usize;
        let begin = HEADER + ROW * self.pages.rows.len();
        let offset = begin as u64 + self.row as u64 * size as u64;
        let mut content = vec![0; size];
        self.pages.file.read_exact_at(&mut content, offset).ok()?;
        let checksum = page_checksum(header.identity, row.page, row.from, &content);
        (checksum == row.checksum).then(|| Arc::from(content))
    }
}

impl Stored {
    /// Whether this is the same place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pages, &other.pages) && self.row == other.row
    }

    fn row(&self) -> Option<&Row> {
        self.pages.rows.get(self.row)
    }

    fn checksum(&self) -> u64 {
        self.row().map_or(0, |row| row.checksum)
    }

    fn is_same(&self, identity: Identity, page: PageIndex, from: Version, page_size: u32) -> bool {
        let header = &self.pages.header;
        let same = |row: &Row| row.page == page && row.from == from;
        header.identity == identity && header.page_size == page_size && self.row().is_some_and(same)
    }
}

impl SavedPages {
    fn open(path: &Path) -> Option<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .ok()?;
        let about = file.metadata().ok()?;
        // Whoever else could have written it could make it say anything.
        let ours = about.uid() == nix::unistd::geteuid().as_raw() && about.mode() & 0o022 == 0;
        if !about.is_file() || !ours {
            return None;
        }
        let mut bytes = vec![0; HEADER];
        file.read_exact(&mut bytes).ok()?;
        let header = Header::decode(&bytes)?;
        let sizes = MIN_PAGE_SIZE..=MAX_PAGE_SIZE;
        if header.count > MOST_PAGES || !sizes.contains(&header.page_size) {
            return None;
        }
        bytes.resize(HEADER + ROW * header.count as usize, 0);
        file.read_exact(&mut bytes[HEADER..]).ok()?;
        let rows = header.rows(&bytes)?;
        if rows.iter().any(|row| row.from > header.version) {
            return None;
        }
        Some(Self { file, header, rows })
    }

    pub(crate) fn identity(&self) -> Identity {
        self.header.identity
    }

    /// The version at which all pages are as they stand here.
    pub(crate) fn version(&self) -> Version {
        self.header.version
    }

    /// The pages: which, from when on, and where.
    pub(crate) fn stored(
        self: &Arc<Self>,
    ) -> impl Iterator<Item = (PageIndex, Version, Stored)> + '_ {
        self.rows.iter().enumerate().map(|(at, row)| {
            let stored = Stored {
                pages: Arc::clone(self),
                row: at,
            };
            (row.page, row.from, stored)
        })
    }
}

impl DiskCache {
    /// A cache in a directory, which is made when it is needed.
    pub(crate) fn new(directory: PathBuf, budget: u64) -> Self {
        Self {
            directory,
            budget,
            written: AtomicU64::new(0),
        }
    }

    fn path(&self, key: &NamespaceKey) -> PathBuf {
        let name = xxh3_128(key.as_str().as_bytes());
        self.directory.join(format!("{name:032x}.{FINISHED}"))
    }

    /// What is kept of a namespace.
    pub(crate) fn load(&self, key: &NamespaceKey) -> Option<Arc<SavedPages>> {
        SavedPages::open(&self.path(key)).map(Arc::new)
    }

    /// Keeps these pages of a namespace as they are at this version, instead of those before: all that
    /// have the size of the first one, as far as there is room, the first ones first.
    pub(crate) fn save(
        &self,
        key: &NamespaceKey,
        identity: Identity,
        version: Version,
        pages: Vec<Unsaved>,
    ) -> Option<Arc<SavedPages>> {
        let page_size = pages.first()?.content.size();
        // One namespace leaves room for others.
        let room = self.budget / 2 / (u64::from(page_size) + ROW as u64);
        let most = usize::try_from(room.min(u64::from(MOST_PAGES))).ok()?;
        let path = self.path(key);
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let unfinished = path.with_extension(format!("{process}-{number}.{UNFINISHED}"));
        let mut made = DirBuilder::new();
        let _ = made.recursive(true).mode(0o700).create(&self.directory);
        let pages = pages.into_iter().take(most);
        let done = write(&unfinished, identity, version, page_size, pages)
            .and_then(|bytes| self.make_room(bytes, &path))
            .and_then(|()| std::fs::rename(&unfinished, &path));
        if done.is_err() {
            let _ = std::fs::remove_file(&unfinished);
            return None;
        }
        let saved = SavedPages::open(&path)?;
        // Another process may have been quicker by a moment: its file is as good as this one.
        (saved.identity() == identity && saved.version() == version).then(|| Arc::new(saved))
    }

    /// Removes what was abandoned, and the oldest files until so many bytes more fit in place of one
    /// file.
    fn make_room(&self, bytes: u64, replaced: &Path) -> io::Result<()> {
        let mut finished = Vec::new();
        let now = SystemTime::now();
        for entry in std::fs::read_dir(&self.directory)?.flatten() {
            let path = entry.path();
            let (Some(end), Ok(about)) = (path.extension(), entry.metadata()) else {
                continue;
            };
            let modified = about.modified().unwrap_or(now);
            if end == UNFINISHED {
                if now
                    .duration_since(modified)
                    .is_ok_and(|age| age > ABANDONED)
                {
                    let _ = std::fs::remove_file(&path);
                }
            } else if end == FINISHED && path != replaced {
                finished.push((modified, about.len(), path));
            }
        }
        finished.sort();
        let mut all = bytes + finished.iter().map(|(_, size, _)| size).sum::<u64>();
        for (_, size, path) in finished {
            if all <= self.budget {
                break;
            }
            std::fs::remove_file(path)?;
            all -= size;
        }
        Ok(())
    }
}

/// Writes a file that must not be there yet; returns its size.
fn write(
    path: &Path,
    identity: Identity,
    version: Version,
    page_size: u32,
    pages: impl Iterator<Item = Unsaved>,
) -> io::Result<u64> {
    let (rows, sources) = rows(identity, version, page_size, pages);
    let header = Header {
        identity,
        version,
        page_size,
        count: u32::try_from(rows.len()).map_err(io::Error::other)?,
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut file = io::BufWriter::with_capacity(1 << 20, file);
    let head = header.encode(&rows);
    file.write_all(&head)?;
    for source in &sources {
        match source {
            Source::Memory(content) => file.write_all(content)?,
            Source::Disk(stored) => match stored.read() {
                Some(content) => file.write_all(&content)?,
                // Zeros, which do not have the row's checksum: a miss there as it is here.
                None => file.write_all(&vec![0; page_size as usize])?,
            },
        }
    }
    file.into_inner().map_err(io::Error::other)?;
    Ok(head.len() as u64 + sources.len() as u64 * u64::from(page_size))
}

/// The rows of a file, and where their contents are.
fn rows(
    identity: Identity,
    version: Version,
    page_size: u32,
    pages: impl Iterator<Item = Unsaved>,
) -> (Vec<Row>, Vec<Source>) {
    let mut rows = Vec::new();
    let mut sources = Vec::new();
    for Unsaved {
        page,
        from,
        content,
    } in pages
    {
        let checksum = match &content {
            Source::Memory(content) if content.len() == page_size as usize => {
                page_checksum(identity, page, from, content)
            }
            // The same page of the same namespace: the checksum is the same, too.
            Source::Disk(stored) if stored.is_same(identity, page, from, page_size) => {
                stored.checksum()
            }
            _ => continue,
        };
        if from <= version {
            rows.push(Row {
                page,
                from,
                checksum,
            });
            sources.push(content);
        }
    }
    (rows, sources)
}

#[cfg(test)]
mod tests;
