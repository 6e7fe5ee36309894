//! The order that the store itself claims: replayed in the order of versions, the commits must
//! explain every read.
//!
//! A read at version V saw exactly the commits up to V. What a committed transaction read must
//! still have been so just before its own version. Neither needs a search: the state at a version
//! is found by bisection among the writes of one list or register.
//!
//! A commit whose version nobody knows (its client got no answer, others saw what it wrote) lies
//! somewhere between versions: above every read that did not see it, at or below every one that
//! did. All that is asked of it is that there is such a place.

use std::collections::BTreeMap;

use crate::lists::Lists;
use crate::observation::Observation;
use crate::registers::Registers;
use crate::violation::{Anomaly, List, Value, Violation};

/// Up to which version a transaction's reads saw.
#[derive(Debug, Clone, Copy)]
struct Bound<'h> {
    version: &'h str,
    /// It is the transaction's own commit, which its reads do not see.
    own: bool,
}

impl Bound<'_> {
    fn sees(self, version: &str) -> bool {
        match self.own {
            true => version < self.version,
            false => version <= self.version,
        }
    }

    fn anomaly(self) -> Anomaly {
        match self.own {
            true => Anomaly::StaleCommit,
            false => Anomaly::NotTheSnapshot,
        }
    }

    fn words(self) -> String {
        match self.own {
            true => format!("just before {}, where T1 was committed", self.version),
            false => format!("at {}", self.version),
        }
    }
}

