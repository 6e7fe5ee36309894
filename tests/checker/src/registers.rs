//! Registers: a read tells which write it saw, but not what that write replaced.
//!
//! The order of the values of a register is therefore inferred, from
//!
//! - the versions that their commits were given, where they are known;
//! - transactions that read one value and wrote another: the one replaced the other;
//! - what a process met with in one transaction and then in the next, and, where the model asks for
//!   it, what was met with in a transaction that ended before another began: a register does not go
//!   back;
//! - the value it began with, which precedes all others.
//!
//! Whatever remains open is not guessed: a violation that depends on it is not found. The report
//! names the registers whose values are not all ordered.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Model;
use crate::graph::{Graph, Item, Kind};
use crate::history::Outcome;
use crate::observation::Observation;
use crate::violation::{Anomaly, Extra, Value, Violation};

/// The values of one register; 0 is what it began with, others are `writers[value - 1]`'s.
#[derive(Debug, Default)]
pub(crate) struct Values {
    /// Who wrote, in no order.
    pub(crate) writers: Vec<usize>,
    /// Who found each value, by value.
    readers: BTreeMap<usize, Vec<usize>>,
    /// Pairs of values of which the first comes before the second, and what says so. Their closure
    /// is the order.
    order: BTreeMap<(usize, usize), Extra>,
    /// Who met with it.
    touches: Vec<Touch>,
}

/// A transaction met with a register.
#[derive(Debug, Clone, Copy)]
struct Touch {
    node: usize,
    /// The value it found, or wrote without looking.
    first: usize,
    /// The value it left.
    last: usize,
}

/// The values of all registers.
#[derive(Debug, Default)]
pub(crate) struct Registers {
    pub(crate) registers: BTreeMap<u64, Values>,
    owners: Owners,
}

/// Who wrote a value, and whether it stayed.
#[derive(Debug, Clone, Copy)]
struct Owner {
    node: usize,
    stayed: bool,
}

type Owners = HashMap<(u64, u64), Owner>;

