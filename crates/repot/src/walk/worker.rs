//! One thread of a walk: depth first, with a stack of its own, of which only the deepest directories are open.

use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, seek, statat};

use crate::error::{Call, Fault, retry_once};
use crate::walk::tasks::{Node, Shared, Task};
use crate::walk::{Directory, Visitor};

/// All descriptors that the walk may hold, over all its threads.
const DESCRIPTORS: usize = 160;
/// Names of subdirectories that a thread remembers at most, in bytes; those beyond are read again later.
const NAMES: usize = 64 * 1024;
/// What the names of one directory may always take of it.
const ROOM: usize = 4096;
/// One read of a directory.
const BATCH: usize = 32 * 1024;

struct Frame<V: Visitor> {
    node: Arc<Node<V::Meta>>,
    dir: Option<V::Dir>,
    /// Where this directory's names begin in the worker's `names`.
    names: usize,
    /// How many bytes of names it may always have, however full `names` is.
    room: usize,
    /// Where to read on after the directory had to be closed or its names did not fit.
    position: u64,
    /// Whether the descriptor does not stand at `position`.
    moved: bool,
    /// Whether names had to be forgotten.
    again: bool,
    /// Whether anything was entered since the last time they were.
    progress: bool,
    end: bool,
}

pub(crate) struct Worker<'a, V: Visitor> {
    shared: &'a Shared<'a, V>,
    stack: Vec<Frame<V>>,
    /// Frames below this index are closed.
    open_from: usize,
    open_most: usize,
    /// Names of subdirectories still to be entered, each followed by its length in two bytes.
    names: Vec<u8>,
    batch: Vec<u8>,
    scratch: V::Scratch,
}

impl<'a, V: Visitor> Worker<'a, V> {
    pub(crate) fn new(shared: &'a Shared<'a, V>) -> Self {
        let each = DESCRIPTORS / (shared.threads.max(1) as usize * V::Dir::DESCRIPTORS);
        Worker {
            shared,
            stack: Vec::new(),
            open_from: 0,
            open_most: each.saturating_sub(2).max(2),
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
                let step = if failed { Ok(Next::Broken) } else { self.step() };
                match step {
                    Ok(Next::More) => {}
                    Ok(Next::Done) => self.pop(true),
                    Ok(Next::Broken) => self.pop(false),
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
            room: ROOM,
            position: 0,
            moved: false,
            again: false,
            progress: false,
            end: false,
        });
        if self.stack.len() - self.open_from > self.open_most {
            let far = &mut self.stack[self.open_from];
            far.dir = None;
            far.moved = true;
            self.open_from += 1;
        }
    }

    /// One step in the directory on top of the stack.
    fn step(&mut self) -> Result<Next, Fault> {
        let top = self.stack.len() - 1;
        let frame = &mut self.stack[top];
        if self.names.len() > frame.names {
            self.descend(top)?;
        } else if !frame.end {
            self.read(top)?;
        } else if frame.again {
            // What was read again may all have been there already: mount points, and what other threads have.
            if !frame.progress {
                frame.room *= 2;
            }
            frame.again = false;
            frame.progress = false;
            frame.end = false;
            frame.moved = true;
        } else {
            return Ok(Next::Done);
        }
        Ok(Next::More)
    }

