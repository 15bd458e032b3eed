//! The file that an image lies in: most are nothing but the image. A unified kernel image (UKI) and an image
//! of a Nitro enclave (EIF) hold it in pieces, beside a kernel. A kernel may have one inside.

mod copy;
mod eif;
mod kernel;
mod pe;

pub(crate) use kernel::in_zboot;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::segments::{self, Strange, Visit};
use super::window::Window;
use crate::source::magic;
use crate::tree::Contents;

/// The format of a unified kernel image.
pub(crate) const UKI: &str = "a unified kernel image";

/// Bytes at the start of a file that say what it is.
const HEAD: usize = 64 << 10;

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What the format calls it.
    pub name: String,
    /// Its first byte in the file.
    pub start: u64,
    /// The first byte behind it.
    pub end: u64,
}

/// What a file holds beside an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// The format, for messages.
    pub format: &'static str,
    /// The pieces of the image, in the order in which the kernel gets them.
    pub image: Vec<Part>,
    /// The kernel.
    pub kernel: Option<Part>,
    /// The command line.
    pub cmdline: Option<Part>,
}

/// The pieces of an image, and the file that they are in: it is another one for a compressed kernel.
#[derive(Debug)]
struct Held {
    file: Arc<File>,
    parts: Parts,
    /// The initramfs that is built into the kernel among the parts, which that unpacks first.
    built_in: Option<(Arc<File>, Part)>,
}

/// An open image.
#[derive(Debug)]
pub struct ImageFile {
    name: String,
    from: From,
}

#[derive(Debug)]
enum From {
    File(Held),
    Stream { file: File, bytes: u64 },
}

impl ImageFile {
    /// Opens an image; `-` is standard input.
    pub fn open(path: &Path) -> Result<ImageFile> {
        let (file, name) = if path == Path::new("-") {
            let stdin = io::stdin().as_fd().try_clone_to_owned().context("cannot read standard input")?;
            (File::from(stdin), "standard input".to_string())
        } else {
            let name = path.display().to_string();
            (File::open(path).with_context(|| format!("cannot open {name}"))?, name)
        };
        let metadata = file.metadata().with_context(|| format!("cannot stat {name}"))?;
        if metadata.is_dir() {
            bail!("{name} is a directory, not an image");
        }
        if !metadata.is_file() {
            return Ok(ImageFile { name, from: From::Stream { file, bytes: 0 } });
        }
        ImageFile::of(file, name, metadata.len())
    }

    /// The same, but an image that can be read only once is copied into an unnamed file.
    pub fn open_to_seek(path: &Path) -> Result<ImageFile> {
        let image = ImageFile::open(path)?;
        let From::Stream { file, .. } = image.from else { return Ok(image) };
        let (copy, bytes) = copy::copy(&file, &image.name)?;
        ImageFile::of(copy, image.name, bytes)
    }

    fn of(file: File, name: String, bytes: u64) -> Result<ImageFile> {
        let file = Arc::new(file);
        let found = parts(&file, bytes).with_context(|| name.clone())?;
        let whole = || {
            let part = Part { name: String::new(), start: 0, end: bytes };
            Held { file, parts: Parts { image: vec![part], ..Parts::default() }, built_in: None }
        };
        Ok(ImageFile { name, from: From::File(found.unwrap_or_else(whole)) })
    }

    /// Reads the image from its start. An error names the file, the segment and the offset.
    pub fn read(&mut self, visit: &mut dyn Visit) -> Result<()> {
        let read = match &mut self.from {
            From::Stream { file, bytes } => segments::read(Counted { input: file, bytes }, visit),
            From::File(held) => held.image().try_for_each(|(file, part)| {
                let mut window = Window::new(file.clone(), part.start, part.end);
                let read = segments::read_window(&mut window, visit);
                if part.name.is_empty() { read } else { read.with_context(|| format!("in {}", part.name)) }
            }),
        };
        let Err(error) = read else { return Ok(()) };
        let known = error.downcast_ref::<Strange>().and_then(|_| self.known());
        let error =
            known.map_or(error, |(what, cure)| anyhow::anyhow!("this is {what}, not an initramfs ({cure})"));
        Err(error.context(self.name.clone()))
    }

    /// The format of a file that is no image, and what to do with it.
    fn known(&self) -> Option<(&'static str, &'static str)> {
        let From::File(held) = &self.from else { return None };
        let head = magic::head(&held.file);
        if head.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
            return Some(("a tar archive", "repot pack makes one of it"));
        }
        magic::name(&head)
    }

    /// The name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of the file: those that have been read if it is a stream.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.from {
            From::Stream { bytes, .. } => *bytes,
            From::File(held) => held.image().map(|(_, part)| part.end - part.start).sum(),
        }
    }

    /// The image in one file, without what else the file holds.
    pub(crate) fn flat(&self, scratch: &Path) -> Result<Arc<File>> {
        match &self.from {
            From::File(held) => held.joined(&self.name, scratch),
            From::Stream { .. } => bail!("{} can be read only once", self.name),
        }
    }

    /// The same without what the kernel in the file has in itself.
    pub(crate) fn flat_beside_kernel(&self, scratch: &Path) -> Result<Arc<File>> {
        match &self.from {
            From::File(Held { file, parts, .. }) => {
                let beside = Held { file: file.clone(), parts: parts.clone(), built_in: None };
                beside.joined(&self.name, scratch)
            }
            From::Stream { .. } => self.flat(scratch),
        }
    }

    /// The pieces of the file; `None` for a stream.
    #[must_use]
    pub fn parts(&self) -> Option<(&Arc<File>, &Parts)> {
        if let From::File(held) = &self.from { Some((&held.file, &held.parts)) } else { None }
    }
}

