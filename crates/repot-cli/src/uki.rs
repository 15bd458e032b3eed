//! Writing unified kernel images: sections are put behind those of a program for UEFI, systemd's stub.
//!
//! The stub stays as it is, byte by byte, but for its headers: the stubs of some releases have sections at
//! addresses that are no multiple of their alignment, and their code refers to them. `object` has the layout
//! of the headers. The contents of the sections pass through, so a large image takes no memory.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use object::LittleEndian as LE;
use object::pe::{
    IMAGE_DIRECTORY_ENTRY_SECURITY, IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ, ImageDataDirectory,
    ImageDosHeader, ImageFileHeader, ImageNtHeaders32, ImageNtHeaders64, ImageSectionHeader,
};
use object::pod::bytes_of;
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader};

use crate::survey::file;
use crate::tree::Contents;

/// A section to add: its name and its contents.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    name: [u8; 8],
    pub(crate) contents: Contents,
}

impl Section {
    /// A section with a name of at most eight bytes.
    pub(crate) fn new(name: &str, contents: Contents) -> Section {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
        Section { name: bytes, contents }
    }
}

/// A signature of other sections, which is void when one of them changes.
const SIGNATURE: [u8; 8] = *b".pcrsig\0";

/// The sections that systemd's stub reads, beside those that it has itself.
const SECTIONS: [[u8; 8]; 14] = [
    *b".linux\0\0",
    *b".osrel\0\0",
    *b".cmdline",
    *b".initrd\0",
    *b".ucode\0\0",
    *b".splash\0",
    *b".dtb\0\0\0\0",
    *b".dtbauto",
    *b".hwids\0\0",
    *b".efifw\0\0",
    *b".uname\0\0",
    *b".pcrpkey",
    SIGNATURE,
    *b".profile",
];

/// Places in the optional header that are the same for 32 and 64 bits: SizeOfInitializedData, SizeOfImage and
/// CheckSum.
const INITIALIZED: usize = 8;
const IMAGE: usize = 56;
const CHECKSUM: usize = 64;

/// Sections begin at a multiple of this in memory: the size of a page.
const PAGE: u64 = 4096;

/// A program for UEFI.
#[derive(Debug)]
pub(crate) struct Program {
    file: Arc<File>,
    name: String,
    layout: Layout,
}

/// Where its parts are.
#[derive(Debug)]
struct Layout {
    /// Everything in front of the contents of the first section.
    head: Vec<u8>,
    file_header: usize,
    optional_header: usize,
    /// The table of sections, and the section headers in it.
    table: usize,
    sections: Vec<ImageSectionHeader>,
    /// The place of the signature of the whole file in the file, if there is one.
    signature: Option<usize>,
    alignment: (u64, u64),
}

impl Program {
    pub(crate) fn open(file: Arc<File>, name: String) -> Result<Program> {
        let head = file::head(&file).with_context(|| format!("cannot read {name}"))?;
        let layout = Layout::parse(head).with_context(|| format!("{name} is not a program for UEFI"))?;
        Ok(Program { file, name, layout })
    }

    /// Writes the program with these sections behind its own.
    pub(crate) fn with(&self, added: &[Section], out: &mut dyn Write) -> Result<()> {
        self.write(&self.layout.sections, added, out)
            .with_context(|| format!("cannot add sections to {}", self.name))
    }

    /// Writes a unified kernel image, but the section that begins at this byte of the file gets other
    /// contents. Returns whether signatures were left out.
    pub(crate) fn replacing(&self, start: u64, contents: &Contents, out: &mut dyn Write) -> Result<bool> {
        let (added, stub): (Vec<ImageSectionHeader>, Vec<ImageSectionHeader>) =
            self.layout.sections.iter().copied().partition(|section| SECTIONS.contains(&section.name));
        let kept = added.iter().filter(|section| section.name != SIGNATURE);
        let kept: Vec<Section> = kept.map(|section| self.section(section, start, contents)).collect();
        let signed = self.layout.signature.is_some() || kept.len() < added.len();
        self.write(&stub, &kept, out).with_context(|| format!("cannot change a section of {}", self.name))?;
        Ok(signed)
    }

