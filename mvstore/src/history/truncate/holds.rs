//! What holds history: everything that needs a moment of the past, in one place.
//!
//! Some holders keep the horizon from rising above them: locks, forks, layers that are not folded
//! yet. Others let it rise and are pins below it: what they need is left standing while the rest
//! around it goes. Named snapshots will be pins.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::{NamespaceId, StageId, Version};

use crate::context::{Context, Failure, corrupt_in};
use crate::kv::{Isolation, RangeOptions, Transaction};
use crate::layout::{Guard, LayerKind, decode_version};
use crate::namespace::lock_of;
use crate::page::predecessor;

/// Most forks of one namespace that are looked at at once.
const FORKS_AT_ONCE: usize = 1000;

/// The highest version that the horizon may rise to, if there is a limit. Read serializably: whoever
/// takes hold of a version reads or writes the guard in the same transaction.
pub(super) async fn ceiling(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
) -> Result<Option<Version>, Failure> {
    let lock = lock_of(ctx, txn, id, guard, Isolation::Serializable).await?;
    let lock = lock.map(|lock| lock.snapshot);
    let layers = guard.layers.iter().map(|layer| predecessor(layer.at));
    let mut forks = forked_at(ctx, txn, id).await?;
    if active(Bug::ForkUnheld) {
        // They have nothing else that holds their pages.
        forks.clear();
    }
    Ok(layers.chain(forks).chain(lock).min())
}

/// The versions that forks of a namespace see, in no order. Read serializably.
pub(crate) async fn forked_at(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
) -> Result<Vec<Version>, Failure> {
    let mut range = ctx.keys.forks(id);
    let options = RangeOptions {
        limit: FORKS_AT_ONCE,
        reverse: false,
        isolation: Isolation::Serializable,
    };
    let mut versions = Vec::new();
    loop {
        let pairs = txn.get_range(&range, options).await?;
        for (_, value) in &pairs {
            let version = decode_version(value);
            versions.push(version.map_err(corrupt_in(format_args!("the forks of {id}")))?);
        }
        match pairs.last() {
            Some((last, _)) if pairs.len() == FORKS_AT_ONCE => {
                range.begin = [last, &[0][..]].concat();
            }
            _ => return Ok(versions),
        }
    }
}

/// What a transaction that removes page versions has to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holds {
    /// Moments that stay readable, ascending; the last is the horizon.
    pub(super) anchors: Vec<Version>,
    /// Below the namespace lies another one.
    pub(super) has_base: bool,
    /// Stages that layers refer to.
    pub(super) stages: Vec<StageId>,
}

impl Holds {
    /// By the guard. Layers that are not folded yet read what lies below them: a restore does so at
    /// the version it restores, others at the moment that is asked for.
    pub(super) fn new(guard: &Guard, horizon: Version) -> Self {
        let pins = guard.layers.iter().filter_map(|layer| match layer.kind {
            LayerKind::Restore { to } => Some(to),
            LayerKind::Stage { .. } => None,
        });
        let stages = guard.layers.iter().filter_map(|layer| match layer.kind {
            LayerKind::Restore { .. } => None,
            LayerKind::Stage { stage, .. } => stage,
        });
        Self {
            stages: stages.collect(),
            ..Self::of(pins.collect(), horizon, guard.base().is_some())
        }
    }

    /// From pins in any order; those above the horizon need no anchor, since nothing there goes.
    pub(super) fn of(mut pins: Vec<Version>, horizon: Version, has_base: bool) -> Self {
        pins.retain(|pin| *pin < horizon);
        pins.push(horizon);
        pins.sort_unstable();
        pins.dedup();
        Self {
            anchors: pins,
            has_base,
            stages: Vec::new(),
        }
    }

    /// The moments below the horizon.
    pub(super) fn pins(&self) -> &[Version] {
        self.anchors.split_last().map_or(&[], |(_, pins)| pins)
    }

    /// The highest anchor.
    pub(super) fn horizon(&self) -> Version {
        self.anchors.last().copied().unwrap_or(Version::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Ancestor, Layer};

    #[test]
    fn what_a_restore_shows_and_what_lies_below_a_fork_is_held() {
        let restore = Layer {
            at: Version::new(9, 0),
            kind: LayerKind::Restore {
                to: Version::new(3, 0),
            },
        };
        let stage = StageId::from_bytes([7; 16]);
        let large = Layer {
            at: Version::new(10, 0),
            kind: LayerKind::Stage {
                stage: Some(stage),
                count: 0,
                cuts: false,
            },
        };
        let guard = Guard {
            layers: vec![restore, large],
            ancestors: vec![Ancestor {
                id: NamespaceId::from_bytes([1; 10]),
                at: Version::from_bytes([1; 10]),
            }],
            ..Guard::NEW
        };
        let holds = Holds::new(&guard, Version::new(5, 0));
        assert_eq!(holds.pins(), [Version::new(3, 0)]);
        assert_eq!(holds.horizon(), Version::new(5, 0));
        assert_eq!(
            (holds.stages.as_slice(), holds.has_base),
            (&[stage][..], true)
        );
        // Above the horizon nothing goes, so nothing there needs a pin.
        let low = Holds::new(&guard, Version::new(2, 0));
        assert_eq!(low.pins(), []);
    }
}
