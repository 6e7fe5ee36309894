//! The smallest cycle of the worst kind.
//!
//! One search for strongly connected components acquits a history. Only of a guilty one it is asked
//! which kinds of edges are needed for a cycle, in the order of Elle's classes, first without and
//! then with the order of processes and of time; and then which cycle is the shortest.

use std::collections::{HashMap, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{EdgeIndex, NodeIndex};
use petgraph::visit::{EdgeFiltered, EdgeRef};

use crate::graph::{Edge, Graph, Item, Kind};
use crate::observation::Observation;
use crate::violation::{Anomaly, Extra, List, Violation};

/// Edges looked at before the shortest cycle found so far is good enough: about a second.
const BUDGET: usize = 3_000_000;

/// Which kinds of dependencies between data a cycle has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Writes,
    Information,
    SingleAntiDependency,
    AntiDependencies,
}

/// The edges of one search.
#[derive(Clone, Copy)]
struct Edges {
    class: Class,
    extra: Extra,
    /// Writes whose order is only inferred follow one another too. They explain little, so they
    /// come last.
    inferred: bool,
}

impl Edges {
    fn allow(self, edge: Edge) -> bool {
        match edge.kind {
            Kind::Ww => {
                edge.inferred == Extra::None || (self.inferred && edge.inferred <= self.extra)
            }
            Kind::Wr => self.class >= Class::Information,
            Kind::Rw => self.class >= Class::SingleAntiDependency && edge.inferred <= self.extra,
            Kind::Process => self.extra >= Extra::Process,
            Kind::RealTime => self.extra >= Extra::RealTime,
            Kind::Through => true,
        }
    }

    fn anomaly(self) -> Anomaly {
        match self.class {
            Class::Writes => Anomaly::WriteCycle(self.extra),
            Class::Information => Anomaly::CircularInformationFlow(self.extra),
            Class::SingleAntiDependency => Anomaly::SingleAntiDependency(self.extra),
            Class::AntiDependencies => Anomaly::AntiDependencyCycle(self.extra),
        }
    }
}

/// All searches, in the order in which they are made.
fn searches() -> impl Iterator<Item = Edges> {
    let extras = [Extra::None, Extra::Process, Extra::RealTime].into_iter();
    let inferred = extras.flat_map(|extra| [(extra, false), (extra, true)]);
    inferred.flat_map(|(extra, inferred)| {
        let classes = [
            Class::Writes,
            Class::Information,
            Class::SingleAntiDependency,
            Class::AntiDependencies,
        ];
        classes.map(|class| Edges {
            class,
            extra,
            inferred,
        })
    })
}

/// One dependency of a cycle: from, to, and the edge that says why.
type Step = (usize, usize, Edge);

/// Refuses a graph with a cycle.
pub(crate) fn refuse_cycles(
    graph: &Graph,
    observations: &[Observation<'_>],
) -> Result<(), Violation> {
    if components(graph, |_| true).is_empty() {
        return Ok(());
    }
    for edges in searches() {
        let mut search = Search::new(graph);
        let cycle = match edges.class {
            Class::SingleAntiDependency => search.shortest_single(edges),
            _ => search.shortest(|edge| edges.allow(edge)),
        };
        if let Some(cycle) = cycle {
            return Err(tell(edges.anomaly(), &cycle, observations));
        }
    }
    unreachable!("the last class allows every edge, and there is a cycle")
}

/// The strongly connected components of more than one node, by the edges allowed.
fn components(graph: &Graph, allows: impl Fn(Edge) -> bool) -> Vec<Vec<NodeIndex>> {
    let allowed = EdgeFiltered::from_fn(&graph.edges, |edge| allows(*edge.weight()));
    let mut components = kosaraju_scc(&allowed);
    components.retain(|component| component.len() > 1);
    components
}

struct Search<'g> {
    graph: &'g Graph,
    budget: usize,
    /// The component each node is in, where it is in one.
    component: HashMap<NodeIndex, usize>,
    best: Option<Vec<EdgeIndex>>,
    best_cost: usize,
}

