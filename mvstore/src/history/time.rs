//! The store-wide records of time: which version belonged to which millisecond.
//!
//! Invariant: sorted by time, the records are sorted by version too. A record is written only if the
//! clock is above that of the newest one, which is read serializably; where two servers record at
//! once, one of them gives way.

use std::sync::atomic::{AtomicU64, Ordering};

use mvsqlite_protocol::Version;
use tokio::try_join;

use crate::context::{Context, Failure, corrupt_in, rerun};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, KvError, Pair, RangeOptions, Transaction};
use crate::layout::{STAMPED_VERSION, decode_version};
use crate::store::{TimeBracket, TimePoint};

/// Writes the records, unless nothing happened since the last one.
#[derive(Debug, Default)]
pub(crate) struct TimeRecorder {
    /// Commit version of the last record this process wrote.
    last: AtomicU64,
}

impl TimeRecorder {
    /// Notes that the version to come belongs to the present, and raises the high-water mark.
    pub(crate) async fn record(&self, ctx: &Context) -> Result<(), StoreError> {
        match self.try_record(ctx).await {
            Ok(()) => Ok(()),
            // Another server recorded, or one more record may stand there. Both are fine.
            Err(Failure::Engine(KvError::Conflict | KvError::MaybeCommitted { .. })) => Ok(()),
            Err(Failure::Engine(error)) => Err(error.into()),
            Err(Failure::Refused(error)) => Err(error),
        }
    }

    async fn try_record(&self, ctx: &Context) -> Result<(), Failure> {
        let mut txn = ctx.begin(Freshness::Strict);
        if txn.read_version().await?.0 == self.last.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = ctx.now();
        let newest = ctx.keys.times_from(0);
        let options = RangeOptions {
            limit: 1,
            reverse: true,
            isolation: Isolation::Serializable,
        };
        let newest = txn.get_range(&newest, options).await?;
        if let Some((key, _)) = newest.first() {
            let time = ctx.keys.parse_time(key);
            // The clock was set back: the records wait until it has caught up.
            if time.map_err(corrupt_in("the records of time"))? >= now {
                return Ok(());
            }
        }
        let (version, offset) = STAMPED_VERSION;
        txn.set_versionstamped_value(&ctx.keys.time(now), version, offset);
        txn.set_versionstamped_value(&ctx.keys.high_water_mark(), version, offset);
        let version = txn.commit().await?;
        self.last.store(version.commit(), Ordering::Relaxed);
        Ok(())
    }
}

/// The recorded points around a time in Unix seconds; 0 is now.
pub(crate) async fn time_to_version(
    ctx: &Context,
    unix_seconds: u64,
) -> Result<TimeBracket, StoreError> {
    rerun(|| try_time_to_version(ctx, unix_seconds)).await
}

async fn try_time_to_version(ctx: &Context, unix_seconds: u64) -> Result<TimeBracket, Failure> {
    let txn = ctx.begin(Freshness::Strict);
    if unix_seconds == 0 {
        let now = ctx.now() / 1000;
        let current = txn.read_version().await?.0;
        let after = TimePoint {
            version: Version::new(current, u16::MAX),
            time: now,
        };
        let not_after = TimePoint {
            version: Version::new(current.saturating_add(1), 0),
            time: now + 1,
        };
        return Ok(TimeBracket {
            after: Some(after),
            not_after: Some(not_after),
        });
    }
    let millis = unix_seconds.saturating_mul(1000);
    let (after, not_after) = records_around(ctx, &*txn, millis).await?;
    let point = |pair: &Pair| -> Result<TimePoint, StoreError> {
        let time = ctx.keys.parse_time(&pair.0);
        Ok(TimePoint {
            version: version_of(pair)?,
            time: time.map_err(corrupt_in("the records of time"))? / 1000,
        })
    };
    Ok(TimeBracket {
        after: after.as_ref().map(point).transpose()?,
        not_after: not_after.as_ref().map(point).transpose()?,
    })
}

/// The newest record before a millisecond, and the oldest at or behind it.
pub(super) async fn records_around(
    ctx: &Context,
    txn: &dyn Transaction,
    millis: u64,
) -> Result<(Option<Pair>, Option<Pair>), Failure> {
    let one = |reverse| RangeOptions {
        limit: 1,
        reverse,
        isolation: Isolation::Snapshot,
    };
    let (before, from) = (ctx.keys.times_before(millis), ctx.keys.times_from(millis));
    let (before, from) = try_join!(
        txn.get_range(&before, one(true)),
        txn.get_range(&from, one(false)),
    )?;
    Ok((before.into_iter().next(), from.into_iter().next()))
}

/// The version of a record.
pub(super) fn version_of(record: &Pair) -> Result<Version, StoreError> {
    decode_version(&record.1).map_err(corrupt_in("the records of time"))
}
