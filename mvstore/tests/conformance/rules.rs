//! The contract's rules, one by one.

use std::sync::Arc;

use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::kv::{Atomic, Engine, Freshness, Isolation, KeyRange, KvError, RangeOptions};

use super::{begin, clear, get, put};

const PREFIX: &[u8] = b"conformance/rules/";

fn key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

pub(super) async fn check(engine: &Arc<dyn Engine>) {
    clear(engine, &KeyRange::prefix(PREFIX)).await;
    reads_do_not_see_own_writes(engine).await;
    a_dropped_transaction_leaves_no_trace(engine).await;
    a_read_version_stands_still(engine).await;
    stamps_are_the_version_that_commit_returned(engine).await;
    writes_apply_in_order(engine).await;
    atomics_apply_to_what_is_there_at_commit(engine).await;
    blind_writes_never_conflict(engine).await;
    a_stamped_key_conflicts_at_its_final_key(engine).await;
    a_silent_write_conflicts_with_nobody(engine).await;
    a_range_read_conflicts_over_what_it_covered(engine).await;
    a_reading_transaction_always_commits(engine).await;
    a_cached_read_version_will_do(engine).await;
    long_ranges_come_whole(engine).await;
    engine.check().await.unwrap();
    assert!(!engine.describe().is_empty());
}

async fn reads_do_not_see_own_writes(engine: &Arc<dyn Engine>) {
    let key = key("own");
    put(engine, &key, b"before").await;
    let mut transaction = begin(engine);
    transaction.set(&key, b"after");
    let seen = transaction.get(&key, Isolation::Serializable).await;
    assert_eq!(seen.unwrap().as_deref(), Some(b"before".as_slice()));
    transaction.commit().await.unwrap();
    assert_eq!(
        get(engine, &key).await.as_deref(),
        Some(b"after".as_slice())
    );
}

async fn a_dropped_transaction_leaves_no_trace(engine: &Arc<dyn Engine>) {
    let key = key("dropped");
    let mut transaction = begin(engine);
    transaction
        .get(&key, Isolation::Serializable)
        .await
        .unwrap();
    transaction.set(&key, b"value");
    drop(transaction);
    assert_eq!(get(engine, &key).await, None);
}

async fn a_read_version_stands_still(engine: &Arc<dyn Engine>) {
    let key = key("still");
    put(engine, &key, b"1").await;
    let old = begin(engine);
    let at = old.read_version().await.unwrap();
    put(engine, &key, b"2").await;
    let seen = old.get(&key, Isolation::Snapshot).await.unwrap();
    assert_eq!(seen.as_deref(), Some(b"1".as_slice()));
    assert_eq!(old.read_version().await, Ok(at));
    assert!(begin(engine).read_version().await.unwrap() > at);
}

async fn stamps_are_the_version_that_commit_returned(engine: &Arc<dyn Engine>) {
    let mut placeholder = key("stamp/");
    let offset = placeholder.len();
    placeholder.extend([0xee; Version::LEN]);
    placeholder.extend(b"/tail");
    let mut transaction = begin(engine);
    transaction.set_versionstamped_key(&placeholder, offset, b"by key");
    transaction.set_versionstamped_value(&key("stamped"), &[7; 14], 3);
    let version = transaction.commit().await.unwrap();

    let mut final_key = placeholder.clone();
    final_key[offset..offset + Version::LEN].copy_from_slice(version.as_bytes());
    assert_eq!(get(engine, &placeholder).await, None);
    assert_eq!(
        get(engine, &final_key).await.as_deref(),
        Some(b"by key".as_slice())
    );
    let expected = [&[7; 3], version.as_bytes().as_slice(), &[7]].concat();
    assert_eq!(get(engine, &key("stamped")).await, Some(expected));
    let read_version = begin(engine).read_version().await.unwrap();
    assert!(read_version.sees(version));
}