/// What a file holds; `None` if it is nothing but an image, or of no known format.
fn parts(file: &Arc<File>, bytes: u64) -> Result<Option<Held>> {
    let head = head(file).context("cannot read it")?;
    let found = find(&head, bytes, &mut |at, buffer| file.read_exact_at(buffer, at))?;
    let Some(parts) = found else {
        let held = |(file, part)| {
            let parts = Parts { format: kernel::FORMAT, image: vec![part], ..Parts::default() };
            Held { file, parts, built_in: None }
        };
        return Ok(kernel::built_in(file, &head, bytes)?.map(held));
    };
    // A kernel that cannot be unpacked here may be a good one.
    let built_in = parts.kernel.as_ref().and_then(|part| inside(file, part).ok().flatten());
    Ok(Some(Held { file: file.clone(), parts, built_in }))
}

/// The initramfs that is built into this part of a file, unless that is what every kernel has.
fn inside(file: &Arc<File>, part: &Part) -> Result<Option<(Arc<File>, Part)>> {
    let mut copy = tempfile::tempfile().context("cannot create a temporary file")?;
    let bytes = part.end - part.start;
    write(&Contents::Range(file.clone(), part.start, bytes), &mut copy)?;
    let copy = Arc::new(copy);
    let built_in = kernel::built_in(&copy, &head(&copy)?, bytes)?;
    Ok(built_in.filter(|(file, part)| !kernel::is_default(file, part)))
}

/// The first bytes of a file.
pub(crate) fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let mut filled = 0;
    while let got @ 1.. = file.read_at(&mut head[filled..], filled as u64)? {
        filled += got;
    }
    head.truncate(filled);
    Ok(head)
}

/// The image of a file in one file: the file itself, unless it holds the image in pieces.
pub(crate) fn flat(file: &Arc<File>, name: &str, scratch: &Path) -> Result<Arc<File>> {
    let bytes = file.metadata().with_context(|| format!("cannot stat {name}"))?.len();
    match parts(file, bytes).with_context(|| name.to_string())? {
        Some(held) => held.joined(name, scratch),
        None => Ok(file.clone()),
    }
}

impl Held {
    /// The pieces of the image, in the order in which the kernel unpacks them.
    fn image(&self) -> impl Iterator<Item = (&Arc<File>, &Part)> {
        let built_in = self.built_in.iter().map(|(file, part)| (file, part));
        built_in.chain(self.parts.image.iter().map(|part| (&self.file, part)))
    }

    /// Joins the pieces of an image, as systemd's stub does: each begins at a multiple of 4.
    fn joined(&self, name: &str, scratch: &Path) -> Result<Arc<File>> {
        if let [Part { name, .. }] = &self.parts.image[..]
            && name.is_empty()
        {
            return Ok(self.file.clone());
        }
        let mut copy = tempfile::tempfile_in(scratch)
            .with_context(|| format!("cannot create a temporary file in {}", scratch.display()))?;
        for (file, part) in self.image() {
            let piece = Contents::Range(file.clone(), part.start, part.end - part.start);
            let length =
                write(&piece, &mut copy).with_context(|| format!("cannot copy {} of {name}", part.name))?;
            copy.write_all(&[0; 4][..(length.wrapping_neg() & 3) as usize])
                .context("cannot write a temporary file")?;
        }
        Ok(Arc::new(copy))
    }
}

/// Copies the contents of a file, and returns their length.
fn write(from: &Contents, to: &mut File) -> io::Result<u64> {
    io::copy(&mut from.open()?.take(from.len()), to)
}

/// Reads bytes at an offset of the file.
type ReadAt<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>;

/// The pieces of a file that begins with `head`.
fn find(head: &[u8], bytes: u64, read_at: ReadAt<'_>) -> Result<Option<Parts>> {
    if head.starts_with(b"MZ") {
        return pe::parts(head, bytes);
    }
    if head.starts_with(b".eif") {
        return eif::parts(head, bytes, read_at).map(Some);
    }
    Ok(None)
}

/// The pieces of a file in memory.
#[doc(hidden)]
pub fn parts_of_bytes(bytes: &[u8]) -> Result<Option<Parts>> {
    let head = &bytes[..bytes.len().min(HEAD)];
    find(head, bytes.len() as u64, &mut |at, buffer| {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let mut rest = bytes.get(at..).unwrap_or_default();
        rest.read_exact(buffer)
    })
}

/// Counts the bytes that are read through it.
struct Counted<'a> {
    input: &'a mut File,
    bytes: &'a mut u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        *self.bytes += got as u64;
        Ok(got)
    }
}
