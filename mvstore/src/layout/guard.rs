//! The guard `g`: what every commit of a namespace must agree with.

use mvsqlite_protocol::{NamespaceId, Version};

use super::layer::{Ancestor, Layer, LayerKind, MAX_LAYERS};
use super::{FIRST_GENERATION, Fields, GENERATION, LAYERS_GENERATION, Malformed};
use crate::kv::StampOffset;

/// Whether a namespace lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It does.
    Live,
    /// Deleted, but kept because forks still read it.
    Hidden,
    /// Deleted; its keys are being removed.
    Deleting,
}

/// 16 random bytes that name the holder of a lock or lease.
pub(crate) type Nonce = [u8; 16];

/// The guard. Stored as
///
/// ```text
/// 0   1   least generation that may read the namespace
/// 1   1   least generation that may write it
/// 2   1   state: 0 live, 1 hidden, 2 deleting
/// 3  10   horizon: nothing below it is kept (zeros: the namespace id)
/// 13 16   nonce of the namespace lock (zeros: none)
/// 29 16   nonce of the write lease (zeros: none)
/// 45  1   number of layers: 0 to 8; 0 in generation 1
/// 46  1   number of ancestors: 0 to 8; 0 in generation 1
/// 47  -   the layers, oldest first; then the ancestors, the nearest first
/// ```
///
/// The generations come first, so that a build reads them whatever follows. A guard with layers or
/// ancestors needs generation 2, any other is as generation 1 wrote it: a build of that generation
/// refuses the namespaces that it would misread, and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Least generation that may read. Layers and ancestors raise what is stored.
    pub min_reader: u8,
    /// Least generation that may write. Layers and ancestors raise what is stored.
    pub min_writer: u8,
    /// Whether it lives.
    pub state: State,
    /// Nothing below it is kept.
    pub horizon: Version,
    /// The namespace lock, if held.
    pub lock: Option<Nonce>,
    /// The write lease, if held.
    pub lease: Option<Nonce>,
    /// The layers, oldest first; at most [`MAX_LAYERS`].
    pub layers: Vec<Layer>,
    /// The namespaces below this one, the nearest first; at most [`MAX_LAYERS`]. The first says
    /// what this one sees; the others are what the first said when this one was made, so that all
    /// their guards can be read at once.
    pub ancestors: Vec<Ancestor>,
}

impl Guard {
    const WHAT: &str = "a namespace's guard";

    /// The guard of a new namespace.
    pub(crate) const NEW: Self = Self {
        min_reader: FIRST_GENERATION,
        min_writer: FIRST_GENERATION,
        state: State::Live,
        horizon: Version::ZERO,
        lock: None,
        lease: None,
        layers: Vec::new(),
        ancestors: Vec::new(),
    };

    /// The namespace directly below.
    pub(crate) fn base(&self) -> Option<Ancestor> {
        self.ancestors.first().copied()
    }

    /// The oldest version that can be read, unless one is pinned: the horizon, or the creation.
    pub(crate) fn oldest(&self, id: NamespaceId) -> Version {
        self.horizon.max(id.as_version())
    }

