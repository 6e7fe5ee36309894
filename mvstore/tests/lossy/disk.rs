//! A file system in memory that knows what a power loss would leave of it.
//!
//! Every file has the bytes that programs see and the bytes that were fsynced; every directory the
//! names that programs see and those that were fsynced. [`Disk::cut`] makes the image that is found
//! after a power loss: what was fsynced is there; of all the rest, each block of 4 KiB (or each
//! sector of 512 bytes in it), each file's length and each change of a directory is there or not as
//! a seeded draw decides. Nothing orders what was not fsynced.
//!
//! Operations that change something are counted, so that the power can be cut, or an error be
//! returned, at exactly one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

pub(crate) const ROOT: u64 = 1;
const BLOCK: usize = 4096;
const SECTOR: usize = 512;

type Block = [u8; BLOCK];

/// What of a new file's name its own fsync makes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Nothing: only the directory's fsync does (POSIX to the letter).
    ByDirectory,
    /// The file's own name (what ext4, XFS, Btrfs and F2FS do).
    WithFile,
}

/// A kind of operation that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Write,
    Sync,
    /// Create, remove, rename, make or remove a directory, set a length.
    Metadata,
}

/// What is to go wrong, and when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble {
    /// When the power fails.
    pub(crate) cut: Option<Cut>,
    /// Whether what was not fsynced survives in parts; else it is lost.
    pub(crate) tear: bool,
    /// From the n-th operation of a kind on, that kind fails with this error.
    pub(crate) fail: Option<(Op, u64, Failure)>,
}

/// When the power fails; counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// At the n-th operation.
    At(u64),
    /// In the n-th fsync.
    InSync(u64),
    /// In the n-th fsync of files with this ending.
    InSyncOf(&'static str, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Io,
    NoSpace,
}