impl<'g> Search<'g> {
    fn new(graph: &'g Graph) -> Self {
        Self {
            graph,
            budget: BUDGET,
            component: HashMap::new(),
            best: None,
            best_cost: usize::MAX,
        }
    }

    fn enter(&mut self, components: &[Vec<NodeIndex>]) {
        for (number, component) in components.iter().enumerate() {
            for node in component {
                self.component.insert(*node, number);
            }
        }
    }

    fn shortest(&mut self, allows: impl Fn(Edge) -> bool) -> Option<Vec<Step>> {
        let mut components = components(self.graph, &allows);
        components.sort_by_key(Vec::len);
        self.enter(&components);
        for node in components.iter().flatten() {
            if self.graph.is_transaction(*node) {
                self.path(*node, *node, &[], &allows);
            }
        }
        self.best_steps()
    }

    /// The shortest cycle with one edge of kind rw: from its end a way back without any.
    fn shortest_single(&mut self, edges: Edges) -> Option<Vec<Step>> {
        let components = components(self.graph, |edge| edges.allow(edge));
        self.enter(&components);
        let flow = |edge: Edge| edge.kind != Kind::Rw && edges.allow(edge);
        for edge in self.graph.edges.edge_references() {
            let (source, target) = (edge.source(), edge.target());
            let inside = self.component.get(&source);
            let inside = inside.is_some() && inside == self.component.get(&target);
            let weight = *edge.weight();
            if inside && weight.kind == Kind::Rw && edges.allow(weight) {
                self.path(target, source, &[edge.id()], flow);
            }
        }
        self.best_steps()
    }

    /// Looks for a way that is shorter than the best so far: breadth first, ways through junctions
    /// first since they cost nothing.
    fn path(
        &mut self,
        from: NodeIndex,
        to: NodeIndex,
        before: &[EdgeIndex],
        allows: impl Fn(Edge) -> bool,
    ) {
        let mut reached: HashMap<NodeIndex, (usize, EdgeIndex)> = HashMap::new();
        let mut waiting = VecDeque::from([(from, before.len())]);
        while let Some((node, cost)) = waiting.pop_front() {
            if reached.get(&node).is_some_and(|(known, _)| *known < cost) {
                continue;
            }
            if node == to && (cost > before.len() || !reached.is_empty()) {
                self.keep(from, to, before, &reached, cost);
                return;
            }
            for edge in self.graph.edges.edges(node) {
                self.budget = self.budget.saturating_sub(1);
                let target = edge.target();
                let kind = edge.weight().kind;
                if !allows(*edge.weight())
                    || self.component.get(&target) != self.component.get(&from)
                {
                    continue;
                }
                let free = kind == Kind::Through;
                let cost = cost + usize::from(!free);
                let known = reached.get(&target).map_or(usize::MAX, |(known, _)| *known);
                if cost >= known || cost >= self.best_cost {
                    continue;
                }
                reached.insert(target, (cost, edge.id()));
                match free {
                    true => waiting.push_front((target, cost)),
                    false => waiting.push_back((target, cost)),
                }
            }
            // From a node to itself there is a way. Between others there need be none, and then
            // the class is given up.
            if self.budget == 0 && (self.best.is_some() || from != to) {
                return;
            }
        }
    }

    fn keep(
        &mut self,
        from: NodeIndex,
        to: NodeIndex,
        before: &[EdgeIndex],
        reached: &HashMap<NodeIndex, (usize, EdgeIndex)>,
        cost: usize,
    ) {
        let mut back = Vec::new();
        let mut node = to;
        while let Some((_, edge)) = reached.get(&node) {
            back.push(*edge);
            let ends = self.graph.edges.edge_endpoints(*edge);
            node = ends.expect("it was followed").0;
            if node == from {
                break;
            }
        }
        back.reverse();
        self.best_cost = cost;
        self.best = Some([before, &back].concat());
    }

