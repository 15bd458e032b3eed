//! The file that a command writes. It appears under its name only once it is complete.
//!
//! Until then it has no name (`O_TMPFILE`), so a killed program leaves nothing behind. A path that exists and
//! is not a regular file (`/dev/stdout`, a fifo) is written directly.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::NamedTempFile;

use crate::codec::Positioned;

/// A file that is being written.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    Unnamed(File),
    Named(NamedTempFile),
    Direct(File),
    Stdout(io::Stdout),
}

impl Output {
    /// Prepares to write `path`; `-` is standard output.
    pub fn create(path: &Path) -> Result<Output> {
        let to = if path == Path::new("-") {
            if io::stdout().is_terminal() {
                bail!("refusing to write an image to a terminal: use -o FILE");
            }
            To::Stdout(io::stdout())
        } else if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            To::Direct(File::options().write(true).open(path).with_context(|| cannot_create(path))?)
        } else {
            temporary(directory(path)).with_context(|| cannot_create(path))?
        };
        Ok(Output { path: path.to_path_buf(), to })
    }

    /// Prepares to write what is thrown away in the end, in the directory of `path` if there is one.
    pub fn dry(path: &Path) -> Result<Output> {
        let place = Some(directory(path)).filter(|place| place.is_dir()).map(Path::to_path_buf);
        let file = tempfile::tempfile_in(place.unwrap_or_else(std::env::temp_dir));
        Ok(Output { path: path.to_path_buf(), to: To::Direct(file.with_context(|| cannot_create(path))?) })
    }

    /// An output that keeps what is written in an unnamed file, which is returned too. Errors name this
    /// output.
    pub(crate) fn scratch(&self) -> Result<(Output, File)> {
        let cannot_create = || cannot_create(&self.path);
        let file = tempfile::tempfile_in(self.directory()).with_context(cannot_create)?;
        let to = To::Direct(file.try_clone().with_context(cannot_create)?);
        Ok((Output { path: self.path.clone(), to }, file))
    }

    /// The directory of the file. It also gets temporary files, since it must have space for the image.
    #[must_use]
    pub fn directory(&self) -> &Path {
        directory(&self.path)
    }

    /// Copies bytes from the position of a file without reading them, which some file systems do without
    /// copying. Returns how many: 0 if the kernel cannot.
    pub(crate) fn copy_from(&mut self, file: &File, length: u64) -> io::Result<u64> {
        let to = match &self.to {
            To::Unnamed(file) | To::Direct(file) => file,
            To::Named(file) => file.as_file(),
            To::Stdout(_) => return Ok(0),
        };
        let mut copied = 0;
        while copied < length {
            let left = usize::try_from(length - copied).unwrap_or(usize::MAX);
            // What it refuses, and why, shows when it is read and written instead.
            match rustix::fs::copy_file_range(file, None, to, None, left) {
                Ok(0) | Err(_) => break,
                Ok(count) => copied += count as u64,
            }
        }
        Ok(copied)
    }

    /// Gives the file its name, and so replaces an older file.
    pub fn commit(mut self) -> Result<()> {
        self.flush().with_context(|| cannot_create(&self.path))?;
        match self.to {
            To::Stdout(_) | To::Direct(_) => Ok(()),
            To::Named(file) => file
                .persist(&self.path)
                .map(drop)
                .map_err(|error| error.error)
                .with_context(|| cannot_create(&self.path)),
            To::Unnamed(file) => name(&file, &self.path).with_context(|| cannot_create(&self.path)),
        }
    }
}

/// An error of the output. It hides what was read at that time, which is not to blame.
#[derive(Debug)]
struct Unwritable {
    path: PathBuf,
    error: io::Error,
}

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", cannot_create(&self.path), self.error)
    }
}

impl std::error::Error for Unwritable {}

/// The error, reduced to the output if that is its cause.
pub(crate) fn cause(error: anyhow::Error) -> anyhow::Error {
    let of_output = |cause: &(dyn std::error::Error + 'static)| {
        // The error inside an io::Error is not part of the chain.
        let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
        inner.downcast_ref::<Unwritable>().map(ToString::to_string)
    };
    match error.chain().find_map(of_output) {
        Some(text) => anyhow::Error::msg(text),
        None => error,
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::Unnamed(file) | To::Direct(file) => file.write(bytes),
            To::Named(file) => file.write(bytes),
            To::Stdout(stdout) => stdout.write(bytes),
        };
        written.map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            io::Error::new(error.kind(), Unwritable { path: self.path.clone(), error })
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Unnamed(file) | To::Direct(file) => file.flush(),
            To::Named(file) => file.flush(),
            To::Stdout(stdout) => stdout.flush(),
        }
    }
}

/// Whether an image written to `path` goes to standard output, where nothing else may go then.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdout")
}

/// Counts the bytes that are written.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) out: Output,
    pub(crate) bytes: u64,
}

/// Images end at a multiple of this, like those of `gen_init_cpio`.
pub(crate) const BLOCK: u64 = 512;

impl Counted {
    /// Writes zeros up to the next block, and `least` of them in any case.
    pub(crate) fn align(&mut self, least: u64) -> io::Result<()> {
        let end = (self.bytes + least).next_multiple_of(BLOCK);
        io::copy(&mut io::repeat(0).take(end - self.bytes), self).map(drop)
    }
}

impl Positioned for Counted {
    fn position(&self) -> u64 {
        self.bytes
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary(directory: &Path) -> io::Result<To> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(CWD, directory, flags, Mode::from_raw_mode(0o666)) {
        return Ok(To::Unnamed(File::from(file)));
    }
    // The file system does not support O_TMPFILE, or the directory does not exist: then this fails too.
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o666);
    tempfile::Builder::new().prefix(".repot-").permissions(permissions).tempfile_in(directory).map(To::Named)
}

/// Links the file under a temporary name and renames it: a rename replaces an existing file, a link does not.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let free = tempfile::Builder::new().prefix(".repot-").make_in(directory(path), |temporary| {
        rustix::fs::linkat(CWD, &*from, CWD, temporary, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
    })?;
    free.into_temp_path().persist(path).map_err(|error| error.error)
}

fn cannot_create(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
