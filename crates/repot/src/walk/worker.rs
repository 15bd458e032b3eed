//! One thread of a walk. It goes depth first with its own stack, of which only the deepest directories are
//! open.

use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, seek, statat};

use rustix::io::Errno;

use crate::error::{Call, Fault, retry_once};
use crate::walk::tasks::{Node, Shared, Task};
use crate::walk::{Directory, Visitor};

/// The maximum number of descriptors of a walk, over all its threads.
const DESCRIPTORS: usize = 160;
/// Budget for the names of subdirectories that a thread remembers, in bytes. Names beyond it are read again
/// later.
const NAMES: usize = 64 * 1024;
/// Bytes of the name budget that every directory is guaranteed.
const GUARANTEED: usize = 4096;
/// Size of the buffer for one getdents64, in bytes.
const BATCH: usize = 32 * 1024;

/// A directory on the stack.
struct Frame<V: Visitor> {
    node: Arc<Node<V::Meta>>,
    /// `None` while it is closed to save descriptors.
    dir: Option<V::Dir>,
    /// Offset of this directory's names in the worker's `names`.
    names: usize,
    /// Bytes of names that it may always have, however full `names` is.
    room: usize,
    /// Where to continue reading, after the directory was closed or its names did not fit.
    position: u64,
    /// Whether the descriptor must seek to `position` before the next read.
    must_seek: bool,
    /// Whether names did not fit, so that the directory must be read again.
    reread: bool,
    /// Whether a subdirectory was entered since the last such read.
    progress: bool,
    /// Whether it has been read to its end.
    end: bool,
}

pub(crate) struct Worker<'a, V: Visitor> {
    shared: &'a Shared<'a, V>,
    stack: Vec<Frame<V>>,
    /// Frames below this index are closed.
    open_from: usize,
    /// The maximum number of open frames.
    max_open: usize,
    /// Names of subdirectories to enter, each followed by its length as a native-endian u16.
    names: Vec<u8>,
    batch: Vec<u8>,
    scratch: V::Scratch,
}

impl<'a, V: Visitor> Worker<'a, V> {
    pub(crate) fn new(shared: &'a Shared<'a, V>) -> Self {
        let share_of_descriptors = DESCRIPTORS / (shared.threads.max(1) as usize * V::Dir::DESCRIPTORS);
        Worker {
            shared,
            stack: Vec::new(),
            open_from: 0,
            max_open: share_of_descriptors.saturating_sub(2).max(2),
            names: Vec::new(),
            batch: Vec::with_capacity(BATCH),
            scratch: V::Scratch::default(),
        }
    }

    /// Walks until the root has been left.
    pub(crate) fn run(mut self) {
        while let Some(task) = self.shared.take(&mut self.scratch) {
            self.open_from = 0;
            self.push(task);
            while !self.stack.is_empty() {
                let failed = self.shared.failed.load(Ordering::Acquire);
                let step = if failed { Ok(Next::Failed) } else { self.step() };
                match step {
                    Ok(Next::More) => {}
                    Ok(Next::Done) => self.pop(true),
                    Ok(Next::Failed) => self.pop(false),
                    Err(fault) => self.shared.fail(fault),
                }
            }
        }
        self.shared.visitor.done(self.scratch);
    }

    fn push(&mut self, task: Task<V>) {
        self.stack.push(Frame {
            node: task.node,
            dir: Some(task.dir),
            names: self.names.len(),
            room: GUARANTEED,
            position: 0,
            must_seek: false,
            reread: false,
            progress: false,
            end: false,
        });
        if self.stack.len() - self.open_from > self.max_open {
            let far = &mut self.stack[self.open_from];
            far.dir = None;
            far.must_seek = true;
            self.open_from += 1;
        }
    }