    /// A section as it is, or with other contents if it begins at `start`.
    fn section(&self, header: &ImageSectionHeader, start: u64, contents: &Contents) -> Section {
        let (at, length) = header.pe_file_range();
        let own = Contents::Range(self.file.clone(), at.into(), length.into());
        Section { name: header.name, contents: if u64::from(at) == start { contents.clone() } else { own } }
    }

    fn write(&self, own: &[ImageSectionHeader], added: &[Section], out: &mut dyn Write) -> Result<()> {
        let Layout { alignment: (in_memory, in_file), .. } = self.layout;
        let mut sections = own.to_vec();
        let (mut memory, mut position) = (0, self.layout.head.len() as u64);
        for section in own {
            let size = section.virtual_size.get(LE).max(section.size_of_raw_data.get(LE));
            memory = memory.max(u64::from(section.virtual_address.get(LE)) + u64::from(size));
            let end =
                u64::from(section.pointer_to_raw_data.get(LE)) + u64::from(section.size_of_raw_data.get(LE));
            position = position.max(end);
        }
        let behind = position;
        for section in added {
            let length = section.contents.len();
            position = position.next_multiple_of(in_file);
            memory = memory.next_multiple_of(in_memory.max(PAGE));
            let mut header = ImageSectionHeader { name: section.name, ..ImageSectionHeader::default() };
            let small =
                |number: u64| u32::try_from(number).context("a program for UEFI is smaller than 4 GiB");
            header.virtual_size.set(LE, small(length)?);
            header.virtual_address.set(LE, small(memory)?);
            header.size_of_raw_data.set(LE, small(length.next_multiple_of(in_file))?);
            header.pointer_to_raw_data.set(LE, small(position)?);
            header.characteristics.set(LE, IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ);
            (memory, position) = (memory + length, position + length.next_multiple_of(in_file));
            small(memory.next_multiple_of(in_memory).max(position))?;
            sections.push(header);
        }
        let mut out = BufWriter::with_capacity(256 << 10, out);
        out.write_all(&self.layout.head(&sections, memory.next_multiple_of(in_memory))?)?;
        let mut at = self.layout.head.len() as u64;
        let stub = Contents::Range(self.file.clone(), at, behind - at);
        copy(&stub, &mut out).context("its sections")?;
        at = behind;
        for (section, header) in added.iter().zip(&sections[own.len()..]) {
            zeros(&mut out, &mut at, header.pointer_to_raw_data.get(LE).into())?;
            copy(&section.contents, &mut out)
                .with_context(|| format!("the section {}", section.name.escape_ascii()))?;
            at += section.contents.len();
        }
        zeros(&mut out, &mut at, position)?;
        Ok(out.flush()?)
    }
}

impl Layout {
    fn parse(head: Vec<u8>) -> Result<Layout> {
        let dos = ImageDosHeader::parse(&*head).map_err(strange)?;
        let at = u64::from(dos.nt_headers_offset());
        if let Ok(layout) = Layout::of::<ImageNtHeaders64>(&head, at) {
            return Ok(layout);
        }
        Layout::of::<ImageNtHeaders32>(&head, at)
    }

