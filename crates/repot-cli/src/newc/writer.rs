//! The streaming writer. It keeps the numbers of hard-linked inodes in memory, and nothing else.

use std::collections::HashSet;
use std::io::{self, Read, Write};

use crate::report::name::shown;

use super::header::{HEADER_LEN, Header, padding};
use super::{NAME_MAX, TRAILER, Totals};

/// Writes the members of an archive in order.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    offset: u64,
    totals: Totals,
    linked: HashSet<(u32, u32, u32)>,
    buffer: Vec<u8>,
    /// Where the contents of files begin, and the offset of the archive in the image.
    align: Option<(u64, u64)>,
}

impl<W: Write> Writer<W> {
    /// Starts an archive. Its offset in the image must be a multiple of 4.
    pub fn new(out: W) -> Writer<W> {
        Writer {
            out,
            offset: 0,
            totals: Totals::default(),
            linked: HashSet::new(),
            buffer: vec![0; 256 << 10],
            align: None,
        }
    }

    /// The same, but the contents of files begin at multiples of `align` in the image, in which the archive
    /// is at `offset`. Names are filled up with NULs for that, as `gen_init_cpio -a` does. The contents
    /// behind a name that would be too long for the kernel begin elsewhere.
    pub(crate) fn aligned(out: W, align: Option<u32>, offset: u64) -> Writer<W> {
        Writer { align: align.map(|align| (align.into(), offset)), ..Writer::new(out) }
    }

    /// Appends a member with its data, which also gives `header.filesize`.
    pub fn append(&mut self, header: &Header, data: &[u8]) -> io::Result<()> {
        let filesize = u32::try_from(data.len()).map_err(|_| too_large(&header.name))?;
        self.start(&Header { filesize, ..header.clone() })?;
        self.put(data)?;
        self.pad()
    }

    /// Appends a member with exactly `header.filesize` bytes from `data`.
    ///
    /// If `data` ends early, the error has the kind `UnexpectedEof`, and the archive is useless.
    pub fn append_from(&mut self, header: &Header, data: &mut impl Read) -> io::Result<()> {
        self.start(header)?;
        let mut left = header.filesize as usize;
        while left > 0 {
            let want = left.min(self.buffer.len());
            let got = match data.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(shrunk(&header.name, left)),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.out.write_all(&self.buffer[..got])?;
            self.offset += got as u64;
            left -= got;
        }
        self.pad()
    }

    /// Appends a member whose `header.filesize` bytes another function writes. It returns how many it wrote.
    pub(crate) fn append_with(
        &mut self,
        header: &Header,
        write: impl FnOnce(&mut W, u32) -> io::Result<u64>,
    ) -> io::Result<()> {
        self.start(header)?;
        let written = write(&mut self.out, header.filesize)?;
        self.offset += written;
        let missing = u64::from(header.filesize).saturating_sub(written);
        if missing > 0 {
            return Err(shrunk(&header.name, usize::try_from(missing).unwrap_or(usize::MAX)));
        }
        self.pad()
    }

    /// Appends a member whose `header.filesize` bytes another function gives, piece by piece.
    pub(crate) fn append_pieces<E: From<io::Error>>(
        &mut self,
        header: &Header,
        give: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.start(header)?;
        give(&mut |bytes| self.put(bytes))?;
        Ok(self.pad()?)
    }

    /// Counts of the members appended so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Bytes written so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Ends the archive, pads it to 512 bytes like `gen_init_cpio`, and returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        let trailer = Header { name: TRAILER.to_vec(), nlink: 1, ..Header::default() };
        self.head(&trailer)?;
        let rest = (self.offset.wrapping_neg() & 511) as usize;
        self.put(&[0; 512][..rest])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn start(&mut self, header: &Header) -> io::Result<()> {
        check_name(&header.name)?;
        self.head(header)?;
        self.count(header);
        Ok(())
    }

    fn head(&mut self, header: &Header) -> io::Result<()> {
        // start() checks that a name has at most NAME_MAX bytes.
        let name = header.name.len() as u64 + 1;
        let fill = self.fill(header, name);
        let namesize = u32::try_from(name + fill).map_err(io::Error::other)?;
        self.put(&header.encode(namesize))?;
        self.put(&header.name)?;
        self.put(&[0; NAME_MAX + 1][..usize::try_from(fill).unwrap_or(0) + 1])?;
        self.pad()
    }

    /// The NULs behind a name that make the contents begin at the alignment.
    fn fill(&self, header: &Header, name: u64) -> u64 {
        let Some((align, start)) = self.align.filter(|_| header.is_file() && header.filesize > 0) else {
            return 0;
        };
        let end = start + self.offset + HEADER_LEN as u64 + name;
        let fill = end.next_multiple_of(align) - end;
        if name + fill > NAME_MAX as u64 + 1 { 0 } else { fill }
    }

    fn count(&mut self, header: &Header) {
        let inode = (header.devmajor, header.devminor, header.ino);
        let new = header.nlink < 2 || self.linked.insert(inode);
        self.totals.entries += 1;
        self.totals.inodes += u64::from(new);
        if header.is_file() {
            self.totals.bytes += u64::from(header.filesize);
        }
    }

    fn pad(&mut self) -> io::Result<()> {
        let zeros = padding(self.offset);
        self.put(&[0; 4][..zeros])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn check_name(name: &[u8]) -> io::Result<()> {
    let what = if name.is_empty() {
        "an empty name"
    } else if name.len() > NAME_MAX {
        "a name of more than 4095 bytes, which the kernel would skip"
    } else if name.contains(&0) {
        "a name with a NUL byte"
    } else if name == TRAILER {
        "the name that marks the end of an archive"
    } else {
        return Ok(());
    };
    let name = shown(name);
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("newc cannot hold {what}: \"{name}\"")))
}

fn shrunk(name: &[u8], missing: usize) -> io::Error {
    let text = format!("{}: {missing} bytes are missing: did the file shrink?", shown(name));
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

fn too_large(name: &[u8]) -> io::Error {
    let text = format!("{}: newc cannot hold a file of 4 GiB or more", shown(name));
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}