/// Bytes with holes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) len: u64,
    blocks: BTreeMap<u64, Arc<Block>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    pub(crate) live: Content,
    durable: Content,
    /// Blocks that differ, or may.
    dirty: BTreeSet<u64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    pub(crate) live: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    /// Changes since the last fsync; each happens whole or not at all.
    pending: Vec<Vec<(OsString, Option<u64>)>>,
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    File(File),
    Directory(Directory),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Disk {
    nodes: BTreeMap<u64, Node>,
    names: Names,
    trouble: Trouble,
    draws: Draws,
    operations: u64,
    of_kind: [u64; 3],
    /// What the power loss left, once there was one.
    image: Option<BTreeMap<u64, Node>>,
    /// What `statfs` says is free.
    pub(crate) free_bytes: u64,
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

impl Disk {
    pub(crate) fn new(names: Names, seed: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]),
            names,
            trouble: Trouble::default(),
            draws: Draws(seed),
            operations: 0,
            of_kind: [0; 3],
            image: None,
            free_bytes: 1 << 40,
        }
    }

    /// Switches the power on again: what the power loss left is all there is. Without a loss,
    /// everything is as it was.
    pub(crate) fn restart(&mut self, trouble: Trouble) {
        if let Some(image) = self.image.take() {
            self.nodes = image;
        }
        self.trouble = trouble;
        self.operations = 0;
        self.of_kind = [0; 3];
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.image.is_some()
    }

    pub(crate) fn node(&self, inode: u64) -> Option<&Node> {
        self.nodes.get(&inode)
    }

    pub(crate) fn file(&mut self, inode: u64) -> Option<&mut File> {
        match self.nodes.get_mut(&inode)? {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        }
    }

    pub(crate) fn directory(&mut self, inode: u64) -> Option<&mut Directory> {
        match self.nodes.get_mut(&inode)? {
            Node::Directory(directory) => Some(directory),
            Node::File(_) => None,
        }
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &OsStr) -> Option<u64> {
        self.directory(parent)?.live.get(name).copied()
    }

    /// Counts an operation that is about to be made; `Err` if it fails, with nothing changed.
    /// [`Self::end`] follows it.
    pub(crate) fn begin(&mut self, op: Op) -> Result<(), Failure> {
        if self.is_cut() {
            return Err(Failure::Io);
        }
        self.operations += 1;
        let count = &mut self.of_kind[op as usize];
        *count += 1;
        if let Some((kind, from, failure)) = self.trouble.fail
            && kind == op
            && *count >= from
        {
            return Err(failure);
        }
        Ok(())
    }

    /// The operation has been made; perhaps the last one for a while.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        if self.trouble.cut == Some(Cut::At(self.operations)) {
            self.cut();
            return Err(Failure::Io);
        }
        Ok(())
    }

    /// Whether the power fails during this fsync, which has been begun: before it has any effect.
    fn fails_in_sync(&mut self, inode: u64) -> bool {
        match &mut self.trouble.cut {
            Some(Cut::InSync(count)) => *count == self.of_kind[Op::Sync as usize],
            Some(Cut::InSyncOf(ending, left)) => {
                let named = self.nodes.values().any(|node| match node {
                    Node::Directory(directory) => directory.names(inode, ending),
                    Node::File(_) => false,
                });
                *left -= u64::from(named && *left > 0);
                named && *left == 0
            }
            Some(Cut::At(_)) | None => false,
        }
    }

    /// Adds a node that no name leads to yet.
    pub(crate) fn add(&mut self, node: Node) -> u64 {
        let inode = self.nodes.keys().next_back().map_or(ROOT, |last| last + 1);
        self.nodes.insert(inode, node);
        inode
    }

    /// Changes names of one directory, all at once.
    pub(crate) fn change_names(&mut self, parent: u64, changes: Vec<(OsString, Option<u64>)>) {
        let Some(directory) = self.directory(parent) else {
            return;
        };
        apply(&mut directory.live, &changes);
        directory.pending.push(changes);
    }

    pub(crate) fn sync_file(&mut self, inode: u64) -> Result<(), Failure> {
        if self.fails_in_sync(inode) {
            self.cut();
            return Err(Failure::Io);
        }
        if let Some(file) = self.file(inode) {
            file.sync();
        }
        if self.names == Names::WithFile {
            for node in self.nodes.values_mut() {
                if let Node::Directory(directory) = node {
                    directory.sync_name_of(inode);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn sync_directory(&mut self, inode: u64) -> Result<(), Failure> {
        if self.fails_in_sync(inode) {
            self.cut();
            return Err(Failure::Io);
        }
        if let Some(directory) = self.directory(inode) {
            directory.durable = directory.live.clone();
            directory.pending.clear();
        }
        Ok(())
    }

    /// The power fails now.
    pub(crate) fn cut(&mut self) {
        let (tear, draws) = (self.trouble.tear, &mut self.draws);
        let mut image = BTreeMap::new();
        for (inode, node) in &self.nodes {
            let left = match node {
                Node::File(file) => Node::File(file.after_loss(tear, draws)),
                Node::Directory(directory) => Node::Directory(directory.after_loss(tear, draws)),
            };
            image.insert(*inode, left);
        }
        self.image = Some(image);
    }
}

impl Directory {
    fn names(&self, inode: u64, ending: &str) -> bool {
        self.live.iter().any(|(name, target)| {
            *target == inode && name.to_str().is_some_and(|name| name.ends_with(ending))
        })
    }

    fn sync_name_of(&mut self, inode: u64) {
        for (name, target) in &self.live {
            if *target == inode {
                self.durable.insert(name.clone(), inode);
            }
        }
    }

    fn after_loss(&self, tear: bool, draws: &mut Draws) -> Self {
        let mut left = self.durable.clone();
        for change in &self.pending {
            if tear && draws.coin() {
                apply(&mut left, change);
            }
        }
        Self {
            live: left.clone(),
            durable: left,
            pending: Vec::new(),
        }
    }
}

fn apply(names: &mut BTreeMap<OsString, u64>, changes: &[(OsString, Option<u64>)]) {
    for (name, target) in changes {
        match target {
            Some(inode) => drop(names.insert(name.clone(), *inode)),
            None => drop(names.remove(name)),
        }
    }
}

impl File {
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let touched = self.live.write(offset, data);
        self.dirty.extend(touched);
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.dirty.extend(
            self.live
                .blocks
                .range(len / BLOCK as u64..)
                .map(|(index, _)| *index),
        );
        self.live.set_len(len);
    }

    fn sync(&mut self) {
        for index in std::mem::take(&mut self.dirty) {
            match self.live.blocks.get(&index) {
                Some(block) => drop(self.durable.blocks.insert(index, block.clone())),
                None => drop(self.durable.blocks.remove(&index)),
            }
        }
        self.durable.len = self.live.len;
    }

    fn after_loss(&self, tear: bool, draws: &mut Draws) -> Self {
        let mut left = self.durable.clone();
        if tear {
            if draws.coin() {
                left.len = self.live.len;
            }
            for index in &self.dirty {
                left.put_torn(*index, self.live.blocks.get(index), draws);
            }
            let len = left.len;
            left.set_len(len);
        }
        Self {
            live: left.clone(),
            durable: left,
            dirty: BTreeSet::new(),
        }
    }
}

impl Content {
    pub(crate) fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let end = self.len.min(offset.saturating_add(size as u64));
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < end {
            let (index, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let count = (BLOCK - within).min((end - at) as usize);
            match self.blocks.get(&index) {
                Some(block) => bytes.extend_from_slice(&block[within..within + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        bytes
    }

    /// Returns the blocks touched.
    fn write(&mut self, offset: u64, data: &[u8]) -> Vec<u64> {
        let mut touched = Vec::new();
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let (index, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let (now, later) = rest.split_at(rest.len().min(BLOCK - within));
            let block = self
                .blocks
                .entry(index)
                .or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[within..within + now.len()].copy_from_slice(now);
            touched.push(index);
            at += now.len() as u64;
            rest = later;
        }
        self.len = self.len.max(at);
        touched
    }

    fn set_len(&mut self, len: u64) {
        self.len = len;
        let (index, within) = (len / BLOCK as u64, (len % BLOCK as u64) as usize);
        let beyond = self.blocks.split_off(&index);
        if within > 0
            && let Some(block) = beyond.get(&index)
        {
            let mut kept = block.clone();
            Arc::make_mut(&mut kept)[within..].fill(0);
            self.blocks.insert(index, kept);
        }
    }

    /// Puts a block in place as a power loss leaves it: not at all, whole, or by sectors.
    fn put_torn(&mut self, index: u64, new: Option<&Arc<Block>>, draws: &mut Draws) {
        let zeros = Arc::new([0; BLOCK]);
        let new = new.unwrap_or(&zeros);
        match draws.below(4) {
            0 => {}
            1 | 2 => drop(self.blocks.insert(index, new.clone())),
            _ => {
                let block = self.blocks.entry(index).or_insert_with(|| zeros.clone());
                let old_and_new = Arc::make_mut(block)
                    .chunks_mut(SECTOR)
                    .zip(new.chunks(SECTOR));
                for (old, new) in old_and_new {
                    if draws.coin() {
                        old.copy_from_slice(new);
                    }
                }
            }
        }
    }
}
