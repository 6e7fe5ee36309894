//! What fuzzing asks of the on-disk format: any bytes decode or are refused, and what decodes is
//! written as the same bytes again, wherever there is only one way to write it.

use std::fmt::Debug;

use bytes::Bytes;
use mvsqlite_protocol::{NamespaceId, PageIndex, PageRun, PageSet, StageId, Version};

use super::{
    CatalogEntry, ChangeEntry, ChangeReader, Deadline, Expiry, FoldCursor, GENERATION, Guard,
    Holding, Keyspace, LAYERS_GENERATION, LeaseTerm, LockRecord, MAX_LAYERS, Malformed, Outcome,
    PageValue, Pages, StageRecord, StoreFormat, TruncationMark, Usage, WaitingPlace, decode_sum,
    decode_touched, decode_version, decode_waiting, encode_waiting, page_sum,
};

/// What is decoded is written as the same bytes.
fn canonical<T: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(encode(&value), bytes, "{value:?}");
    }
}

/// A small value, whose type the first byte says.
pub fn layout_value(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 12 {
        // A later generation may have appended fields.
        0 => {
            if let Ok(format) = StoreFormat::decode(bytes) {
                assert!(bytes.starts_with(&format.encode()));
            }
        }
        1 => canonical(bytes, CatalogEntry::decode, CatalogEntry::encode),
        2 => canonical(bytes, Outcome::decode, encode_outcome),
        3 => canonical(
            bytes,
            |bytes| Usage::decode(Some(bytes)),
            |usage| usage.minus(&Usage::default()).to_vec(),
        ),
        4 => canonical(bytes, LockRecord::decode, LockRecord::encode),
        5 => canonical(bytes, Deadline::decode, |deadline| {
            deadline.encode().to_vec()
        }),
        6 => canonical(bytes, LeaseTerm::decode, LeaseTerm::encode),
        7 => canonical(bytes, TruncationMark::decode, TruncationMark::encode),
        8 => canonical(bytes, WaitingPlace::decode, encode_place),
        9 => match bytes {
            [] => assert_eq!(FoldCursor::decode(bytes), Ok(FoldCursor::START)),
            _ => canonical(bytes, FoldCursor::decode, FoldCursor::encode),
        },
        10 => canonical(bytes, StageRecord::decode, StageRecord::encode),
        _ => {
            canonical(bytes, decode_sum, |sum| sum.to_be_bytes().to_vec());
            canonical(bytes, decode_touched, |millis| {
                millis.to_le_bytes().to_vec()
            });
            canonical(bytes, decode_version, |version| version.as_bytes().to_vec());
        }
    }
}

fn encode_outcome(outcome: &Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Aborted => Outcome::encode_aborted(),
        Outcome::Committed { digest, version } => {
            let (mut bytes, at) = Outcome::encode_committed(*digest);
            bytes[at..].copy_from_slice(version.as_bytes());
            bytes
        }
    }
}

fn encode_place(place: &WaitingPlace) -> Vec<u8> {
    let (mut bytes, at) = WaitingPlace::encode_new(place.index);
    bytes[at..].copy_from_slice(place.version.as_bytes());
    bytes
}

/// A guard: at most as many layers and ancestors as there may be, in their order; and it survives
/// encoding, but that the generations written are those that its content needs.
pub fn guard(bytes: &[u8]) {
    let Ok(guard) = Guard::decode(bytes) else {
        return;
    };
    assert_eq!((guard.min_reader, guard.min_writer), (bytes[0], bytes[1]));
    if guard.min_reader > GENERATION {
        return;
    }
    assert!(guard.layers.len() <= MAX_LAYERS && guard.ancestors.len() <= MAX_LAYERS);
    assert!(
        guard
            .layers
            .is_sorted_by(|older, newer| older.at < newer.at)
    );
    let layered = !(guard.layers.is_empty() && guard.ancestors.is_empty());
    let least = if layered { LAYERS_GENERATION } else { 0 };
    let written = Guard {
        min_reader: guard.min_reader.max(least).max(1),
        min_writer: guard.min_writer.max(least).max(1),
        ..guard
    };
    assert_eq!(Guard::decode(&written.encode()), Ok(written));
}

