//! What a commit is asked to do, whichever protocol it came by.

use mvsqlite_protocol::v1::PageHash;
use mvsqlite_protocol::v2::{CommitRequest, GroupCommitRequest, GroupMember, StageRef};
use mvsqlite_protocol::{
    IdempotencyKey, LeaseNonce, NamespaceId, NamespaceKey, PageData, PageIndex, PageSet,
    ReadVersion, Version,
};

/// A commit of one namespace or several: all or none, at one version.
#[derive(Debug)]
pub(crate) struct Commit {
    /// Drawn by the client for this commit; the same for each sending of it.
    pub key: IdempotencyKey,
    /// An earlier sending may still be under way, or done.
    pub retry: bool,
    /// The largest read version its client was given; zero where the protocol knows none.
    pub read_version: ReadVersion,
    /// Who its client says holds the namespace locks of all of them; `None`: it knows of no lock.
    pub lock_owner: Option<String>,
    /// 1 to [`mvsqlite_protocol::v2::MAX_GROUP`] namespaces, each once; one is written at least.
    pub members: Vec<Member>,
}

/// One namespace's part of a commit.
#[derive(Debug)]
pub(crate) struct Member {
    /// The key its client knows it by.
    pub ns: NamespaceKey,
    /// Its id; the commit is refused if the key names another one by now.
    pub id: NamespaceId,
    /// The snapshot that was read.
    pub base: Version,
    /// What others must not have changed since.
    pub rule: ConflictRule,
    /// Whether it gets a new version.
    pub effect: Effect,
    /// Whose rules its pages follow.
    pub dialect: Dialect,
    /// Pages written with their content, each index once.
    pub pages: Vec<PageData>,
    /// Pages written that were staged before, none of them in `pages`.
    pub stage: Option<StageRef>,
    /// The write lease that its client holds. The commit gives it back.
    pub lease: Option<LeaseNonce>,
    /// Of the pages written with their content, those that protocol v1 may name by their hash
    /// afterwards.
    pub noted: Vec<(PageIndex, PageHash)>,
}

/// What others must not have changed since the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConflictRule {
    /// Some pages.
    Pages {
        /// Pages that were read.
        read: PageSet,
        /// Pages that were written count as read, and page 1 is always judged, by its class.
        /// Otherwise blind writes win, and page 1 is judged (by its class) only if it was read.
        written_count_as_read: bool,
    },
    /// Anything at all.
    Whole,
}

/// Whether a namespace of a commit gets a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It was only read: its conflict rule is checked, and that is all. Locks and leases of others
    /// do not matter to it.
    Read,
    /// It gets the commit's version, even if no page was written.
    Write,
}

/// Whose rules a namespace's part of a commit follows.
///
/// | | `V2` | `V1` |
/// |---|---|---|
/// | base | a commit of the namespace, or its id | any version up to the head; above it is a conflict |
/// | base below the horizon | refused | a conflict if anything was committed since |
/// | page 1 | left out if only its counters changed | stored as it comes |
/// | sizes of pages | as page 1 says | any |
/// | a smaller page count | cuts pages off | means nothing |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Our own clients.
    V2,
    /// The original's clients.
    V1,
}

impl Member {
    /// Whether it gets a new version.
    pub(super) fn is_written(&self) -> bool {
        self.effect == Effect::Write
    }
}

impl Commit {
    /// The commit of one namespace. It makes a version even if no page was written.
    pub(super) fn of_one(ns: &NamespaceKey, request: CommitRequest) -> Self {
        Self {
            key: request.key,
            retry: request.retry,
            read_version: request.read_version,
            lock_owner: None,
            members: vec![Member {
                ns: ns.clone(),
                id: request.namespace,
                base: request.base,
                rule: rule_of_v2(request.read),
                effect: Effect::Write,
                dialect: Dialect::V2,
                pages: request.pages,
                stage: request.stage,
                lease: request.lease,
                noted: Vec::new(),
            }],
        }
    }
}

impl From<GroupCommitRequest> for Commit {
    fn from(request: GroupCommitRequest) -> Self {
        Self {
            key: request.key,
            retry: request.retry,
            read_version: request.read_version,
            lock_owner: None,
            members: request.members.into_iter().map(Member::from).collect(),
        }
    }
}

impl From<GroupMember> for Member {
    fn from(member: GroupMember) -> Self {
        let effect = if member.pages.is_empty() && member.stage.is_none() {
            Effect::Read
        } else {
            Effect::Write
        };
        Self {
            ns: member.ns,
            id: member.namespace,
            base: member.base,
            rule: rule_of_v2(member.read),
            effect,
            dialect: Dialect::V2,
            pages: member.pages,
            stage: member.stage,
            lease: member.lease,
            noted: Vec::new(),
        }
    }
}

fn rule_of_v2(read: PageSet) -> ConflictRule {
    ConflictRule::Pages {
        read,
        written_count_as_read: true,
    }
}
