//! A namespace at a version: what a transaction reads.

use std::sync::Arc;

use mvsqlite_protocol::v2::Limits;
use mvsqlite_protocol::{ReadVersion, Version};

use super::cache::Identity;
use super::page1;

/// A namespace at a version.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) identity: Identity,
    pub(super) version: Version,
    /// The largest read version the server gave for it.
    pub(super) read_version: ReadVersion,
    /// What is there; `None` while the namespace is empty.
    pub(super) content: Option<Header>,
    pub(super) limits: Limits,
}

/// What page 1 says, and page 1.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// In bytes: a power of two that can be stored.
    pub(super) page_size: u32,
    /// Size of the file in pages, at least one.
    pub(super) page_count: u32,
    /// In stored form, `page_size` bytes.
    pub(super) page1: Arc<[u8]>,
}

impl Header {
    pub(super) fn new(page1: Arc<[u8]>, page_size: u32) -> Self {
        Self {
            page_size,
            page_count: page1::page_count(&page1).max(1),
            page1,
        }
    }

    /// Bytes of a page that SQLite uses: its end may be reserved for extensions.
    pub(super) fn usable(&self) -> usize {
        (self.page_size as usize).saturating_sub(page1::reserved(&self.page1))
    }

    fn size(&self) -> u64 {
        u64::from(self.page_size) * u64::from(self.page_count)
    }
}

impl Snapshot {
    pub(super) fn page_size(&self) -> Option<u32> {
        self.content.as_ref().map(|header| header.page_size)
    }

    pub(super) fn page_count(&self) -> u32 {
        self.content.as_ref().map_or(0, |header| header.page_count)
    }

    /// Size of the file, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.content.as_ref().map_or(0, Header::size)
    }
}