/// A changelog entry in chunks, each with a length of two bytes before it. What is put together
/// lists pages in order, and is the same after it was cut into chunks of another size.
pub fn changelog(bytes: &[u8]) {
    let version = Version::from_bytes([4; 10]);
    let mut reader = ChangeReader::default();
    let mut rest = bytes;
    for number in 0..=u16::MAX {
        let Some((length, after)) = rest.split_first_chunk::<2>() else {
            return;
        };
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (chunk, after) = after.split_at(length);
        rest = after;
        match reader.push(version, number, chunk) {
            Err(_) => return assert!(!reader.is_incomplete()),
            Ok(None) => assert!(reader.is_incomplete()),
            Ok(Some((of, entry))) => {
                assert_eq!(of, version);
                return chunked(&entry, 30 + usize::from(number) * 7);
            }
        }
    }
}

fn chunked(entry: &ChangeEntry, chunk_bytes: usize) {
    let chunks = entry.encode(chunk_bytes, u16::MAX);
    let mut reader = ChangeReader::default();
    let mut last = None;
    for (number, chunk) in (0..).zip(&chunks) {
        assert!(chunk.len() <= chunk_bytes);
        let read = reader.push(Version::ZERO, number, chunk);
        last = read.expect("what was encoded decodes");
    }
    let (_, again) = last.expect("the last chunk completes the entry");
    assert_eq!(&again, entry);
    // Where there is no room for the list, everything counts as changed.
    let short = entry.encode(chunk_bytes, 1);
    assert_eq!(short.len(), 1);
    let (_, again) = ChangeReader::default()
        .push(Version::ZERO, 0, &short[0])
        .expect("what was encoded decodes")
        .expect("there is one chunk");
    assert!(again.pages == Pages::Everything || again == *entry);
    assert_eq!(
        (again.page_one, again.millis, again.sum),
        (entry.page_one, entry.millis, entry.sum)
    );
}

/// The layout of a page set's runs alone: any set of pages survives a changelog entry.
pub fn changed_pages(runs: impl IntoIterator<Item = (PageIndex, u32)>) {
    let runs: Vec<PageRun> = runs.into_iter().map(PageRun::from).collect();
    let Ok(pages) = PageSet::try_from(runs) else {
        return;
    };
    let entry = ChangeEntry {
        pages: Pages::Listed(pages),
        page_one: super::PageOneClass::Untouched,
        millis: 0,
        sum: None,
    };
    chunked(&entry, 64);
}

/// A page value: as it is, with its checksum put right, and what stands for it in a stage.
///
/// - what decodes is written as the same bytes;
/// - what a page holds is told without its checksum, and is the same;
/// - with the right checksum it decodes, and under another index or owner it does not.
pub fn page_value(bytes: &[u8]) {
    let owner = NamespaceId::from_bytes([7; 10]);
    let (index, content) = match bytes.split_first_chunk::<4>() {
        Some((index, content)) => (PageIndex::from_be_bytes(*index), content),
        None => (0, bytes),
    };
    decoded(&Bytes::copy_from_slice(content), owner.as_bytes(), index);

    let sum = page_sum(index, content);
    let mut raw = Vec::new();
    PageValue::encode_raw(&mut raw, owner.as_bytes(), sum, content);
    let raw = Bytes::from(raw);
    let value = PageValue::decode(&raw, owner.as_bytes(), index);
    assert_eq!(value, Ok(PageValue::Raw(Bytes::copy_from_slice(content))));
    decoded(&raw, owner.as_bytes(), index);
    let moved = PageValue::decode(&raw, owner.as_bytes(), index ^ 1);
    assert!(moved.is_err(), "content passed under another index");
    let stolen = PageValue::decode(&raw, &[8; 10], index);
    assert!(stolen.is_err(), "content passed for another namespace's");

    let stage = StageId::from_bytes([9; 16]);
    let mut reference = Vec::new();
    PageValue::encode_staged(&mut reference, owner.as_bytes(), sum, stage);
    let value = PageValue::decode(&reference.into(), owner.as_bytes(), index);
    let Ok(PageValue::Staged { checksum, .. }) = value else {
        panic!("a reference must decode as one");
    };
    PageValue::verify_staged(owner.as_bytes(), index, checksum, content).expect("its content");

    let mut waiting = Vec::new();
    encode_waiting(&mut waiting, content);
    let waiting = decode_waiting(&waiting.into()).expect("what was encoded decodes");
    assert_eq!(waiting, content);
    canonical(
        content,
        |bytes| decode_waiting(&Bytes::copy_from_slice(bytes)),
        |content| [&[0], content.as_ref()].concat(),
    );
}

