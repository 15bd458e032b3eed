//! The chunk files. All are verified before the first is used; then they are read, and freed one by one.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hasher;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::{Errno, pread};
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

use crate::error::{Call, Fault, What};
use crate::metadata::{At, Meta};
use crate::mover::zero;
use crate::payload::DIRECTORY;
use crate::payload::index::{CHUNK_SIZE, Chunk, Index, WINDOW_LOG, name};
use crate::sys::{self, Locked, Mutex};

/// Buffer size for verification, in bytes; it fits in a CPU's cache.
const READ: usize = 64 * 1024;
/// The longest header of a frame, in bytes (RFC 8878, 3.1.1.1).
const HEADER: usize = 18;

/// The chunks of a payload.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    pub(super) index: &'a Index,
    root: BorrowedFd<'a>,
    directory: OwnedFd,
    /// How often each chunk is still to be read by the frames after the first.
    needed: Vec<AtomicU32>,
    /// The frame with the directories. It is kept in memory because it is read twice.
    first: Vec<u8>,
    /// Those that must not be paged out.
    locked: Mutex<Vec<Option<Locked>>>,
    /// Whether chunks are overwritten before they are freed.
    wipe: bool,
    /// Whether any chunk was freed.
    freed: AtomicBool,
    /// Whether any chunk was changed or freed: past the point of no return.
    torn: AtomicBool,
}