    /// Whether another layer has room.
    pub(crate) fn has_room(&self) -> bool {
        self.layers.len() < MAX_LAYERS
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            State::Live => 0,
            State::Hidden => 1,
            State::Deleting => 2,
        };
        let is_plain = self.layers.is_empty() && self.ancestors.is_empty();
        let least = if is_plain {
            FIRST_GENERATION
        } else {
            LAYERS_GENERATION
        };
        let mut bytes = vec![
            self.min_reader.max(least),
            self.min_writer.max(least),
            state,
        ];
        bytes.extend_from_slice(self.horizon.as_bytes());
        bytes.extend_from_slice(&self.lock.unwrap_or_default());
        bytes.extend_from_slice(&self.lease.unwrap_or_default());
        // Nothing makes more of either than `MAX_LAYERS`.
        bytes.push(u8::try_from(self.layers.len()).unwrap_or(u8::MAX));
        bytes.push(u8::try_from(self.ancestors.len()).unwrap_or(u8::MAX));
        for layer in &self.layers {
            layer.encode(&mut bytes);
        }
        for ancestor in &self.ancestors {
            ancestor.encode(&mut bytes);
        }
        bytes
    }

    /// The guard with one layer more, whose version will be that of the commit that writes it:
    /// bytes and stamp offset. There must be room.
    pub(crate) fn encode_with_layer(&self, kind: LayerKind) -> (Vec<u8>, StampOffset) {
        debug_assert!(self.has_room());
        let new = Layer {
            at: Version::ZERO,
            kind,
        };
        let behind: usize = self.ancestors.len() * (NamespaceId::LEN + Version::LEN);
        let mut grown = self.clone();
        grown.layers.push(new);
        let bytes = grown.encode();
        let mut last = Vec::new();
        let offset = new.encode(&mut last);
        let offset = bytes.len() - behind - last.len() + offset;
        (bytes, offset)
    }

    /// Decodes the guard. One that needs a newer reader decodes as far as its generations and
    /// its state, which stand at the same place in every generation; the rest is blank then.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(Self::WHAT, bytes);
        let mut guard = Self {
            min_reader: fields.u8()?,
            min_writer: fields.u8()?,
            ..Self::NEW
        };
        guard.state = match fields.u8()? {
            0 => State::Live,
            1 => State::Hidden,
            2 => State::Deleting,
            _ => return Err(fields.bad("state")),
        };
        if guard.min_reader > GENERATION {
            return Ok(guard);
        }
        guard.horizon = fields.version()?;
        guard.lock = Some(fields.take()?).filter(|nonce| *nonce != Nonce::default());
        guard.lease = Some(fields.take()?).filter(|nonce| *nonce != Nonce::default());
        let (layers, ancestors) = (fields.u8()?, fields.u8()?);
        let most = if guard.min_reader < LAYERS_GENERATION {
            0
        } else {
            MAX_LAYERS
        };
        if usize::from(layers) > most {
            return Err(fields.bad("number of layers"));
        }
        if usize::from(ancestors) > most {
            return Err(fields.bad("number of ancestors"));
        }
        for _ in 0..layers {
            let layer = Layer::decode(&mut fields)?;
            if guard.layers.last().is_some_and(|last| last.at >= layer.at) {
                return Err(fields.bad("order of layers"));
            }
            guard.layers.push(layer);
        }
        for _ in 0..ancestors {
            guard.ancestors.push(Ancestor::decode(&mut fields)?);
        }
        fields.end()?;
        Ok(guard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvsqlite_protocol::StageId;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_guard_is_47_bytes_as_documented() {
        let guard = Guard {
            state: State::Deleting,
            horizon: Version::new(0x0102, 3),
            lock: Some([0xaa; 16]),
            ..Guard::NEW
        };
        let mut golden = vec![1, 1, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 3];
        golden.extend([0xaa; 16]);
        golden.extend([0; 18]);
        assert_eq!(guard.encode(), golden);
        assert_eq!(Guard::decode(&golden), Ok(guard));
        assert_eq!(golden.len(), 47);
    }

    fn layered() -> Guard {
        let layer = |at, kind| Layer {
            at: Version::new(at, 0),
            kind,
        };
        Guard {
            min_reader: 2,
            min_writer: 2,
            layers: vec![
                layer(
                    0x10,
                    LayerKind::Stage {
                        stage: Some(StageId::from_bytes([0xbb; 16])),
                        count: 0x0203,
                        cuts: false,
                    },
                ),
                layer(
                    0x20,
                    LayerKind::Stage {
                        stage: None,
                        count: 7,
                        cuts: true,
                    },
                ),
                layer(
                    0x30,
                    LayerKind::Restore {
                        to: Version::new(0x18, 1),
                    },
                ),
            ],
            ancestors: vec![Ancestor {
                id: NamespaceId::from_bytes([0, 0, 0, 0, 0, 0, 0, 4, 0, 0]),
                at: Version::new(5, 6),
            }],
            ..Guard::NEW
        }
    }

    #[test]
    fn layers_and_ancestors_are_the_bytes_that_are_documented() {
        let guard = layered();
        let bytes = guard.encode();
        let golden = [
            "0202 00",
            &"00".repeat(42),
            "03 01",
            &format!("01 00000000000000100000 01 {} 00000203", "bb".repeat(16)),
            &format!("01 00000000000000200000 02 {} 00000007", "00".repeat(16)),
            "02 00000000000000300000 00000000000000180001",
            "00000000000000040000 00000000000000050006",
        ];
        assert_eq!(hex(&bytes), golden.concat().replace(' ', ""));
        assert_eq!(Guard::decode(&bytes), Ok(guard));
    }

    #[test]
    fn a_guard_needs_the_new_generation_only_while_it_has_layers_or_ancestors() {
        let generations = |guard: &Guard| (guard.encode()[0], guard.encode()[1]);
        assert_eq!(generations(&Guard::NEW), (1, 1));
        let with = |layers: &[Layer], ancestors: &[Ancestor]| Guard {
            layers: layers.to_vec(),
            ancestors: ancestors.to_vec(),
            ..Guard::NEW
        };
        let full = layered();
        assert_eq!(generations(&with(&full.layers, &[])), (2, 2));
        assert_eq!(generations(&with(&[], &full.ancestors)), (2, 2));
        let base = Guard {
            min_writer: 2,
            ..Guard::NEW
        };
        assert_eq!(generations(&base), (1, 2));
    }

    #[test]
    fn a_new_layer_gets_its_version_from_the_commit() {
        for ancestors in [Vec::new(), layered().ancestors] {
            let mut guard = Guard {
                ancestors,
                ..layered()
            };
            let kind = LayerKind::Restore {
                to: Version::new(1, 1),
            };
            let (mut bytes, offset) = guard.encode_with_layer(kind);
            let at = Version::new(0x99, 9);
            bytes[offset..offset + Version::LEN].copy_from_slice(at.as_bytes());
            guard.layers.push(Layer { at, kind });
            assert_eq!(Guard::decode(&bytes), Ok(guard));
        }
    }

    #[test]
    fn a_guard_of_a_newer_generation_still_tells_its_generation() {
        let newer = Guard::decode(&[3, 4, 0, b'?']).unwrap();
        assert_eq!((newer.min_reader, newer.min_writer), (3, 4));
    }

    #[test]
    fn a_guard_of_impossible_bytes_is_refused() {
        let good = Guard::NEW.encode();
        for (at, value) in [(2, 3), (45, 1), (46, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            Guard::decode(&bad).expect_err("an impossible field");
        }
        Guard::decode(&good[..46]).expect_err("cut short");
        Guard::decode(&[good.as_slice(), &[0]].concat()).expect_err("too long");
    }

    #[test]
    fn impossible_layers_are_refused() {
        let good = layered().encode();
        // The first layer's kind, flags and place in the order; the third's version restored; counts
        // of both; an ancestor seen before it was made.
        let second = 47 + 32;
        let third = second + 32;
        let ancestor = third + 21;
        for (at, value) in [
            (47, 3),
            (47 + 11, 4),
            (47 + 11, 0),
            (47 + 8, 0x20),
            (third + 18, 0x30),
            (45, 9),
            (45, 4),
            (46, 9),
            (46, 2),
            (0, 1),
            (ancestor + 17, 3),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            Guard::decode(&bad).expect_err("an impossible field");
        }
        for cut in 4..good.len() {
            Guard::decode(&good[..cut]).expect_err("cut short");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_and_what_decodes_encodes_back(
            edits in prop::collection::vec((0usize..160, any::<u8>()), 0..8),
            tail in prop::collection::vec(any::<u8>(), 0..40),
            plain in any::<bool>(),
        ) {
            let guard = if plain { Guard::NEW } else { layered() };
            let mut bytes = [guard.encode(), tail].concat();
            for (at, value) in edits {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(guard) = Guard::decode(&bytes)
                && guard.min_reader <= GENERATION
            {
                let again = Guard::decode(&guard.encode());
                prop_assert_eq!(again.as_ref().map(|again| &again.layers), Ok(&guard.layers));
                prop_assert_eq!(again.map(|again| again.ancestors), Ok(guard.ancestors));
            }
        }
    }
}
