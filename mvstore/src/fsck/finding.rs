//! What a check can find: kinds, how bad each is, what it means, what to do.

use std::fmt;

use mvsqlite_protocol::{NamespaceId, PageIndex, Version};
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Space is taken up in vain; nothing else.
    Leftover,
    /// Something that this build does not understand, or that stops work in the background.
    Unknown,
    /// Data is wrong, missing or out of reach.
    Corrupt,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leftover => "leftover",
            Self::Unknown => "unknown",
            Self::Corrupt => "corrupt",
        })
    }
}

/// Declares the kinds with their names, severities and meanings, in one table.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $severity:ident $meaning:literal;)*) => {
        /// A kind of finding. Its name is part of the output that scripts read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name, in lower case and with hyphens.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$kind => Severity::$severity,)* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning,)* }
            }
        }
    };
}

kinds! {
    // ---- the store ----
    /// A key under the store's prefixes that is none of its keys.
    UnknownKey "unknown-key" Unknown "a newer mvstore or another program wrote under the store's prefixes";
    /// A namespace of a newer format generation.
    NewerFormat "newer-format" Unknown "a newer mvstore wrote this namespace; this build cannot judge it";
    /// A value that does not decode.
    BadValue "bad-value" Corrupt "the value is not what the store writes there";
    /// The record of format and incarnation is gone.
    FormatMissing "format-missing" Corrupt "the next server to start takes the store for a new one, with another incarnation";
    /// The high-water mark is not the version of the newest time record.
    HighWaterWrong "high-water-wrong" Corrupt "a store that went back behind its data may not be noticed";
    /// Time records do not ascend, or lie in the future of the engine.
    TimeDisorder "time-disorder" Corrupt "moments named by a time may resolve to the wrong version";
    /// An expiry entry lies in another bucket than its name says.
    ExpiryMisplaced "expiry-misplaced" Unknown "collection finds the entry again and again and never clears it";
    /// Metadata of a namespace that does not exist.
    MetadataOfNobody "metadata-of-nobody" Leftover "the namespace that it belongs to is gone";

    // ---- catalog and guards ----
    /// A catalog entry without a guard.
    GuardMissing "guard-missing" Corrupt "the namespace cannot be opened";
    /// A catalog entry of a namespace that is deleted.
    NamedButDeleted "named-but-deleted" Corrupt "the name is taken by a namespace that cannot be opened";
    /// A living namespace that no catalog entry names.
    Nameless "nameless" Corrupt "nobody can open the namespace";
    /// Two catalog entries for one namespace.
    NamedTwice "named-twice" Corrupt "two names open one namespace, and deleting one takes it from the other";
    /// Keys of a namespace that has no guard.
    KeysOfNobody "keys-of-nobody" Leftover "no namespace has this id, and nothing will remove its keys";
    /// A deleted namespace that is not queued for removal.
    DeletionUnqueued "deletion-unqueued" Leftover "the deleted namespace is never removed";
    /// A namespace queued for removal that is not deleted.
    QueuedAlive "queued-alive" Unknown "removal stops at this entry, and deleted namespaces are not removed";
    /// A hidden namespace without forks.
    HiddenWithoutForks "hidden-without-forks" Leftover "it was kept for its forks, has none, and is never removed";
    /// A horizon outside the namespace's history.
    HorizonWrong "horizon-wrong" Corrupt "the oldest version kept is no version of the namespace";
    /// A guard with a lock and no record of it.
    LockWithoutRecord "lock-without-record" Corrupt "commits are refused and the lock cannot be given back";
    /// A lock's record that no guard names.
    LockLeftBehind "lock-left-behind" Leftover "the lock was given back";
    /// A write lease without a term of its own.
    LeaseWithoutTerm "lease-without-term" Unknown "the lease counts as over; its holder may not know";

    // ---- forks ----
    /// A fork that is not on its base's list.
    ForkUnlisted "fork-unlisted" Corrupt "what the fork reads of its base may be collected or deleted";
    /// An entry on the list of forks whose fork is gone, or has another base.
    ForkDangling "fork-dangling" Leftover "the base is kept for a fork that does not exist";
    /// A fork whose base is gone.
    BaseMissing "base-missing" Corrupt "pages that the fork did not write itself cannot be read";
    /// A fork whose ancestors are not those of its base.
    AncestryWrong "ancestry-wrong" Corrupt "pages of the fork may be looked for in the wrong namespace";
    /// A base that an older server might write to.
    BaseUnprotected "base-unprotected" Unknown "a server of an older format might delete what the fork needs";

    // ---- changelog ----
    /// The head is not the newest changelog entry.
    HeadWrong "head-wrong" Corrupt "readers begin at a version that is not the newest commit";
    /// A changelog entry with chunks missing or too many.
    ChangelogTorn "changelog-torn" Corrupt "what the commit changed is not known; commits based below it fail";
    /// No changelog entry at a version that must have one.
    ChangelogMissing "changelog-missing" Corrupt "the version is no longer known as a commit";
    /// A changelog entry that contradicts itself.
    ChangelogWrong "changelog-wrong" Corrupt "conflicts with this commit may not be noticed";

    // ---- pages ----
    /// A page version that does not have its checksum.
    PageDamaged "page-damaged" Corrupt "the page cannot be read at this version and those that follow it";
    /// A page that the changelog lists without a version of it.
    PageMissing "page-missing" Corrupt "reads at this version return older content of the page";
    /// A page version that no changelog entry lists.
    PageUnlisted "page-unlisted" Corrupt "clients that hold older content do not learn of the change";
    /// A page version outside the namespace's history.
    PageOutOfHistory "page-out-of-history" Corrupt "it lies before the namespace's creation or above its newest commit";

    // ---- stages and layers ----
    /// A page refers to staged content that is not there.
    StagedMissing "staged-missing" Corrupt "the page cannot be read at this version and those that follow it";
    /// Staged content that two page versions refer to.
    StagedShared "staged-shared" Corrupt "collecting one page version takes the content from the other";
    /// Staged content that is not what its sum says.
    StagedDamaged "staged-damaged" Corrupt "the page cannot be read, or its transaction cannot commit";
    /// Staged content that nothing refers to.
    StagedUnreferenced "staged-unreferenced" Leftover "no page version needs the content and nothing will remove it";
    /// A stage without a record.
    StageMissing "stage-missing" Corrupt "the record of the stage is gone; truncation and commits that need it stop";
    /// A stage in another state than what refers to it needs.
    StageStateWrong "stage-state-wrong" Corrupt "content that a commit refers to may be collected";
    /// A stage whose count, sum or page size is not that of its pages.
    StageCountWrong "stage-count-wrong" Corrupt "the transaction that fills the stage cannot commit";
    /// The record of a committed stage without pages.
    StageEmpty "stage-empty" Leftover "the record of a stage whose pages are all gone";
    /// A layer that lies outside the namespace's history or shares its stage.
    LayerWrong "layer-wrong" Corrupt "pages that the layer shows may be wrong";
    /// A layer that is not in the work queue.
    LayerUnqueued "layer-unqueued" Unknown "the layer is not folded; large commits may be refused in the end";
    /// A work queue entry without its layer.
    LayerQueuedInVain "layer-queued-in-vain" Leftover "the layer was folded or never made";

    // ---- outcomes, uploads, expiry, usage ----
    /// An outcome that is no possible one.
    OutcomeWrong "outcome-wrong" Corrupt "a commit's retry may get the wrong answer";
    /// Something that must expire and has no entry in the expiry index.
    NeverExpires "never-expires" Leftover "nothing will remove it";
    /// Uploaded content that does not have its hash.
    UploadDamaged "upload-damaged" Corrupt "a commit that names the content by its hash is refused";
    /// A piece of an upload without the rest.
    UploadIncomplete "upload-incomplete" Leftover "nothing will remove it";
    /// A usage counter that is not what is there.
    UsageWrong "usage-wrong" Corrupt "quotas and bills go by a wrong figure";

    // ---- SQLite ----
    /// Page 1 or a b-tree page that SQLite would not take.
    SqliteImplausible "sqlite-implausible" Corrupt "SQLite will report this database as malformed";
}

