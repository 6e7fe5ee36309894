//! What holds while many transactions commit at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use mvsqlite_protocol::Version;
use mvstore::kv::{Atomic, Engine, Isolation, KeyRange, KvError, RangeOptions};

use super::{begin, clear, get};

const PREFIX: &[u8] = b"conformance/concurrent/";
const TASKS: u64 = 12;
const ROUNDS: u64 = 15;

fn key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

pub(super) async fn check(engine: &Arc<dyn Engine>) {
    clear(engine, &KeyRange::prefix(PREFIX)).await;
    increments_are_never_lost(engine).await;
    versions_are_unique_and_in_the_order_of_visibility(engine).await;
    atomics_add_up(engine).await;
}

/// Runs `TASKS` tasks at once and returns what they returned.
async fn together<T, F>(task: impl Fn(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..TASKS).map(|index| tokio::spawn(task(index))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.expect("the task did not panic"));
    }
    results
}

async fn increments_are_never_lost(engine: &Arc<dyn Engine>) {
    let conflicts = together(|_| {
        let engine = engine.clone();
        async move {
            let mut conflicts = 0;
            for _ in 0..ROUNDS {
                while let Err(error) = increment(&engine).await {
                    assert_eq!(error, KvError::Conflict);
                    conflicts += 1;
                }
            }
            conflicts
        }
    })
    .await;
    let total = get(engine, &key("total")).await.unwrap();
    assert_eq!(
        u64::from_le_bytes(total.try_into().unwrap()),
        TASKS * ROUNDS,
        "conflicts met: {conflicts:?}"
    );
}

async fn increment(engine: &Arc<dyn Engine>) -> Result<(), KvError> {
    let mut transaction = begin(engine);
    let total = transaction
        .get(&key("total"), Isolation::Serializable)
        .await?
        .map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()));
    transaction.set(&key("total"), &(total + 1).to_le_bytes());
    transaction.commit().await.map(drop)
}

async fn versions_are_unique_and_in_the_order_of_visibility(engine: &Arc<dyn Engine>) {
    let mut placeholder = key("log/");
    let offset = placeholder.len();
    placeholder.extend([0; Version::LEN]);
    let committed = together(|index| {
        let engine = engine.clone();
        let placeholder = placeholder.clone();
        async move {
            let mut versions = Vec::new();
            for _ in 0..ROUNDS {
                let mut transaction = begin(&engine);
                transaction.set_versionstamped_key(&placeholder, offset, &index.to_le_bytes());
                let version = transaction.commit().await.unwrap();
                let reader = begin(&engine);
                assert!(reader.read_version().await.unwrap().sees(version));
                versions.push(version);
            }
            assert!(versions.is_sorted(), "one after the other, so ascending");
            versions
        }
    })
    .await;
    let versions: BTreeSet<_> = committed.iter().flatten().copied().collect();
    assert_eq!(versions.len() as u64, TASKS * ROUNDS, "each its own");
    let options = RangeOptions {
        limit: usize::MAX,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let log = begin(engine)
        .get_range(&KeyRange::prefix(&key("log/")), options)
        .await
        .unwrap();
    let logged: BTreeSet<_> = log
        .iter()
        .map(|(key, _)| Version::from_slice(&key[offset..]).unwrap())
        .collect();
    assert_eq!(logged, versions);
}

async fn atomics_add_up(engine: &Arc<dyn Engine>) {
    let sums = together(|index| {
        let engine = engine.clone();
        async move {
            for round in 0..ROUNDS {
                let mut transaction = begin(&engine);
                transaction
                    .get(&key("sum"), Isolation::Snapshot)
                    .await
                    .unwrap();
                transaction.atomic(Atomic::Add, &key("sum"), &(index + round).to_le_bytes());
                transaction.commit().await.unwrap();
            }
            (0..ROUNDS).map(|round| index + round).sum::<u64>()
        }
    })
    .await;
    let expected = sums.iter().sum::<u64>().to_le_bytes().to_vec();
    assert_eq!(get(engine, &key("sum")).await, Some(expected));
}