    /// Reads one batch of the directory: visits what is no directory, remembers the names of those that are.
    fn read(&mut self, top: usize) -> Result<(), Fault> {
        let (below, rest) = self.stack.split_at_mut(top);
        let frame = &mut rest[0];
        let node = &frame.node;
        let Some(dir) = &frame.dir else { return Ok(()) };
        let visitor = self.shared.visitor;
        // A path is put together only when it is needed.
        let here = |fault: Fault| fault.on(node.path(b""));
        if frame.moved {
            seek(dir.listed(), SeekFrom::Start(frame.position)).call("lseek").map_err(here)?;
            frame.moved = false;
        }
        let mut entries = RawDir::new(dir.listed(), self.batch.spare_capacity_mut());
        loop {
            let Some(entry) = entries.next() else {
                frame.end = true;
                return Ok(());
            };
            let entry = entry.call("getdents64").map_err(here)?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if bytes != b"." && bytes != b".." {
                let mut kind = entry.file_type();
                if kind == FileType::Unknown {
                    let stat = statat(dir.listed(), name, AtFlags::SYMLINK_NOFOLLOW)
                        .call("newfstatat")
                        .map_err(|fault| fault.on(node.path(bytes)))?;
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
                    if self.shared.is_hungry() {
                        share(self.shared, below, &mut self.names, &mut frame.names)?;
                    }
                } else if filled <= NAMES || filled - frame.names <= frame.room {
                    self.names.extend_from_slice(bytes);
                    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
                    self.names.extend_from_slice(&length.to_ne_bytes());
                } else {
                    // A directory that is only read is read on from here, later. Where entries vanish, the position means
                    // nothing any more, but those that did not fit are what a later read finds.
                    frame.again = true;
                    if !V::REMOVES {
                        frame.end = true;
                        return Ok(());
                    }
                }
            }
            if !V::REMOVES {
                frame.position = entry.next_entry_cookie();
            }
            if entries.is_buffer_empty() {
                return Ok(());
            }
        }
    }

    /// Enters the subdirectory whose name was remembered last, or gives it away.
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
            if let Some(task) = self.shared.give(Task { node, dir }) {
                self.push(task);
            }
        }
        Ok(())
    }

    /// Ends the walk of the directory on top of the stack, and leaves all that is finished by it.
    fn pop(&mut self, whole: bool) {
        let Some(Frame { mut node, dir: Some(mut dir), names, .. }) = self.stack.pop() else { return };
        self.names.truncate(names);
        if !whole {
            node.broken.store(true, Ordering::Release);
        }
        let top = self.stack.len();
        // The one call whose failure would leave directories unfinished.
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
                return self.shared.over();
            };
            if let Some(mut below) = self.stack.pop() {
                // It is the parent's frame, whose own walk goes on: this count is never its last.
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
        let whole = !node.broken.load(Ordering::Acquire);
        let parent = above.map(|above| (above, node.name.as_c_str()));
        let left = self.shared.visitor.leave(&mut self.scratch, parent, dir, &node.meta, whole);
        if (left.is_err() || !whole)
            && let Some(parent) = &node.parent
        {
            parent.broken.store(true, Ordering::Release);
        }
        if let Err(fault) = left {
            self.shared.fail(fault.on(node.path(b"")));
        }
    }

    /// Gives up on a directory whose parent cannot be opened again.
    fn strand(&mut self, fault: Fault, node: &Node<V::Meta>) {
        // From the top, so that no directory is dropped together with its chain of parents, which would recurse.
        while self.stack.pop().is_some() {}
        self.shared.abandon(fault.on(node.path(b"..")));
    }
}

/// Gives away a subdirectory that waits further down the stack, as far down as there is one: files of one directory are for one thread, and
/// while there are many of them others may have nothing to do. `above` is where the names of the directory on top begin.
fn share<V: Visitor>(
    shared: &Shared<'_, V>,
    below: &mut [Frame<V>],
    names: &mut Vec<u8>,
    above: &mut usize,
) -> Result<(), Fault> {
    let begin = |at: usize| below.get(at).map_or(*above, |frame| frame.names);
    let waiting = |at: &usize| begin(at + 1) > begin(*at) && below[*at].dir.is_some();
    let Some(at) = (0..below.len()).find(waiting) else { return Ok(()) };
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
        shared.put(Task { node: Node::new(Some(frame.node.clone()), name, meta), dir });
    }
    Ok(())
}

/// What is to be done with the directory on top of the stack.
enum Next {
    More,
    Done,
    Broken,
}