impl Kind {
    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self.severity() {
            Severity::Leftover => "nothing has to be done",
            Severity::Unknown => "check with the newest mvstore; if it stays, report it",
            Severity::Corrupt => {
                "export what can still be read, restore from a backup, check the disk, report it"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that is not as it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The namespace's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The namespace's id: 20 hex digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
    /// The page, counted from 1 as SQLite does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub page: Option<u64>,
    /// The version: 20 hex digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// The key that is wrong or missing, for people.
    pub key: String,
    /// What was found there.
    pub detail: String,
}

impl Finding {
    /// A finding at a key.
    pub(super) fn new(kind: Kind, key: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind,
            severity: kind.severity(),
            name: None,
            namespace: None,
            page: None,
            version: None,
            key: key.into(),
            detail: detail.into(),
        }
    }

    pub(super) fn of(mut self, id: NamespaceId) -> Self {
        self.namespace = Some(id.to_string());
        self
    }

    pub(super) fn page(mut self, index: PageIndex) -> Self {
        self.page = Some(u64::from(index) + 1);
        self
    }

    pub(super) fn version(mut self, version: Version) -> Self {
        self.version = Some(version.to_string());
        self
    }

    /// Whether both say that the same thing is wrong at the same place. What was found there may
    /// change while the store is in use.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.key == other.key && self.namespace == other.namespace
    }
}

/// One line: severity, kind, place, what was found, what it means and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.severity, self.kind)?;
        match (&self.name, &self.namespace) {
            (Some(name), Some(id)) => write!(f, "'{}' ({id}), ", name.escape_debug())?,
            (None, Some(id)) => write!(f, "namespace {id}, ")?,
            _ => (),
        }
        let (meaning, advice) = (self.kind.meaning(), self.kind.advice());
        write!(f, "{}: {}; {meaning}; {advice}", self.key, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_differ_and_are_what_json_says() {
        let names: HashSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let json = serde_json::to_string(kind).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.name()));
        }
    }

    #[test]
    fn a_finding_names_its_place_for_people_and_for_programs() {
        let finding = Finding::new(Kind::PageMissing, "page 3", "listed, not there")
            .of(NamespaceId::from_bytes([1; 10]))
            .page(2);
        assert_eq!(
            finding.to_string(),
            "corrupt page-missing: namespace 01010101010101010101, page 3: listed, not there; reads at \
             this version return older content of the page; export what can still be read, restore \
             from a backup, check the disk, report it"
        );
        assert_eq!(
            serde_json::to_string(&finding).unwrap(),
            r#"{"kind":"page-missing","severity":"corrupt","namespace":"01010101010101010101","page":3,"key":"page 3","detail":"listed, not there"}"#
        );
    }
}