    fn of<Pe: ImageNtHeaders>(head: &[u8], at: u64) -> Result<Layout> {
        let mut table = at;
        let (headers, directories) = Pe::parse(head, &mut table).map_err(strange)?;
        let sections = headers.sections(head, table).map_err(strange)?;
        let sections: Vec<ImageSectionHeader> = sections.iter().copied().collect();
        let file_header = usize::try_from(at)? + 4;
        let optional_header = file_header + size_of::<ImageFileHeader>();
        let directory = |entry: usize| {
            let end = usize::try_from(table).ok()?;
            end.checked_sub((directories.len() - entry) * size_of::<ImageDataDirectory>())
        };
        let signature = directories.get(IMAGE_DIRECTORY_ENTRY_SECURITY);
        let signature = signature.filter(|signature| signature.size.get(LE) > 0);
        let signature = signature.and_then(|_| directory(IMAGE_DIRECTORY_ENTRY_SECURITY));
        let starts =
            sections.iter().map(|section| section.pointer_to_raw_data.get(LE)).filter(|start| *start > 0);
        let first = usize::try_from(starts.min().context("it has no sections")?)?;
        let optional = headers.optional_header();
        let alignment = (optional.section_alignment().into(), u64::from(optional.file_alignment()));
        ensure!(
            u64::is_power_of_two(alignment.0) && u64::is_power_of_two(alignment.1),
            "corrupt headers: an alignment is no power of two"
        );
        let head =
            head.get(..first).context("corrupt headers: no contents in front of the table of sections")?;
        let head = head.to_vec();
        Ok(Layout {
            head,
            file_header,
            optional_header,
            table: usize::try_from(table)?,
            sections,
            signature,
            alignment,
        })
    }

    /// Everything in front of the contents, for other sections and another size in memory.
    fn head(&self, sections: &[ImageSectionHeader], memory: u64) -> Result<Vec<u8>> {
        let mut head = self.head.clone();
        let bytes: Vec<u8> = sections.iter().flat_map(|section| bytes_of(section).to_vec()).collect();
        let end = self.table + bytes.len();
        let old = self.table + self.sections.len() * size_of::<ImageSectionHeader>();
        ensure!(end <= head.len(), "its headers have no room for {} sections", sections.len());
        head.get_mut(self.table..old.max(end)).context("corrupt headers")?.fill(0);
        head[self.table..end].copy_from_slice(&bytes);
        let mut put = |at: usize, bytes: &[u8]| -> Result<()> {
            head.get_mut(at..at + bytes.len()).context("corrupt headers")?.copy_from_slice(bytes);
            Ok(())
        };
        // NumberOfSections follows the machine.
        put(self.file_header + 2, &u16::try_from(sections.len())?.to_le_bytes())?;
        let is_data = |section: &&ImageSectionHeader| {
            section.characteristics.get(LE) & IMAGE_SCN_CNT_INITIALIZED_DATA != 0
        };
        let data = sections.iter().filter(is_data).map(|section| u64::from(section.size_of_raw_data.get(LE)));
        put(self.optional_header + INITIALIZED, &u32::try_from(data.sum::<u64>())?.to_le_bytes())?;
        put(self.optional_header + IMAGE, &u32::try_from(memory)?.to_le_bytes())?;
        put(self.optional_header + CHECKSUM, &[0; 4])?;
        if let Some(at) = self.signature {
            put(at, &[0; size_of::<ImageDataDirectory>()])?;
        }
        Ok(head)
    }
}

/// A program in memory with a section `.initrd` behind its own.
#[doc(hidden)]
pub fn with_initrd(bytes: &[u8], contents: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    let mut out = Vec::new();
    let section = Section::new(".initrd", Contents::Bytes(contents.into()));
    Program::open(Arc::new(file), "it".into())?.with(&[section], &mut out)?;
    Ok(out)
}

fn strange(error: object::read::Error) -> anyhow::Error {
    anyhow::anyhow!("corrupt headers: {error}")
}

/// Writes zeros up to an offset.
fn zeros(out: &mut impl Write, at: &mut u64, until: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(until.saturating_sub(*at)), out)?;
    *at = until;
    Ok(())
}

fn copy(contents: &Contents, out: &mut impl Write) -> Result<()> {
    let length = contents.len();
    let copied = io::copy(&mut contents.open()?.take(length), out)?;
    ensure!(copied == length, "truncated: {} bytes are missing", length - copied);
    Ok(())
}
