//! Unpacks a payload into the new root: directories, then the rest in parallel, then further names, then what else the
//! initramfs holds, then the directories' attributes.
//!
//! Nothing is changed before every chunk has been verified. From the first chunk that is freed on nothing can be put back.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::Found;
use super::archive::{Entry, Kind, entry};
use super::chunks::{Chunks, at_frame, flaw};
use super::frame::{Decoder, Reader};
use super::index::Piece;
use super::pieces::Begun;
use super::place::Place;
use super::room;
use crate::error::{Error, Fault, Step};
use crate::facts::Facts;
use crate::manifest;
use crate::mover::Progress;
use crate::newroot::NewRoot;
use crate::plan::Plan;
use crate::program::{self, Machine};
use crate::refused::Refused;
use crate::reserve::Reserve;
use crate::sys::{self, Mutex};

/// What was unpacked.
pub(crate) struct Unpacked {
    /// The programs of the new root that can be executed as init.
    pub(crate) inits: Vec<Vec<u8>>,
    /// What was done without.
    pub(crate) warnings: Vec<String>,
}

/// Unpacks it; `rest` moves what else the old root holds. The working directory must be the root of a procfs, and the umask 0.
///
/// # Errors
/// What failed; nothing has been changed then, unless the error says that it is torn.
pub(crate) fn unpack(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
    rest: &dyn Fn() -> Result<(), Fault>,
) -> Result<Unpacked, Error> {
    let Found::Index(index, _) = &facts.payload else {
        return Err(flaw("no payload", b"").at(Step::Payload));
    };
    let chunks =
        Chunks::open(new.site.old.as_fd(), index, plan.wipe).map_err(|fault| fault.at(Step::Payload))?;
    let refused = Refused::default();
    let work = Unpack {
        chunks: &chunks,
        new,
        refused: &refused,
        creator: (geteuid().as_raw(), getegid().as_raw()),
        progress,
        entries: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    // Only on a machine of its own: in a container it is someone else's setting.
    let reserve = (facts.machine && plan.tight).then(|| Reserve::release(new.site.proc.as_fd()));
    let outcome = work.all(facts, plan, &|| meanwhile(progress), rest);
    drop(reserve);
    match outcome {
        Ok(mut unpacked) => {
            unpacked.warnings.extend(refused.told(Step::Payload));
            Ok(unpacked)
        }
        Err(fault) if chunks.torn() => Err(fault.at(Step::Payload).used_up()),
        Err(fault) => Err(fault.at(Step::Payload)),
    }
}

struct Unpack<'a> {
    chunks: &'a Chunks<'a>,
    new: &'a NewRoot<'a>,
    refused: &'a Refused,
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
        meanwhile: &dyn Fn(),
        rest: &dyn Fn() -> Result<(), Fault>,
    ) -> Result<Unpacked, Fault> {
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
            return Err(flaw("the numbers of entries and bytes in", b"index"));
        }
        chunks.remove()?;
        room::make(&site.old, &self.new.dir)?;
        rest()?;
        let warnings = manifest::apply(self.new.dir.as_fd());
        self.frame(0, Part::Attributes { replaced: true }, &mut decoder)?;
        Ok(Unpacked { inits: self.inits(facts)?, warnings })
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
        let panic = || Fault { call: "panic", path: Vec::new(), errno: Errno::CANCELED };
        sys::crew(threads, &work, meanwhile, &|| note(panic()));
        fault.into_inner().map_or(Ok(()), Err)?;
        idle.into_inner().pop().ok_or_else(panic)
    }

    fn frame(&self, number: usize, part: Part, decoder: &mut Decoder) -> Result<(), Fault> {
        let frees = matches!(part, Part::Files | Part::Links);
        self.read(number, frees, decoder, |reader| self.entries(part, reader))
    }

    /// A piece of a large file, whose header is a frame by itself.
    fn piece(&self, number: usize, piece: Piece, begun: &Begun, decoder: &mut Decoder) -> Result<(), Fault> {
        let header = |reader: &mut Reader<'_>| entry(reader)?.ok_or_else(|| flaw("no header", b""));
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
        Place::new(self.new.dir.as_fd(), self.refused, self.creator)
    }

    fn written(&self, bytes: u64) {
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts an entry that is there.
    fn count(&self, entry: &Entry) {
        self.bytes.fetch_add(entry.size, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.progress.entries.fetch_add(1, Ordering::Relaxed);
    }

    fn entries(&self, part: Part, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let mut place = self.place();
        let mut root = false;
        while let Some(entry) = entry(reader)? {
            root |= entry.path.is_empty();
            self.entry(&entry, part, &mut place, reader).map_err(|fault| named(fault, &entry))?;
        }
        if root || part != Part::Directories { Ok(()) } else { Err(flaw("no root directory", b"")) }
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
            _ => return Err(flaw("an entry in the wrong frame:", &entry.path)),
        }
        self.count(entry);
        Ok(())
    }

    /// The programs that can be executed, of those that were asked for.
    fn inits(&self, facts: &Facts) -> Result<Vec<Vec<u8>>, Fault> {
        let mut able = Vec::new();
        let mut told = Vec::new();
        for candidate in &facts.candidates {
            let test = || program::test(self.new.dir.as_fd(), &candidate.path, None, Machine::running());
            // There is no way back any more, so a no is asked for twice.
            match test().or_else(|_| test()) {
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
            return Err(Fault { call: "no init can be executed:", path: told, errno: Errno::NOEXEC });
        }
        Ok(able)
    }
}

/// Names the entry, where nothing else is named.
fn named(fault: Fault, entry: &Entry) -> Fault {
    let path = if fault.path.is_empty() { entry.path.clone() } else { fault.path };
    Fault { path, ..fault }
}

/// Names the place in the payload too.
fn located(fault: Fault, frame: usize, chunk: usize) -> Fault {
    let place = at_frame(frame, chunk);
    let path = match fault.path.as_slice() {
        b"" => place.into_bytes(),
        path => [path, b" of ", place.as_bytes()].concat(),
    };
    Fault { path, ..fault }
}
