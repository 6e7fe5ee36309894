//! The guard `g`: what every commit of a namespace must agree with.

use mvsqlite_protocol::Version;

use super::{Fields, GENERATION, Malformed};

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
/// 45  1   number of layers: 0 in generation 1
/// 46  1   number of ancestors: 0 in generation 1
/// ```
///
/// The generations come first, so that a build reads them whatever follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Least generation that may read.
    pub min_reader: u8,
    /// Least generation that may write.
    pub min_writer: u8,
    /// Whether it lives.
    pub state: State,
    /// Nothing below it is kept.
    pub horizon: Version,
    /// The namespace lock, if held.
    pub lock: Option<Nonce>,
    /// The write lease, if held.
    pub lease: Option<Nonce>,
}

impl Guard {
    const WHAT: &str = "a namespace's guard";

    /// The guard of a new namespace.
    pub(crate) const NEW: Self = Self {
        min_reader: GENERATION,
        min_writer: GENERATION,
        state: State::Live,
        horizon: Version::ZERO,
        lock: None,
        lease: None,
    };

    pub(crate) fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            State::Live => 0,
            State::Hidden => 1,
            State::Deleting => 2,
        };
        let mut bytes = vec![self.min_reader, self.min_writer, state];
        bytes.extend_from_slice(self.horizon.as_bytes());
        bytes.extend_from_slice(&self.lock.unwrap_or_default());
        bytes.extend_from_slice(&self.lease.unwrap_or_default());
        bytes.extend_from_slice(&[0, 0]);
        bytes
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
        if fields.take::<2>()? != [0, 0] {
            return Err(fields.bad("number of layers"));
        }
        fields.end()?;
        Ok(guard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_47_bytes_as_documented() {
        let guard = Guard {
            min_reader: 1,
            min_writer: 1,
            state: State::Deleting,
            horizon: Version::new(0x0102, 3),
            lock: Some([0xaa; 16]),
            lease: None,
        };
        let mut golden = vec![1, 1, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 3];
        golden.extend([0xaa; 16]);
        golden.extend([0; 18]);
        assert_eq!(guard.encode(), golden);
        assert_eq!(Guard::decode(&golden), Ok(guard));
        assert_eq!(golden.len(), 47);
    }

    #[test]
    fn a_guard_of_a_newer_generation_still_tells_its_generation() {
        let newer = Guard::decode(&[2, 3, 0, b'?']).unwrap();
        assert_eq!((newer.min_reader, newer.min_writer), (2, 3));
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
}