async fn writes_apply_in_order(engine: &Arc<dyn Engine>) {
    let (first, second) = (key("order/1"), key("order/2"));
    let mut transaction = begin(engine);
    transaction.set(&first, b"a");
    transaction.set(&second, b"a");
    transaction.clear_range(&KeyRange::prefix(&key("order/")));
    transaction.atomic(Atomic::Add, &second, &[1, 0]);
    transaction.atomic(Atomic::Add, &second, &[1, 0]);
    transaction.set(&first, b"b");
    transaction.commit().await.unwrap();
    assert_eq!(get(engine, &first).await.as_deref(), Some(b"b".as_slice()));
    assert_eq!(get(engine, &second).await, Some(vec![2, 0]));
}

async fn atomics_apply_to_what_is_there_at_commit(engine: &Arc<dyn Engine>) {
    let key = key("counter");
    let mut one = begin(engine);
    let mut other = begin(engine);
    one.read_version().await.unwrap();
    other.read_version().await.unwrap();
    one.atomic(Atomic::Add, &key, &40u64.to_le_bytes());
    other.atomic(Atomic::Add, &key, &2u64.to_le_bytes());
    one.commit().await.unwrap();
    other.commit().await.unwrap();
    assert_eq!(get(engine, &key).await, Some(42u64.to_le_bytes().to_vec()));

    // Cut or zero-extended to the operand's length, whatever the operation.
    for (op, operand, expected) in [
        (Atomic::Xor, vec![0xff; 2], vec![42 ^ 0xff, 0xff]),
        (Atomic::Max, vec![1, 0, 0], vec![42 ^ 0xff, 0xff, 0]),
        (Atomic::Add, vec![], vec![]),
        (Atomic::Max, vec![0, 1], vec![0, 1]),
    ] {
        let mut transaction = begin(engine);
        transaction.atomic(op, &key, &operand);
        transaction.commit().await.unwrap();
        assert_eq!(get(engine, &key).await, Some(expected), "{op:?}");
    }
}

async fn blind_writes_never_conflict(engine: &Arc<dyn Engine>) {
    let key = key("blind");
    let mut one = begin(engine);
    let mut other = begin(engine);
    one.get(&key, Isolation::Snapshot).await.unwrap();
    other.get(&key, Isolation::Snapshot).await.unwrap();
    one.set(&key, b"one");
    other.set(&key, b"other");
    one.commit().await.unwrap();
    other.commit().await.unwrap();
    assert_eq!(
        get(engine, &key).await.as_deref(),
        Some(b"other".as_slice())
    );
}

async fn a_stamped_key_conflicts_at_its_final_key(engine: &Arc<dyn Engine>) {
    let reader = |range: KeyRange| async move {
        let mut transaction = begin(engine);
        transaction.read_version().await.unwrap();
        transaction.add_read_conflict(&range);
        transaction.set(&key("elsewhere"), b"");
        transaction
    };
    let mut placeholder = key("final/");
    let offset = placeholder.len();
    placeholder.extend([0xff; Version::LEN]);
    let hit = reader(KeyRange::prefix(&key("final/"))).await;
    let missed = reader(KeyRange::single(&placeholder)).await;
    let mut writer = begin(engine);
    writer.set_versionstamped_key(&placeholder, offset, b"");
    let version = writer.commit().await.unwrap();
    assert_eq!(hit.commit().await, Err(KvError::Conflict));
    assert!(missed.commit().await.is_ok(), "at {version}");
}

async fn a_silent_write_conflicts_with_nobody(engine: &Arc<dyn Engine>) {
    let (silent, loud) = (key("silent/1"), key("silent/2"));
    for (touched, expected) in [(&silent, true), (&loud, false)] {
        let mut reader = begin(engine);
        reader.get(touched, Isolation::Serializable).await.unwrap();
        reader.set(&key("elsewhere"), b"");
        let mut writer = begin(engine);
        writer.next_write_without_conflict();
        writer.set(&silent, b"");
        writer.set(&loud, b"");
        writer.commit().await.unwrap();
        assert_eq!(reader.commit().await.is_ok(), expected);
    }
}

