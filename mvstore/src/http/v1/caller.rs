//! Who calls: the namespace key of a request's header, and the proof that goes with it.

use axum::http::{HeaderMap, StatusCode};
use mvsqlite_protocol::NamespaceKey;

use super::reply::Refused;
use crate::v1::admits;

const KEY: &str = "x-namespace-key";
const PROOF: &str = "x-namespace-hashproof";

/// The key that came along, if one did. A proof that is missing or wrong looks like a namespace that
/// is not there.
pub(super) fn caller(headers: &HeaderMap) -> Result<Option<NamespaceKey>, Refused> {
    let Some(key) = headers.get(KEY) else {
        return Ok(None);
    };
    let invalid = |_| Refused::new(StatusCode::BAD_REQUEST, "invalid x-namespace-key");
    let key = key.to_str().map_err(invalid)?;
    let proof = match headers.get(PROOF).map(|proof| proof.to_str()) {
        Some(Err(_)) => return Err(unknown()),
        Some(Ok(proof)) => Some(proof),
        None => None,
    };
    checked(key, proof).map(Some)
}

/// The key, if it can be one and the proof fits.
pub(super) fn checked(key: &str, proof: Option<&str>) -> Result<NamespaceKey, Refused> {
    let namespace = NamespaceKey::of_original(key).map_err(|_| unknown())?;
    if admits(key, proof) {
        Ok(namespace)
    } else {
        Err(unknown())
    }
}

/// The key, which must have come along.
pub(super) fn expect_key(headers: &HeaderMap) -> Result<NamespaceKey, Refused> {
    let missing = "this operation requires x-namespace-key";
    caller(headers)?.ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, missing))
}

fn unknown() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "namespace not found")
}
