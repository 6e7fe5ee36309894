//! The keys of a namespace that are neither pages nor changelog nor stages: outcomes, uploads, and a
//! few of which there is one each.

use mvsqlite_protocol::v1::PageHash;

use super::metadata::{Metadata, is_past};
use super::namespace::Round;
use super::{Check, FsckError, Kind};
use crate::kv::Pair;
use crate::layout::{ExpiryKind, Outcome, PageKey, WaitingPlace, decode_touched, decode_waiting};
use crate::page::hash_of;

/// Judges such keys.
pub(super) async fn judge(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
    round: &mut Round<'_>,
    pairs: &[Pair],
) -> Result<(), FsckError> {
    let keys = &check.ctx.keys;
    let id = round.facts.id;
    for (key, value) in pairs {
        let Some((_, parsed)) = keys.page_key(key) else {
            let detail = "it is none of the store's keys";
            round.find(Kind::UnknownKey, keys.describe(key), detail);
            continue;
        };
        let bad = match &parsed {
            PageKey::Outcome(name) => {
                let kind = ExpiryKind::Outcome;
                metadata.expect_expiry(check, id, kind, name.as_bytes(), key);
                judge_outcome(round, &parsed, value)
            }
            PageKey::WaitingPage(hash) => {
                expect_time(check, round, &parsed, hash).await?;
                match decode_waiting(value) {
                    Ok(content) if hash_of(&content) != *hash => {
                        let detail = "its content has another hash";
                        round.find(Kind::UploadDamaged, &parsed, detail);
                        None
                    }
                    decoded => decoded.err().map(|malformed| malformed.to_string()),
                }
            }
            PageKey::WaitingPlace(hash) => {
                expect_time(check, round, &parsed, hash).await?;
                let decoded = WaitingPlace::decode(value);
                decoded.err().map(|malformed| malformed.to_string())
            }
            PageKey::WaitingTime(hash) => {
                expect_upload(check, round, &parsed, hash).await?;
                let (name, _) = hash.split_at(16);
                if let Ok(name) = name.try_into() {
                    metadata.expect_expiry(check, id, ExpiryKind::Waiting, name, key);
                }
                let decoded = decode_touched(value);
                decoded.err().map(|malformed| malformed.to_string())
            }
            PageKey::Schema if !value.is_empty() => Some("it has a value".to_owned()),
            // The others were looked at with the guard.
            _ => None,
        };
        if let Some(bad) = bad {
            round.find(Kind::BadValue, &parsed, bad);
        }
    }
    Ok(())
}

fn judge_outcome(round: &mut Round<'_>, key: &PageKey, value: &[u8]) -> Option<String> {
    match Outcome::decode(value) {
        Ok(Outcome::Committed { version, .. }) => {
            if !round.reader.is_torn() && !is_past(round.facts.read_version, version) {
                let detail = format!("it was committed at {version}, which is not past yet");
                round.find(Kind::OutcomeWrong, key, detail);
            }
            None
        }
        Ok(Outcome::Aborted) => None,
        Err(malformed) => Some(malformed.to_string()),
    }
}

/// An upload, or the place of one, has a time.
async fn expect_time(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    key: &PageKey,
    hash: &PageHash,
) -> Result<(), FsckError> {
    let time = check.ctx.keys.waiting_time(round.facts.id, hash);
    if round.reader.get(check, &time).await?.is_none() {
        let detail = "there is no time of its last use";
        round.find(Kind::UploadIncomplete, key, detail);
    }
    Ok(())
}

/// A time is that of an upload, or of content that a commit brought along.
async fn expect_upload(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    key: &PageKey,
    hash: &PageHash,
) -> Result<(), FsckError> {
    let (keys, id) = (&check.ctx.keys, round.facts.id);
    for upload in [keys.waiting_page(id, hash), keys.waiting_place(id, hash)] {
        if round.reader.get(check, &upload).await?.is_some() {
            return Ok(());
        }
    }
    round.find(
        Kind::UploadIncomplete,
        key,
        "there is neither content nor a place",
    );
    Ok(())
}
