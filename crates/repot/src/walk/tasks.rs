//! What the threads of a walk share: the directories that are not finished, and those that wait for a thread.

use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::error::Fault;
use crate::sys::{Event, Mutex};
use crate::walk::Visitor;

/// A directory that is not finished.
pub(crate) struct Node<M> {
    pub(crate) parent: Option<Arc<Node<M>>>,
    pub(crate) name: CString,
    pub(crate) meta: M,
    /// The walk of the directory itself, and each subdirectory that is not finished.
    pub(crate) pending: AtomicU32,
    pub(crate) broken: AtomicBool,
}

impl<M> Node<M> {
    pub(crate) fn new(parent: Option<Arc<Node<M>>>, name: CString, meta: M) -> Arc<Self> {
        if let Some(parent) = &parent {
            parent.pending.fetch_add(1, Ordering::Relaxed);
        }
        Arc::new(Node { parent, name, meta, pending: AtomicU32::new(1), broken: AtomicBool::new(false) })
    }

    /// The path from the root of the walk to `name` in this directory.
    pub(crate) fn path(&self, name: &[u8]) -> Vec<u8> {
        let mut names = Vec::from([name]);
        let mut node = self;
        while let Some(parent) = &node.parent {
            names.push(node.name.to_bytes());
            node = parent;
        }
        names.reverse();
        names.retain(|name| !name.is_empty());
        names.join(&b'/')
    }
}

/// A directory that a thread may walk.
pub(crate) struct Task<V: Visitor> {
    pub(crate) node: Arc<Node<V::Meta>>,
    pub(crate) dir: V::Dir,
}

/// What the threads share.
pub(crate) struct Shared<'a, V: Visitor> {
    pub(crate) visitor: &'a V,
    /// What idle workers wait for.
    bell: &'a Event,
    pub(crate) threads: u32,
    queue: Mutex<Queue<V>>,
    /// How many threads wait for a task, less the tasks that wait for a thread.
    hungry: AtomicU32,
    pub(crate) failed: AtomicBool,
}

struct Queue<V: Visitor> {
    tasks: Vec<Task<V>>,
    waiting: u32,
    over: bool,
    broken: Option<Broken>,
}

/// Why a walk did not come to its end.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) fault: Fault,
    /// Whether directories were abandoned without being left.
    pub(crate) abandoned: bool,
}

impl<'a, V: Visitor> Shared<'a, V> {
    /// The root is the first task.
    pub(crate) fn new(visitor: &'a V, bell: &'a Event, root: V::Dir, meta: V::Meta, threads: u32) -> Self {
        let node = Node::new(None, CString::default(), meta);
        // Room for all that can ever wait, so that nothing is allocated while the lock is held.
        let mut tasks = Vec::with_capacity(2 * threads as usize + 1);
        tasks.push(Task { node, dir: root });
        Shared {
            visitor,
            bell,
            threads,
            queue: Mutex::new(Queue { tasks, waiting: 0, over: false, broken: None }),
            hungry: AtomicU32::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// What came of the walk, when all threads have ended.
    pub(crate) fn outcome(self) -> Result<(), Broken> {
        self.queue.into_inner().broken.map_or(Ok(()), Err)
    }
}

impl<V: Visitor> Shared<'_, V> {
    /// Waits for a task; `None` when the root has been left.
    pub(crate) fn take(&self, scratch: &mut V::Scratch) -> Option<Task<V>> {
        let mut waiting = false;
        loop {
            let seen = self.bell.seen();
            let mut queue = self.queue.lock();
            let task = queue.tasks.pop();
            if task.is_some() || queue.over {
                queue.waiting -= u32::from(waiting);
                self.count_hungry(&queue);
                return task;
            }
            if !waiting {
                queue.waiting += 1;
                waiting = true;
                self.count_hungry(&queue);
            }
            drop(queue);
            if !self.visitor.assist(scratch) {
                self.bell.wait(seen);
            }
        }
    }

    /// Gives the task to an idle thread; back where none is.
    pub(crate) fn give(&self, task: Task<V>) -> Option<Task<V>> {
        if !self.is_hungry() {
            return Some(task);
        }
        self.put(task);
        None
    }

    /// Whether a thread has nothing to do.
    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed) > 0
    }

    /// Leaves the task to whoever is idle next.
    pub(crate) fn put(&self, task: Task<V>) {
        let mut queue = self.queue.lock();
        queue.tasks.push(task);
        self.count_hungry(&queue);
        drop(queue);
        self.bell.notify();
    }

    fn count_hungry(&self, queue: &Queue<V>) {
        let tasks = u32::try_from(queue.tasks.len()).unwrap_or(u32::MAX);
        self.hungry.store(queue.waiting.saturating_sub(tasks), Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.queue.lock().broken.get_or_insert(Broken { fault, abandoned: false });
        self.failed.store(true, Ordering::Release);
    }

    /// Fails, and ends the walk although the root cannot be left.
    pub(crate) fn abandon(&self, fault: Fault) {
        self.fail(fault);
        let mut queue = self.queue.lock();
        queue.over = true;
        if let Some(broken) = &mut queue.broken {
            broken.abandoned = true;
        }
        drop(queue);
        self.bell.notify();
    }

    pub(crate) fn over(&self) {
        self.queue.lock().over = true;
        self.bell.notify();
    }
}
