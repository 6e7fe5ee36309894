//! A family of namespaces against a plain model: small commits, large ones, growth, shrinking,
//! restores, forks, deletions and truncation in any order, with folding cut short again and again.
//! At every step some page of some version of some namespace is compared with the model; in the end,
//! when all is folded, the counters with the keys that are there.
//!
//! A failure prints its seed; `MVSTORE_TEST_SEED` replays it alone.

use std::collections::BTreeMap;
use std::env;
use std::ops::ControlFlow;
use std::sync::Arc;

use mvsqlite_protocol::v2::{BeginReply, ReadRequest, StageRef};
use mvsqlite_protocol::{Code, NamespaceId, NamespaceKey, PageData, PageIndex, Version};
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::memory::MemoryEngine;
use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, RangeOptions};
use mvstore::store::Knobs;

use crate::support::{Fixture, PAGE_SIZE, Random, expect_sound, filled, key, page, page_one};

const SEEDS: u64 = 20;
const STEPS: u64 = 120;
/// Pages that are looked at; databases are smaller.
const PAGES: u32 = 40;

/// A database at one version: its page count, and a byte for each page that exists.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    count: u32,
    pages: BTreeMap<PageIndex, u8>,
}

struct Namespace {
    key: NamespaceKey,
    id: NamespaceId,
    /// Every version that is kept, ascending.
    versions: Vec<(Version, State)>,
}

struct Family {
    f: Fixture,
    random: Random,
    namespaces: Vec<Namespace>,
    made: u64,
    bytes: u8,
}

impl Family {
    async fn new(seed: u64) -> Self {
        let knobs = Knobs {
            layer_bytes: Some([0, 700, 1500][seed as usize / 3 % 3]),
            fold_pages: Some(1 + seed as usize % 4),
        };
        let f = Fixture::with_options(Arc::new(MemoryEngine::new()), seed, |options| {
            options.knobs = knobs;
            // With a cache and without: it must be right, and it hides what is stored.
            if !seed.is_multiple_of(3) {
                options.page_cache_bytes = 0;
            }
        })
        .await;
        let id = f.begin().await.namespace;
        let first = Namespace {
            key: f.key.clone(),
            id,
            versions: vec![(id.as_version(), State::default())],
        };
        Self {
            f,
            random: Random::new(seed ^ 0xfa),
            namespaces: vec![first],
            made: 0,
            bytes: 0,
        }
    }

    fn below(&self, end: usize) -> usize {
        self.random.below(end as u64) as usize
    }

    async fn step(&mut self) {
        let at = self.below(self.namespaces.len());
        match self.random.below(20) {
            0..=8 => self.commit(at).await,
            9..=11 => self.restore(at).await,
            12..=13 => self.fork(at).await,
            14 => self.delete(at).await,
            15 => self.truncate(at).await,
            16 => self.fold().await,
            _ => self.fold_a_little().await,
        }
        for _ in 0..3 {
            self.look().await;
        }
    }

    async fn begin(&self, at: usize) -> BeginReply {
        let namespace = &self.namespaces[at];
        let begun = self.f.store.begin(&namespace.key, Default::default()).await;
        let begun = begun.unwrap();
        let last = namespace.versions.last().unwrap();
        assert_eq!((begun.namespace, begun.version), (namespace.id, last.0));
        begun
    }

    fn next_byte(&mut self) -> u8 {
        self.bytes = self.bytes % 250 + 1;
        self.bytes
    }

