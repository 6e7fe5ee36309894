//! Checking a store: does every key lie where it may, and say what the others say?
//!
//! A check only reads. It looks at every key under both prefixes, in the order of the keys and in
//! batches, so its memory does not grow with what a namespace holds; it does grow, by some hundred
//! bytes each, with the number of namespaces, and with what waits for its expiry up to a bound.
//!
//! **A store in use.** Everything about a small namespace is read at one version of the engine and is
//! exact. What takes longer than a transaction may live is read at several; then a commit, a fold or a
//! truncation in between can make two keys look as if they contradicted each other. So whatever is
//! found there is looked for again from the start, and told only if it is found at the same place each
//! time: what comes from such a race lies at a version or a layer that is past the next time.
//!
//! What is checked, and what is said where it does not hold ([`Kind`] has the meanings):
//!
//! | invariant | finding |
//! |---|---|
//! | every key under the prefixes is one that the store writes | `unknown-key` |
//! | every value decodes | `bad-value`; `newer-format` for a guard of a later generation |
//! | where there are keys, there is a format record | `format-missing` |
//! | time records ascend in version, below the engine's; the newest is the high-water mark | `time-disorder`, `high-water-wrong` |
//! | a name names a living namespace; a living namespace has one name | `guard-missing`, `named-but-deleted`, `nameless`, `named-twice` |
//! | keys and metadata belong to a namespace with a guard | `keys-of-nobody`, `metadata-of-nobody` |
//! | a deleted namespace is queued for removal, no other is; a hidden one has forks | `deletion-unqueued`, `queued-alive`, `hidden-without-forks` |
//! | the horizon is a commit of the namespace (or its id), at or below the head, forks and the lock, and below every layer | `horizon-wrong` |
//! | the guard's lock has its record, its lease a term | `lock-without-record`, `lock-left-behind`, `lease-without-term` |
//! | fork and base name each other; the base is there; ancestors are the base's and it; the base needs a writer that knows forks | `fork-unlisted`, `fork-dangling`, `base-missing`, `ancestry-wrong`, `base-unprotected` |
//! | the head is the newest changelog entry | `head-wrong` |
//! | an entry has all its chunks; it names page 1 exactly if its class says so | `changelog-torn`, `changelog-wrong` |
//! | horizon, forks, lock, layers and what restores show stand at entries | `changelog-missing` |
//! | above the horizon: a page that an entry lists has a version there, or its layer shows it, or it ceased to exist without having existed | `page-missing` |
//! | above the horizon: a page version is listed by the entry of its version, or that says "everything" (an absent one may lie behind the last that is listed: a layer cuts off whatever is there) | `page-unlisted` |
//! | a page version lies above the namespace's id, up to its head, and has its checksum | `page-out-of-history`, `page-damaged` |
//! | a reference finds its staged content, which no other refers to and whose checksum is right | `staged-missing`, `staged-shared`, `staged-damaged` |
//! | a stage has a record; its count, sum and page size are those of its pages | `stage-missing`, `stage-count-wrong` |
//! | a stage that page versions or a layer refer to is committed; then each of its pages is referred to | `stage-state-wrong`, `staged-unreferenced`, `stage-empty` |
//! | layers lie above the id, up to the head, at entries, and share no stage; the work queue has exactly them | `layer-wrong`, `layer-unqueued`, `layer-queued-in-vain` |
//! | an outcome decodes and is of the past | `bad-value`, `outcome-wrong` |
//! | outcomes, stages that are not committed and uploads have an entry in the expiry index, in its bucket | `never-expires`, `expiry-misplaced` |
//! | an upload has its hash, its time, and content or a place | `upload-damaged`, `upload-incomplete` |
//! | usage counters say what is there, with what unfolded layers show | `usage-wrong` |
//! | on request: page 1 and its b-tree are what SQLite would take | `sqlite-implausible` |
//!
//! Not findings, since the store leaves them so and comes back to them: what lies below the horizon and
//! was not collected yet; entries of the expiry index that are overdue or whose object is gone; terms and
//! places of leases that are over; the mark of a truncation that was killed.
//!
//! What it does not do: it mends nothing, and it knows nothing of SQLite's tables. `PRAGMA
//! integrity_check` on an export is for those who have an SQLite.

mod changelog;
mod facts;
mod finding;
mod metadata;
mod namespace;
mod pages;
mod reader;
mod small;
mod sqlite;
mod stages;

