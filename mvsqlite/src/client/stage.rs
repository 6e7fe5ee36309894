//! Uploading pages, without a copy of them besides the request's body.

use mvsqlite_protocol::v2::{self, StageReply};
use mvsqlite_protocol::{
    Incarnation, NamespaceId, NamespaceKey, PageIndex, PageSet, ReadVersion, StageId,
};
use serde::Serialize;
use serde_bytes::Bytes;

use super::DataPlane;
use super::data_plane::decode;
use super::error::CallError;

/// What a page takes in a request besides its content, in bytes, at most.
const PAGE_HEAD: usize = 32;

/// A [`v2::StageRequest`] whose pages are borrowed.
#[derive(Debug, Serialize)]
pub(crate) struct StageUpload<'a> {
    pub(crate) namespace: NamespaceId,
    pub(crate) read_version: ReadVersion,
    pub(crate) stage: Option<StageId>,
    pub(crate) pages: Vec<StagePage<'a>>,
    pub(crate) unstage: &'a PageSet,
    pub(crate) incarnation: Option<Incarnation>,
}

/// A [`mvsqlite_protocol::PageData`] whose content is borrowed.
#[derive(Debug, Serialize)]
pub(crate) struct StagePage<'a> {
    pub(crate) index: PageIndex,
    pub(crate) data: &'a Bytes,
}

impl StageUpload<'_> {
    fn encode(&self) -> Result<Vec<u8>, CallError> {
        let pages: usize = self
            .pages
            .iter()
            .map(|page| page.data.len() + PAGE_HEAD)
            .sum();
        let mut body = Vec::with_capacity(pages + 512 + 16 * self.unstage.runs().len());
        rmp_serde::encode::write_named(&mut body, self).map_err(|error| {
            CallError::BadReply(format!("a request could not be encoded: {error}"))
        })?;
        Ok(body)
    }
}

impl DataPlane {
    /// Adds pages to a stage, or drops some. Sending a batch twice does no harm: a page that is
    /// staged again is replaced, and a stage whose making was not answered is left to expire.
    pub(crate) fn stage(
        &self,
        key: &NamespaceKey,
        upload: &StageUpload<'_>,
    ) -> Result<StageReply, CallError> {
        self.call_encoded(&v2::path(key, "stage"), &upload.encode()?, decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvsqlite_protocol::{PageData, Version};
    use serde_bytes::ByteBuf;

    #[test]
    fn an_upload_has_the_bytes_of_the_request_that_the_protocol_describes() {
        let (first, second) = (vec![7; 700], vec![8; 512]);
        let unstage: PageSet = [3, 4, 9].into_iter().collect();
        let namespace = NamespaceId::from(Version::new(5, 1));
        let stage = Some(StageId::from_bytes([6; 16]));
        let incarnation = Some(Incarnation::from_bytes([2; 8]));
        let owned = v2::StageRequest {
            namespace,
            read_version: ReadVersion(77),
            stage,
            pages: [(1, &first), (70_000, &second)]
                .map(|(index, data)| PageData {
                    index,
                    data: ByteBuf::from(data.clone()),
                })
                .into(),
            unstage: unstage.clone(),
            incarnation,
        };
        let borrowed = StageUpload {
            namespace,
            read_version: ReadVersion(77),
            stage,
            pages: [(1, &first), (70_000, &second)]
                .map(|(index, data)| StagePage {
                    index,
                    data: Bytes::new(data),
                })
                .into(),
            unstage: &unstage,
            incarnation,
        };
        assert_eq!(borrowed.encode().unwrap(), v2::encode(&owned).unwrap());
    }
}
