//! Properties that many targets share.

use std::fmt::Debug;

use mvsqlite_protocol::v2;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What decodes as MessagePack survives being encoded, and its encoding is the same ever after.
pub(crate) fn message_survives<T>(bytes: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let message: T = v2::decode(bytes).ok()?;
    let encoded = v2::encode(&message).expect("a message that was decoded can be encoded");
    let again: T = v2::decode(&encoded).expect("what was encoded decodes");
    assert_eq!(again, message);
    Some(message)
}

/// What decodes as JSON survives being encoded.
pub(crate) fn json_survives<T>(bytes: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let value: T = serde_json::from_slice(bytes).ok()?;
    let encoded = serde_json::to_vec(&value).expect("a value that was decoded can be encoded");
    let again: T = serde_json::from_slice(&encoded).expect("what was encoded decodes");
    assert_eq!(again, value);
    Some(value)
}
