//! Writes the contents of files in a thread, while the next entries are read and created.
//!
//! The thread works on open files, in the order of the members. So whatever happens to the names meanwhile,
//! each file gets what it would have got at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::fd::{AsFd, OwnedFd};

use super::attributes::Below;
use super::yard::Unwritable;
use crate::source::notes::Notes;
use crate::tree::Attributes;

/// Bytes of a batch.
const BATCH: usize = 256 << 10;
/// Batches in memory.
const BATCHES: usize = 4;
/// Files of a batch at most: they are open until it has been written.
const FILES: usize = 32;

/// Writes files.
#[derive(Debug)]
pub(super) struct Writer {
    below: Arc<Below>,
    batch: Batch,
    /// `None` until the first batch is full.
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    full: SyncSender<Batch>,
    free: Receiver<Batch>,
    handle: JoinHandle<Result<Notes, Unwritable>>,
}

/// Pieces of files, and their bytes.
#[derive(Debug, Default)]
struct Batch {
    /// Empty until it is used.
    bytes: Vec<u8>,
    used: usize,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    open: Arc<Open>,
    is_first: bool,
    /// Its bytes in the batch.
    range: Range<usize>,
    /// The attributes to set behind the last piece.
    attributes: Option<Attributes>,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: Vec<u8>,
    /// Whether it is new: others lose their contents first.
    created: bool,
}

impl Writer {
    pub(super) fn new(below: Arc<Below>) -> Writer {
        Writer { below, batch: Batch::default(), thread: None }
    }

    /// Gives an open file its contents and attributes. Returns how many bytes it gets.
    pub(super) fn file(
        &mut self,
        (file, created): (OwnedFd, bool),
        path: &[u8],
        attributes: &Attributes,
        data: &mut dyn Read,
    ) -> Result<u64> {
        let open = Arc::new(Open { file: file.into(), path: path.to_vec(), created });
        let (mut is_first, mut total, mut start) = (true, 0, self.batch.used);
        loop {
            if self.batch.used == BATCH {
                let range = start..BATCH;
                self.batch.pieces.push(Piece { open: open.clone(), is_first, range, attributes: None });
                self.hand_over()?;
                (is_first, start) = (false, 0);
            }
            match data.read(self.batch.room()) {
                Ok(0) => break,
                Ok(got) => {
                    self.batch.used += got;
                    total += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (range, attributes) = (start..self.batch.used, Some(attributes.clone()));
        self.batch.pieces.push(Piece { open, is_first, range, attributes });
        if self.batch.pieces.len() >= FILES {
            self.hand_over()?;
        }
        Ok(total)
    }

    /// Gives the batch to the thread, and takes an empty one.
    fn hand_over(&mut self) -> Result<()> {
        let thread = self.thread.get_or_insert_with(|| Thread::start(self.below.clone()));
        let sent = thread.full.send(mem::take(&mut self.batch)).is_ok();
        match thread.free.recv() {
            Ok(free) if sent => self.batch = free,
            // It ends early only if it fails.
            _ => drop(self.join().context("the thread that writes has ended")?),
        }
        Ok(())
    }

    /// Waits until everything is written.
    pub(super) fn finish(&mut self, notes: &mut Notes) -> Result<()> {
        if self.thread.is_none() {
            return Ok(mem::take(&mut self.batch).write(&self.below, notes)?);
        }
        self.hand_over()?;
        notes.append(self.join()?);
        Ok(())
    }

    fn join(&mut self) -> Result<Notes> {
        let Some(Thread { full, handle, .. }) = self.thread.take() else { return Ok(Notes::default()) };
        drop(full);
        match handle.join() {
            Ok(ended) => Ok(ended?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After an error, what is left is removed: nobody may write there any more.
        drop(self.join());
    }
}

impl Thread {
    fn start(below: Arc<Below>) -> Thread {
        let (full, batches) = sync_channel(BATCHES);
        let (used, free) = channel();
        for _ in 1..BATCHES {
            // The receiver is alive.
            let _ = used.send(Batch::default());
        }
        Thread { full, free, handle: thread::spawn(move || write(&below, &batches, &used)) }
    }
}

/// Writes batches until there are no more.
fn write(below: &Below, full: &Receiver<Batch>, free: &Sender<Batch>) -> Result<Notes, Unwritable> {
    let mut notes = Notes::default();
    while let Ok(mut batch) = full.recv() {
        batch.write(below, &mut notes)?;
        // After an error elsewhere, nobody wants it.
        let _ = free.send(batch);
    }
    Ok(notes)
}

impl Batch {
    fn room(&mut self) -> &mut [u8] {
        self.bytes.resize(BATCH, 0);
        &mut self.bytes[self.used..]
    }

    /// Writes everything, and closes what has an end.
    fn write(&mut self, below: &Below, notes: &mut Notes) -> Result<(), Unwritable> {
        for Piece { open, is_first, range, attributes } in self.pieces.drain(..) {
            let Open { file, path, created } = &*open;
            if is_first && !created {
                file.set_len(0).map_err(|error| below.unwritable("ftruncate", path, &error))?;
            }
            let written = (&mut &*file).write_all(&self.bytes[range]);
            written.map_err(|error| below.unwritable("write", path, &error))?;
            if let Some(attributes) = attributes {
                below.set(file.as_fd(), path, &attributes, *created, notes)?;
            }
        }
        self.used = 0;
        Ok(())
    }
}