/// Where the commit of a transaction lies whose version nobody knows.
#[derive(Debug, Clone, Copy, Default)]
struct Place<'h> {
    /// Above this version, by that transaction.
    above: Option<(&'h str, usize)>,
    /// Not above this.
    upto: Option<(&'h str, usize)>,
}

/// Refuses a history that its own versions do not explain. Answers how many reads they did explain.
pub(crate) fn replay(
    observations: &[Observation<'_>],
    lists: &Lists<'_>,
    registers: &Registers,
) -> Result<usize, Violation> {
    let mut replay = Replay {
        observations,
        places: BTreeMap::new(),
        reads: 0,
    };
    replay.lists(lists)?;
    replay.registers(registers)?;
    replay.check_places()?;
    Ok(replay.reads)
}

/// Refuses a history in which a version is missing that [`crate::Model::SnapshotRead`] needs.
pub(crate) fn require_versions(observations: &[Observation<'_>]) -> Result<(), Violation> {
    for observed in observations.iter().filter(|observed| !observed.last_look) {
        let record = observed.record;
        let reads = !observed.list_reads.is_empty() || !observed.register_reads.is_empty();
        if reads && record.read_at.is_none() && record.committed_at.is_none() {
            let step = "T1 read, and its record does not say at which version";
            return Err(Violation::malformed(step, &[record]));
        }
        if observed.settled()
            && observed.effective
            && record.writes()
            && record.committed_at.is_none()
        {
            let step = "T1 was committed, and its record does not say as which version";
            return Err(Violation::malformed(step, &[record]));
        }
    }
    Ok(())
}

struct Replay<'o, 'h> {
    observations: &'o [Observation<'h>],
    places: BTreeMap<usize, Place<'o>>,
    reads: usize,
}

/// The writes to one list: those that were seen, in order, and where each ends.
struct Timeline<'o> {
    groups: Vec<(usize, usize)>,
    /// For each group the newest known version at it or before it, and whose.
    newest: Vec<Option<(&'o str, usize)>>,
    /// For each group the oldest known version at it or behind it.
    oldest: Vec<Option<(&'o str, usize)>>,
    /// The two oldest known versions that nobody saw: one of them is not the reader's own.
    unseen: Vec<(&'o str, usize)>,
    /// Commits of unknown version that nobody saw in this list, though they have effect.
    unseen_unknown: Vec<usize>,
}

impl<'o> Replay<'o, '_> {
    fn version(&self, node: usize) -> Option<&'o str> {
        self.observations[node].committed_at()
    }

    /// The versions that a transaction's reads must agree with.
    fn bounds(&self, node: usize) -> impl Iterator<Item = Bound<'o>> + use<'o> {
        let observed = &self.observations[node];
        let bound = |own| move |version| Bound { version, own };
        let snapshot = observed.record.read_at.as_deref().map(bound(false));
        snapshot
            .into_iter()
            .chain(observed.committed_at().map(bound(true)))
    }

    fn above(&mut self, node: usize, version: &'o str, witness: usize) {
        let above = &mut self.places.entry(node).or_default().above;
        if above.is_none_or(|(known, _)| known < version) {
            *above = Some((version, witness));
        }
    }

    fn upto(&mut self, node: usize, version: &'o str, witness: usize) {
        let upto = &mut self.places.entry(node).or_default().upto;
        if upto.is_none_or(|(known, _)| known > version) {
            *upto = Some((version, witness));
        }
    }

    fn lists(&mut self, lists: &Lists<'_>) -> Result<(), Violation> {
        let mut timelines = BTreeMap::new();
        for (key, order) in &lists.orders {
            let timeline = self.timeline(*key, order.seen.clone(), &order.unseen)?;
            timelines.insert(*key, timeline);
        }
        // For each list and group: the oldest version at which it was the last seen, and the newest
        // at which it was the first not seen.
        let mut last_seen: BTreeMap<(u64, usize), (&'o str, usize)> = BTreeMap::new();
        let mut not_seen: BTreeMap<(u64, usize), (&'o str, usize)> = BTreeMap::new();
        for (reader, observed) in self.observations.iter().enumerate() {
            for (key, read) in &observed.list_reads {
                for bound in self.bounds(reader) {
                    self.reads += 1;
                    let timeline = &timelines[key];
                    let groups = timeline
                        .groups
                        .partition_point(|(_, end)| *end <= read.len());
                    self.list_read(reader, *key, groups, bound, timeline)?;
                    let here = (bound.version, reader);
                    if let Some(last) = groups.checked_sub(1) {
                        let known = last_seen.entry((*key, last)).or_insert(here);
                        *known = (*known).min(here);
                    }
                    let known = not_seen.entry((*key, groups)).or_insert(here);
                    *known = (*known).max(here);
                }
            }
        }
        for (key, timeline) in &timelines {
            self.place_unknown(
                timeline,
                |at| last_seen.get(&(*key, at)),
                |at| not_seen.get(&(*key, at)),
            );
        }
        Ok(())
    }

    fn timeline(
        &self,
        key: u64,
        groups: Vec<(usize, usize)>,
        unseen: &[usize],
    ) -> Result<Timeline<'o>, Violation> {
        let known = |node: usize| self.version(node).map(|version| (version, node));
        let mut newest: Vec<Option<(&str, usize)>> = Vec::new();
        for (node, _) in &groups {
            let before = newest.last().copied().flatten();
            let own = known(*node);
            if let (Some(before), Some(own)) = (before, own)
                && own < before
            {
                let step = format!(
                    "T2 was committed after T1, and its elements stand before T1's in list {key}"
                );
                let nodes = [before.1, own.1].map(|node| self.observations[node].record);
                return Err(Violation::new(
                    Anomaly::VersionOrder,
                    step,
                    &[nodes[1], nodes[0]],
                ));
            }
            newest.push(own.or(before));
        }
        let mut oldest = vec![None; groups.len()];
        let mut behind = None;
        for (at, (node, _)) in groups.iter().enumerate().rev() {
            behind = known(*node).or(behind);
            oldest[at] = behind;
        }
        let unseen_unknown = unseen.iter().copied().filter(|node| known(*node).is_none());
        let unseen_unknown = unseen_unknown.collect();
        let mut unseen: Vec<_> = unseen.iter().filter_map(|node| known(*node)).collect();
        unseen.sort_unstable();
        unseen.truncate(2);
        Ok(Timeline {
            groups,
            newest,
            oldest,
            unseen,
            unseen_unknown,
        })
    }

    /// A read that saw the first `groups` writes.
    fn list_read(
        &self,
        reader: usize,
        key: u64,
        groups: usize,
        bound: Bound<'o>,
        timeline: &Timeline<'o>,
    ) -> Result<(), Violation> {
        let read = List(self.observations[reader].list_reads[&key]);
        let newest = groups.checked_sub(1).and_then(|last| timeline.newest[last]);
        if let Some((version, writer)) = newest.filter(|(version, _)| !bound.sees(version)) {
            let step = format!(
                "T1 read list {key} {} as {read}, with what T2 committed as {version}",
                bound.words()
            );
            return Err(self.disagreement(bound, step, reader, writer));
        }
        let next = timeline.oldest.get(groups).copied().flatten();
        let unseen = timeline.unseen.iter().copied();
        let missed = next
            .into_iter()
            .chain(unseen)
            .find(|(version, writer)| *writer != reader && bound.sees(version));
        if let Some((version, writer)) = missed {
            let step = format!(
                "T1 read list {key} {} as {read}, without what T2 committed as {version}",
                bound.words()
            );
            return Err(self.disagreement(bound, step, reader, writer));
        }
        Ok(())
    }

    fn disagreement(
        &self,
        bound: Bound<'_>,
        step: String,
        reader: usize,
        writer: usize,
    ) -> Violation {
        let both = [reader, writer].map(|node| self.observations[node].record);
        Violation::new(bound.anomaly(), step, &both)
    }

    /// Narrows the places of commits of unknown version among the writes of a list.
    fn place_unknown<'a>(
        &mut self,
        timeline: &Timeline<'o>,
        last_seen: impl Fn(usize) -> Option<&'a (&'o str, usize)>,
        not_seen: impl Fn(usize) -> Option<&'a (&'o str, usize)>,
    ) where
        'o: 'a,
    {
        let groups = &timeline.groups;
        // Whoever did not see a group did not see those behind it either.
        let mut above: Option<(&'o str, usize)> = None;
        for (at, (node, _)) in groups.iter().enumerate() {
            above = above.max(not_seen(at).copied());
            if self.version(*node).is_some() {
                above = above.max(timeline.newest[at]);
            } else if let Some((version, witness)) = above {
                self.above(*node, version, witness);
            }
        }
        above = above.max(not_seen(groups.len()).copied());
        if let Some((version, witness)) = above {
            for node in &timeline.unseen_unknown {
                self.above(*node, version, witness);
            }
        }
        let mut upto: Option<(&'o str, usize)> = None;
        let oldest = |a: Option<(&'o str, usize)>, b| a.into_iter().chain(b).min();
        for (at, (node, _)) in groups.iter().enumerate().rev() {
            upto = oldest(upto, last_seen(at).copied());
            if self.version(*node).is_some() {
                upto = oldest(upto, timeline.oldest[at]);
            } else if let Some((version, witness)) = upto {
                self.upto(*node, version, witness);
            }
        }
    }

    fn registers(&mut self, registers: &Registers) -> Result<(), Violation> {
        let mut commits: BTreeMap<u64, Vec<(&'o str, usize)>> = BTreeMap::new();
        for (key, values) in &registers.registers {
            let known = |node: &usize| Some((self.version(*node)?, *node));
            let mut known: Vec<_> = values.writers.iter().filter_map(known).collect();
            known.sort_unstable();
            commits.insert(*key, known);
        }
        for (reader, observed) in self.observations.iter().enumerate() {
            for (key, value) in &observed.register_reads {
                let writer = value.map(|value| registers.writer(*key, value));
                for bound in self.bounds(reader) {
                    self.reads += 1;
                    self.register_read(reader, *key, writer, bound, &commits[key])?;
                }
            }
        }
        Ok(())
    }

    fn register_read(
        &mut self,
        reader: usize,
        key: u64,
        writer: Option<usize>,
        bound: Bound<'o>,
        commits: &[(&'o str, usize)],
    ) -> Result<(), Violation> {
        let before = commits.partition_point(|(version, _)| bound.sees(version));
        let newest = before.checked_sub(1).map(|at| commits[at]);
        let known = writer.and_then(|writer| self.version(writer));
        if let (Some(writer), None) = (writer, known) {
            self.upto(writer, bound.version, reader);
            if let Some((version, witness)) = newest {
                self.above(writer, version, witness);
            }
            return Ok(());
        }
        if writer == newest.map(|(_, node)| node) {
            return Ok(());
        }
        let value = Value(self.observations[reader].register_reads[&key]);
        let (other, step) = match (newest, writer) {
            (Some((version, newest)), _) if known.is_none_or(|known| known < version) => {
                (newest, format!("without what T2 committed as {version}"))
            }
            (_, Some(writer)) => {
                let version = known.unwrap_or_default();
                (writer, format!("which T2 committed as {version}"))
            }
            (newest, None) => (newest.map_or(reader, |n| n.1), "for no reason".to_owned()),
        };
        let words = bound.words();
        let step = format!("T1 read register {key} {words} as {value}, {step}");
        Err(self.disagreement(bound, step, reader, other))
    }

    /// Each commit of unknown version must have a place.
    fn check_places(&self) -> Result<(), Violation> {
        for (node, place) in &self.places {
            let (Some((above, below)), Some((upto, seer))) = (place.above, place.upto) else {
                continue;
            };
            if above >= upto {
                let step = format!(
                    "T1 lies behind {above}, by T2, and yet not behind {upto}, by T3, which saw it"
                );
                let nodes = [*node, below, seer].map(|node| self.observations[node].record);
                return Err(Violation::new(Anomaly::NotTheSnapshot, step, &nodes));
            }
        }
        Ok(())
    }
}