    /// Does one step in the directory on top of the stack.
    fn step(&mut self) -> Result<Next, Fault> {
        let top = self.stack.len() - 1;
        let frame = &mut self.stack[top];
        if self.names.len() > frame.names {
            self.descend(top)?;
        } else if !frame.end {
            self.read(top)?;
        } else if frame.reread {
            // Without progress, the names that fit may all be of directories that cannot be entered: mount
            // points, and directories of other threads. So the directory gets more room.
            if !frame.progress {
                frame.room *= 2;
            }
            frame.reread = false;
            frame.progress = false;
            frame.end = false;
            frame.must_seek = true;
        } else {
            return Ok(Next::Done);
        }
        Ok(Next::More)
    }

    /// Reads one batch of the directory: visits the entries that are not directories, and remembers the names
    /// of subdirectories.
    fn read(&mut self, top: usize) -> Result<(), Fault> {
        let (below, rest) = self.stack.split_at_mut(top);
        let frame = &mut rest[0];
        let node = &frame.node;
        let Some(dir) = &frame.dir else { return Ok(()) };
        let visitor = self.shared.visitor;
        // The path is assembled only if a call fails.
        let here = |fault: Fault| fault.on(node.path(b""));
        if frame.must_seek {
            seek(dir.listed(), SeekFrom::Start(frame.position)).call("lseek").map_err(here)?;
            frame.must_seek = false;
        }
        let mut entries = RawDir::new(dir.listed(), self.batch.spare_capacity_mut());
        loop {
            let Some(entry) = entries.next() else {
                frame.end = true;
                return Ok(());
            };
            let entry = match entry {
                // Another process has removed the directory.
                Err(Errno::NOENT) => {
                    frame.end = true;
                    return Ok(());
                }
                entry => entry.call("getdents64").map_err(here)?,
            };
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if bytes != b"." && bytes != b".." {
                let mut kind = entry.file_type();
                if kind == FileType::Unknown {
                    let stat = match statat(dir.listed(), name, AtFlags::SYMLINK_NOFOLLOW) {
                        Err(Errno::NOENT) => continue,
                        stat => stat.call("newfstatat").map_err(|fault| fault.on(node.path(bytes)))?,
                    };
                    kind = FileType::from_raw_mode(stat.st_mode);
                }
                let filled = self.names.len() + bytes.len() + 2;
                if kind != FileType::Directory {
                    visitor
                        .entry(&mut self.scratch, dir, name, kind)
                        .map_err(|fault| fault.on(node.path(bytes)))?;
                    if self.shared.failed.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    if self.shared.has_idle_workers() {
                        share(self.shared, below, &mut self.names, &mut frame.names)?;
                    }
                } else if filled <= NAMES || filled - frame.names <= frame.room {
                    self.names.extend_from_slice(bytes);
                    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
                    self.names.extend_from_slice(&length.to_ne_bytes());
                } else {
                    // If entries stay, reading continues from here later. If visiting removes them, the
                    // position is meaningless, but a later read lists exactly the names that did not fit.
                    frame.reread = true;
                    if !visitor.removes() {
                        frame.end = true;
                        return Ok(());
                    }
                }
            }
            if !visitor.removes() {
                frame.position = entry.next_entry_cookie();
            }
            if entries.is_buffer_empty() {
                return Ok(());
            }
        }
    }

    /// Enters the subdirectory whose name was remembered last, or hands it off.
    fn descend(&mut self, top: usize) -> Result<(), Fault> {
        let (text, length) = self.names.split_at(self.names.len() - 2);
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let start = text.len() - length;
        let name = CString::new(&text[start..]).unwrap_or_default();
        self.names.truncate(start);
        let frame = &mut self.stack[top];
        let Some(dir) = &frame.dir else { return Ok(()) };
        let entered = self
            .shared
            .visitor
            .enter(dir, &name)
            .map_err(|fault| fault.on(frame.node.path(name.to_bytes())))?;
        if let Some((dir, meta)) = entered {
            frame.progress = true;
            let node = Node::new(Some(frame.node.clone()), name, meta);
            if let Some(task) = self.shared.hand_off(Task { node, dir }) {
                self.push(task);
            }
        }
        Ok(())
    }

