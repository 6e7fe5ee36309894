//! The order that processes and clocks give.

use crate::Model;
use crate::graph::{Graph, Item, Kind};
use crate::observation::Observation;

/// Nodes in the order in which their processes ran them.
pub(crate) fn in_process_order(observations: &[Observation<'_>]) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..observations.len())
        .filter(|node| !observations[*node].last_look)
        .collect();
    nodes.sort_by_key(|node| {
        let record = observations[*node].record;
        (record.process, record.index)
    });
    nodes
}

/// Adds the order of processes, of the last look, and, where the model asks for it, of time.
///
/// A transaction that was not answered may take effect later, so nothing comes after it.
pub(crate) fn add_edges(model: Model, observations: &[Observation<'_>], graph: &mut Graph) {
    add_processes(observations, graph);
    if let Some(last) = observations.iter().rposition(|last| last.last_look) {
        let all = observations.iter().enumerate();
        for (node, _) in all.filter(|(_, observed)| observed.effective || observed.settled()) {
            graph.add(node, last, Kind::RealTime, Item::Time);
        }
    }
    if model == Model::StrictSerializable {
        add_time(observations, graph);
    }
}

fn add_processes(observations: &[Observation<'_>], graph: &mut Graph) {
    let process = |node: usize| observations[node].record.process;
    let mut before: Option<usize> = None;
    for node in in_process_order(observations) {
        let same = before.filter(|before| process(*before) == process(node));
        if let Some(before) = same {
            graph.add(before, node, Kind::Process, Item::Time);
        }
        if observations[node].settled() {
            before = Some(node);
        }
    }
}

/// Who had been answered comes before who begins later: not an edge for each pair, but a chain of
/// junctions in the order of the answers, which each transaction enters at its own and leaves from
/// the last before it began.
fn add_time(observations: &[Observation<'_>], graph: &mut Graph) {
    let ended = |node: &usize| {
        let observed = &observations[*node];
        observed.record.ended.filter(|_| observed.settled())
    };
    let mut answered: Vec<_> = (0..observations.len()).collect();
    answered.retain(|node| ended(node).is_some());
    answered.sort_by_key(ended);
    let chain: Vec<_> = answered.iter().map(|_| graph.junction()).collect();
    for (at, node) in answered.iter().enumerate() {
        graph.add(*node, chain[at], Kind::RealTime, Item::Time);
        if let Some(next) = chain.get(at + 1) {
            graph.add(chain[at], *next, Kind::Through, Item::Time);
        }
    }
    for (node, observed) in observations.iter().enumerate() {
        let begun = observed.record.begun;
        let before = answered.partition_point(|other| ended(other) < Some(begun));
        if let Some(last) = before.checked_sub(1) {
            graph.add(chain[last], node, Kind::Through, Item::Time);
        }
    }
}
