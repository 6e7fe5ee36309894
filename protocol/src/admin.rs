//! Bodies of the admin API as the original has it: unknown fields are ignored.

use serde::{Deserialize, Serialize};

use crate::v2::Concurrency;
use crate::version::{NamespaceId, Version};

/// `POST /api/create_namespace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateNamespace {
    /// The new key.
    pub key: String,
    /// Makes the new namespace a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_base: Option<OverlayBase>,
    /// How its writers keep out of each other's way; the original does not have it. `None`:
    /// optimistic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
}

/// What a fork is a fork of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayBase {
    /// The base's id, 20 hex digits.
    pub ns_id: String,
    /// The base's version, 20 hex digits.
    pub snapshot_version: String,
}

/// `POST /api/rename_namespace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameNamespace {
    /// The key it has.
    pub old_key: String,
    /// The key it shall have.
    pub new_key: String,
}

/// `POST /api/delete_namespace` and `/api/stat_namespace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceByKey {
    /// Which namespace.
    pub key: String,
}

/// `POST /api/truncate_namespace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TruncateNamespace {
    /// Which namespace.
    pub key: String,
    /// What is older than the newest commit at or below this goes: 20 hex digits.
    pub before_version: String,
    /// Otherwise it is only counted what would go.
    #[serde(default)]
    pub apply: bool,
}

/// `POST /api/delete_unreferenced_content`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteUnreferencedContent {
    /// Which namespace.
    pub key: String,
    /// Otherwise it is only counted what would go.
    #[serde(default)]
    pub apply: bool,
}

/// `POST /api/set_concurrency`, which the original does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetConcurrency {
    /// Which namespace.
    pub key: String,
    /// How its writers keep out of each other's way from now on.
    pub concurrency: Concurrency,
}

/// One line of `/api/list_namespace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedNamespace {
    /// Its id.
    pub nsid: NamespaceId,
    /// Its key.
    pub nskey: String,
}

/// Reply of `/api/stat_namespace`. The first three fields are the original's; the others are ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceStat {
    /// The original's metadata.
    pub metadata: NamespaceMetadata,
    /// Its id.
    pub nsid: NamespaceId,
    /// Its key.
    pub nskey: String,
    /// The version of its last commit, or its id.
    pub version: Version,
    /// Page size by its page 1, in bytes; 0 while it has no SQLite header.
    pub page_size: u32,
    /// Page count by its page 1.
    pub page_count: u32,
    /// Large commits and restores that are not worked off yet.
    #[serde(default)]
    pub layers: u32,
}

/// A namespace lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockMetadata {
    /// Tells it from other locks of the same owner: 32 hex digits.
    pub nonce: String,
    /// Whose it is.
    pub owner: String,
    /// Whether it is being rolled back.
    pub rolling_back: bool,
    /// What others than the owner see.
    pub snapshot_version: Version,
}

/// The original's namespace metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceMetadata {
    /// The namespace lock, if held.
    pub lock: Option<LockMetadata>,
    /// What it is a fork of.
    pub overlay_base: Option<OverlayBase>,
    /// Nothing below this version is kept.
    pub truncated_before: Option<Version>,
}
