//! A rollback journal, private to the connection that writes it.
//!
//! Nobody else may ever see or play back a journal of ours: a transaction that was not committed
//! left nothing in the store. So a journal needs a place to stay, not durability: its head lives
//! in memory, and what exceeds the head in a temporary file of the host's default VFS, unlinked
//! when SQLite opened it.
//!
//! Invariant: what SQLite does to end a journal after the commit point (truncate to nothing, zero
//! its header, sync, delete) touches the head only and cannot fail.

use std::ffi::{c_int, c_void};
use std::ptr;

use crate::failure::Failure;
use crate::ffi::{code, open, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};

/// Bytes kept in memory: the journal of a transaction over some 500 pages of 8 KiB.
const HEAD_BYTES: usize = 4 << 20;

/// The bytes of a journal.
pub(crate) struct Journal {
    head: Vec<u8>,
    /// Bytes from [`HEAD_BYTES`] on.
    tail: Option<TemporaryFile>,
    /// Length of head and tail together.
    size: u64,
    base: *mut sqlite3_vfs,
}

// SAFETY: a file may be used by one thread after the other, as SQLite does with its own; the
// default VFS is used by all threads.
unsafe impl Send for Journal {}

impl Journal {
    /// An empty journal whose tail, if it gets one, is a temporary file of `base`.
    pub(crate) fn new(base: *mut sqlite3_vfs) -> Self {
        Self {
            head: Vec::new(),
            tail: None,
            size: 0,
            base,
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
        let (in_head, in_tail) = split_at_head(present.len(), offset);
        if in_head > 0 {
            let start = offset as usize; // Below HEAD_BYTES, as bytes lie in the head.
            present[..in_head].copy_from_slice(&self.head[start..start + in_head]);
        }
        if let Some(tail) = self.tail.as_mut().filter(|_| in_tail > 0) {
            tail.read(&mut present[in_head..], tail_offset(offset))?;
        }
        Ok(beyond.is_empty())
    }

    /// Writes the bytes at `offset`; a gap left before them reads as zeros.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Failure> {
        let (in_head, in_tail) = split_at_head(bytes.len(), offset);
        if in_head > 0 {
            let start = offset as usize; // Below HEAD_BYTES, as bytes go to the head.
            self.grow_head(start + in_head)?;
            self.head[start..start + in_head].copy_from_slice(&bytes[..in_head]);
        }
        if in_tail > 0 {
            self.grow_head(HEAD_BYTES)?;
            let tail = match &mut self.tail {
                Some(tail) => tail,
                none => none.insert(TemporaryFile::create(self.base)?),
            };
            tail.write(&bytes[in_head..], tail_offset(offset))?;
        }
        self.size = self.size.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Shortens the journal. Never fails when nothing of the tail is kept.
    pub(crate) fn truncate(&mut self, size: u64) -> Result<(), Failure> {
        if size >= self.size {
            return Ok(());
        }
        if size <= HEAD_BYTES as u64 {
            self.tail = None;
            self.head.truncate(size as usize);
        } else if let Some(tail) = &mut self.tail {
            tail.truncate(tail_offset(size))?;
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
}

/// How many of `length` bytes from `offset` on belong to the head, and how many to the tail.
fn split_at_head(length: usize, offset: u64) -> (usize, usize) {
    let room = (HEAD_BYTES as u64).saturating_sub(offset);
    let in_head = usize::try_from(room).unwrap_or(usize::MAX).min(length);
    (in_head, length - in_head)
}

fn tail_offset(offset: u64) -> u64 {
    offset.saturating_sub(HEAD_BYTES as u64)
}

/// A file of the host's default VFS that has no name and goes away when it is closed.
struct TemporaryFile {
    /// Memory for the default VFS's own file structure, aligned for any of its fields.
    slot: Box<[u64]>,
}

impl TemporaryFile {
    fn create(base: *mut sqlite3_vfs) -> Result<Self, Failure> {
        const FLAGS: c_int = open::READWRITE
            | open::CREATE
            | open::EXCLUSIVE
            | open::DELETEONCLOSE
            | open::TEMP_JOURNAL;
        // SAFETY: the default VFS stays registered for the life of the process.
        let (file_bytes, open) = unsafe { ((*base).file_bytes, (*base).open) };
        let words = usize::try_from(file_bytes).unwrap_or(0).div_ceil(8).max(1);
        let mut file = Self {
            slot: vec![0; words].into_boxed_slice(),
        };
        let opened = match open {
            // SAFETY: the slot has as many bytes as the VFS asks for; a null name means a temporary
            // file of its choice.
            Some(open) => unsafe { open(base, ptr::null(), file.raw(), FLAGS, ptr::null_mut()) },
            None => code::CANTOPEN,
        };
        file.check(opened, "create").map(|()| file)
    }

    fn raw(&mut self) -> *mut sqlite3_file {
        self.slot.as_mut_ptr().cast()
    }

    fn methods(&mut self) -> Option<&'static sqlite3_io_methods> {
        // SAFETY: the slot begins with a `sqlite3_file`, zeroed or filled by the VFS that opened
        // it; method tables are never freed while a file is open.
        unsafe { (*self.raw()).methods.as_ref() }
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
        let read = self.methods().and_then(|methods| methods.read);
        let (data, length) = (buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
        self.call(
            "read",
            read,
            length,
            offset,
            |read, file, length, offset| {
                // SAFETY: `data` is valid for `length` bytes and the file is open.
                unsafe { read(file, data, length, offset) }
            },
        )
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Failure> {
        let write = self.methods().and_then(|methods| methods.write);
        let data = bytes.as_ptr().cast::<c_void>();
        self.call(
            "write",
            write,
            bytes.len(),
            offset,
            |write, file, length, offset| {
                // SAFETY: `data` is valid for `length` bytes and the file is open.
                unsafe { write(file, data, length, offset) }
            },
        )
    }

    fn truncate(&mut self, size: u64) -> Result<(), Failure> {
        let truncate = self.methods().and_then(|methods| methods.truncate);
        self.call("truncate", truncate, 0, size, |truncate, file, _, size| {
            // SAFETY: the file is open.
            unsafe { truncate(file, size) }
        })
    }

    /// Calls one method with its length and offset in SQLite's types.
    fn call<M>(
        &mut self,
        what: &str,
        method: Option<M>,
        length: usize,
        offset: u64,
        call: impl FnOnce(M, *mut sqlite3_file, c_int, i64) -> c_int,
    ) -> Result<(), Failure> {
        let arguments = c_int::try_from(length).ok().zip(i64::try_from(offset).ok());
        let result = match (method, arguments) {
            (Some(method), Some((length, offset))) => call(method, self.raw(), length, offset),
            _ => code::IOERR,
        };
        self.check(result, what)
    }

    fn check(&self, result: c_int, what: &str) -> Result<(), Failure> {
        let result = match result {
            code::OK => return Ok(()),
            // Bytes that were written are gone. SQLite takes a short read for the regular end of a
            // journal: it would stop playing back half way and then store the half.
            code::IOERR_SHORT_READ => code::IOERR_READ,
            other => other,
        };
        Err(Failure::new(
            result,
            format!(
                "cannot {what} the temporary file of a rollback journal (code {result}); \
                 is the temporary directory writable and not full?"
            ),
        ))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(close) = self.methods().and_then(|methods| methods.close) {
            // SAFETY: the file is open and not used again.
            unsafe { close(self.raw()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The default VFS of the SQLite in this test binary.
    fn default_vfs() -> *mut sqlite3_vfs {
        // SAFETY: null asks for the default VFS; its layout is compared in a test of `ffi`.
        unsafe { rusqlite::ffi::sqlite3_vfs_find(ptr::null()).cast() }
    }

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
            let mut journal = Journal::new(default_vfs());
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
        let mut journal = Journal::new(default_vfs());
        let offset = HEAD_BYTES as u64 + 1000;
        journal.write(&[1; 100], offset).unwrap();
        journal.tail.as_mut().unwrap().truncate(500).unwrap();
        let failure = journal.read(&mut [0; 100], offset).unwrap_err();
        assert_eq!(failure.code, code::IOERR_READ);
    }

    #[test]
    fn ending_a_journal_needs_no_file() {
        let mut journal = Journal::new(default_vfs());
        journal.write(&[1; 100], HEAD_BYTES as u64 + 1000).unwrap();
        assert!(journal.tail.is_some());
        // As SQLite ends a journal in persist and in truncate mode: from here on no file is asked.
        journal.base = ptr::null_mut();
        journal.write(&[0; 28], 0).unwrap();
        journal.truncate(0).unwrap();
        assert!(journal.tail.is_none());
        assert_eq!(journal.size(), 0);
    }
}