use std::ops::ControlFlow;
use std::sync::Arc;

use mvsqlite_protocol::NamespaceId;

use self::metadata::Metadata;
use self::namespace::check_namespace;
use self::reader::Reader;
use crate::context::Context;
use crate::error::StoreError;
use crate::kv::{Engine, KeyRange, KvError};
use crate::layout::{GENERATION, StoreFormat};
use crate::store::{StoreOptions, context_for};

pub use finding::{Finding, Kind, Severity};

/// What is checked, and how fast.
#[derive(Debug, Clone)]
pub struct FsckOptions {
    /// Before every key of the store's metadata; see [`StoreOptions::metadata_prefix`].
    pub metadata_prefix: String,
    /// Before every key that holds pages; see [`StoreOptions::raw_data_prefix`].
    pub raw_data_prefix: String,
    /// Looks at the newest version of each database as SQLite would: page 1 and the pages below it.
    pub sqlite: bool,
    /// Most bytes read a second, on average; `None` reads as fast as it goes. Needs a runtime with
    /// timers where it is given.
    pub bytes_per_second: Option<u64>,
    /// Most findings told of one namespace, and of what belongs to none; further ones are counted.
    pub most_findings: usize,
}

impl FsckOptions {
    /// Everything but SQLite, as fast as it goes.
    pub fn new(metadata_prefix: impl Into<String>, raw_data_prefix: impl Into<String>) -> Self {
        Self {
            metadata_prefix: metadata_prefix.into(),
            raw_data_prefix: raw_data_prefix.into(),
            sqlite: false,
            bytes_per_second: None,
            most_findings: 1000,
        }
    }
}

/// Why a store could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FsckError {
    /// The engine cannot read.
    #[error("the check broke off: {0}")]
    Engine(#[from] KvError),
    /// The store is none that this build knows, or the prefixes are none.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// There is no store under these prefixes, and there are other keys.
    #[error(
        "no store has these prefixes, and there are other keys, such as {key}: give the server's --metadata-prefix and --raw-data-prefix"
    )]
    OtherPrefixes {
        /// One of them.
        key: String,
    },
    /// Whoever asked does not want to know the rest.
    #[error("the check was stopped before its end")]
    Stopped,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Namespaces.
    pub namespaces: u64,
    /// Commits in their changelogs.
    pub commits: u64,
    /// Page versions.
    pub page_versions: u64,
    /// Pages in stages.
    pub staged_pages: u64,
    /// Keys of any kind.
    pub keys: u64,
    /// Bytes of keys and values read, some of them more than once.
    pub bytes: u64,
    /// Namespaces whose usage counters moved while they were counted, so that they say nothing.
    pub counters_not_judged: u64,
    /// Objects whose expiry entries were too many to look for.
    pub expiries_not_judged: u64,
    /// Findings that were counted but not told.
    pub findings_not_told: u64,
}

/// What a check has to say while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// So far.
    Progress(Counts),
    /// Something is wrong.
    Found(Finding),
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Everything that is wrong, as far as it was told.
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub counts: Counts,
}

impl Findings {
    /// Whether there are none.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The worst there is.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// Checks a store, whatever else is done to it meanwhile.
///
/// # Guarantees
/// Nothing is written. What is told is so, whoever uses the store meanwhile, as long as nobody but
/// servers of this store writes under its prefixes. Not everything that is wrong is found in a store
/// that is in use: counters that keep moving, for one, are counted in [`Counts`] and not judged.
///
/// # Errors
/// If the engine cannot read, or the store's format is of a later generation.
pub async fn check(engine: Arc<dyn Engine>, options: FsckOptions) -> Result<Findings, FsckError> {
    let mut findings = Vec::new();
    let counts = check_with(engine, options, |event| {
        if let Event::Found(finding) = event {
            findings.push(finding);
        }
        ControlFlow::Continue(())
    })
    .await?;
    Ok(Findings { findings, counts })
}

/// The same; what it finds is told at once, and progress after each batch of keys.
///
/// # Errors
/// Those of [`check`]; [`FsckError::Stopped`] if `tell` wants it to end.
pub async fn check_with(
    engine: Arc<dyn Engine>,
    options: FsckOptions,
    tell: impl FnMut(Event) -> ControlFlow<()> + Send,
) -> Result<Counts, FsckError> {
    let store = StoreOptions {
        page_cache_bytes: 0,
        ..StoreOptions::new(&options.metadata_prefix, &options.raw_data_prefix)
    };
    let ctx = context_for(engine, store)?;
    let mut check = Check {
        ctx: &ctx,
        options: &options,
        counts: Counts::default(),
        tell: Box::new(tell),
    };
    check.run().await?;
    Ok(check.counts)
}

/// A check under way.
struct Check<'a> {
    ctx: &'a Context,
    options: &'a FsckOptions,
    counts: Counts,
    tell: Box<dyn FnMut(Event) -> ControlFlow<()> + Send + 'a>,
}

