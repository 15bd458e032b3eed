//! The state that the threads of a walk share: unfinished directories, and the queue of those that wait for a
//! thread.

use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::error::Fault;
use crate::sys::{Event, Mutex};
use crate::walk::Visitor;

/// A directory that has not been left.
pub(crate) struct Node<M> {
    pub(crate) parent: Option<Arc<Node<M>>>,
    pub(crate) name: CString,
    pub(crate) meta: M,
    /// 1 for the walk of the directory itself, plus 1 for each unfinished subdirectory. The thread that
    /// brings it to 0 leaves the directory.
    pub(crate) pending: AtomicU32,
    /// Whether the walk failed in it or below.
    pub(crate) failed: AtomicBool,
}

impl<M> Node<M> {
    pub(crate) fn new(parent: Option<Arc<Node<M>>>, name: CString, meta: M) -> Arc<Self> {
        if let Some(parent) = &parent {
            parent.pending.fetch_add(1, Ordering::Relaxed);
        }
        Arc::new(Node { parent, name, meta, pending: AtomicU32::new(1), failed: AtomicBool::new(false) })
    }

    /// The path of `name` in this directory, from the root of the walk.
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

impl<M> Drop for Node<M> {
    /// Drops the parents one after the other. Recursion would overflow the stack of a worker in a deep tree.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(mut node) = parent.and_then(Arc::into_inner) {
            parent = node.parent.take();
        }
    }
}

/// An open directory that any thread may walk.
pub(crate) struct Task<V: Visitor> {
    pub(crate) node: Arc<Node<V::Meta>>,
    pub(crate) dir: V::Dir,
}

pub(crate) struct Shared<'a, V: Visitor> {
    pub(crate) visitor: &'a V,
    /// Notified when a task is queued or the walk ends; idle workers wait on it.
    bell: &'a Event,
    pub(crate) threads: u32,
    queue: Mutex<Queue<V>>,
    /// The number of waiting threads minus the number of queued tasks, at least 0.
    idle: AtomicU32,
    /// Whether any thread has failed.
    pub(crate) failed: AtomicBool,
}

struct Queue<V: Visitor> {
    tasks: Vec<Task<V>>,
    waiting: u32,
    /// Whether the walk has ended.
    finished: bool,
    /// The first fault.
    fault: Option<Fault>,
}

impl<'a, V: Visitor> Shared<'a, V> {
    pub(crate) fn new(visitor: &'a V, bell: &'a Event, root: V::Dir, meta: V::Meta, threads: u32) -> Self {
        let node = Node::new(None, CString::default(), meta);
        // Room for the maximum number of tasks, so that nothing is allocated while the lock is held.
        let mut tasks = Vec::with_capacity(2 * threads as usize + 1);
        tasks.push(Task { node, dir: root });
        Shared {
            visitor,
            bell,
            threads,
            queue: Mutex::new(Queue { tasks, waiting: 0, finished: false, fault: None }),
            idle: AtomicU32::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// The first fault, if any. Called when all threads have ended.
    pub(crate) fn outcome(self) -> Result<(), Fault> {
        self.queue.into_inner().fault.map_or(Ok(()), Err)
    }
}

impl<V: Visitor> Shared<'_, V> {
    /// Waits for a task; `None` once the root has been left.
    pub(crate) fn take(&self, scratch: &mut V::Scratch) -> Option<Task<V>> {
        let mut waiting = false;
        loop {
            let seen = self.bell.seen();
            let mut queue = self.queue.lock();
            let task = queue.tasks.pop();
            if task.is_some() || queue.finished {
                queue.waiting -= u32::from(waiting);
                self.count_idle(&queue);
                return task;
            }
            if !waiting {
                queue.waiting += 1;
                waiting = true;
                self.count_idle(&queue);
            }
            drop(queue);
            if !self.visitor.assist(scratch) {
                self.bell.wait(seen);
            }
        }
    }

    /// Hands the task off to an idle worker. Returns it if no worker is idle.
    pub(crate) fn hand_off(&self, task: Task<V>) -> Option<Task<V>> {
        if !self.has_idle_workers() {
            return Some(task);
        }
        self.push(task);
        None
    }

    /// Whether a worker waits for a task.
    pub(crate) fn has_idle_workers(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > 0
    }

    /// Queues a task for the next idle worker.
    pub(crate) fn push(&self, task: Task<V>) {
        let mut queue = self.queue.lock();
        queue.tasks.push(task);
        self.count_idle(&queue);
        drop(queue);
        self.bell.notify();
    }

    fn count_idle(&self, queue: &Queue<V>) {
        let tasks = u32::try_from(queue.tasks.len()).unwrap_or(u32::MAX);
        self.idle.store(queue.waiting.saturating_sub(tasks), Ordering::Relaxed);
    }

    /// Records a fault, unless an earlier one is known. The threads then leave all directories that they have
    /// entered.
    pub(crate) fn fail(&self, fault: Fault) {
        self.queue.lock().fault.get_or_insert(fault);
        self.failed.store(true, Ordering::Release);
    }

    /// Records a fault and ends the walk, although directories have not been left.
    pub(crate) fn abandon(&self, fault: Fault) {
        self.fail(fault);
        self.finish();
    }

    /// Ends the walk.
    pub(crate) fn finish(&self) {
        self.queue.lock().finished = true;
        self.bell.notify();
    }
}