impl<'a> Chunks<'a> {
    /// Opens the directory of chunks in `root`.
    pub(super) fn open(root: BorrowedFd<'a>, index: &'a Index, wipe: bool) -> Result<Self, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(root, DIRECTORY, flags, Mode::empty()).on("openat", DIRECTORY.as_bytes())?;
        let mut needed: Vec<_> = index.chunks.iter().map(|_| AtomicU32::new(0)).collect();
        for (number, frame) in index.frames.iter().enumerate().skip(1) {
            // The header of a file in pieces is read with each piece.
            let times = index.pieces(number).max(1);
            for number in frame.chunks() {
                *needed[number].get_mut() += times;
            }
        }
        let (freed, torn) = (AtomicBool::new(false), AtomicBool::new(false));
        let (first, locked) = (Vec::new(), Mutex::new(Vec::new()));
        let mut chunks = Chunks { index, root, directory, needed, first, locked, wipe, freed, torn };
        let size = usize::try_from(index.frames[0].size).unwrap_or(usize::MAX);
        let mut first = Vec::new();
        first.try_reserve_exact(size).map_err(|_| Fault {
            what: What::Call("malloc"),
            path: b"directories".to_vec(),
            errno: Errno::NOMEM,
        })?;
        first.resize(size, 0);
        chunks.read(0, &mut first)?;
        chunks.first = first;
        Ok(chunks)
    }

    /// Keeps the chunks in memory until they are freed. They do not compress: on a tmpfs the kernel would
    /// page them out, gain nothing, and read them back.
    pub(super) fn lock(&self) {
        let lock = |(number, chunk): (usize, &Chunk)| {
            let file = self.file(number).ok()?;
            // A chunk that cannot be locked is paged out and read back: slower, and nothing else.
            Locked::new(file.as_fd(), chunk.size).ok()
        };
        *self.locked.lock() = self.index.chunks.iter().enumerate().map(lock).collect();
    }

    /// Whether anything was changed: past the point of no return.
    pub(super) fn torn(&self) -> bool {
        self.torn.load(Ordering::Acquire)
    }

    /// Opens a chunk and checks its size against the index.
    pub(super) fn file(&self, number: usize) -> Result<OwnedFd, Fault> {
        let name = name(number);
        let path = || path(number).into_bytes();
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::empty()).on("openat", &path())?;
        let meta = Meta::read(At::Open(file.as_fd()))?;
        if meta.kind != FileType::RegularFile {
            return Err(Fault::flaw("chunk is not a regular file:", &path()));
        }
        // Wiping or freeing it would change the file under its other name.
        if meta.links != 1 {
            return Err(Fault::flaw("chunk has hard links:", &path()));
        }
        if meta.size != self.index.chunks[number].size {
            return Err(Fault::flaw("wrong size of chunk", &path()));
        }
        Ok(file)
    }

    /// Fills `into` from offset `from` in the concatenation of the chunks.
    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Fault> {
        let mut filled = 0;
        while filled < into.len() {
            let at = from + filled as u64;
            let number = usize::try_from(at / CHUNK_SIZE).unwrap_or(usize::MAX);
            let file = self.file(number)?;
            match pread(&file, &mut into[filled..], at % CHUNK_SIZE) {
                Ok(0) => return Err(Fault::flaw("wrong size of chunk", path(number).as_bytes())),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).on("pread64", path(number).as_bytes()),
            }
        }
        Ok(())
    }

    /// The bytes of the first frame from offset `at` on; empty behind it.
    pub(super) fn first_frame(&self, at: u64) -> &[u8] {
        usize::try_from(at).ok().and_then(|at| self.first.get(at..)).unwrap_or_default()
    }

    /// Notes that a chunk was read once more, and frees it after the last time.
    pub(super) fn done(&self, number: usize) -> Result<(), Fault> {
        if self.needed[number].fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        self.free(number)?;
        // The first frame is in memory. Its chunks were kept for a second try, which is impossible from now
        // on.
        if !self.freed.swap(true, Ordering::AcqRel) {
            (0..*self.index.frames[1].chunks().start()).try_for_each(|number| self.free(number))?;
        }
        Ok(())
    }

    fn free(&self, number: usize) -> Result<(), Fault> {
        let locked = self.locked.lock().get_mut(number).and_then(Option::take);
        drop(locked);
        if self.wipe {
            self.overwrite(number)?;
        }
        // Nothing is allocated between unlinking and setting `torn`: a failed allocation would hide that the
        // chunk is gone.
        unlinkat(&self.directory, name(number), AtFlags::empty())
            .or_else(|errno| Err(errno).on("unlinkat", path(number).as_bytes()))?;
        self.torn.store(true, Ordering::Release);
        Ok(())
    }

    fn overwrite(&self, number: usize) -> Result<(), Fault> {
        let named = || path(number).into_bytes();
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, name(number), flags, Mode::empty()).on("openat", &named())?;
        self.torn.store(true, Ordering::Release);
        zero(file.as_fd(), 0..self.index.chunks[number].size).map_err(|fault| fault.on(named()))
    }

    /// Removes the index and the directory of the chunks.
    pub(super) fn remove(&self) -> Result<(), Fault> {
        unlinkat(&self.directory, "index", AtFlags::empty()).on("unlinkat", b"index")?;
        unlinkat(self.root, DIRECTORY, AtFlags::REMOVEDIR).on("unlinkat", DIRECTORY.as_bytes())
    }

    /// Compares names, sizes and checksums with the index; changes nothing. The digest of the index covers
    /// the SHA-256 of each chunk. If no digest was requested, the SHA-256 proves no more than the XXH64 and
    /// takes longer.
    ///
    /// # Errors
    /// The first difference found.
    pub(super) fn verify(&self, by_digest: bool, threads: u32, meanwhile: &dyn Fn()) -> Result<(), Fault> {
        self.verify_names()?;
        let next = AtomicUsize::new(0);
        let fault = Mutex::new(None);
        let stopped = AtomicBool::new(false);
        let fail = |found: Fault| {
            fault.lock().get_or_insert(found);
            stopped.store(true, Ordering::Release);
        };
        let work = |_: u32| {
            let mut buffer = vec![0; READ];
            while !stopped.load(Ordering::Acquire) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.index.chunks.len() {
                    return;
                }
                if let Err(found) = self.verify_chunk(number, by_digest, &mut buffer) {
                    fail(found);
                }
            }
        };
        let lost = || fail(Fault::lost_worker());
        sys::crew(threads, &work, meanwhile, &lost);
        fault.into_inner().map_or(Ok(()), Err)?;
        (0..self.index.frames.len()).try_for_each(|number| self.verify_frame(number))
    }

    /// Checks that every chunk exists and nothing else does.
    fn verify_names(&self) -> Result<(), Fault> {
        let list = || path_of("");
        let read = rustix::io::fcntl_dupfd_cloexec(&self.directory, 0).and_then(Dir::new);
        let mut found = 0;
        for entry in read.on("getdents64", list().as_bytes())? {
            let entry = entry.on("getdents64", list().as_bytes())?;
            let bytes = entry.file_name().to_bytes();
            if matches!(bytes, b"." | b".." | b"index") {
                continue;
            }
            let number = core::str::from_utf8(bytes).ok().and_then(|text| text.parse::<usize>().ok());
            let known = number
                .is_some_and(|number| number < self.index.chunks.len() && name(number).as_bytes() == bytes);
            if !known {
                return Err(Fault::flaw("not in the index:", &[list().as_bytes(), bytes].concat()));
            }
            found += 1;
        }
        if found == self.index.chunks.len() {
            return Ok(());
        }
        // Opening them all reports the missing one.
        (0..self.index.chunks.len()).try_for_each(|number| self.file(number).map(drop))
    }

    fn verify_chunk(&self, number: usize, by_digest: bool, buffer: &mut [u8]) -> Result<(), Fault> {
        let Chunk { size, sum, digest } = self.index.chunks[number];
        let file = self.file(number)?;
        let (mut sha256, mut xxh64) = (Sha256::new(), XxHash64::with_seed(0));
        let mut at = 0;
        loop {
            match pread(&file, &mut *buffer, at) {
                Ok(0) => break,
                Ok(count) => {
                    if by_digest {
                        sha256.update(&buffer[..count])
                    } else {
                        xxh64.write(&buffer[..count])
                    }
                    at += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).on("pread64", path(number).as_bytes()),
            }
        }
        let found: [u8; 32] = sha256.finalize().into();
        let what = match by_digest {
            _ if at != size => "wrong size of chunk",
            true if found != digest => "SHA-256 mismatch in chunk",
            false if xxh64.finish() != sum => "XXH64 mismatch in chunk",
            _ => return Ok(()),
        };
        Err(Fault::flaw(what, path(number).as_bytes()))
    }

    /// Checks that the header of a frame matches the index and that its window is within [`WINDOW_LOG`].
    fn verify_frame(&self, number: usize) -> Result<(), Fault> {
        let frame = self.index.frames[number];
        let mut head = [0; HEADER];
        let filled = usize::try_from(frame.size).unwrap_or(HEADER).min(HEADER);
        self.read(frame.start, &mut head[..filled])?;
        let named = || at_frame(number, *frame.chunks().start());
        match zstd_safe::get_frame_content_size(&head[..filled]) {
            Ok(Some(content)) if content == frame.content => {}
            _ => return Err(Fault::flaw("frame header does not match the index:", named().as_bytes())),
        }
        match window(&head) {
            Some(window) if window <= 1 << WINDOW_LOG => Ok(()),
            _ => Err(Fault::flaw("frame needs too much memory:", named().as_bytes())),
        }
    }
}

/// The window size in the header of a frame, in bytes (RFC 8878, 3.1.1.1.2); `None` if this is no such
/// header.
fn window(head: &[u8; HEADER]) -> Option<u64> {
    let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = head else { return None };
    if descriptor & 0x20 != 0 {
        // A single segment: the window is the content.
        return zstd_safe::get_frame_content_size(head).ok().flatten();
    }
    let (exponent, mantissa) = (u64::from(rest[0] >> 3), u64::from(rest[0] & 7));
    let base = 1u64 << (10 + exponent);
    Some(base + base / 8 * mantissa)
}

fn path_of(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// The path of a chunk in the root.
pub(super) fn path(number: usize) -> String {
    path_of(&name(number))
}

/// Names a frame and a chunk, for messages.
pub(super) fn at_frame(frame: usize, chunk: usize) -> String {
    format!("frame {frame} in chunk {}", name(chunk))
}
