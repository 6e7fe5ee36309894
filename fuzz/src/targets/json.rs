//! JSON: refusals, bodies of the admin API, and the JSON of protocol v1.

use mvsqlite_protocol::admin::{
    CreateNamespace, DeleteUnreferencedContent, ListedNamespace, NamespaceByKey, NamespaceStat,
    RenameNamespace, SetConcurrency, TruncateNamespace,
};
use mvsqlite_protocol::v1::{AcquireLock, ReleaseLock, StatReply};
use mvsqlite_protocol::{Code, Problem};

use crate::property::{json_survives, message_survives};

/// All of them survive encoding. A refusal has a status that refuses.
pub(super) fn json(bytes: &[u8]) {
    json_survives::<CreateNamespace>(bytes);
    json_survives::<RenameNamespace>(bytes);
    json_survives::<NamespaceByKey>(bytes);
    json_survives::<TruncateNamespace>(bytes);
    json_survives::<DeleteUnreferencedContent>(bytes);
    json_survives::<SetConcurrency>(bytes);
    json_survives::<ListedNamespace>(bytes);
    json_survives::<NamespaceStat>(bytes);
    json_survives::<StatReply>(bytes);
    json_survives::<AcquireLock>(bytes);
    json_survives::<ReleaseLock>(bytes);
    message_survives::<Problem>(bytes);
    if let Some(problem) = json_survives::<Problem>(bytes) {
        assert!((400..600).contains(&problem.code.status()));
        assert!(!problem.code.is_retryable() || problem.code == Code::Unavailable);
    }
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (
            "problem",
            text(
                r#"{"status":404,"code":"namespace_not_found","detail":"there is no namespace 'test'","hint":"create it","page":7,"version":"000000000001e2400000"}"#,
            ),
        ),
        (
            "problem-unknown",
            text(r#"{"status":418,"code":"teapot","detail":"short and stout"}"#),
        ),
        (
            "create",
            text(
                r#"{"key":"a/b","overlay_base":{"ns_id":"000000000001e2400000","snapshot_version":"000000000001e2400001"},"concurrency":"exclusive"}"#,
            ),
        ),
        ("rename", text(r#"{"old_key":"a","new_key":"b"}"#)),
        (
            "truncate",
            text(r#"{"key":"a","before_version":"000000000001e2400000","apply":true}"#),
        ),
        (
            "stat-reply",
            text(
                r#"{"version":"000000000001e2400000","metadata":"","read_only":false,"interval":[1,2]}"#,
            ),
        ),
        (
            "namespace-stat",
            text(
                r#"{"metadata":{"lock":{"nonce":"00","owner":"me","rolling_back":false,"snapshot_version":"000000000001e2400000"},"overlay_base":null,"truncated_before":null},"nsid":"000000000001e2400000","nskey":"a","version":"000000000001e2400000","page_size":4096,"page_count":2,"layers":1}"#,
            ),
        ),
        (
            "lock",
            text(r#"{"owner":"me","version":"000000000001e2400000"}"#),
        ),
        ("release", text(r#"{"owner":"me","mode":"rollback"}"#)),
    ]
}
