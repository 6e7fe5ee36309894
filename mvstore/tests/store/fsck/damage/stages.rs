//! Stages and layers.

use mvsqlite_protocol::{StageId, Version};
use mvstore::fsck::Kind;

use super::{Row, meta_key, page_key, stage_key, version_key};

pub(super) const ROWS: &[Row] = &[
    Row(
        "staged content that a page refers to is gone",
        &[Kind::StagedMissing],
        |t| t.remove(stage_key(t.world.db, t.folded().0, "p", &[0, 0, 0, 2])),
    ),
    Row(
        "staged content that a page refers to is damaged",
        &[Kind::StagedDamaged],
        |t| t.flip(stage_key(t.world.db, t.folded().0, "p", &[0, 0, 0, 2]), 200),
    ),
    Row(
        "two versions of a page refer to one staged copy",
        &[Kind::StagedShared, Kind::PageUnlisted, Kind::UsageWrong],
        |t| {
            let (_, key) = t.folded();
            let value = t.value(&key);
            t.set(version_key(t.world.db, 2, t.world.versions[3]), &value)
        },
    ),
    Row(
        "a staged copy that no page refers to",
        &[Kind::StagedUnreferenced, Kind::StagedDamaged],
        |t| {
            let (stage, _) = t.folded();
            let value = t.value(&stage_key(t.world.db, stage, "p", &[0, 0, 0, 2]));
            t.set(stage_key(t.world.db, stage, "p", &[0, 0, 0, 9]), &value)
        },
    ),
    Row(
        "the record of a committed stage is gone",
        &[Kind::StageMissing],
        |t| t.remove(stage_key(t.world.db, t.folded().0, "r", &[])),
    ),
    Row(
        "a committed stage is open again",
        &[Kind::StageStateWrong],
        |t| t.patch(stage_key(t.world.db, t.folded().0, "r", &[]), 0, &[0]),
    ),
    Row(
        "a committed stage without pages",
        &[Kind::StageEmpty],
        |t| {
            let record = t.value(&stage_key(t.world.db, t.folded().0, "r", &[]));
            t.set(
                stage_key(t.world.db, StageId::from_bytes([3; 16]), "r", &[]),
                &record,
            )
        },
    ),
    Row(
        "an open stage has a page less",
        &[Kind::StageCountWrong],
        |t| {
            t.remove(stage_key(
                t.world.db,
                t.world.open_stage,
                "p",
                &[0, 0, 0, 2],
            ))
        },
    ),
    Row(
        "an open stage has a sum less",
        &[Kind::StageCountWrong],
        |t| {
            t.remove(stage_key(
                t.world.db,
                t.world.open_stage,
                "m",
                &[0, 0, 0, 2],
            ))
        },
    ),
    Row(
        "an open stage counts a page more",
        &[Kind::StageCountWrong, Kind::UsageWrong],
        |t| {
            t.patch(
                stage_key(t.world.db, t.world.open_stage, "r", &[]),
                12,
                &[3],
            )
        },
    ),
    Row(
        "an open stage has another sum",
        &[Kind::StageCountWrong],
        |t| t.flip(stage_key(t.world.db, t.world.open_stage, "r", &[]), 15),
    ),
    Row(
        "an open stage has another page size",
        &[Kind::StageCountWrong, Kind::UsageWrong],
        |t| {
            t.patch(
                stage_key(t.world.db, t.world.open_stage, "r", &[]),
                1,
                &[0, 0, 4, 0],
            )
        },
    ),
    Row(
        "a page of an open stage is damaged",
        &[Kind::StagedDamaged],
        |t| {
            t.flip(
                stage_key(t.world.db, t.world.open_stage, "p", &[0, 0, 0, 1]),
                50,
            )
        },
    ),
    Row(
        "an open stage has an impossible state",
        &[Kind::BadValue, Kind::UsageWrong],
        |t| t.patch(stage_key(t.world.db, t.world.open_stage, "r", &[]), 0, &[9]),
    ),
    Row(
        "a page that a layer shows is gone",
        &[Kind::PageMissing, Kind::StageCountWrong, Kind::UsageWrong],
        |t| t.remove(stage_key(t.world.layered, t.shown(), "p", &[0, 0, 0, 3])),
    ),
    Row(
        "the stage of a layer is dead",
        &[Kind::StageStateWrong, Kind::UsageWrong],
        |t| t.patch(stage_key(t.world.layered, t.shown(), "r", &[]), 0, &[2]),
    ),
    Row(
        "nothing of a layer's stage is there",
        &[Kind::StageMissing, Kind::PageMissing, Kind::UsageWrong],
        |t| {
            let all = t.under(&page_key(t.world.layered, "s", &[]));
            all.into_iter().map(|key| (key, None)).collect()
        },
    ),
    Row(
        "a layer is not in the work queue",
        &[Kind::LayerUnqueued],
        |t| {
            let (id, at) = (t.world.layered, t.world.layered_at);
            t.remove(meta_key("wl", &[id.as_bytes(), at.as_bytes()]))
        },
    ),
    Row(
        "the work queue has a layer that is not there",
        &[Kind::LayerQueuedInVain],
        |t| {
            let (id, at) = (t.world.db, t.world.versions[2]);
            t.set(meta_key("wl", &[id.as_bytes(), at.as_bytes()]), b"")
        },
    ),
    Row(
        "a layer at no commit",
        &[
            Kind::LayerWrong,
            Kind::LayerUnqueued,
            Kind::LayerQueuedInVain,
            Kind::ChangelogMissing,
            Kind::PageMissing,
        ],
        |t| {
            t.patch(
                t.guard(t.world.layered),
                48,
                Version::new(1 << 40, 0).as_bytes(),
            )
        },
    ),
    Row("a restore of no commit", &[Kind::ChangelogMissing], |t| {
        let between = Version::new(t.world.horizon.commit(), 9);
        t.patch(t.guard(t.world.restored), 47 + 11, between.as_bytes())
    }),
];
