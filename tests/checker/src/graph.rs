//! The order that transactions must have come in: a graph of who came before whom, and why.
//!
//! Where each of many comes before each of many others, an edge for every pair would be too many:
//! they lead into and out of a *junction*, a node that stands for no transaction. An edge out of a
//! junction costs nothing and has no kind of its own; the way through is one dependency, of the
//! kind of the edge that leads in.

use std::collections::HashSet;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::violation::Extra;

/// Why one transaction comes before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// The second's write follows the first's.
    Ww,
    /// The second read what the first wrote.
    Wr,
    /// The first did not see what the second wrote.
    Rw,
    /// One process ran both, one after the other.
    Process,
    /// The first was answered before the second began.
    RealTime,
    /// Out of a junction.
    Through,
}

/// What an edge is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    List(u64),
    Register(u64),
    Time,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) kind: Kind,
    pub(crate) item: Item,
    /// What the order of the item's values was inferred from, if not from the data.
    pub(crate) inferred: Extra,
}

/// Transactions are the nodes below `transactions`, junctions those above.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) edges: DiGraph<(), Edge>,
    pub(crate) transactions: usize,
}

impl Graph {
    pub(crate) fn new(transactions: usize) -> Self {
        let mut edges = DiGraph::with_capacity(2 * transactions, 8 * transactions);
        for _ in 0..transactions {
            edges.add_node(());
        }
        Self {
            edges,
            transactions,
        }
    }

    /// Adds a node that stands for no transaction.
    pub(crate) fn junction(&mut self) -> usize {
        self.edges.add_node(()).index()
    }

    /// Adds an edge that the data themselves give, unless it leads back to where it begins: a transaction need not precede itself.
    pub(crate) fn add(&mut self, from: usize, to: usize, kind: Kind, item: Item) {
        self.add_inferred(from, to, kind, item, Extra::None);
    }

    /// As [`Self::add`], for values whose order was inferred.
    pub(crate) fn add_inferred(
        &mut self,
        from: usize,
        to: usize,
        kind: Kind,
        item: Item,
        inferred: Extra,
    ) {
        if from != to {
            let edge = Edge {
                kind,
                item,
                inferred,
            };
            let (from, to) = (NodeIndex::new(from), NodeIndex::new(to));
            self.edges.add_edge(from, to, edge);
        }
    }

    /// Each of `readers` did not see what the `writers` wrote, other than its own.
    ///
    /// Who is both cannot use the junction, which would lead back to it. Two such contradict each
    /// other already, so edges of more than two would add nothing.
    pub(crate) fn add_anti_dependencies(
        &mut self,
        readers: &[usize],
        writers: &[usize],
        item: Item,
        inferred: Extra,
    ) {
        let both: HashSet<_> = writers.iter().collect();
        let (writing, reading): (Vec<usize>, Vec<usize>) =
            readers.iter().partition(|node| both.contains(*node));
        for reader in writing.into_iter().take(2) {
            for writer in writers {
                self.add_inferred(reader, *writer, Kind::Rw, item, inferred);
            }
        }
        if reading.len() < 2 || writers.len() < 2 {
            for reader in reading {
                for writer in writers {
                    self.add_inferred(reader, *writer, Kind::Rw, item, inferred);
                }
            }
            return;
        }
        let junction = self.junction();
        for reader in reading {
            self.add_inferred(reader, junction, Kind::Rw, item, inferred);
        }
        for writer in writers {
            self.add(junction, *writer, Kind::Through, item);
        }
    }

    pub(crate) fn is_transaction(&self, node: NodeIndex) -> bool {
        node.index() < self.transactions
    }
}
