//! A namespace and those below it, as one transaction sees them.

use mvsqlite_protocol::NamespaceId;

use crate::context::{Context, Failure, side_by_side};
use crate::error::StoreError;
use crate::kv::{Isolation, Transaction};
use crate::layout::{GENERATION, Guard, State};

/// The guards of a namespace and of its ancestors, at one read version.
#[derive(Debug, Clone)]
pub(crate) struct Lineage {
    /// The namespace's own comes first.
    guards: Vec<(NamespaceId, Guard)>,
}

impl Lineage {
    /// Reads the guards of the ancestors, all at once: the namespace's own guard names them.
    ///
    /// They are read without conflict. Whatever happens to an ancestor, what a fork sees of it stays
    /// the same; and it is not taken away before the fork is.
    pub(crate) async fn read(
        ctx: &Context,
        txn: &dyn Transaction,
        id: NamespaceId,
        guard: &Guard,
    ) -> Result<Self, Failure> {
        let below = guard.ancestors.iter().map(|ancestor| ancestor.id);
        let reads = below.map(async |id| {
            let guard = ctx.guard(txn, id, Isolation::Snapshot).await?;
            Ok((id, guard))
        });
        let below = side_by_side(reads.collect()).await?;
        let mut guards = vec![(id, guard.clone())];
        // One that is gone may be one that nobody reads through any more.
        guards.extend(below.into_iter().filter_map(|(id, guard)| {
            let guard = guard.filter(|guard| guard.state != State::Deleting)?;
            Some((id, guard))
        }));
        Ok(Self { guards })
    }

    /// The ancestors that are there.
    pub(super) fn below(&self) -> impl Iterator<Item = (NamespaceId, &Guard)> {
        self.guards[1..].iter().map(|(id, guard)| (*id, guard))
    }

    /// The guard of a namespace that pages are read through.
    pub(super) fn guard(&self, id: NamespaceId) -> Result<&Guard, StoreError> {
        let found = self.guards.iter().find(|(other, _)| *other == id);
        let Some((_, guard)) = found else {
            return Err(StoreError::Corrupt {
                reason: format!(
                    "the namespace {id}, on which {} was forked, is gone",
                    self.guards[0].0
                ),
            });
        };
        if guard.min_reader > GENERATION {
            return Err(StoreError::UnknownFormat {
                what: format!("the namespace {id}"),
                found: guard.min_reader.into(),
                known: GENERATION.into(),
            });
        }
        Ok(guard)
    }
}