    /// A transaction that writes some pages, and may make the database longer or shorter.
    async fn commit(&mut self, at: usize) {
        let base = self.begin(at).await;
        let mut state = self.namespaces[at].versions.last().unwrap().1.clone();
        let (old, new_count) = (state.count, self.new_count(state.count));
        let (mut inline, mut staged) = (Vec::new(), Vec::new());
        let stages = self.random.chance(60);
        for _ in 0..self.random.below(6) {
            let index = 1 + self.random.below(u64::from(old.max(new_count)) + 3) as u32;
            let byte = self.next_byte();
            let list: &mut Vec<PageData> = if stages { &mut staged } else { &mut inline };
            list.retain(|page| page.index != index);
            list.push(page(index, &filled(byte)));
            // What lies behind the end is not part of it.
            if index < new_count {
                state.pages.insert(index, byte);
            }
        }
        if new_count != old || self.random.chance(20) {
            let byte = self.next_byte();
            let mut first = page_one(new_count, 1);
            first[PAGE_SIZE - 1] = byte;
            inline.push(page(0, &first));
            state.count = new_count;
            state.pages.insert(0, byte);
            state.pages.retain(|index, _| *index < new_count);
        }
        let mut request = self.f.write(&base, &[]);
        request.pages = inline;
        if !staged.is_empty() {
            let pages = staged
                .into_iter()
                .map(|page| (page.index, page.data.into_vec()));
            let pages: Vec<_> = pages.collect();
            request.stage = Some(self.stage(at, &base, &pages).await);
        }
        let ns = &mut self.namespaces[at];
        match self.f.store.commit(&ns.key, request).await {
            Ok(reply) => ns.versions.push((reply.version, state)),
            Err(error) => panic!("{error}"),
        }
    }

    fn new_count(&self, old: u32) -> u32 {
        let any = self.random.below(100);
        match old {
            0 => 5,
            _ if any < 25 => (old + 1 + self.random.below(6) as u32).min(PAGES - 5),
            _ if any < 50 && old > 3 => 2 + self.random.below(u64::from(old) - 2) as u32,
            _ => old,
        }
    }

    async fn stage(
        &self,
        at: usize,
        base: &BeginReply,
        pages: &[(PageIndex, Vec<u8>)],
    ) -> StageRef {
        let request = mvsqlite_protocol::v2::StageRequest {
            namespace: base.namespace,
            read_version: base.read_version,
            stage: None,
            pages: pages
                .iter()
                .map(|(index, data)| page(*index, data))
                .collect(),
            unstage: Default::default(),
            incarnation: None,
        };
        let key = &self.namespaces[at].key;
        let reply = self.f.store.stage(key, request).await.unwrap();
        StageRef {
            stage: reply.stage,
            count: reply.count,
            sum: reply.sum,
        }
    }

    async fn restore(&mut self, at: usize) {
        let which = self.below(self.namespaces[at].versions.len());
        let namespace = &mut self.namespaces[at];
        let (to, state) = namespace.versions[which].clone();
        let version = self.f.store.restore_namespace(&namespace.key, to).await;
        let version = version.unwrap();
        if to == namespace.versions.last().unwrap().0 {
            assert_eq!(version, to);
        } else {
            namespace.versions.push((version, state));
        }
    }

    async fn fork(&mut self, at: usize) {
        if self.namespaces.len() > 8 {
            return;
        }
        let which = self.below(self.namespaces[at].versions.len());
        let base = &self.namespaces[at];
        let (version, state) = base.versions[which].clone();
        self.made += 1;
        let key = key(&format!("fork{}", self.made));
        match self.f.store.fork_namespace(&key, base.id, version).await {
            Ok(id) => self.namespaces.push(Namespace {
                key,
                id,
                versions: vec![(id.as_version(), state)],
            }),
            Err(error) => assert_eq!(error.code(), Code::TooLarge, "{error}"),
        }
    }

    async fn delete(&mut self, at: usize) {
        if self.namespaces.len() < 3 {
            return;
        }
        let gone = self.namespaces.remove(at);
        self.f.store.delete_namespace(&gone.key).await.unwrap();
        while self.f.store.collect_expired().await.unwrap().more {}
    }

    async fn truncate(&mut self, at: usize) {
        let which = self.below(self.namespaces[at].versions.len());
        let namespace = &mut self.namespaces[at];
        let before = namespace.versions[which].0;
        let store = &self.f.store;
        let go_on = |_| ControlFlow::Continue(());
        let truncated = store
            .truncate_namespace(&namespace.key, before, true, go_on)
            .await
            .unwrap();
        namespace
            .versions
            .retain(|(version, _)| *version >= truncated.horizon);
    }

    async fn fold(&self) {
        while self.f.store.fold_layers().await.unwrap().more {}
    }

    async fn fold_a_little(&self) {
        let seed = self.random.next();
        let unreliable = SeededFaults::new(seed, 250, [Fault::Unavailable, Fault::Conflict]);
        self.f.engine.set_plan(unreliable);
        let _ = self.f.store.fold_layers().await;
        self.f.faults([]);
    }

