//! Lists: what was read of them tells in which order they were appended to.
//!
//! Each element says who appended it, and each read of a list must be the beginning of the longest
//! one, so the order of everything that anybody saw is known. What nobody saw comes after it, in an
//! order that is open and does not matter: any that the rest allows explains all reads. Hence
//! nothing is guessed for lists: a history of lists is serializable exactly if there is no cycle.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::graph::{Graph, Item, Kind};
use crate::history::Outcome;
use crate::observation::Observation;
use crate::violation::{Anomaly, Extra, List, Violation};

/// Who appended an element.
#[derive(Debug, Clone, Copy)]
struct Owner {
    /// The transaction.
    node: usize,
    /// Which of its appends to the list it is.
    place: usize,
}

/// The order of one list.
#[derive(Debug, Default)]
pub(crate) struct Order<'h> {
    /// The longest that anybody read.
    pub(crate) elements: &'h [u64],
    /// Who read that.
    witness: usize,
    /// The transactions that appended to it and the length it had after each, in order.
    pub(crate) seen: Vec<(usize, usize)>,
    /// Effective transactions whose appends nobody saw.
    pub(crate) unseen: Vec<usize>,
}

/// The orders of all lists.
#[derive(Debug, Default)]
pub(crate) struct Lists<'h> {
    pub(crate) orders: BTreeMap<u64, Order<'h>>,
}

/// Infers the orders, and marks as effective the transactions of unknown outcome that were seen.
pub(crate) fn infer<'h>(observations: &mut [Observation<'h>]) -> Result<Lists<'h>, Violation> {
    let owners = owners(observations)?;
    let judge = Judge {
        observations,
        owners: &owners,
    };
    let mut orders = judge.longest()?;
    for (key, order) in &mut orders {
        judge.elements(*key, order.elements, order.witness)?;
        order.seen = judge.groups(*key, order)?;
    }
    judge.boundaries(&orders)?;
    for node in orders.values().flat_map(|order| &order.seen) {
        observations[node.0].effective = true;
    }
    Ok(Lists { orders })
}

type Owners = HashMap<(u64, u64), Owner>;

fn owners(observations: &[Observation<'_>]) -> Result<Owners, Violation> {
    let mut owners = Owners::new();
    for (node, seen) in observations.iter().enumerate() {
        for (key, elements) in &seen.appends {
            for (place, element) in elements.iter().enumerate() {
                if let Some(other) = owners.insert((*key, *element), Owner { node, place }) {
                    let step = format!("T1 and T2 both appended {element} to list {key}");
                    let both = [observations[other.node].record, seen.record];
                    return Err(Violation::malformed(step, &both));
                }
            }
        }
    }
    Ok(owners)
}

struct Judge<'a, 'h> {
    observations: &'a [Observation<'h>],
    owners: &'a Owners,
}

impl<'h> Judge<'_, 'h> {
    /// The longest read of each list, if all others are beginnings of it.
    fn longest(&self) -> Result<BTreeMap<u64, Order<'h>>, Violation> {
        let mut orders: BTreeMap<u64, Order<'h>> = BTreeMap::new();
        for (node, seen) in self.observations.iter().enumerate() {
            // A list that nobody read has an order too.
            for key in seen.appends.keys() {
                orders.entry(*key).or_default();
            }
            for (key, read) in &seen.list_reads {
                let order = orders.entry(*key).or_default();
                let (longer, shorter) = match read.len() > order.elements.len() {
                    true => (*read, order.elements),
                    false => (order.elements, *read),
                };
                if !longer.starts_with(shorter) {
                    // Something else may explain it better.
                    self.elements(*key, read, node)?;
                    self.elements(*key, order.elements, order.witness)?;
                    let (first, second) = (List(order.elements), List(read));
                    let step = format!("T1 read list {key} as {first}, T2 as {second}");
                    return Err(self.violation(
                        Anomaly::IncompatibleOrder,
                        step,
                        &[order.witness, node],
                    ));
                }
                if read.len() > order.elements.len() {
                    (order.elements, order.witness) = (read, node);
                }
            }
        }
        Ok(orders)
    }

    /// Each element of a read must be there once, and have been appended by somebody else who was
    /// not refused.
    fn elements(&self, key: u64, read: &[u64], reader: usize) -> Result<(), Violation> {
        let mut seen = HashSet::new();
        for element in read {
            let read = List(read);
            let Some(owner) = self.owners.get(&(key, *element)) else {
                let step =
                    format!("T1 read list {key} as {read}, and nobody ever appended {element}");
                return Err(self.violation(Anomaly::NeverWritten, step, &[reader]));
            };
            if owner.node == reader {
                let step = format!(
                    "T1 read list {key} as {read}, with {element} where it had not appended it"
                );
                return Err(self.violation(Anomaly::Internal, step, &[reader]));
            }
            if self.observations[owner.node].record.outcome == Outcome::Aborted {
                let step =
                    format!("T1 was aborted, and T2 read the {element} it appended to list {key}");
                return Err(self.violation(Anomaly::AbortedRead, step, &[owner.node, reader]));
            }
            if !seen.insert(element) {
                let step = format!("T1 read list {key} as {read}, with {element} twice");
                return Err(self.violation(Anomaly::DuplicateElement, step, &[reader]));
            }
        }
        Ok(())
    }

    /// The transactions in the order of a list. What one of them appended must stand together.
    fn groups(&self, key: u64, order: &Order<'h>) -> Result<Vec<(usize, usize)>, Violation> {
        let mut groups: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        while let Some(element) = order.elements.get(at) {
            let node = self.owners[&(key, *element)].node;
            let whole = &self.observations[node].appends[&key];
            let rest = &order.elements[at..];
            let there = whole.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if there < whole.len() {
                let step = format!(
                    "T1 appended {} to list {key}, and T2 read the list as {}",
                    List(whole),
                    List(order.elements)
                );
                let both = [node, order.witness];
                return Err(self.violation(Anomaly::IntermediateRead, step, &both));
            }
            at += there;
            groups.push((node, at));
        }
        Ok(groups)
    }

    /// No read may end in the middle of a transaction.
    fn boundaries(&self, orders: &BTreeMap<u64, Order<'h>>) -> Result<(), Violation> {
        for (reader, seen) in self.observations.iter().enumerate() {
            for (key, read) in &seen.list_reads {
                let Some(element) = read.last() else {
                    continue;
                };
                let own = seen.appends.get(key);
                if own.is_some_and(|own| own.iter().any(|element| read.contains(element))) {
                    // Of a read that is not the longest nobody has looked at the elements.
                    self.elements(*key, read, reader)?;
                }
                let owner = self.owners[&(*key, *element)];
                let whole = &self.observations[owner.node].appends[key];
                debug_assert!(orders[key].elements.starts_with(read));
                if owner.place + 1 < whole.len() {
                    let (whole, read) = (List(whole), List(read));
                    let step = format!(
                        "T1 appended {whole} to list {key}, and T2 read the list as {read}"
                    );
                    let both = [owner.node, reader];
                    return Err(self.violation(Anomaly::IntermediateRead, step, &both));
                }
            }
        }
        Ok(())
    }

    fn violation(&self, anomaly: Anomaly, step: String, nodes: &[usize]) -> Violation {
        violation(self.observations, anomaly, step, nodes)
    }
}

