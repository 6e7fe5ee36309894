//! A [`Disk`] mounted by FUSE, so that a storage library without a seam can be put on it.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::disk::{Directory, Disk, Failure, File, Node, Op};

/// Nothing is kept by the kernel: it would not notice a power loss.
const NO_CACHING: Duration = Duration::ZERO;

/// A disk that a mount and a test share.
pub(crate) type SharedDisk = Arc<Mutex<Disk>>;

/// Mounted until dropped.
pub(crate) struct Mount {
    session: Option<fuser::BackgroundSession>,
}

impl Mount {
    /// Mounts the disk on an existing directory.
    pub(crate) fn new(disk: SharedDisk, at: &Path) -> io::Result<Self> {
        let session = fuser::spawn_mount(Lossy { disk }, at, &Config::default())?;
        Ok(Self {
            session: Some(session),
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            drop(session.umount_and_join());
        }
    }
}

struct Lossy {
    disk: SharedDisk,
}

pub(crate) fn lock(disk: &SharedDisk) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<Failure> for Errno {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io => Errno::EIO,
            Failure::NoSpace => Errno::ENOSPC,
        }
    }
}

fn attributes(inode: u64, node: &Node) -> FileAttr {
    let (kind, size, perm) = match node {
        Node::File(file) => (FileType::RegularFile, file.live.len, 0o644),
        Node::Directory(_) => (FileType::Directory, 4096, 0o755),
    };
    let then = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: size.div_ceil(512),
        atime: then,
        mtime: then,
        ctime: then,
        crtime: then,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Lossy {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// Makes a change, unless it is to fail.
    fn change<T>(
        &self,
        op: Op,
        change: impl FnOnce(&mut Disk) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut disk = self.disk();
        disk.begin(op)?;
        let outcome = change(&mut disk)?;
        disk.end()?;
        Ok(outcome)
    }

    fn attributes(&self, inode: u64) -> Result<FileAttr, Errno> {
        let disk = self.disk();
        if disk.is_cut() {
            return Err(Errno::EIO);
        }
        let node = disk.node(inode).ok_or(Errno::ENOENT)?;
        Ok(attributes(inode, node))
    }

    fn make(&self, parent: u64, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        self.change(Op::Metadata, |disk| {
            if disk.lookup(parent, name).is_some() {
                return Err(Errno::EEXIST);
            }
            let attributes_of = node.clone();
            let inode = disk.add(node);
            disk.change_names(parent, vec![(name.to_owned(), Some(inode))]);
            Ok(attributes(inode, &attributes_of))
        })
    }

    fn remove(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.change(Op::Metadata, |disk| {
            let inode = disk.lookup(parent, name).ok_or(Errno::ENOENT)?;
            if disk
                .directory(inode)
                .is_some_and(|inner| !inner.live.is_empty())
            {
                return Err(Errno::ENOTEMPTY);
            }
            disk.change_names(parent, vec![(name.to_owned(), None)]);
            Ok(())
        })
    }
}

fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Lossy {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.disk().lookup(parent.0, name).ok_or(Errno::ENOENT);
        match found.and_then(|inode| self.attributes(inode)) {
            Ok(attr) => reply.entry(&NO_CACHING, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Ok(attr) => reply.attr(&NO_CACHING, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = match size {
            None => Ok(()),
            Some(size) => self.change(Op::Metadata, |disk| {
                disk.file(ino.0).ok_or(Errno::EISDIR)?.set_len(size);
                Ok(())
            }),
        };
        match resized.and_then(|()| self.attributes(ino.0)) {
            Ok(attr) => reply.attr(&NO_CACHING, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        match self.make(parent.0, name, Node::Directory(Directory::default())) {
            Ok(attr) => reply.entry(&NO_CACHING, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent.0, name));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent.0, name));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.change(Op::Metadata, |disk| {
            if parent != newparent {
                return Err(Errno::EXDEV);
            }
            let inode = disk.lookup(parent.0, name).ok_or(Errno::ENOENT)?;
            let changes = vec![(name.to_owned(), None), (newname.to_owned(), Some(inode))];
            disk.change_names(parent.0, changes);
            Ok(())
        });
        answer(reply, renamed);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent.0, name, Node::File(File::default())) {
            Ok(attr) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&NO_CACHING, &attr, Generation(0), FileHandle(0), flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut disk = self.disk();
        if disk.is_cut() {
            return reply.error(Errno::EIO);
        }
        match disk.file(ino.0) {
            Some(file) => reply.data(&file.live.read(offset, size as usize)),
            None => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.change(Op::Write, |disk| {
            disk.file(ino.0).ok_or(Errno::EISDIR)?.write(offset, data);
            Ok(())
        });
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let synced = self.change(Op::Sync, |disk| {
            disk.sync_file(ino.0)?;
            Ok(())
        });
        answer(reply, synced);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let synced = self.change(Op::Sync, |disk| {
            disk.sync_directory(ino.0)?;
            Ok(())
        });
        answer(reply, synced);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut disk = self.disk();
        let Some(directory) = disk.directory(ino.0) else {
            return reply.error(Errno::ENOTDIR);
        };
        let entries: Vec<_> = directory.live.clone().into_iter().collect();
        for (index, (name, inode)) in (0u64..).zip(entries).skip(offset as usize) {
            let kind = match disk.node(inode) {
                Some(Node::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(inode), index + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let free = self.disk().free_bytes / 4096;
        reply.statfs(1 << 32, free, free, 1 << 32, 1 << 32, 4096, 255, 4096);
    }
}
