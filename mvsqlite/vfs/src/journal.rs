//! A rollback journal, private to the connection that writes it.
//!
//! Nobody else may ever see or play back a journal of ours: a transaction that was not committed
//! left nothing in the store. So a journal needs a place to stay, not durability: its head lives
//! in memory, and what exceeds the head in a temporary file without a name.
//!
//! Invariant: what SQLite does to end a journal after the commit point (truncate to nothing, zero
//! its header, sync, delete) touches the head only and cannot fail.

use crate::failure::Failure;
use crate::ffi::code;
use crate::temporary_file::TemporaryFile;

/// The bytes of a journal.
pub(crate) struct Journal {
    head: Vec<u8>,
    /// Most bytes of the head.
    head_bytes: usize,
    /// The bytes that exceed the head.
    tail: Option<TemporaryFile>,
    /// Length of head and tail together.
    size: u64,
}

impl Journal {
    /// An empty journal that keeps this many bytes in memory.
    pub(crate) fn new(head_bytes: usize) -> Self {
        Self {
            head: Vec::new(),
            head_bytes,
            tail: None,
            size: 0,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Fills the buffer from `offset` on. What lies beyond the end reads as zeros.
    ///
    /// Returns `false` if that happened: SQLite calls it a short read.
    pub(crate) fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<bool, Failure> {
        let within = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (present, beyond) = buffer.split_at_mut(within.min(buffer.len()));
        beyond.fill(0);
        let (in_head, in_tail) = self.split_at_head(present.len(), offset);
        if in_head > 0 {
            let start = offset as usize; // Below the head's end, as bytes lie in the head.
            present[..in_head].copy_from_slice(&self.head[start..start + in_head]);
        }
        if let Some(tail) = self.tail.as_ref().filter(|_| in_tail > 0) {
            tail.read(&mut present[in_head..], self.tail_offset(offset))?;
        }
        Ok(beyond.is_empty())
    }

    /// Writes the bytes at `offset`; a gap left before them reads as zeros.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Failure> {
        let (in_head, in_tail) = self.split_at_head(bytes.len(), offset);
        if in_head > 0 {
            let start = offset as usize; // Below the head's end, as bytes go to the head.
            self.grow_head(start + in_head)?;
            self.head[start..start + in_head].copy_from_slice(&bytes[..in_head]);
        }
        if in_tail > 0 {
            self.grow_head(self.head_bytes)?;
            let start = self.tail_offset(offset);
            let tail = match &self.tail {
                Some(tail) => tail,
                None => self.tail.insert(TemporaryFile::create()?),
            };
            tail.write(&bytes[in_head..], start)?;
        }
        self.size = self.size.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Shortens the journal. Never fails when nothing of the tail is kept.
    pub(crate) fn truncate(&mut self, size: u64) -> Result<(), Failure> {
        if size >= self.size {
            return Ok(());
        }
        if size <= self.head_bytes as u64 {
            self.tail = None;
            self.head.truncate(size as usize);
        } else if let Some(tail) = &self.tail {
            tail.truncate(self.tail_offset(size))?;
        }
        self.size = size;
        Ok(())
    }

    fn grow_head(&mut self, size: usize) -> Result<(), Failure> {
        let missing = size.saturating_sub(self.head.len());
        self.head.try_reserve(missing).map_err(|_| {
            Failure::new(
                code::NOMEM,
                format!("no memory for a rollback journal of {size} bytes"),
            )
        })?;
        self.head.resize(self.head.len() + missing, 0);
        Ok(())
    }

    /// How many of `length` bytes from `offset` on belong to the head, and how many to the tail.
    fn split_at_head(&self, length: usize, offset: u64) -> (usize, usize) {
        let room = (self.head_bytes as u64).saturating_sub(offset);
        let in_head = usize::try_from(room).unwrap_or(usize::MAX).min(length);
        (in_head, length - in_head)
    }

    fn tail_offset(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.head_bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD_BYTES: usize = 1000;

    #[derive(Debug, Clone)]
    enum Step {
        Write { offset: usize, length: usize },
        Truncate { size: usize },
        Read { offset: usize, length: usize },
    }

    /// Positions on both sides of the head's end.
    fn position() -> impl Strategy<Value = usize> {
        prop_oneof![0..200usize, HEAD_BYTES - 200..HEAD_BYTES + 400]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (position(), 1..300usize).prop_map(|(offset, length)| Step::Write { offset, length }),
            position().prop_map(|size| Step::Truncate { size }),
            (position(), 1..300usize).prop_map(|(offset, length)| Step::Read { offset, length }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_journal_behaves_like_a_file_across_the_end_of_its_head(
            steps in prop::collection::vec(step(), 1..40)
        ) {
            let mut journal = Journal::new(HEAD_BYTES);
            let mut model: Vec<u8> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write { offset, length } => {
                        let bytes = vec![number as u8 + 1; length];
                        journal.write(&bytes, offset as u64).unwrap();
                        model.resize(model.len().max(offset + length), 0);
                        model[offset..offset + length].copy_from_slice(&bytes);
                    }
                    Step::Truncate { size } => {
                        journal.truncate(size as u64).unwrap();
                        model.truncate(size);
                    }
                    Step::Read { offset, length } => {
                        let mut found = vec![0xff; length];
                        let full = journal.read(&mut found, offset as u64).unwrap();
                        let end = model.len().min(offset + length);
                        let mut expected = model.get(offset..end).unwrap_or_default().to_vec();
                        prop_assert_eq!(full, expected.len() == length);
                        expected.resize(length, 0);
                        prop_assert_eq!(found, expected);
                    }
                }
                prop_assert_eq!(journal.size(), model.len() as u64);
            }
        }
    }

    /// SQLite takes a short read of a journal for its end, plays nothing more back, and ends the
    /// rollback as if all were restored. With page 1 among what is missing that looked like a
    /// commit, and half of a transaction that was rolled back was stored.
    #[test]
    fn a_journal_that_lost_its_tail_fails_to_read_instead_of_ending_early() {
        let mut journal = Journal::new(HEAD_BYTES);
        let offset = HEAD_BYTES as u64 + 1000;
        journal.write(&[1; 100], offset).unwrap();
        journal.tail.as_ref().unwrap().truncate(500).unwrap();
        let failure = journal.read(&mut [0; 100], offset).unwrap_err();
        assert_eq!(failure.code, code::IOERR_READ);
    }

    #[test]
    fn ending_a_journal_needs_no_file() {
        let mut journal = Journal::new(HEAD_BYTES);
        journal.write(&[1; 100], HEAD_BYTES as u64 + 1000).unwrap();
        assert!(journal.tail.is_some());
        // As SQLite ends a journal in persist and in truncate mode, of a file that is lost.
        journal.tail.as_mut().unwrap().lose();
        journal.write(&[0; 28], 0).unwrap();
        journal.truncate(0).unwrap();
        assert!(journal.tail.is_none());
        assert_eq!(journal.size(), 0);
    }
}
