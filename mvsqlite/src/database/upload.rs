//! Uploading while writing: a transaction's pages go to a stage before its COMMIT.
//!
//! A transaction keeps the pages it wrote last in memory. Once there are some megabytes of them, those
//! unwritten for the longest are sent to a stage of the store in batches, several at once, by
//! threads of the process; SQLite waits only when it writes faster than that. So memory stays bounded
//! whatever the transaction's size, and at COMMIT nearly everything is durable.
//!
//! Of a page in the stage only its index and sum are kept, and a copy of its content as long as there
//! is room. Without one the page is read back, and must have its sum.
//!
//! Invariants:
//! - two uploads of one page are never under way at once: the stage's content does not depend on
//!   the order in which batches arrive;
//! - `stored` and `garbage` together are what the stage holds once nothing is under way; COMMIT names
//!   their count and xor, worked out here, and the store compares;
//! - a batch that failed, after the repetitions of its call, ends the transaction: the next write
//!   or the COMMIT reports it, and nothing was committed.
//!
//! A stage that is not committed is left behind; the store removes it when it has not been touched
//! for a while.

mod batch;
mod held;
mod read_back;

use std::collections::BTreeMap;
use std::sync::Arc;

use lru::LruCache;
use mvsqlite_protocol::page::staged_sum;
use mvsqlite_protocol::v2::StageRef;
use mvsqlite_protocol::{PageIndex, PageSet, StageId};

use super::error::Cause;
use super::remote::Remote;
use super::snapshot::Snapshot;
use crate::system::System;
use batch::{Batch, Ended, Mailbox};
use held::{Taken, Uploaded};
use read_back::Window;

pub(super) use held::HeldPages;

/// Most batches of a transaction that are under way at once.
const MOST_IN_FLIGHT: usize = 3;
/// Most page content of a batch, in bytes. Smaller batches would cost more fsyncs, larger ones more
/// memory.
const MOST_BATCH_BYTES: u64 = 4 << 20;
/// Pages of the batch that makes the stage.
const FIRST_BATCH_PAGES: usize = 16;
/// Uploading begins with this much page content, in bytes, or earlier.
const MOST_UNSENT_BYTES: u64 = 4 << 20;
/// Most pages that one batch takes out of the stage.
const MOST_UNSTAGED: usize = 10_000;

/// A page and its content.
pub(super) type Page = (PageIndex, Arc<[u8]>);

/// What a transaction has in the store before its COMMIT.
pub(super) struct Upload {
    mailbox: Arc<Mailbox>,
    /// Known when the first batch has arrived.
    stage: Option<StageId>,
    in_flight: usize,
    /// Sums of the staged pages that belong to the transaction, where no newer content is held.
    stored: BTreeMap<PageIndex, u64>,
    /// Sums of the staged pages that were cut off.
    garbage: BTreeMap<PageIndex, u64>,
    /// Contents of stored pages, as far as there is room.
    copies: LruCache<PageIndex, Arc<[u8]>>,
    window: Window,
}

/// What a transaction sends, and from where to where.
pub(super) struct Channel<'a> {
    pub(super) remote: &'a Remote,
    pub(super) snapshot: &'a mut Snapshot,
    /// In bytes.
    pub(super) page_size: u32,
}

impl Channel<'_> {
    /// How many pages a transaction may keep in memory.
    fn budget(&self) -> usize {
        self.pages(self.remote.env.config().upload_bytes)
    }

    /// How many pages make a batch: several of them fit the budget.
    fn batch(&self) -> usize {
        let bytes = self.snapshot.limits.stage_batch_bytes.min(MOST_BATCH_BYTES);
        let pages = self.pages(bytes).min(self.budget() / 4).max(1);
        let allowed = usize::try_from(self.snapshot.limits.commit_pages);
        pages.min(allowed.unwrap_or(usize::MAX)).max(1)
    }

    /// With how many pages waiting the first batch is sent: a transaction that fits one request
    /// needs no other.
    pub(super) fn beginning(&self) -> usize {
        let inline = self.pages(self.snapshot.limits.inline_bytes.min(MOST_UNSENT_BYTES));
        inline.max(self.going_on()).min(self.budget() / 2)
    }

    /// With how many pages waiting the next batch is sent.
    fn going_on(&self) -> usize {
        self.batch() + self.batch().div_ceil(2)
    }

    fn pages(&self, bytes: u64) -> usize {
        let pages = bytes / u64::from(self.page_size.max(1));
        usize::try_from(pages).unwrap_or(usize::MAX)
    }
}

