//! Blocks of one size, compressed in parallel and written in order.
//!
//! At most two blocks per thread are in flight, so memory is bounded. The output is the same for any number
//! of threads.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

type Packed = io::Result<Vec<u8>>;
type Job = (Vec<u8>, SyncSender<Packed>);

/// Splits what is written into blocks, compresses each and writes the results in order.
#[derive(Debug)]
pub struct Blocks<W: Write> {
    out: W,
    size: usize,
    block: Vec<u8>,
    jobs: SyncSender<Job>,
    pending: VecDeque<Receiver<Packed>>,
    in_flight: usize,
}

impl<W: Write> Blocks<W> {
    pub(super) fn new(
        out: W,
        size: usize,
        threads: usize,
        compress: impl Fn(&[u8]) -> Packed + Send + Sync + 'static,
    ) -> Blocks<W> {
        let in_flight = 2 * threads;
        let (jobs, queue) = sync_channel::<Job>(in_flight);
        let (queue, compress) = (Arc::new(Mutex::new(queue)), Arc::new(compress));
        for _ in 0..threads {
            let (queue, compress) = (queue.clone(), compress.clone());
            // A worker exits when the sender of jobs is dropped.
            thread::spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((block, done)) = job else { return };
                    // The receiver is dropped only after a write error: the block is not needed then.
                    let _ = done.send(compress(&block));
                }
            });
        }
        Blocks { out, size, block: Vec::with_capacity(size), jobs, pending: VecDeque::new(), in_flight }
    }

    /// Compresses the rest, waits for all blocks and returns the output.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.dispatch()?;
        }
        while self.collect()? {}
        Ok(self.out)
    }

    fn dispatch(&mut self) -> io::Result<()> {
        while self.pending.len() >= self.in_flight {
            self.collect()?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(self.size));
        let (done, packed) = sync_channel(1);
        self.jobs.send((block, done)).map_err(|_| lost())?;
        self.pending.push_back(packed);
        Ok(())
    }

    fn collect(&mut self) -> io::Result<bool> {
        let Some(packed) = self.pending.pop_front() else { return Ok(false) };
        self.out.write_all(&packed.recv().map_err(|_| lost())??)?;
        Ok(true)
    }
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.size - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == self.size {
            self.dispatch()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lost() -> io::Error {
    io::Error::other("a compression thread panicked")
}
