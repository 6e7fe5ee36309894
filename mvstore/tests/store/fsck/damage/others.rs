//! Outcomes, uploads, expiry, usage, and the store as a whole.

use mvsqlite_protocol::Version;
use mvstore::fsck::Kind;

use super::{NOBODY, Row, meta_key, page_key, version_key};

pub(super) const ROWS: &[Row] = &[
    // ---- outcomes, uploads, expiry, usage ----
    Row("an outcome of an impossible kind", &[Kind::BadValue], |t| {
        t.patch(
            page_key(t.world.db, "i", &[t.world.outcome.as_bytes()]),
            0,
            &[9],
        )
    }),
    Row("an outcome of the future", &[Kind::OutcomeWrong], |t| {
        let key = page_key(t.world.db, "i", &[t.world.outcome.as_bytes()]);
        t.patch(key, 17, Version::new(1 << 40, 0).as_bytes())
    }),
    Row("an outcome never expires", &[Kind::NeverExpires], |t| {
        let is_its = |key: &Vec<u8>| key.ends_with(t.world.outcome.as_bytes());
        let expiry = t.under(&meta_key("x", &[])).into_iter().find(is_its);
        t.remove(expiry.unwrap())
    }),
    Row("an open stage never expires", &[Kind::NeverExpires], |t| {
        let is_its = |key: &Vec<u8>| key.ends_with(t.world.open_stage.as_bytes());
        let expiry = t.under(&meta_key("x", &[])).into_iter().find(is_its);
        t.remove(expiry.unwrap())
    }),
    Row("an upload never expires", &[Kind::NeverExpires], |t| {
        let upload = t.under(&page_key(t.world.db, "ht", &[])).remove(0);
        let name = &upload[upload.len() - 32..upload.len() - 16];
        let is_its = |key: &Vec<u8>| key.ends_with(name);
        let expiry = t.under(&meta_key("x", &[])).into_iter().find(is_its);
        t.remove(expiry.unwrap())
    }),
    Row(
        "an expiry entry lies in another bucket",
        &[Kind::ExpiryMisplaced],
        |t| {
            let is_its = |key: &Vec<u8>| key.ends_with(t.world.outcome.as_bytes());
            let expiry = t
                .under(&meta_key("x", &[]))
                .into_iter()
                .find(is_its)
                .unwrap();
            let mut moved = expiry.clone();
            moved[meta_key("x", &[]).len()] ^= 1;
            vec![(expiry, None), (moved, Some(Vec::new()))]
        },
    ),
    Row("an upload has another hash", &[Kind::UploadDamaged], |t| {
        t.flip(t.under(&page_key(t.world.db, "hc", &[])).remove(0), 9)
    }),
    Row("an upload has no time", &[Kind::UploadIncomplete], |t| {
        t.remove(t.under(&page_key(t.world.db, "ht", &[])).remove(0))
    }),
    Row("an upload has no content", &[Kind::UploadIncomplete], |t| {
        t.remove(t.under(&page_key(t.world.db, "hc", &[])).remove(0))
    }),
    Row("a counter says one page more", &[Kind::UsageWrong], |t| {
        let key = meta_key("u", &[t.world.db.as_bytes(), b"p"]);
        let count = t.value(&key)[0] + 1;
        t.patch(key, 0, &[count])
    }),
    Row(
        "a counter of staged pages is gone",
        &[Kind::UsageWrong],
        |t| t.remove(meta_key("u", &[t.world.db.as_bytes(), b"s"])),
    ),
    Row("a counter is too long", &[Kind::BadValue], |t| {
        t.set(meta_key("u", &[t.world.db.as_bytes(), b"p"]), &[0; 17])
    }),
    Row("a counter of nobody", &[Kind::MetadataOfNobody], |t| {
        t.set(meta_key("u", &[NOBODY.as_bytes(), b"p"]), &[0; 16])
    }),
    // ---- the store ----
    Row("the format is gone", &[Kind::FormatMissing], |t| {
        t.remove(meta_key("f", &[]))
    }),
    Row("the format is cut short", &[Kind::BadValue], |t| {
        t.set(meta_key("f", &[]), b"\0\x02")
    }),
    Row(
        "the high-water mark is gone",
        &[Kind::HighWaterWrong],
        |t| t.remove(meta_key("h", &[])),
    ),
    Row(
        "the high-water mark is older than the newest time",
        &[Kind::HighWaterWrong],
        |t| t.set(meta_key("h", &[]), t.world.versions[0].as_bytes()),
    ),
    Row(
        "versions of time records go back",
        &[Kind::TimeDisorder],
        |t| {
            let times = t.under(&meta_key("t", &[]));
            t.set(times[0].clone(), &t.value(&times[1]))
        },
    ),
    Row(
        "a key of the metadata that nobody knows",
        &[Kind::UnknownKey],
        |t| t.set(meta_key("z", &[b"what"]), b""),
    ),
    Row(
        "a key of a namespace that nobody knows",
        &[Kind::UnknownKey],
        |t| t.set(page_key(t.world.db, "z", &[b"what"]), b""),
    ),
    Row("a page's key is too long", &[Kind::UnknownKey], |t| {
        let key = version_key(t.world.db, 1, t.world.versions[0]);
        t.set([&key[..], b"!"].concat(), b"")
    }),
    Row("a key beside the two halves", &[Kind::UnknownKey], |t| {
        t.set(b"m\0q".to_vec(), b"")
    }),
    Row("a key in no namespace", &[Kind::UnknownKey], |t| {
        t.set(b"m\0dshort".to_vec(), b"")
    }),
    Row("a schema key with a value", &[Kind::BadValue], |t| {
        t.set(page_key(t.world.db, "x", &[]), b"!")
    }),
    Row(
        "a mark of a truncation is cut short",
        &[Kind::BadValue],
        |t| t.set(meta_key("wt", &[t.world.db.as_bytes()]), b"short"),
    ),
];