async fn a_range_read_conflicts_over_what_it_covered(engine: &Arc<dyn Engine>) {
    let name = |digit: u32| key(&format!("extent/{digit}"));
    for digit in [2, 4, 6, 8] {
        put(engine, &name(digit), b"").await;
    }
    let range = KeyRange::prefix(&key("extent/"));
    // Limited to two of four pairs: forwards it covers up to 4, backwards down to 6.
    for (reverse, limit, conflicting) in [
        (false, 2, vec![1, 2, 3, 4]),
        (true, 2, vec![6, 7, 8, 9]),
        (false, 9, vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (true, 9, vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ] {
        for written in 1..=9 {
            let mut reader = begin(engine);
            let options = RangeOptions {
                limit,
                reverse,
                isolation: Isolation::Serializable,
            };
            reader.get_range(&range, options).await.unwrap();
            reader.set(&key("elsewhere"), b"");
            let mut writer = begin(engine);
            writer.add_write_conflict(&KeyRange::single(&name(written)));
            writer.commit().await.unwrap();
            assert_eq!(
                reader.commit().await == Err(KvError::Conflict),
                conflicting.contains(&written),
                "limit {limit}, reverse {reverse}, write at {written}"
            );
        }
    }
}

async fn a_reading_transaction_always_commits(engine: &Arc<dyn Engine>) {
    let key = key("reading");
    let reader = begin(engine);
    reader.get(&key, Isolation::Serializable).await.unwrap();
    put(engine, &key, b"changed").await;
    reader.commit().await.unwrap();
}

async fn a_cached_read_version_will_do(engine: &Arc<dyn Engine>) {
    let key = key("cached");
    put(engine, &key, b"value").await;
    let known = begin(engine).read_version().await.unwrap();
    for freshness in [
        Freshness::AtLeast(known),
        Freshness::AtLeast(ReadVersion(0)),
    ] {
        let transaction = engine.begin(freshness);
        let chosen = transaction.read_version().await.unwrap();
        if freshness == Freshness::AtLeast(known) {
            assert!(chosen >= known);
            let seen = transaction.get(&key, Isolation::Snapshot).await.unwrap();
            assert_eq!(seen.as_deref(), Some(b"value".as_slice()));
        }
    }
    let beyond = engine.begin(Freshness::AtLeast(ReadVersion(u64::MAX)));
    assert!(beyond.read_version().await.unwrap() >= known, "the newest");
}

async fn long_ranges_come_whole(engine: &Arc<dyn Engine>) {
    let range = KeyRange::prefix(&key("long/"));
    let name = |index: u32| key(&format!("long/{index:05}"));
    for batch in 0..4 {
        let mut transaction = begin(engine);
        for index in batch * 500..(batch + 1) * 500 {
            transaction.set(&name(index), &[index as u8; 700]);
        }
        transaction.commit().await.unwrap();
    }
    for reverse in [false, true] {
        let options = RangeOptions {
            limit: usize::MAX,
            reverse,
            isolation: Isolation::Snapshot,
        };
        let mut pairs = begin(engine).get_range(&range, options).await.unwrap();
        if reverse {
            pairs.reverse();
        }
        assert_eq!(pairs.len(), 2_000);
        for (index, (found, value)) in (0..).zip(&pairs) {
            assert_eq!(
                (&found[..], &value[..]),
                (&name(index)[..], &[index as u8; 700][..])
            );
        }
    }
    assert_eq!(
        engine
            .begin(Freshness::Strict)
            .get_range(
                &KeyRange::new("b", "a"),
                RangeOptions {
                    limit: 1,
                    reverse: false,
                    isolation: Isolation::Serializable,
                }
            )
            .await,
        Ok(Vec::new()),
        "an empty range"
    );
}
