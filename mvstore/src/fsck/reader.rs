//! Reading a store of any size, at one version of the engine for as long as that lasts.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Check, Event, FsckError};
use crate::context::{Context, Failure};
use crate::kv::{Freshness, Isolation, KeyRange, KvError, Pair, RangeOptions, Transaction};

/// Pairs read at once: some megabytes where they are pages.
pub(super) const BATCH: usize = 256;
/// Younger transactions begun in a row without having read anything.
const MOST_RENEWALS: u32 = 100;

/// Reads by one transaction, and goes on with a younger one when that is too old.
pub(super) struct Reader<'a> {
    ctx: &'a Context,
    txn: Box<dyn Transaction>,
    /// How often a younger transaction took over.
    renewals: u32,
    renewals_in_a_row: u32,
    since: Instant,
    bytes: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(ctx: &'a Context) -> Self {
        Self {
            ctx,
            txn: ctx.begin(Freshness::Strict),
            renewals: 0,
            renewals_in_a_row: 0,
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// Whether not all of what was read is of one version.
    pub(super) fn is_torn(&self) -> bool {
        self.renewals > 0
    }

    pub(super) fn txn(&self) -> &dyn Transaction {
        &*self.txn
    }

    /// After a failure of reading: `Ok` if it is worth while to read again.
    pub(super) fn renew(&mut self, failure: Failure) -> Result<(), FsckError> {
        match failure {
            Failure::Engine(KvError::TooOld) if self.renewals_in_a_row < MOST_RENEWALS => {
                self.renewals += 1;
                self.renewals_in_a_row += 1;
                self.txn = self.ctx.begin(Freshness::Strict);
                Ok(())
            }
            Failure::Engine(error) => Err(error.into()),
            Failure::Refused(error) => Err(error.into()),
        }
    }

    /// The value of a key.
    pub(super) async fn get(
        &mut self,
        check: &mut Check<'_>,
        key: &[u8],
    ) -> Result<Option<Bytes>, FsckError> {
        loop {
            match self.txn.get(key, Isolation::Snapshot).await {
                Ok(value) => {
                    let length = value.as_ref().map_or(0, Bytes::len);
                    self.note(check, 0, length).await?;
                    return Ok(value);
                }
                Err(error) => self.renew(error.into())?,
            }
        }
    }

    /// The first pairs of a range.
    pub(super) async fn batch(
        &mut self,
        check: &mut Check<'_>,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Pair>, FsckError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let options = RangeOptions {
            limit,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        loop {
            match self.txn.get_range(range, options).await {
                Ok(pairs) => {
                    let bytes = pairs.iter().map(|(key, value)| key.len() + value.len());
                    self.note(check, pairs.len(), bytes.sum()).await?;
                    return Ok(pairs);
                }
                Err(error) => self.renew(error.into())?,
            }
        }
    }

    /// Counts what was read, tells it, and waits where that was too fast.
    async fn note(
        &mut self,
        check: &mut Check<'_>,
        keys: usize,
        bytes: usize,
    ) -> Result<(), FsckError> {
        self.renewals_in_a_row = 0;
        self.bytes += bytes as u64;
        check.counts.keys += keys as u64;
        check.counts.bytes += bytes as u64;
        if keys > 1 {
            let counts = check.counts;
            check.say(Event::Progress(counts))?;
        }
        let Some(rate) = check.options.bytes_per_second else {
            return Ok(());
        };
        let due = Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64);
        let ahead = due.saturating_sub(self.since.elapsed());
        if ahead > Duration::from_millis(10) {
            tokio::time::sleep(ahead).await;
        }
        Ok(())
    }
}

/// A walk over a range, in batches.
pub(super) struct Walk {
    rest: KeyRange,
    is_over: bool,
}

impl Walk {
    pub(super) fn over(range: KeyRange) -> Self {
        Self {
            is_over: range.is_empty(),
            rest: range,
        }
    }

    /// The next pairs; none at the end.
    pub(super) async fn next(
        &mut self,
        check: &mut Check<'_>,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Vec<Pair>>, FsckError> {
        if self.is_over {
            return Ok(None);
        }
        let pairs = reader.batch(check, &self.rest, BATCH).await?;
        self.is_over = pairs.len() < BATCH;
        match pairs.last() {
            None => return Ok(None),
            Some((last, _)) => self.rest.begin = [last, &[0][..]].concat(),
        }
        Ok(Some(pairs))
    }
}
