//! Unpacks a payload into the new root, in this order: directories; files in parallel; hard links; whatever
//! else the initramfs holds; the attributes of directories.
//!
//! Nothing changes before every chunk has been verified. The first freed chunk is the point of no return.

mod chunks;
mod frame;
mod overrides;
mod pieces;
mod place;
mod reconcile;

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::error::{Error, Fault, Step, Torn, What, retry_once};
use crate::facts::packed::Found;
use crate::facts::program::{self, Candidate, Machine};
use crate::facts::{Facts, RootFs};
use crate::manifest;
use crate::metadata::Meta;
use crate::mover::Holes;
use crate::mover::{self, Arrived};
use crate::newroot::NewRoot;
use crate::payload::archive::{Entry, Kind, entry};
use crate::payload::index::Piece;
use crate::plan::{Plan, executable};
use crate::progress::Progress;
use crate::reserve::Reserve;
use crate::skipped::Skipped;
use crate::sys::{self, Mutex};
use chunks::{Chunks, at_frame};
use frame::{Decoder, Reader};
use pieces::OpenFiles;
use place::Place;

/// Unpacks the payload. The working directory must be the root of a procfs, and the umask 0. `root` holds the
/// attributes of the old root directory.
///
/// # Errors
/// What failed. Nothing has changed then, unless the error is torn.
pub(crate) fn run(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Arrived, Error> {
    let Found::Index(index, _) = &facts.payload else {
        return Err(Fault::flaw("no payload", b"").at(Step::Payload));
    };
    sys::tear(true);
    let chunks =
        Chunks::open(new.site.old.as_fd(), index, plan.wipe).map_err(|fault| fault.at(Step::Payload))?;
    let skipped = Skipped::default();
    let work = Unpack {
        chunks: &chunks,
        new,
        skipped: &skipped,
        creator: (geteuid().as_raw(), getegid().as_raw()),
        progress,
        entries: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    // In a container these sysctls belong to the host.
    let reserve = (facts.machine && plan.tight)
        .then(|| Reserve::release(new.site.proc.as_fd(), plan.zram.is_some(), facts.page));
    let outcome = work.run(facts, plan, root, &|| meanwhile(progress));
    drop(reserve);
    let arrived = outcome.map(|(inits, mut warnings)| {
        warnings.extend(skipped.warnings(Step::Payload));
        Arrived { undo: None, inits, warnings }
    });
    arrived.map_err(|fault| {
        let torn = chunks.torn().then_some(Torn::Spent);
        Error { torn, ..fault.at(Step::Payload) }
    })
}

/// The executable inits, and warnings.
type Unpacked = (Vec<Vec<u8>>, Vec<String>);

struct Unpack<'a> {
    chunks: &'a Chunks<'a>,
    new: &'a NewRoot<'a>,
    skipped: &'a Skipped,
    creator: (u32, u32),
    progress: &'a Progress,
    /// The number of entries and bytes unpacked so far, to compare with the index.
    entries: AtomicU64,
    bytes: AtomicU64,
}

/// The entries that a frame may hold, and how they are unpacked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Directories,
    Files,
    Links,
    /// The directories again, for their attributes.
    Attributes {
        /// Whether entries of the initramfs may have replaced some.
        replaced: bool,
    },
}