    /// Compares some run of pages, and one of them alone.
    async fn look(&self) {
        let namespace = &self.namespaces[self.below(self.namespaces.len())];
        let (version, state) = &namespace.versions[self.below(namespace.versions.len())];
        let first = self.random.below(u64::from(PAGES)) as u32;
        let count = 1 + self.random.below(u64::from(PAGES)) as u32;
        let run: Vec<u32> = (first..first + count).collect();
        let some: Vec<u32> = run
            .iter()
            .copied()
            .filter(|_| self.random.chance(40))
            .collect();
        for pages in [run, some, vec![first]] {
            let request = ReadRequest {
                namespace: namespace.id,
                version: *version,
                read_version: Default::default(),
                pages: pages.iter().copied().collect(),
                incarnation: None,
                stage: None,
            };
            let images = self.f.store.read(&namespace.key, request).await.unwrap();
            let found: Vec<_> = images
                .iter()
                .map(|image| {
                    assert!(image.from <= *version);
                    (
                        image.index,
                        image.data.as_ref().map(|data| data[PAGE_SIZE - 1]),
                    )
                })
                .collect();
            let expected = pages.iter().map(|at| (*at, state.pages.get(at).copied()));
            assert_eq!(
                found,
                expected.collect::<Vec<_>>(),
                "{} at {version}",
                namespace.key
            );
        }
    }

    /// What is counted is what is there, and each staged page belongs to one page version.
    async fn expect_usage(&self) {
        for namespace in &self.namespaces {
            let mut prefix = b"m\0d".to_vec();
            prefix.extend_from_slice(namespace.id.as_bytes());
            let (mut versions, mut bytes, mut references) = (0, 0, 0);
            for (_, value) in self.keys(&[&prefix[..], b"p"].concat()).await {
                versions += 1;
                bytes += match value[0] {
                    0 => value.len() as u64 - 9,
                    2 => PAGE_SIZE as u64,
                    _ => 0,
                };
                references += u64::from(value[0] == 2);
            }
            let staged = self.keys(&[&prefix[..], b"s"].concat()).await;
            let tag = prefix.len() + 1 + 16;
            let contents = staged.iter().filter(|(key, _)| key[tag] == b'p').count();
            assert_eq!(contents as u64, references, "{}", namespace.key);
            assert!(
                staged.iter().all(|(key, _)| key[tag] != b'm'),
                "a sum was left"
            );
            let usage = self.f.store.usage(&namespace.key).await.unwrap();
            assert_eq!(
                (usage.page_versions, usage.page_bytes),
                (versions, bytes),
                "{}",
                namespace.key
            );
            assert_eq!(usage.staged_pages, 0);
        }
    }

    async fn keys(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let options = RangeOptions {
            limit: 100_000,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let txn = self.f.engine.begin(Freshness::Strict);
        let pairs = txn.get_range(&KeyRange::prefix(prefix), options).await;
        let pairs = pairs.unwrap().into_iter();
        pairs
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    /// Everything at every version.
    async fn look_at_all(&self) {
        for namespace in &self.namespaces {
            for (version, state) in &namespace.versions {
                let request = ReadRequest {
                    namespace: namespace.id,
                    version: *version,
                    read_version: Default::default(),
                    pages: (0..PAGES).collect(),
                    incarnation: None,
                    stage: None,
                };
                let images = self.f.store.read(&namespace.key, request).await.unwrap();
                let found = images.iter().filter_map(|image| {
                    let data = image.data.as_ref()?;
                    Some((image.index, data[PAGE_SIZE - 1]))
                });
                let found: BTreeMap<_, _> = found.collect();
                assert_eq!(found, state.pages, "{} at {version}", namespace.key);
            }
        }
    }
}

#[test]
fn forks_restores_and_large_commits_agree_with_a_plain_model() {
    let only = env::var("MVSTORE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        eprintln!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut family = Family::new(seed).await;
            for _ in 0..STEPS {
                family.step().await;
            }
            family.look_at_all().await;
            let engine = Arc::new(family.f.engine.clone());
            expect_sound(engine.clone()).await;
            family.fold().await;
            family.look_at_all().await;
            family.expect_usage().await;
            expect_sound(engine).await;
        });
    }
}