impl Upload {
    pub(super) fn new(system: &dyn System) -> Self {
        Self {
            mailbox: Arc::new(Mailbox::new(system)),
            stage: None,
            in_flight: 0,
            stored: BTreeMap::new(),
            garbage: BTreeMap::new(),
            copies: LruCache::unbounded(),
            window: Window::default(),
        }
    }

    /// Pages that are in the stage and belong to the transaction.
    pub(super) fn stored(&self) -> &BTreeMap<PageIndex, u64> {
        &self.stored
    }

    /// The copies of stored pages below `count`.
    pub(super) fn copies(&self, count: PageIndex) -> impl Iterator<Item = Page> {
        let below = self.copies.iter().filter(move |(index, _)| **index < count);
        below.map(|(index, content)| (*index, Arc::clone(content)))
    }

    /// Goes on after SQLite has written a page: takes note of what has arrived, sends what is
    /// due, and waits while there is too much in memory.
    pub(super) fn advance(
        &mut self,
        held: &mut HeldPages,
        channel: &mut Channel<'_>,
    ) -> Result<(), Cause> {
        self.take_note(self.mailbox.collect(), held, channel)?;
        loop {
            while held.waiting() >= channel.going_on() && self.may_start() {
                // Until the stage is made the other batches wait: a small one makes it sooner.
                let most = match self.stage {
                    Some(_) => channel.batch(),
                    None => channel.batch().min(FIRST_BATCH_PAGES),
                };
                let pages = held.take(most, |_| true);
                self.start(pages, PageSet::new(), channel);
            }
            if held.len() <= channel.budget() || self.in_flight == 0 {
                break;
            }
            self.take_note(self.mailbox.wait(), held, channel)?;
        }
        self.make_room(held, channel);
        Ok(())
    }

    /// Brings everything to where a commit of `count` pages needs it: into the stage, or inline as
    /// far as `room` pages allow. Waits for all that is under way.
    pub(super) fn finish(
        &mut self,
        held: &mut HeldPages,
        count: PageIndex,
        room: usize,
        channel: &mut Channel<'_>,
    ) -> Result<Option<StageRef>, Cause> {
        // One request and one fsync for what is left, as far as the memory for it goes.
        let room = room.min(channel.budget() / 2);
        loop {
            self.take_note(self.mailbox.collect(), held, channel)?;
            while self.may_start() {
                let unstage = self.unwanted();
                let pages = self.take_rest(held, count, room, channel.batch());
                if pages.is_empty() && unstage.is_empty() {
                    break;
                }
                self.start(pages, unstage, channel);
            }
            if self.in_flight == 0 {
                return Ok(self.reference());
            }
            self.take_note(self.mailbox.wait(), held, channel)?;
        }
    }

    /// Pages to be staged before a commit: those of which the stage holds an older content, and
    /// those that have no room inline.
    fn take_rest(
        &self,
        held: &mut HeldPages,
        count: PageIndex,
        room: usize,
        most: usize,
    ) -> Vec<Taken> {
        let stored = &self.stored;
        let is_new = |index: PageIndex| !stored.contains_key(&index);
        let new = held.waiting_pages().filter(|i| *i < count && is_new(*i));
        let mut excess = new.count().saturating_sub(room);
        held.take(most, |index| {
            let too_many = excess > 0;
            if index < count && is_new(index) {
                excess = excess.saturating_sub(1);
            }
            index < count && (too_many || !is_new(index))
        })
    }

    /// What is to be taken out of the stage now.
    fn unwanted(&self) -> PageSet {
        // Nothing is known of a page that is under way: it is asked for when that has ended.
        match self.in_flight {
            0 => self.garbage.keys().copied().take(MOST_UNSTAGED).collect(),
            _ => PageSet::new(),
        }
    }

