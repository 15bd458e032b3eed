//! Unpacks a payload into the new root: directories, then the rest in parallel, then further names, then what else the
//! initramfs holds, then the directories' attributes.
//!
//! Nothing is changed before every chunk has been verified. The first chunk that is freed is the point of no return.

mod chunks;
mod frame;
mod overrides;
mod pieces;
mod place;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::error::{Error, Fault, Step, Torn, What, retry_once};
use crate::facts::Facts;
use crate::facts::packed::Found;
use crate::facts::program::{self, Machine};
use crate::manifest;
use crate::metadata::{At, Meta};
use crate::mover::{self, Arrived};
use crate::newroot::NewRoot;
use crate::payload::archive::{Entry, Kind, entry};
use crate::payload::index::Piece;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::reserve::Reserve;
use crate::skipped::Skipped;
use crate::sys::{self, Mutex};
use chunks::{Chunks, at_frame};
use frame::{Decoder, Reader};
use pieces::Begun;
use place::Place;

/// Unpacks the payload. The working directory must be the root of a procfs, and the umask 0. `root` are the attributes of the
/// old root directory.
///
/// # Errors
/// What failed. Nothing has changed then, unless the error says that it is torn.
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
    // In a container these are the host's settings.
    let reserve = (facts.machine && plan.tight).then(|| Reserve::release(new.site.proc.as_fd()));
    let outcome = work.all(facts, plan, root, &|| meanwhile(progress));
    drop(reserve);
    let arrived = outcome.and_then(|(inits, mut warnings)| {
        let root = Meta::read(At::Open(new.dir.as_fd()))?;
        warnings.extend(skipped.warnings(Step::Payload));
        Ok(Arrived { undo: None, root, inits, warnings })
    });
    arrived.map_err(|fault| {
        let torn = chunks.torn().then_some(Torn::Spent);
        Error { torn, ..fault.at(Step::Payload) }
    })
}

struct Unpack<'a> {
    chunks: &'a Chunks<'a>,
    new: &'a NewRoot<'a>,
    skipped: &'a Skipped,
    creator: (u32, u32),
    progress: &'a Progress,
    /// What was unpacked, to be compared with what the index promises.
    entries: AtomicU64,
    bytes: AtomicU64,
}

/// Which entries a frame may have, and what is done with them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Directories,
    Files,
    Links,
    /// The directories once more.
    Attributes {
        /// Whether some may have been removed.
        replaced: bool,
    },
}

