//! Each kind of damage, written through the engine behind the store's back: it is found, by its name,
//! and nothing else is. A row names several kinds where one thing makes several untrue.

mod guards;
mod history;
mod others;
mod stages;

use std::collections::BTreeSet;

use mvsqlite_protocol::{NamespaceId, StageId, Version};
use mvstore::fsck::Kind;
use mvstore::kv::{Engine, Freshness};

use super::{Dump, World};
use crate::support::findings;

/// What is written: a value, or nothing where the key goes.
type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A store that is about to be damaged.
struct Target<'a> {
    world: &'a World,
    dump: &'a Dump,
}

fn page_key(id: NamespaceId, tag: &str, rest: &[&[u8]]) -> Vec<u8> {
    [b"m\0d", &id.as_bytes()[..], tag.as_bytes(), &rest.concat()].concat()
}

fn meta_key(tag: &str, rest: &[&[u8]]) -> Vec<u8> {
    [b"mvstore-test\0m", tag.as_bytes(), &rest.concat()].concat()
}

fn version_key(id: NamespaceId, index: u32, version: Version) -> Vec<u8> {
    page_key(id, "p", &[&index.to_be_bytes(), version.as_bytes()])
}

fn log_key(id: NamespaceId, version: Version) -> Vec<u8> {
    page_key(id, "l", &[version.as_bytes(), &[0, 0]])
}

fn stage_key(id: NamespaceId, stage: StageId, tag: &str, rest: &[u8]) -> Vec<u8> {
    page_key(id, "s", &[stage.as_bytes(), tag.as_bytes(), rest])
}

impl Target<'_> {
    fn value(&self, key: &[u8]) -> Vec<u8> {
        match self.dump.get(key) {
            Some(value) => value.clone(),
            None => panic!("no key {}", key.escape_ascii()),
        }
    }

    /// The keys that begin like this.
    fn under(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let keys = self.dump.keys().filter(|key| key.starts_with(prefix));
        keys.cloned().collect()
    }

    fn remove(&self, key: Vec<u8>) -> Writes {
        self.value(&key);
        vec![(key, None)]
    }

    fn set(&self, key: Vec<u8>, value: &[u8]) -> Writes {
        vec![(key, Some(value.to_vec()))]
    }

    /// Changes bytes of a value.
    fn patch(&self, key: Vec<u8>, at: usize, bytes: &[u8]) -> Writes {
        let mut value = self.value(&key);
        value[at..at + bytes.len()].copy_from_slice(bytes);
        vec![(key, Some(value))]
    }

    fn flip(&self, key: Vec<u8>, at: usize) -> Writes {
        let byte = self.value(&key)[at] ^ 0x10;
        self.patch(key, at, &[byte])
    }

    fn guard(&self, id: NamespaceId) -> Vec<u8> {
        page_key(id, "g", &[])
    }

    /// The stage of `db` whose pages page versions refer to, and such a page version.
    fn folded(&self) -> (StageId, Vec<u8>) {
        let world = self.world;
        let key = version_key(world.db, 2, world.versions[2]);
        let value = self.value(&key);
        assert_eq!(value[0], 2, "a reference");
        (StageId::from_slice(&value[9..25]).unwrap(), key)
    }

    /// The stage that the layer of `layered` shows.
    fn shown(&self) -> StageId {
        let guard = self.value(&self.guard(self.world.layered));
        StageId::from_slice(&guard[47 + 12..47 + 28]).unwrap()
    }
}

/// What is done, what is found, and how it is done.
#[derive(Clone, Copy)]
struct Row(&'static str, &'static [Kind], fn(&Target<'_>) -> Writes);

const NOBODY: NamespaceId = NamespaceId::from_bytes([0x33; 10]);

fn head_of(t: &Target<'_>, id: NamespaceId) -> Version {
    Version::from_slice(&t.value(&page_key(id, "v", &[]))).unwrap()
}

async fn write(engine: &dyn Engine, writes: &Writes) {
    let mut txn = engine.begin(Freshness::Strict);
    for (key, value) in writes {
        match value {
            Some(value) => txn.set(key, value),
            None => txn.clear(key),
        }
    }
    txn.commit().await.unwrap();
}

#[tokio::test]
async fn each_kind_of_damage_is_found_and_nothing_else() {
    let world = World::new().await;
    let engine = world.engine();
    let dump = world.dump().await;
    let mut never_found: BTreeSet<Kind> = Kind::ALL.iter().copied().collect();
    let mut failures = Vec::new();
    let rows = [guards::ROWS, history::ROWS, others::ROWS, stages::ROWS].concat();
    for Row(what, expected, damage) in rows {
        let target = Target {
            world: &world,
            dump: &dump,
        };
        let writes = damage(&target);
        write(&*engine, &writes).await;
        let found = findings(engine.clone()).await;
        let kinds: BTreeSet<Kind> = found.findings.iter().map(|found| found.kind).collect();
        let lines: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
        let wanted: BTreeSet<Kind> = expected.iter().copied().collect();
        if kinds != wanted {
            let lines = lines.join("\n  ");
            failures.push(format!("{what}: {kinds:?} and not {wanted:?}\n  {lines}"));
        }
        never_found.retain(|kind| !kinds.contains(kind));
        // As it was.
        let undo = writes.into_iter().map(|(key, _)| {
            let value = dump.get(&key).cloned();
            (key, value)
        });
        write(&*engine, &undo.collect()).await;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(findings(engine).await.is_clean());
    // What SQLite would not take has tests of its own, beside this.
    never_found.remove(&Kind::SqliteImplausible);
    assert!(never_found.is_empty(), "no row for {never_found:?}");
}