    /// Ends the walk of the directory on top of the stack, and leaves every directory that this finishes.
    fn pop(&mut self, complete: bool) {
        let Some(Frame { mut node, dir: Some(mut dir), names, .. }) = self.stack.pop() else { return };
        self.names.truncate(names);
        if !complete {
            node.failed.store(true, Ordering::Release);
        }
        let top = self.stack.len();
        // Retried once: this is the only call whose failure would leave directories unfinished.
        let reopen = |dir: &V::Dir| retry_once(|| dir.open(c".."));
        if let Some(below) = self.stack.last_mut()
            && below.dir.is_none()
        {
            match reopen(&dir) {
                Ok(parent) => below.dir = Some(parent),
                Err(fault) => return self.strand(fault, &node),
            }
            self.open_from = top - 1;
        }
        while node.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            let Some(parent) = node.parent.clone() else {
                self.leave(&node, None, &dir);
                return self.shared.finish();
            };
            if let Some(mut below) = self.stack.pop() {
                // This frame is the parent's. Its own walk goes on, so its count does not reach 0 here.
                let above = below.dir.take();
                self.leave(&node, above.as_ref(), &dir);
                parent.pending.fetch_sub(1, Ordering::AcqRel);
                below.dir = above;
                return self.stack.push(below);
            }
            match reopen(&dir) {
                Ok(above) => {
                    self.leave(&node, Some(&above), &dir);
                    dir = above;
                }
                Err(fault) => return self.strand(fault, &node),
            }
            node = parent;
        }
    }

    fn leave(&mut self, node: &Node<V::Meta>, above: Option<&V::Dir>, dir: &V::Dir) {
        let complete = !node.failed.load(Ordering::Acquire);
        let parent = above.map(|above| (above, node.name.as_c_str()));
        let left = self.shared.visitor.leave(&mut self.scratch, parent, dir, &node.meta, complete);
        if (left.is_err() || !complete)
            && let Some(parent) = &node.parent
        {
            parent.failed.store(true, Ordering::Release);
        }
        if let Err(fault) = left {
            self.shared.fail(fault.on(node.path(b"")));
        }
    }

    /// Abandons the walk at a directory whose parent cannot be reopened.
    fn strand(&mut self, fault: Fault, node: &Node<V::Meta>) {
        // From the top: a directory dropped together with its chain of parents would recurse.
        while self.stack.pop().is_some() {}
        self.shared.abandon(fault.on(node.path(b"..")));
    }
}

/// Hands off a subdirectory whose name waits further down the stack, the one nearest to the root first: the
/// files of one directory are visited by one thread, and while it has many, other workers may be idle.
/// `above` is the offset of the names of the directory on top.
fn share<V: Visitor>(
    shared: &Shared<'_, V>,
    below: &mut [Frame<V>],
    names: &mut Vec<u8>,
    above: &mut usize,
) -> Result<(), Fault> {
    let begin = |at: usize| below.get(at).map_or(*above, |frame| frame.names);
    let has_names = |at: &usize| begin(at + 1) > begin(*at) && below[*at].dir.is_some();
    let Some(at) = (0..below.len()).find(has_names) else { return Ok(()) };
    let end = begin(at + 1) - 2;
    let length = usize::from(u16::from_ne_bytes([names[end], names[end + 1]]));
    let name = CString::new(&names[end - length..end]).unwrap_or_default();
    names.drain(end - length..end + 2);
    for frame in &mut below[at + 1..] {
        frame.names -= length + 2;
    }
    *above -= length + 2;
    let frame = &mut below[at];
    let Some(dir) = &frame.dir else { return Ok(()) };
    let entered =
        shared.visitor.enter(dir, &name).map_err(|fault| fault.on(frame.node.path(name.to_bytes())))?;
    if let Some((dir, meta)) = entered {
        frame.progress = true;
        shared.push(Task { node: Node::new(Some(frame.node.clone()), name, meta), dir });
    }
    Ok(())
}

/// The next step for the directory on top of the stack.
enum Next {
    More,
    Done,
    Failed,
}
