//! Pages and the changelog.

use mvsqlite_protocol::Version;
use mvstore::fsck::Kind;

use super::{Row, head_of, log_key, page_key, version_key};

pub(super) const ROWS: &[Row] = &[
    Row(
        "a page version is gone",
        &[Kind::PageMissing, Kind::UsageWrong],
        |t| t.remove(version_key(t.world.db, 1, t.world.versions[1])),
    ),
    Row(
        "the first version of a page is gone",
        &[Kind::PageMissing, Kind::UsageWrong],
        |t| t.remove(version_key(t.world.db, 4, t.world.versions[0])),
    ),
    Row("a byte of a page is another", &[Kind::PageDamaged], |t| {
        t.flip(version_key(t.world.db, 1, t.world.versions[0]), 100)
    }),
    Row(
        "a byte of a page's checksum is another",
        &[Kind::PageDamaged],
        |t| t.flip(version_key(t.world.fork, 2, head_of(t, t.world.fork)), 3),
    ),
    Row(
        "a page lies under another index",
        &[Kind::PageMissing, Kind::PageUnlisted, Kind::PageDamaged],
        |t| {
            let key = version_key(t.world.db, 1, t.world.versions[1]);
            let value = t.value(&key);
            vec![
                (key, None),
                (version_key(t.world.db, 7, t.world.versions[1]), Some(value)),
            ]
        },
    ),
    Row(
        "a page version that nobody made",
        &[Kind::PageUnlisted, Kind::UsageWrong],
        |t| {
            let value = t.value(&version_key(t.world.db, 1, t.world.versions[1]));
            let between = Version::new(t.world.versions[1].commit(), 7);
            t.set(version_key(t.world.db, 1, between), &value)
        },
    ),
    Row(
        "a page version that its commit does not list",
        &[Kind::PageUnlisted, Kind::UsageWrong],
        |t| {
            let value = t.value(&version_key(t.world.db, 4, t.world.versions[0]));
            t.set(version_key(t.world.db, 4, t.world.versions[1]), &value)
        },
    ),
    Row(
        "a page version above the head",
        &[Kind::PageOutOfHistory, Kind::UsageWrong],
        |t| {
            let value = t.value(&version_key(t.world.db, 1, t.world.versions[0]));
            t.set(version_key(t.world.db, 1, Version::new(1 << 40, 0)), &value)
        },
    ),
    Row(
        "a page version below the namespace",
        &[Kind::PageOutOfHistory, Kind::UsageWrong],
        |t| {
            let value = t.value(&version_key(t.world.db, 1, t.world.versions[0]));
            t.set(version_key(t.world.db, 1, Version::new(1, 0)), &value)
        },
    ),
    Row("a changelog entry is gone", &[Kind::PageUnlisted], |t| {
        t.remove(log_key(t.world.db, t.world.versions[0]))
    }),
    Row(
        "the newest changelog entry is gone",
        &[Kind::PageUnlisted, Kind::HeadWrong],
        |t| t.remove(log_key(t.world.db, t.world.versions[3])),
    ),
    Row(
        "the entry that a fork sees is gone",
        &[Kind::PageUnlisted, Kind::ChangelogMissing],
        |t| t.remove(log_key(t.world.db, t.world.versions[1])),
    ),
    Row(
        "the entry at the horizon is gone",
        &[Kind::ChangelogMissing],
        |t| t.remove(log_key(t.world.restored, t.world.horizon)),
    ),
    Row(
        "a changelog entry of several chunks has one",
        &[Kind::ChangelogTorn],
        |t| t.patch(log_key(t.world.db, t.world.versions[0]), 18, &[0, 2]),
    ),
    Row(
        "a changelog entry lists a page more",
        &[Kind::PageMissing],
        |t| {
            let key = log_key(t.world.db, t.world.versions[1]);
            // Pages 2 and 3 become pages 2 to 4.
            let last = t.value(&key).len() - 1;
            t.patch(key, last, &[2])
        },
    ),
    Row(
        "an entry's class of page 1 is another",
        &[Kind::ChangelogWrong],
        |t| t.patch(log_key(t.world.db, t.world.versions[1]), 1, &[1]),
    ),
    Row(
        "a changelog entry with an unknown flag",
        &[Kind::ChangelogTorn],
        |t| t.patch(log_key(t.world.db, t.world.versions[1]), 0, &[0x80]),
    ),
    Row(
        "the head is an older commit",
        &[Kind::HeadWrong, Kind::PageOutOfHistory],
        |t| {
            t.set(
                page_key(t.world.db, "v", &[]),
                t.world.versions[2].as_bytes(),
            )
        },
    ),
    Row("the head is no commit", &[Kind::HeadWrong], |t| {
        t.set(
            page_key(t.world.db, "v", &[]),
            Version::new(1 << 40, 0).as_bytes(),
        )
    }),
    Row(
        "the head is cut short",
        &[Kind::BadValue, Kind::HeadWrong, Kind::PageOutOfHistory],
        |t| t.set(page_key(t.world.db, "v", &[]), b"short"),
    ),
];
