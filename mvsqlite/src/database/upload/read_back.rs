//! Reading a transaction's own staged pages.

use std::ops::Range;
use std::sync::Arc;

use mvsqlite_protocol::v2::ReadRequest;
use mvsqlite_protocol::{PageIndex, PageSet, StageId};

use super::Page;
use crate::database::error::Cause;
use crate::database::remote::Remote;
use crate::database::snapshot::Snapshot;

impl Remote {
    /// Pages of the transaction's own stage; perhaps not all of them, but the first.
    pub(super) fn staged(
        &self,
        snapshot: &Snapshot,
        stage: StageId,
        pages: PageSet,
    ) -> Result<Vec<Page>, Cause> {
        let request = ReadRequest {
            namespace: snapshot.identity.namespace,
            version: snapshot.version,
            read_version: snapshot.read_version,
            pages,
            incarnation: Some(snapshot.identity.incarnation),
            stage: Some(stage),
        };
        let images = self.env.plane().read(&self.key, &request)?;
        let content = images.into_iter().map(|image| match image.data {
            Some(data) => Ok((image.index, Arc::from(data.into_vec()))),
            None => Err(Cause::StageDiffers { page: image.index }),
        });
        content.collect()
    }
}

/// How far a read goes beyond the page asked for: an index that is made of a table just filled
/// reads it from its beginning to its end.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The first page behind the last window, and its size.
    next: PageIndex,
    pages: u32,
}

/// How far a scan may skip: interior pages lie between the leaves.
const SKIP: u32 = 4;

impl Window {
    /// The pages to be read with this one, at most `most` of them.
    pub(super) fn from(&mut self, index: PageIndex, most: u32) -> Range<PageIndex> {
        let continues = index >= self.next && index - self.next <= SKIP;
        self.pages = match continues {
            true => self.pages.saturating_mul(2).clamp(1, most.max(1)),
            false => 1,
        };
        self.next = index.saturating_add(self.pages);
        index..self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_doubles_its_window_and_a_point_read_has_none() {
        let mut window = Window::default();
        assert_eq!(window.from(10, 5), 10..11);
        assert_eq!(window.from(11, 5), 11..13);
        assert_eq!(window.from(14, 5), 14..18);
        assert_eq!(window.from(18, 5), 18..23);
        assert_eq!(window.from(90, 5), 90..91);
        assert_eq!(window.from(7, 0), 7..8);
    }
}
