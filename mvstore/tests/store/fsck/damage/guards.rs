//! Guards, locks, leases, the catalog, forks.

use mvsqlite_protocol::Version;
use mvstore::fsck::Kind;

use super::{NOBODY, Row, meta_key, page_key};

pub(super) const ROWS: &[Row] = &[
    // ---- guards, locks, leases ----
    Row(
        "the horizon is above the head",
        &[Kind::HorizonWrong],
        |t| {
            t.patch(
                t.guard(t.world.orphan),
                3,
                Version::new(1 << 40, 0).as_bytes(),
            )
        },
    ),
    Row("the horizon is no commit", &[Kind::ChangelogMissing], |t| {
        let between = Version::new(t.world.versions[0].commit(), 9);
        t.patch(t.guard(t.world.db), 3, between.as_bytes())
    }),
    Row(
        "the horizon is above what a fork sees",
        &[Kind::HorizonWrong],
        |t| t.patch(t.guard(t.world.db), 3, t.world.versions[2].as_bytes()),
    ),
    Row("a guard in an impossible state", &[Kind::BadValue], |t| {
        t.patch(t.guard(t.world.leased), 2, &[7])
    }),
    Row("a guard of a later generation", &[Kind::NewerFormat], |t| {
        t.patch(t.guard(t.world.leased), 0, &[200])
    }),
    Row("a lock has no record", &[Kind::LockWithoutRecord], |t| {
        t.remove(page_key(t.world.restored, "k", &[]))
    }),
    Row(
        "a lock's record has another nonce",
        &[Kind::LockWithoutRecord],
        |t| t.flip(page_key(t.world.restored, "k", &[]), 0),
    ),
    Row(
        "a lock's record without a lock",
        &[Kind::LockLeftBehind],
        |t| {
            let record = t.value(&page_key(t.world.restored, "k", &[]));
            t.set(page_key(t.world.leased, "k", &[]), &record)
        },
    ),
    Row("a lease has no term", &[Kind::LeaseWithoutTerm], |t| {
        t.remove(meta_key("l", &[t.world.leased.as_bytes(), b"h"]))
    }),
    Row(
        "a term of a lease is cut short",
        &[Kind::BadValue, Kind::LeaseWithoutTerm],
        |t| t.set(meta_key("l", &[t.world.leased.as_bytes(), b"h"]), b"short"),
    ),
    // ---- catalog, deletion, forks ----
    Row(
        "a namespace has no guard",
        &[Kind::GuardMissing, Kind::MetadataOfNobody],
        |t| t.remove(t.guard(t.world.leased)),
    ),
    Row(
        "a namespace without a guard has keys",
        &[Kind::KeysOfNobody],
        |t| t.set(page_key(NOBODY, "v", &[]), NOBODY.as_bytes()),
    ),
    Row("a catalog entry is gone", &[Kind::Nameless], |t| {
        t.remove(meta_key("nleased", &[]))
    }),
    Row(
        "a catalog entry is cut short",
        &[Kind::BadValue, Kind::Nameless],
        |t| t.set(meta_key("nleased", &[]), b"\x01"),
    ),
    Row("a namespace has two names", &[Kind::NamedTwice], |t| {
        let entry = t.value(&meta_key("nleased", &[]));
        t.set(meta_key("nother", &[]), &entry)
    }),
    Row(
        "a hidden namespace has a name",
        &[Kind::NamedButDeleted],
        |t| {
            let mut entry = t.value(&meta_key("nleased", &[]));
            entry[1..11].copy_from_slice(t.world.hidden.as_bytes());
            t.set(meta_key("nhidden", &[]), &entry)
        },
    ),
    Row(
        "a deleted namespace is not queued",
        &[Kind::DeletionUnqueued],
        |t| t.remove(meta_key("wd", &[t.world.deleted.as_bytes()])),
    ),
    Row(
        "a living namespace is queued for removal",
        &[Kind::QueuedAlive],
        |t| t.set(meta_key("wd", &[t.world.leased.as_bytes()]), b"leased"),
    ),
    Row(
        "a fork is not on its base's list",
        &[Kind::ForkUnlisted],
        |t| {
            t.remove(meta_key(
                "c",
                &[t.world.db.as_bytes(), t.world.fork.as_bytes()],
            ))
        },
    ),
    Row(
        "a hidden base has lost its fork",
        &[Kind::ForkUnlisted, Kind::HiddenWithoutForks],
        |t| {
            t.remove(meta_key(
                "c",
                &[t.world.hidden.as_bytes(), t.world.orphan.as_bytes()],
            ))
        },
    ),
    Row(
        "a list of forks names one that does not exist",
        &[Kind::ForkDangling],
        |t| {
            let key = meta_key("c", &[t.world.db.as_bytes(), NOBODY.as_bytes()]);
            t.set(key, t.world.versions[1].as_bytes())
        },
    ),
    Row(
        "a list of forks names one of another base",
        &[Kind::ForkDangling],
        |t| {
            let key = meta_key("c", &[t.world.db.as_bytes(), t.world.orphan.as_bytes()]);
            t.set(key, t.world.versions[1].as_bytes())
        },
    ),
    Row(
        "a fork sees another version than its base knows",
        &[Kind::ForkDangling],
        |t| {
            let key = meta_key("c", &[t.world.db.as_bytes(), t.world.fork.as_bytes()]);
            t.set(key, t.world.versions[0].as_bytes())
        },
    ),
    Row(
        "the base of a fork is being removed",
        &[Kind::BaseMissing],
        |t| {
            let mut writes = t.patch(t.guard(t.world.hidden), 2, &[2]);
            writes.extend(t.set(meta_key("wd", &[t.world.hidden.as_bytes()]), b""));
            writes
        },
    ),
    Row("a fork has an ancestor more", &[Kind::AncestryWrong], |t| {
        let mut guard = t.value(&t.guard(t.world.fork));
        guard[46] += 1;
        guard.extend_from_slice(t.world.hidden.as_bytes());
        guard.extend_from_slice(Version::new(1 << 40, 0).as_bytes());
        t.set(t.guard(t.world.fork), &guard)
    }),
    Row(
        "a base lets old servers write",
        &[Kind::BaseUnprotected],
        |t| t.patch(t.guard(t.world.db), 1, &[1]),
    ),
];