/// Checks each read by itself, and marks as effective the transactions of unknown outcome that were
/// seen.
pub(crate) fn infer(
    model: Model,
    observations: &mut [Observation<'_>],
) -> Result<Registers, Violation> {
    let owners = owners(observations)?;
    let mut met = Vec::new();
    for (reader, seen) in observations.iter().enumerate() {
        for (key, value) in &seen.register_reads {
            if let Some(value) = value {
                met.push(judge(observations, &owners, reader, *key, *value)?);
            }
        }
    }
    for node in met {
        observations[node].effective = true;
    }
    let mut registers = collect(observations, &owners);
    for values in registers.values_mut() {
        values.infer_order(model, observations);
    }
    Ok(Registers { registers, owners })
}

fn owners(observations: &[Observation<'_>]) -> Result<Owners, Violation> {
    let mut owners = Owners::new();
    for (node, seen) in observations.iter().enumerate() {
        for (key, values) in &seen.writes {
            for (place, value) in values.iter().enumerate() {
                let stayed = place + 1 == values.len();
                if let Some(other) = owners.insert((*key, *value), Owner { node, stayed }) {
                    let step = format!("T1 and T2 both wrote {value} to register {key}");
                    let both = [observations[other.node].record, seen.record];
                    return Err(Violation::malformed(step, &both));
                }
            }
        }
    }
    Ok(owners)
}

/// The writer of a value that was found, if it was right to find it.
fn judge(
    observations: &[Observation<'_>],
    owners: &Owners,
    reader: usize,
    key: u64,
    value: u64,
) -> Result<usize, Violation> {
    let reading = observations[reader].record;
    let Some(owner) = owners.get(&(key, value)) else {
        let step = format!("T1 read register {key} as {value}, which nobody ever wrote");
        return Err(Violation::new(Anomaly::NeverWritten, step, &[reading]));
    };
    if owner.node == reader {
        let step = format!("T1 read register {key} as {value} before it had written that");
        return Err(Violation::new(Anomaly::Internal, step, &[reading]));
    }
    let both = [observations[owner.node].record, reading];
    if both[0].outcome == Outcome::Aborted {
        let step = format!("T1 was aborted, and T2 read the {value} it wrote to register {key}");
        return Err(Violation::new(Anomaly::AbortedRead, step, &both));
    }
    if !owner.stayed {
        let step = format!("T2 read the {value} in register {key} that T1 itself replaced");
        return Err(Violation::new(Anomaly::IntermediateRead, step, &both));
    }
    Ok(owner.node)
}

fn collect(observations: &[Observation<'_>], owners: &Owners) -> BTreeMap<u64, Values> {
    let mut registers: BTreeMap<u64, Values> = BTreeMap::new();
    let mut numbers = HashMap::new();
    for (node, seen) in observations.iter().enumerate().filter(|(_, o)| o.effective) {
        for key in seen.writes.keys() {
            let values = registers.entry(*key).or_default();
            values.writers.push(node);
            numbers.insert((*key, node), values.writers.len());
        }
    }
    for (node, seen) in observations.iter().enumerate() {
        let written = seen.writes.keys().filter(|_| seen.effective);
        let keys: BTreeSet<u64> = seen.register_reads.keys().chain(written).copied().collect();
        for key in keys {
            let values = registers.entry(key).or_default();
            let left = numbers.get(&(key, node)).copied();
            let found = seen.register_reads.get(&key).map(|value| {
                let writer = value.map(|value| owners[&(key, value)].node);
                writer.map_or(0, |writer| numbers[&(key, writer)])
            });
            if let Some(found) = found {
                values.readers.entry(found).or_default().push(node);
            }
            if let Some(first) = found.or(left) {
                let last = left.unwrap_or(first);
                values.touches.push(Touch { node, first, last });
            }
        }
    }
    registers
}

impl Values {
    fn before(&mut self, first: usize, second: usize, from: Extra) {
        // What a register began with precedes everything anyhow; that anything precedes it shows
        // as a cycle through those who found it.
        if first != second && second != 0 {
            let known = self.order.entry((first, second)).or_insert(from);
            *known = from.min(*known);
        }
    }

    fn infer_order(&mut self, model: Model, observations: &[Observation<'_>]) {
        let touches = std::mem::take(&mut self.touches);
        for touch in &touches {
            self.before(touch.first, touch.last, Extra::None);
        }
        self.order_by_versions(observations);
        self.order_by_processes(&touches, observations);
        if model == Model::StrictSerializable {
            self.order_by_time(&touches, observations);
        }
        let preceded: BTreeSet<usize> = self.order.keys().map(|pair| pair.1).collect();
        for value in (1..=self.writers.len()).filter(|value| !preceded.contains(value)) {
            self.order.insert((0, value), Extra::None);
        }
    }

    fn order_by_versions(&mut self, observations: &[Observation<'_>]) {
        let numbered = self.writers.iter().zip(1..);
        let mut known: Vec<_> = numbered
            .filter_map(|(node, value)| Some((observations[*node].committed_at()?, value)))
            .collect();
        known.sort_unstable();
        for pair in known.windows(2) {
            self.before(pair[0].1, pair[1].1, Extra::None);
        }
    }

    fn order_by_processes(&mut self, touches: &[Touch], observations: &[Observation<'_>]) {
        let place = |touch: &Touch| {
            let record = observations[touch.node].record;
            (record.process, record.index)
        };
        let mut sorted = touches.to_vec();
        sorted.sort_by_key(place);
        let mut earlier: Option<Touch> = None;
        for touch in sorted {
            if let Some(earlier) = earlier.filter(|earlier| place(earlier).0 == place(&touch).0) {
                self.before(earlier.last, touch.first, Extra::Process);
            }
            if observations[touch.node].settled() {
                earlier = Some(touch);
            }
        }
    }

    /// Each transaction comes after those that had ended when it began; those that had ended when
    /// one of these began need no mention.
    fn order_by_time(&mut self, touches: &[Touch], observations: &[Observation<'_>]) {
        let begun = |touch: &Touch| observations[touch.node].record.begun;
        let ended = |touch: &Touch| {
            let observed = &observations[touch.node];
            observed.record.ended.filter(|_| observed.settled())
        };
        let mut ending: Vec<_> = touches.iter().filter(|t| ended(t).is_some()).collect();
        ending.sort_by_key(|touch| ended(touch));
        let mut ending = ending.into_iter().peekable();
        let mut beginning = touches.to_vec();
        beginning.sort_by_key(begun);
        let mut frontier: Vec<Touch> = Vec::new();
        for touch in beginning {
            while let Some(done) = ending.next_if(|t| ended(t) < Some(begun(&touch))) {
                frontier.retain(|earlier| ended(earlier) >= Some(begun(done)));
                frontier.push(*done);
            }
            for earlier in &frontier {
                self.before(earlier.last, touch.first, Extra::RealTime);
            }
        }
    }

    /// Whether the values are all ordered, one after another.
    fn is_ordered(&self) -> bool {
        let mut before = vec![0; self.writers.len() + 1];
        let mut after: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (first, second) in self.order.keys() {
            before[*second] += 1;
            after.entry(*first).or_default().push(*second);
        }
        let mut next = 0;
        for _ in 1..before.len() {
            let mut followers = Vec::new();
            for value in after.get(&next).into_iter().flatten() {
                before[*value] -= 1;
                if before[*value] == 0 {
                    followers.push(*value);
                }
            }
            match followers[..] {
                [only] => next = only,
                _ => return false,
            }
        }
        true
    }
}

impl Registers {
    /// Who wrote a value that was found.
    pub(crate) fn writer(&self, key: u64, value: u64) -> usize {
        self.owners[&(key, value)].node
    }

    /// Registers whose values are not all ordered.
    pub(crate) fn unordered(&self) -> Vec<u64> {
        let registers = self.registers.iter();
        let open = registers.filter(|(_, values)| !values.is_ordered());
        open.map(|(key, _)| *key).collect()
    }

    /// Adds what the registers say about the order of transactions.
    pub(crate) fn add_edges(&self, graph: &mut Graph) {
        for (key, values) in &self.registers {
            let item = Item::Register(*key);
            let writer = |value: usize| value.checked_sub(1).map(|at| values.writers[at]);
            let mut successors: BTreeMap<(usize, Extra), Vec<usize>> = BTreeMap::new();
            for ((first, second), from) in &values.order {
                let next = writer(*second).expect("nothing precedes what a register began with");
                successors.entry((*first, *from)).or_default().push(next);
                if let Some(first) = writer(*first) {
                    graph.add_inferred(first, next, Kind::Ww, item, *from);
                }
            }
            for (value, readers) in &values.readers {
                if let Some(writer) = writer(*value) {
                    for reader in readers {
                        graph.add(writer, *reader, Kind::Wr, item);
                    }
                }
                for ((_, from), next) in
                    successors.range((*value, Extra::None)..=(*value, Extra::RealTime))
                {
                    graph.add_anti_dependencies(readers, next, item, *from);
                }
            }
        }
    }
}

/// What a transaction did with a register, in words.
pub(crate) fn found(observed: &Observation<'_>, key: u64) -> String {
    match observed.register_reads.get(&key) {
        Some(value) => Value(*value).to_string(),
        None => "nothing".to_owned(),
    }
}