impl Check<'_> {
    async fn run(&mut self) -> Result<(), FsckError> {
        self.expect_format().await?;
        let mut metadata = Metadata::default();
        metadata::check_metadata(self, &mut metadata).await?;
        self.namespaces(&mut metadata).await?;
        metadata::check_expiries(self, &mut metadata).await
    }

    /// A store of a later generation is none that this build can judge.
    async fn expect_format(&mut self) -> Result<(), FsckError> {
        let key = self.ctx.keys.format();
        let mut reader = Reader::new(self.ctx);
        let found = match reader.get(self, &key).await? {
            None => {
                let any = [self.ctx.keys.all_metadata(), self.ctx.keys.all_pages()];
                for range in &any {
                    if !reader.batch(self, range, 1).await?.is_empty() {
                        let found = Finding::new(Kind::FormatMissing, "format", "it is not there");
                        return self.found(vec![found]);
                    }
                }
                return self.expect_nothing(&mut reader).await;
            }
            Some(value) => StoreFormat::decode(&value),
        };
        match found {
            Ok(format) if format.min_reader > GENERATION.into() => Err(StoreError::UnknownFormat {
                what: "the store".to_owned(),
                found: format.min_reader,
                known: GENERATION.into(),
            }
            .into()),
            Ok(_) => Ok(()),
            Err(malformed) => {
                let found = Finding::new(Kind::BadValue, "format", malformed.to_string());
                self.found(vec![found])
            }
        }
    }

    /// What there is, if it is not this store, is another one.
    async fn expect_nothing(&mut self, reader: &mut Reader<'_>) -> Result<(), FsckError> {
        let users = KeyRange::new([0], [0xff]);
        let first = reader.batch(self, &users, 1).await?;
        match first.first() {
            None => Ok(()),
            Some((key, _)) => Err(FsckError::OtherPrefixes {
                key: key.escape_ascii().to_string(),
            }),
        }
    }

    /// Every namespace that has keys, by id.
    async fn namespaces(&mut self, metadata: &mut Metadata) -> Result<(), FsckError> {
        let keys = &self.ctx.keys;
        let mut rest = keys.all_pages();
        let mut reader = Reader::new(self.ctx);
        while !rest.is_empty() {
            let first = reader.batch(self, &rest, 1).await?;
            let Some((key, _)) = first.first() else {
                break;
            };
            let Some(id) = keys.owner(key) else {
                let found = Finding::new(Kind::UnknownKey, keys.describe(key), "in no namespace");
                self.found(vec![found])?;
                rest.begin = [key, &[0][..]].concat();
                continue;
            };
            self.counts.namespaces += 1;
            let found = check_namespace(self, metadata, id).await?;
            self.found_in(metadata, id, found)?;
            rest.begin = keys.namespace(id).end;
            reader = Reader::new(self.ctx);
        }
        Ok(())
    }

    /// Tells findings of a namespace.
    fn found_in(
        &mut self,
        metadata: &Metadata,
        id: NamespaceId,
        mut found: Vec<Finding>,
    ) -> Result<(), FsckError> {
        for finding in &mut found {
            finding.namespace = Some(id.to_string());
            finding.name = metadata.name(id).map(str::to_owned);
        }
        self.found(found)
    }

    /// Tells findings, up to the limit.
    fn found(&mut self, mut found: Vec<Finding>) -> Result<(), FsckError> {
        let most = self.options.most_findings;
        self.counts.findings_not_told += found.len().saturating_sub(most) as u64;
        found.truncate(most);
        found
            .into_iter()
            .try_for_each(|finding| self.say(Event::Found(finding)))
    }

    fn say(&mut self, event: Event) -> Result<(), FsckError> {
        match (self.tell)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(FsckError::Stopped),
        }
    }
}