    /// The best cycle without junctions, several steps of one process taken as one.
    fn best_steps(&mut self) -> Option<Vec<Step>> {
        let edges = self.best.take()?;
        let mut steps: Vec<Step> = Vec::new();
        for edge in edges {
            let (from, to) = self.graph.edges.edge_endpoints(edge)?;
            let weight = self.graph.edges[edge];
            match steps.last_mut() {
                Some(last) if weight.kind == Kind::Through => last.1 = to.index(),
                Some(last) if weight.kind == Kind::Process && last.2.kind == Kind::Process => {
                    last.1 = to.index();
                }
                _ => steps.push((from.index(), to.index(), weight)),
            }
        }
        if let [first, .., last] = &mut steps[..]
            && first.2.kind == Kind::Process
            && last.2.kind == Kind::Process
        {
            last.1 = first.1;
            steps.remove(0);
        }
        Some(steps)
    }
}

fn tell(anomaly: Anomaly, cycle: &[Step], observations: &[Observation<'_>]) -> Violation {
    let name = |at: usize| format!("T{}", at % cycle.len() + 1);
    let steps = cycle.iter().enumerate().map(|(at, (from, to, edge))| {
        let (first, second) = (&observations[*from], &observations[*to]);
        let (kind, reason) = reason(*edge, first, second, &name(at), &name(at + 1));
        let source = match edge.inferred {
            Extra::None => "",
            Extra::Process => ", in the order in which a process met with them",
            Extra::RealTime => ", in the order of time",
        };
        format!("{} -{kind}-> {}: {reason}{source}", name(at), name(at + 1))
    });
    let records = cycle.iter().map(|(from, ..)| observations[*from].record);
    Violation {
        anomaly,
        steps: steps.collect(),
        transactions: records.cloned().collect(),
    }
}

fn reason(
    edge: Edge,
    first: &Observation<'_>,
    second: &Observation<'_>,
    one: &str,
    two: &str,
) -> (&'static str, String) {
    let appended = |by: &Observation<'_>, key| match by.appends.get(&key) {
        Some(elements) => List(elements).to_string(),
        None => "nothing".to_owned(),
    };
    let listed = |by: &Observation<'_>, key| match by.list_reads.get(&key) {
        Some(elements) => List(elements).to_string(),
        None => "nothing".to_owned(),
    };
    let wrote = |by: &Observation<'_>, key| {
        let value = by.writes.get(&key).and_then(|values| values.last());
        value.map_or("nothing".to_owned(), u64::to_string)
    };
    let found = crate::registers::found;
    match (edge.kind, edge.item) {
        (Kind::Ww, Item::List(key)) => (
            "ww",
            format!(
                "{two} appended {} to list {key} behind the {} of {one}",
                appended(second, key),
                appended(first, key)
            ),
        ),
        (Kind::Wr, Item::List(key)) => (
            "wr",
            format!(
                "{two} read list {key} with the {} that {one} had appended",
                appended(first, key)
            ),
        ),
        (Kind::Rw, Item::List(key)) => (
            "rw",
            format!(
                "{one} found list {key} as {}, without the {} that {two} appended",
                listed(first, key),
                appended(second, key)
            ),
        ),
        (Kind::Ww, Item::Register(key)) => (
            "ww",
            format!(
                "{two} wrote {} to register {key} after {one} had written {}",
                wrote(second, key),
                wrote(first, key)
            ),
        ),
        (Kind::Wr, Item::Register(key)) => (
            "wr",
            format!(
                "{two} read the {} that {one} had written to register {key}",
                wrote(first, key)
            ),
        ),
        (Kind::Rw, Item::Register(key)) => (
            "rw",
            format!(
                "{one} found register {key} as {}, which the {} of {two} replaced",
                found(first, key),
                wrote(second, key)
            ),
        ),
        (Kind::Process, _) => (
            "process",
            format!("process {} ran {one} before {two}", first.record.process),
        ),
        _ if second.last_look => (
            "rt",
            format!("{two} is the look at all lists after the end"),
        ),
        _ => (
            "rt",
            format!(
                "{one} was answered at {}, {two} began at {}",
                first.record.ended.unwrap_or_default(),
                second.record.begun
            ),
        ),
    }
}
