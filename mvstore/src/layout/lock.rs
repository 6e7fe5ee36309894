//! The record of a namespace lock, beside the nonce of it in the guard.

use mvsqlite_protocol::Version;

use super::guard::Nonce;
use super::{Fields, Malformed};

/// A namespace lock:
///
/// ```text
/// 0   16  nonce, as in the guard
/// 16  10  what others than the owner see while it is held
/// 26  1   1 while its rollback is under way, else 0
/// 27  2   length of the owner in bytes
/// 29  -   the owner: text
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockRecord {
    /// Tells this lock from earlier and later ones of the same owner.
    pub nonce: Nonce,
    /// What others than the owner see while it is held, and what a rollback goes back to.
    pub snapshot: Version,
    /// Its rollback is under way.
    pub rolling_back: bool,
    /// Whose it is: at most 65,535 bytes; callers allow far fewer.
    pub owner: String,
}

impl LockRecord {
    const WHAT: &str = "the record of a namespace lock";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.nonce.to_vec();
        bytes.extend_from_slice(self.snapshot.as_bytes());
        bytes.push(u8::from(self.rolling_back));
        let length = u16::try_from(self.owner.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.owner.as_bytes()[..length.into()]);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(Self::WHAT, bytes);
        let nonce = fields.take()?;
        let snapshot = fields.version()?;
        let rolling_back = match fields.u8()? {
            0 => false,
            1 => true,
            _ => return Err(fields.bad("state")),
        };
        if usize::from(fields.u16()?) != fields.rest.len() {
            return Err(fields.bad("length"));
        }
        let owner = std::str::from_utf8(fields.rest).map_err(|_| fields.bad("owner"))?;
        Ok(Self {
            nonce,
            snapshot,
            rolling_back,
            owner: owner.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lock_is_29_bytes_and_its_owner_as_documented() {
        let lock = LockRecord {
            nonce: [7; 16],
            snapshot: Version::new(0x0102, 3),
            rolling_back: true,
            owner: "w1".to_owned(),
        };
        let mut golden = vec![7; 16];
        golden.extend([0, 0, 0, 0, 0, 0, 1, 2, 0, 3, 1, 0, 2, b'w', b'1']);
        assert_eq!(lock.encode(), golden);
        assert_eq!(LockRecord::decode(&golden), Ok(lock));
        for (at, value) in [(26, 2), (28, 3), (29, 0xff)] {
            let mut bad = golden.clone();
            bad[at] = value;
            LockRecord::decode(&bad).expect_err("an impossible field");
        }
        for cut in 0..golden.len() {
            LockRecord::decode(&golden[..cut]).expect_err("cut short");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = LockRecord::decode(&bytes);
        }
    }
}