impl Unpack<'_> {
    fn run(&self, facts: &Facts, plan: &Plan, root: Meta, meanwhile: &dyn Fn()) -> Result<Unpacked, Fault> {
        let (chunks, site) = (self.chunks, self.new.site);
        let index = chunks.index;
        chunks.verify(plan.by_digest, plan.threads, meanwhile)?;
        if plan.zram.is_some() && facts.rootfs == RootFs::Tmpfs {
            chunks.lock();
        }
        // All memory for decompression is allocated before anything is freed: one decoder per worker, as far
        // as memory allows.
        let mut decoders = Decoder::allocate(plan.threads)?;
        self.frame(0, Part::Directories, &mut decoders[0])?;
        // The old root has not changed up to here.
        let mut decoder = self.unpack_files(decoders, meanwhile)?;
        self.frame(index.frames.len() - 1, Part::Links, &mut decoder)?;
        let counted = (self.entries.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        if counted != (index.entries, index.bytes) {
            return Err(Fault::flaw("entry or byte count does not match", b"index"));
        }
        chunks.remove()?;
        let wipe = |holes| plan.wipe.then_some(holes);
        let mut warnings = reconcile::reconcile(&site.old, &self.new.dir, wipe(mover::holes(facts)))?;
        overrides::remove_overridden(&site.old, &self.new.dir, wipe(Holes::Seek))?;
        mover::merge(self.new, facts, plan, root, (self.progress, self.skipped), meanwhile)?;
        warnings.extend(manifest::apply(self.new.dir.as_fd(), &facts.manifests));
        self.frame(0, Part::Attributes { replaced: true }, &mut decoder)?;
        Ok((self.inits(facts, &mut warnings)?, warnings))
    }

    /// Unpacks the frames between the first and the last, with one worker per decoder. Returns one of the
    /// decoders.
    fn unpack_files(&self, decoders: Vec<Decoder>, meanwhile: &dyn Fn()) -> Result<Decoder, Fault> {
        let last = self.chunks.index.frames.len() - 1;
        let next = AtomicUsize::new(1);
        let stopped = AtomicBool::new(false);
        let fault = Mutex::new(None);
        let fail = |found: Fault| {
            fault.lock().get_or_insert(found);
            stopped.store(true, Ordering::Release);
        };
        let threads = u32::try_from(decoders.len()).unwrap_or(1);
        let open_files = OpenFiles::new(threads);
        let idle = Mutex::new(decoders);
        let work = |_: u32| {
            let Some(mut decoder) = idle.lock().pop() else { return };
            while !stopped.load(Ordering::Acquire) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= last {
                    break;
                }
                let done = match self.chunks.index.piece(number) {
                    Some(piece) => self.piece(number, piece, &open_files, &mut decoder),
                    // A header alone is read with each of its pieces.
                    None if self.chunks.index.pieces(number) > 0 => Ok(()),
                    None => self.frame(number, Part::Files, &mut decoder),
                };
                if let Err(found) = done {
                    fail(found);
                }
            }
            // One decoder is needed later. The memory of the others is needed too, so they are dropped.
            let mut idle = idle.lock();
            if idle.is_empty() {
                idle.push(decoder);
            }
        };
        sys::crew(threads, &work, meanwhile, &|| fail(Fault::lost_worker()));
        fault.into_inner().map_or(Ok(()), Err)?;
        idle.into_inner().pop().ok_or_else(Fault::lost_worker)
    }

    fn frame(&self, number: usize, part: Part, decoder: &mut Decoder) -> Result<(), Fault> {
        let frees = matches!(part, Part::Files | Part::Links);
        self.read(number, frees, decoder, |reader| self.entries(part, reader))
    }

    /// Unpacks one piece of a large file. Its header is a separate frame.
    fn piece(
        &self,
        number: usize,
        piece: Piece,
        open_files: &OpenFiles,
        decoder: &mut Decoder,
    ) -> Result<(), Fault> {
        let header = |reader: &mut Reader<'_>| {
            entry(reader)?.ok_or_else(|| Fault::flaw("no header for the pieces", b""))
        };
        let entry = self.read(piece.header, true, decoder, header)?;
        let pieces = self.chunks.index.pieces(piece.header);
        let mut place = self.place();
        let complete = self.read(number, true, decoder, |reader| {
            place
                .piece(&entry, (piece, pieces), open_files, reader, &|bytes| self.written(bytes))
                .map_err(|fault| with_entry(fault, &entry))
        })?;
        if complete {
            self.count(&entry);
        }
        Ok(())
    }

    /// Reads a frame to its end with `read`. `frees` frees each chunk after its last use.
    fn read<T>(
        &self,
        number: usize,
        frees: bool,
        decoder: &mut Decoder,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let frame = self.chunks.index.frames[number];
        let first = *frame.chunks().start();
        let mut reader = Reader::new(decoder, self.chunks, frame, frees)
            .map_err(|fault| with_frame(fault, number, first))?;
        // A fault names the path of the failed call. The frame and chunk are added here.
        let found = read(&mut reader).map_err(|fault| with_frame(fault, number, reader.chunk()))?;
        reader.finish().map(|()| found)
    }

    fn place(&self) -> Place<'_> {
        Place::new(self.new.dir.as_fd(), self.skipped, self.creator)
    }

    fn written(&self, bytes: u64) {
        self.progress.add_bytes(bytes);
    }

    /// Counts an unpacked entry.
    fn count(&self, entry: &Entry) {
        self.bytes.fetch_add(entry.size, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.progress.add_entry();
    }

    fn entries(&self, part: Part, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let mut place = self.place();
        let mut root = false;
        while let Some(entry) = entry(reader)? {
            root |= entry.path.is_empty();
            self.entry(&entry, part, &mut place, reader).map_err(|fault| with_entry(fault, &entry))?;
        }
        if root || part != Part::Directories { Ok(()) } else { Err(Fault::flaw("no root directory", b"")) }
    }

    fn entry(
        &self,
        entry: &Entry,
        part: Part,
        place: &mut Place<'_>,
        reader: &mut Reader<'_>,
    ) -> Result<(), Fault> {
        match (part, entry.kind) {
            (Part::Directories, Kind::Directory) if entry.path.is_empty() => return Ok(()),
            (Part::Directories, Kind::Directory) => place.directory(entry)?,
            (Part::Attributes { replaced }, Kind::Directory) => {
                return match place.finish(entry) {
                    // An entry of the initramfs has replaced the directory.
                    Err(Fault { errno: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. }) if replaced => {
                        Ok(())
                    }
                    done => done,
                };
            }
            (Part::Links, Kind::Link) => place.link(entry)?,
            (Part::Files, kind) if !matches!(kind, Kind::Directory | Kind::Link) => {
                place.entry(entry, reader, &|bytes| self.written(bytes))?;
            }
            _ => return Err(Fault::flaw("entry in the wrong frame:", &entry.path)),
        }
        self.count(entry);
        Ok(())
    }

    /// The executable inits among the candidates, now that they exist.
    fn inits(&self, facts: &Facts, warnings: &mut Vec<String>) -> Result<Vec<Vec<u8>>, Fault> {
        let root = self.new.dir.as_fd();
        // Retried once: this is past the point of no return.
        let test = |path: &[u8]| retry_once(|| program::test(&root, path, None, Machine::running()));
        let tested =
            |candidate: &Candidate| Candidate { why: test(&candidate.path).err(), ..candidate.clone() };
        let candidates: Vec<_> = facts.candidates.iter().map(tested).collect();
        let inits = executable(&candidates, warnings);
        if inits.is_empty() {
            let accounts: Vec<_> = candidates.iter().map(Candidate::account).collect();
            let what = What::Flaw("no init is executable:");
            return Err(Fault { what, path: accounts.join("; ").into_bytes(), errno: Errno::NOEXEC });
        }
        Ok(inits)
    }
}

/// Adds the path of the entry to a fault that has none.
fn with_entry(fault: Fault, entry: &Entry) -> Fault {
    if fault.path.is_empty() { fault.on(entry.path.clone()) } else { fault }
}

/// Adds the frame and chunk to a fault.
fn with_frame(fault: Fault, frame: usize, chunk: usize) -> Fault {
    let place = at_frame(frame, chunk);
    let path = match fault.path.as_slice() {
        b"" => place.into_bytes(),
        path => [path, b" of ", place.as_bytes()].concat(),
    };
    fault.on(path)
}
