//! Runs jobs in parallel and consumes their results in order, with bounded memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// Calls `work` for each job on several threads, and `take` for each result, in the order of the jobs.
pub(super) fn ordered<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> Result<R> + Sync,
    mut take: impl FnMut(&J, R) -> Result<()>,
) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len().max(1));
    let stop = AtomicUsize::new(0);
    let (queue, waiting) = sync_channel::<(usize, SyncSender<Result<R>>)>(2 * threads);
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((job, done)) = next else { return };
                    if stop.load(Ordering::Relaxed) == 0 {
                        // The receiver is dropped if an earlier job failed.
                        let _ = done.send(work(&jobs[job]));
                    }
                }
            });
        }
        let mut pending: VecDeque<(usize, Receiver<Result<R>>)> = VecDeque::new();
        let mut collect = |pending: &mut VecDeque<(usize, Receiver<Result<R>>)>| {
            let Some((job, result)) = pending.pop_front() else { return Ok(()) };
            take(&jobs[job], result.recv().ok().context("a thread panicked")??)
        };
        let mut all = || {
            for job in 0..jobs.len() {
                if pending.len() == 2 * threads {
                    collect(&mut pending)?;
                }
                let (done, result) = sync_channel(1);
                queue.send((job, done)).ok().context("all threads panicked")?;
                pending.push_back((job, result));
            }
            while !pending.is_empty() {
                collect(&mut pending)?;
            }
            Ok(())
        };
        let outcome = all();
        stop.store(1, Ordering::Relaxed);
        drop(queue);
        outcome
    })
}