fn decoded(bytes: &Bytes, owner: &[u8], index: PageIndex) {
    let Ok(value) = PageValue::decode(bytes, owner, index) else {
        return;
    };
    let holding = match &value {
        PageValue::Raw(content) => Holding::Content(content.len() as u64),
        PageValue::Staged { stage, .. } => Holding::Staged(*stage),
        PageValue::Absent => Holding::Nothing,
    };
    assert_eq!(PageValue::holding(bytes), Ok(holding));
    let mut again = Vec::new();
    match value {
        PageValue::Raw(content) => {
            PageValue::encode_raw(&mut again, owner, page_sum(index, &content), &content);
        }
        PageValue::Absent => PageValue::encode_absent(&mut again, owner, index),
        PageValue::Staged { .. } => return,
    }
    assert_eq!(&again, bytes);
}

/// A key, read as each kind of key there is: what is understood is put together as the same key.
pub fn layout_key(bytes: &[u8]) {
    let keys = Keyspace::new("m", "d").expect("prefixes without NUL");
    // Of each key, as readers do, what stands before its fields is not looked at.
    let same = |key: Vec<u8>, fields: usize| {
        assert_eq!(key.len(), bytes.len());
        assert_eq!(key[key.len() - fields..], bytes[bytes.len() - fields..]);
    };
    let id = NamespaceId::from_bytes([1; 10]);
    if let Ok(name) = keys.parse_name(bytes) {
        same(keys.name(&name), name.len());
    }
    if let Ok(millis) = keys.parse_time(bytes) {
        same(keys.time(millis), 8);
    }
    if let Ok(place) = keys.parse_lease_place(bytes) {
        same(keys.lease_place(id, place), 24);
    }
    if let Ok(id) = keys.parse_deleted(bytes) {
        same(keys.deleted(id), 10);
        same(keys.truncation(id), 10);
    }
    if let Ok((id, at)) = keys.parse_layer(bytes) {
        same(keys.layer(id, at), 20);
    }
    if let Ok(expiry) = keys.parse_expiry(bytes) {
        same(keys.expiry(&expiry), 35);
        assert!(expiry.name[0] % Expiry::BUCKETS < Expiry::BUCKETS);
    }
    if let Ok((version, chunk)) = keys.parse_change(bytes) {
        same(keys.change(id, version, chunk), 12);
    }
    if let Ok((index, version)) = keys.parse_page(bytes) {
        same(keys.page_at(id, index, version), 14);
    }
    if let Ok(index) = keys.parse_staged(bytes) {
        same(keys.staged_page(id, StageId::from_bytes([2; 16]), index), 4);
    }
    if let Ok(hash) = keys.parse_waiting_time(bytes) {
        same(keys.waiting_time(id, &hash), 32);
    }
    // Of anything that begins as the key of something staged.
    let _ = keys.parse_stage(bytes);
}