    /// The stage as it is.
    fn reference(&self) -> Option<StageRef> {
        let sums = self.stored.values().chain(self.garbage.values());
        let count = (self.stored.len() + self.garbage.len()) as u64;
        let stage = self.stage.filter(|_| count > 0)?;
        Some(StageRef {
            stage,
            count,
            sum: sums.fold(0, |all, sum| all ^ sum),
        })
    }

    /// The first batch makes the stage that the others name.
    fn may_start(&self) -> bool {
        match self.stage {
            Some(_) => self.in_flight < MOST_IN_FLIGHT,
            None => self.in_flight == 0,
        }
    }

    fn start(&mut self, pages: Vec<Taken>, unstage: PageSet, channel: &Channel<'_>) {
        let batch = Batch {
            identity: channel.snapshot.identity,
            read_version: channel.snapshot.read_version,
            stage: self.stage,
            pages,
            unstage,
        };
        self.in_flight += 1;
        let env = Arc::clone(&channel.remote.env);
        let key = channel.remote.key.clone();
        let mailbox = Arc::clone(&self.mailbox);
        let task = Box::new(move || batch::send(&env, &key, batch, mailbox));
        channel.remote.env.shared().workers.run(task);
    }

    /// Takes note of batches that have ended.
    fn take_note(
        &mut self,
        ended: Vec<Ended>,
        held: &mut HeldPages,
        channel: &mut Channel<'_>,
    ) -> Result<(), Cause> {
        for batch in ended {
            self.in_flight -= 1;
            let reply = batch.reply?;
            self.stage = Some(reply.stage);
            let snapshot = &mut *channel.snapshot;
            snapshot.read_version = snapshot.read_version.max(reply.read_version);
            for index in batch.unstaged.iter() {
                self.garbage.remove(&index);
            }
            for page in batch.pages {
                self.garbage.remove(&page.index);
                match held.uploaded(page.index, page.written) {
                    Uploaded::Newest(content) => {
                        self.stored.insert(page.index, page.sum);
                        self.copies.put(page.index, content);
                    }
                    Uploaded::Outdated => {
                        self.stored.insert(page.index, page.sum);
                    }
                    Uploaded::CutOff => {
                        self.stored.remove(&page.index);
                        self.garbage.insert(page.index, page.sum);
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives up copies until everything in memory is within the budget.
    fn make_room(&mut self, held: &HeldPages, channel: &Channel<'_>) {
        let most = channel.budget().saturating_sub(held.len());
        while self.copies.len() > most {
            self.copies.pop_lru();
        }
    }

    /// SQLite has written this page anew: its copy is of no more use.
    pub(super) fn written(&mut self, index: PageIndex) {
        self.copies.pop(&index);
    }

    /// The file was cut off here.
    pub(super) fn cut_off(&mut self, first: PageIndex) {
        for (index, sum) in self.stored.split_off(&first) {
            self.copies.pop(&index);
            self.garbage.insert(index, sum);
        }
    }

    /// A stored page, from its copy or read back.
    pub(super) fn page(
        &mut self,
        index: PageIndex,
        held: &HeldPages,
        channel: &Channel<'_>,
    ) -> Result<Arc<[u8]>, Cause> {
        if let Some(copy) = self.copies.get(&index) {
            return Ok(Arc::clone(copy));
        }
        let Some(stage) = self.stage else {
            return Err(Cause::Misuse("a staged page without a stage"));
        };
        let limits = &channel.snapshot.limits;
        let most = channel.pages(limits.read_bytes).min(channel.budget() / 4);
        let most = u32::try_from(most)
            .unwrap_or(u32::MAX)
            .min(limits.read_pages);
        let window = self.window.from(index, most);
        let next = self.stored.range(window).map(|(next, _)| *next);
        let missing = |next: &PageIndex| !self.copies.contains(next) && !held.contains(*next);
        let wanted: PageSet = next.filter(missing).collect();
        let pages = channel.remote.staged(channel.snapshot, stage, wanted)?;
        let mut found = None;
        for (page, content) in pages {
            let sum = staged_sum(page, &content);
            if self.stored.get(&page) != Some(&sum) {
                return Err(Cause::StageDiffers { page });
            }
            if page == index {
                found = Some(Arc::clone(&content));
            }
            self.copies.put(page, content);
        }
        self.make_room(held, channel);
        found.ok_or(Cause::StageDiffers { page: index })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}