impl Unpack<'_> {
    fn all(
        &self,
        facts: &Facts,
        plan: &Plan,
        root: Meta,
        meanwhile: &dyn Fn(),
    ) -> Result<(Vec<Vec<u8>>, Vec<String>), Fault> {
        let (chunks, site) = (self.chunks, self.new.site);
        let index = chunks.index;
        chunks.verify(plan.by_digest, plan.threads, meanwhile)?;
        // What decompressing takes is there before anything is freed: a thread for each that there is memory for.
        let mut decoders = Decoder::several(plan.threads)?;
        self.frame(0, Part::Directories, &mut decoders[0])?;
        // Up to here the old root is as it was.
        let mut decoder = self.files(decoders, meanwhile)?;
        self.frame(index.frames.len() - 1, Part::Links, &mut decoder)?;
        let counted = (self.entries.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        if counted != (index.entries, index.bytes) {
            return Err(Fault::flaw("the numbers of entries and bytes in", b"index"));
        }
        chunks.remove()?;
        overrides::remove_overridden(&site.old, &self.new.dir)?;
        mover::merge(self.new, facts, plan, root, self.progress, meanwhile)?;
        let warnings = manifest::apply(self.new.dir.as_fd());
        self.frame(0, Part::Attributes { replaced: true }, &mut decoder)?;
        Ok((self.inits(facts)?, warnings))
    }

    /// The frames between the first and the last, by a thread for each decoder. Gives back one of these.
    fn files(&self, decoders: Vec<Decoder>, meanwhile: &dyn Fn()) -> Result<Decoder, Fault> {
        let last = self.chunks.index.frames.len() - 1;
        let next = AtomicUsize::new(1);
        let over = AtomicBool::new(false);
        let fault = Mutex::new(None);
        let note = |found: Fault| {
            fault.lock().get_or_insert(found);
            over.store(true, Ordering::Release);
        };
        let threads = u32::try_from(decoders.len()).unwrap_or(1);
        let begun = Begun::new(threads);
        let idle = Mutex::new(decoders);
        let work = |_: u32| {
            let Some(mut decoder) = idle.lock().pop() else { return };
            while !over.load(Ordering::Acquire) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= last {
                    break;
                }
                let done = match self.chunks.index.piece(number) {
                    Some(piece) => self.piece(number, piece, &begun, &mut decoder),
                    // What is only a header is read with each piece.
                    None if self.chunks.index.pieces(number) > 0 => Ok(()),
                    None => self.frame(number, Part::Files, &mut decoder),
                };
                if let Err(found) = done {
                    note(found);
                }
            }
            // One is needed later; the memory of the others is, too.
            let mut idle = idle.lock();
            if idle.is_empty() {
                idle.push(decoder);
            }
        };
        sys::crew(threads, &work, meanwhile, &|| note(Fault::lost_worker()));
        fault.into_inner().map_or(Ok(()), Err)?;
        idle.into_inner().pop().ok_or_else(Fault::lost_worker)
    }

    fn frame(&self, number: usize, part: Part, decoder: &mut Decoder) -> Result<(), Fault> {
        let frees = matches!(part, Part::Files | Part::Links);
        self.read(number, frees, decoder, |reader| self.entries(part, reader))
    }

    /// A piece of a large file, whose header is a frame by itself.
    fn piece(&self, number: usize, piece: Piece, begun: &Begun, decoder: &mut Decoder) -> Result<(), Fault> {
        let header = |reader: &mut Reader<'_>| entry(reader)?.ok_or_else(|| Fault::flaw("no header", b""));
        let entry = self.read(piece.header, true, decoder, header)?;
        let pieces = self.chunks.index.pieces(piece.header);
        let mut place = self.place();
        let whole = self.read(number, true, decoder, |reader| {
            place
                .piece(&entry, (piece, pieces), begun, reader, &|bytes| self.written(bytes))
                .map_err(|fault| named(fault, &entry))
        })?;
        if whole {
            self.count(&entry);
        }
        Ok(())
    }

    /// Reads a frame to its end.
    fn read<T>(
        &self,
        number: usize,
        frees: bool,
        decoder: &mut Decoder,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let frame = self.chunks.index.frames[number];
        let first = *frame.chunks().start();
        let mut reader =
            Reader::new(decoder, self.chunks, frame, frees).map_err(|fault| located(fault, number, first))?;
        // The fault of a call names what it was called on; which chunk that came from is told here.
        let found = read(&mut reader).map_err(|fault| located(fault, number, reader.chunk()))?;
        reader.finish().map(|()| found)
    }

    fn place(&self) -> Place<'_> {
        Place::new(self.new.dir.as_fd(), self.skipped, self.creator)
    }

    fn written(&self, bytes: u64) {
        self.progress.add_bytes(bytes);
    }

    /// Counts an entry that is there.
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
            self.entry(&entry, part, &mut place, reader).map_err(|fault| named(fault, &entry))?;
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
                    // Something else of the initramfs has taken its place.
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
            _ => return Err(Fault::flaw("an entry in the wrong frame:", &entry.path)),
        }
        self.count(entry);
        Ok(())
    }

    /// The programs that can be executed, of those that were asked for.
    fn inits(&self, facts: &Facts) -> Result<Vec<Vec<u8>>, Fault> {
        let mut able = Vec::new();
        let mut told = Vec::new();
        for candidate in &facts.candidates {
            // This is past the point of no return.
            match retry_once(|| {
                program::test(&self.new.dir.as_fd(), &candidate.path, None, Machine::running())
            }) {
                Ok(()) => able.push(candidate.path.clone()),
                Err(why) => {
                    let comma = if told.is_empty() { "" } else { "; " };
                    told.extend_from_slice(comma.as_bytes());
                    told.extend_from_slice(&candidate.path);
                    told.extend_from_slice(format!(" {why}").as_bytes());
                }
            }
        }
        if able.is_empty() {
            let what = What::Flaw("no init can be executed:");
            return Err(Fault { what, path: told, errno: Errno::NOEXEC });
        }
        Ok(able)
    }
}

/// Names the entry, where nothing else is named.
fn named(fault: Fault, entry: &Entry) -> Fault {
    if fault.path.is_empty() { fault.on(entry.path.clone()) } else { fault }
}

/// Names the place in the payload too.
fn located(fault: Fault, frame: usize, chunk: usize) -> Fault {
    let place = at_frame(frame, chunk);
    let path = match fault.path.as_slice() {
        b"" => place.into_bytes(),
        path => [path, b" of ", place.as_bytes()].concat(),
    };
    fault.on(path)
}
