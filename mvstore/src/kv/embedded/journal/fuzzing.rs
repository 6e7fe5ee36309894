//! What fuzzing asks of mending.

use super::{Batch, END, START, TRAILER, checksum_of, examine, written};

/// A journal of any bytes, and the same with the checksums of its batches put right, so that they
/// are whole.
///
/// - what is kept is whole batches, one behind the other, and none could be added;
/// - with a whole batch behind what would be cut off, it is damage and is not cut;
/// - zeros at the end change nothing.
pub(in crate::kv::embedded) fn mending(bytes: &[u8]) {
    mended(bytes);
    let mut whole = bytes.to_vec();
    if seal(&mut whole) {
        mended(&whole);
    }
}

fn mended(bytes: &[u8]) {
    let bytes = written(bytes);
    let padded = [bytes, &[0; 5000]].concat();
    assert_eq!(written(&padded), bytes);
    let (Ok(sound) | Err(sound)) = examine(bytes);
    assert!(sound <= bytes.len());
    let (mut end, mut last) = (0, 0);
    while let Some(batch) = Batch::parse(&bytes[end..]) {
        assert!(batch.bytes > 0);
        (end, last) = (end + batch.bytes, batch.sequence);
    }
    assert_eq!(end, sound);
    // What was cut once is not cut again.
    assert_eq!(examine(&bytes[..sound]), Ok(sound));
    let follower = [bytes, &batch_of_one(last)].concat();
    // Unless the follower is in the middle of what is broken, by what that says of its length.
    let torn = sound < bytes.len() && Batch::framed(&follower[sound..]).is_none();
    if torn {
        assert_eq!(
            examine(&follower),
            Err(sound),
            "an acknowledged batch was cut off"
        );
    }
}

/// The batch with one entry, a clear of keyspace 1.
fn batch_of_one(sequence: u64) -> Vec<u8> {
    let entry = [&[super::CLEAR][..], &1u64.to_le_bytes()].concat();
    let head = [&[START][..], &1u32.to_le_bytes(), &sequence.to_le_bytes()].concat();
    let end = [&[END][..], &checksum_of(&entry).to_le_bytes(), TRAILER].concat();
    [head, entry, end].concat()
}

/// Puts the checksum of every framed batch right. Whether there was one.
fn seal(bytes: &mut [u8]) -> bool {
    /// Start, count of entries, sequence number.
    const HEAD: usize = 13;
    /// End, checksum, trailer.
    const FOOT: usize = 13;
    let mut at = 0;
    let mut sealed = false;
    while at < bytes.len() {
        let Some(batch) = Batch::framed(&bytes[at..]) else {
            at += 1;
            continue;
        };
        let end = at + batch.bytes;
        let checksum = checksum_of(&bytes[at + HEAD..end - FOOT]);
        bytes[end - FOOT + 1..end - TRAILER.len()].copy_from_slice(&checksum.to_le_bytes());
        sealed = true;
        at = end;
    }
    sealed
}