fn violation(
    observations: &[Observation<'_>],
    anomaly: Anomaly,
    step: String,
    nodes: &[usize],
) -> Violation {
    let records: Vec<_> = nodes.iter().map(|n| observations[*n].record).collect();
    Violation::new(anomaly, step, &records)
}

impl<'h> Lists<'h> {
    /// Adds the transactions whose appends nobody saw, now that it is known which have effect.
    pub(crate) fn complete(mut self, observations: &[Observation<'h>]) -> Result<Self, Violation> {
        let groups = self.orders.iter().flat_map(|(key, order)| {
            let nodes = order.seen.iter().map(|(node, _)| *node);
            nodes.map(move |node| (*key, node))
        });
        let seen: HashSet<_> = groups.collect();
        for (node, appender) in observations.iter().enumerate() {
            for key in appender.appends.keys() {
                if appender.effective && !seen.contains(&(*key, node)) {
                    let order = self.orders.get_mut(key).expect("every list has an order");
                    order.unseen.push(node);
                }
            }
        }
        check_last_look(observations, &self.orders)?;
        Ok(self)
    }

    /// Adds what the lists say about the order of transactions.
    pub(crate) fn add_edges(&self, observations: &[Observation<'_>], graph: &mut Graph) {
        for (key, order) in &self.orders {
            let item = Item::List(*key);
            for pair in order.seen.windows(2) {
                graph.add(pair[0].0, pair[1].0, Kind::Ww, item);
            }
            if let Some((last, _)) = order.seen.last() {
                for node in &order.unseen {
                    graph.add(*last, *node, Kind::Ww, item);
                }
            }
        }
        let mut of_longest: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (reader, seen) in observations.iter().enumerate() {
            for (key, read) in &seen.list_reads {
                let item = Item::List(*key);
                let order = &self.orders[key];
                let before = order.seen.partition_point(|(_, end)| *end <= read.len());
                if let Some(last) = before.checked_sub(1) {
                    graph.add(order.seen[last].0, reader, Kind::Wr, item);
                }
                match order.seen.get(before) {
                    Some((next, _)) => graph.add(reader, *next, Kind::Rw, item),
                    None => of_longest.entry(*key).or_default().push(reader),
                }
            }
        }
        for (key, readers) in of_longest {
            graph.add_anti_dependencies(
                &readers,
                &self.orders[&key].unseen,
                Item::List(key),
                Extra::None,
            );
        }
    }
}

/// In the end everything must be there that was acknowledged, or seen by anybody.
fn check_last_look(
    observations: &[Observation<'_>],
    orders: &BTreeMap<u64, Order<'_>>,
) -> Result<(), Violation> {
    let Some(last) = observations.last().filter(|last| last.last_look) else {
        return Ok(());
    };
    for (key, order) in orders {
        let found = last.list_reads[key].len();
        if found < order.elements.len() {
            let step = format!(
                "T1 read list {key} as {}, and in the end it was {}",
                List(order.elements),
                List(last.list_reads[key])
            );
            let nodes = [order.witness];
            return Err(violation(observations, Anomaly::LostAppend, step, &nodes));
        }
        if let Some(node) = order.unseen.first() {
            let step = format!(
                "T1 appended {} to list {key}, and in the end the list was {}",
                List(&observations[*node].appends[key]),
                List(last.list_reads[key])
            );
            return Err(violation(observations, Anomaly::LostAppend, step, &[*node]));
        }
    }
    Ok(())
}
