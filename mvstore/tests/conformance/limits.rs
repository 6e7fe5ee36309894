//! What is too large or not allowed, told apart, and leaving no trace.

use std::sync::Arc;

use mvstore::kv::{Engine, Isolation, KeyRange, KvError, Limits, RangeOptions, Transaction};

use super::{begin, clear, get};

const PREFIX: &[u8] = b"conformance/limits/";

/// Above this the transaction limit is not tried: it would take the machine's memory.
const AFFORDABLE: u64 = 32 << 20;

pub(super) async fn check(engine: &Arc<dyn Engine>) {
    clear(engine, &KeyRange::prefix(PREFIX)).await;
    what_fits_exactly_is_taken(engine).await;
    what_is_larger_is_refused_whole(engine).await;
    keys_of_the_engine_are_refused(engine).await;
    stamps_that_do_not_fit_are_refused(engine).await;
    if engine.limits().transaction_bytes <= AFFORDABLE {
        a_transaction_too_large_is_refused(engine).await;
    }
}

fn longest_key(limits: Limits) -> Vec<u8> {
    let mut key = PREFIX.to_vec();
    key.resize(limits.key_bytes, b'k');
    key
}

async fn what_fits_exactly_is_taken(engine: &Arc<dyn Engine>) {
    let limits = engine.limits();
    let key = longest_key(limits);
    let value = vec![0xab; limits.value_bytes];
    let mut transaction = begin(engine);
    transaction.set(&key, &value);
    assert!(transaction.approximate_bytes() >= (key.len() + value.len()) as u64);
    transaction.commit().await.unwrap();
    assert_eq!(get(engine, &key).await, Some(value));
    let mut transaction = begin(engine);
    transaction.clear(&key);
    transaction.commit().await.unwrap();
}

async fn what_is_larger_is_refused_whole(engine: &Arc<dyn Engine>) {
    let limits = engine.limits();
    let innocent = [PREFIX, b"innocent"].concat();
    let mut long_key = longest_key(limits);
    long_key.push(b'k');

    let mut transaction = begin(engine);
    transaction.set(&innocent, b"");
    transaction.set(&long_key, b"");
    let error = transaction.commit().await.unwrap_err();
    assert!(
        matches!(error, KvError::TooLarge { what: "a key", .. }),
        "{error}"
    );

    let mut transaction = begin(engine);
    transaction.set(&innocent, b"");
    transaction.set(&[PREFIX, b"big"].concat(), &vec![0; limits.value_bytes + 1]);
    let error = transaction.commit().await.unwrap_err();
    assert!(
        matches!(
            error,
            KvError::TooLarge {
                what: "a value",
                ..
            }
        ),
        "{error}"
    );

    assert_eq!(get(engine, &innocent).await, None);
}

async fn keys_of_the_engine_are_refused(engine: &Arc<dyn Engine>) {
    let misuses: [fn(&mut dyn Transaction); 4] = [
        |transaction| transaction.set(b"\xff", b""),
        |transaction| transaction.clear(b"\xff\xff/anything"),
        |transaction| transaction.set_versionstamped_key(b"\xff0123456789", 1, b""),
        |transaction| transaction.clear_range(&KeyRange::new("a", b"\xff\x01")),
    ];
    for misuse in misuses {
        let mut transaction = begin(engine);
        misuse(transaction.as_mut());
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, KvError::BadKey { .. }), "{error}");
    }
    let reader = begin(engine);
    let error = reader.get(b"\xff", Isolation::Snapshot).await.unwrap_err();
    assert!(matches!(error, KvError::BadKey { .. }), "{error}");
    // Up to the engine's keys, but without them, everything can be read.
    let options = RangeOptions {
        limit: 1,
        reverse: true,
        isolation: Isolation::Snapshot,
    };
    reader
        .get_range(&KeyRange::new("", b"\xff"), options)
        .await
        .unwrap();
}

async fn stamps_that_do_not_fit_are_refused(engine: &Arc<dyn Engine>) {
    let key = [PREFIX, b"0123456789"].concat();
    let mut by_key = begin(engine);
    by_key.set_versionstamped_key(&key, PREFIX.len() + 1, b"");
    let mut by_value = begin(engine);
    by_value.set_versionstamped_value(&key, &[0; 10], usize::MAX);
    for transaction in [by_key, by_value] {
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, KvError::BadKey { .. }), "{error}");
    }
}

async fn a_transaction_too_large_is_refused(engine: &Arc<dyn Engine>) {
    let limits = engine.limits();
    let mut transaction = begin(engine);
    let value = vec![0; limits.value_bytes];
    let mut index = 0u32;
    while transaction.approximate_bytes() <= limits.transaction_bytes {
        transaction.set(&[PREFIX, b"part/", &index.to_be_bytes()].concat(), &value);
        index += 1;
    }
    let error = transaction.commit().await.unwrap_err();
    assert!(
        matches!(
            error,
            KvError::TooLarge {
                what: "a transaction",
                ..
            }
        ),
        "{error}"
    );
    let first = [PREFIX, b"part/", &0u32.to_be_bytes()].concat();
    assert_eq!(get(engine, &first).await, None);
}
