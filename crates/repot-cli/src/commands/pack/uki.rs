//! `pack --uki`: the image becomes a section of a unified kernel image, beside a kernel.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::architecture::Known;
use crate::cli::Pack;
use crate::commands::boot::kernel_architecture;
use crate::output::{Counted, Output};
use crate::tree::{Contents, Kind, Tree};
use crate::uki::{Program, Section};

/// Where systemd installs its stubs.
const STUBS: &str = "/usr/lib/systemd/boot/efi";

/// A unified kernel image that lacks only its initramfs.
pub(super) struct Uki {
    output: Output,
    stub: Program,
    sections: Vec<Section>,
    /// The initramfs, until the end in a file of its own.
    image: File,
}

/// Prepares a unified kernel image. The initramfs is written into the output that is returned.
pub(super) fn prepare(args: &Pack, output: Output, tree: &Tree) -> Result<(Output, Option<Uki>)> {
    let Some(kernel) = args.uki.kernel.as_ref().filter(|_| args.uki.uki) else { return Ok((output, None)) };
    let shown = kernel.display().to_string();
    let file = Arc::new(File::open(kernel).with_context(|| format!("cannot open {shown}"))?);
    let bytes = file.metadata().with_context(|| format!("cannot stat {shown}"))?.len();
    let mut magic = [0; 2];
    ensure!(
        file.read_exact_at(&mut magic, 0).is_ok() && &magic == b"MZ",
        "{shown} has no EFI stub (CONFIG_EFI_STUB), by which systemd's stub starts a kernel"
    );
    let known = kernel_architecture(kernel);
    let path = args.uki.stub.clone().map_or_else(|| stub(known), Ok)?;
    let stub = Arc::new(File::open(&path).with_context(|| cannot_open(&path))?);
    let mut sections = Vec::new();
    let release =
        [&b"etc/os-release"[..], b"usr/lib/os-release"].into_iter().find_map(|path| tree.resolve(path));
    if let Some(Kind::File(contents)) = release.map(|id| &tree.inode(id).kind) {
        sections.push(Section::new(".osrel", contents.clone()));
    }
    if let Some(line) = &args.uki.cmdline {
        sections.push(Section::new(".cmdline", Contents::Bytes(line.as_bytes().into())));
    }
    if let Some(name) = release_of(&file) {
        sections.push(Section::new(".uname", Contents::Bytes(name.into())));
    }
    sections.push(Section::new(".linux", Contents::Range(file, 0, bytes)));
    let (scratch, image) = output.scratch()?;
    let stub = Program::open(stub, path.display().to_string())?;
    Ok((scratch, Some(Uki { output, stub, sections, image })))
}

impl Uki {
    /// Writes the file, and returns its length.
    pub(super) fn write(mut self) -> Result<u64> {
        let bytes = self.image.metadata().context("cannot stat a temporary file")?.len();
        let initramfs = Contents::Range(Arc::new(self.image), 0, bytes);
        // Old stubs unpack the kernel where it lies, over what follows.
        self.sections.insert(self.sections.len() - 1, Section::new(".initrd", initramfs));
        let mut counted = Counted { out: self.output, bytes: 0 };
        self.stub.with(&self.sections, &mut counted)?;
        counted.out.commit()?;
        Ok(counted.bytes)
    }
}

/// The stub for a kernel.
fn stub(known: Option<&Known>) -> Result<PathBuf> {
    let known = known.context("the architecture of the kernel is not known: use --stub FILE")?;
    let name = match known.name {
        "x86_64" => "x64",
        "i686" => "ia32",
        "aarch64" => "aa64",
        "armv7" => "arm",
        "riscv64" => "riscv64",
        "loongarch64" => "loongarch64",
        other => anyhow::bail!("UEFI does not run on {other}"),
    };
    Ok(Path::new(STUBS).join(format!("linux{name}.efi.stub")))
}

fn cannot_open(path: &Path) -> String {
    format!(
        "cannot open systemd's stub {} (Debian: apt install systemd-boot-efi; or --stub FILE)",
        path.display()
    )
}

/// What `uname -r` prints in an x86 kernel, from its header (Documentation/arch/x86/boot.rst,
/// `kernel_version`).
fn release_of(file: &File) -> Option<Vec<u8>> {
    let mut header = [0; 0x12];
    file.read_exact_at(&mut header, 0x1fe).ok()?;
    if !header[4..].starts_with(b"HdrS") {
        return None;
    }
    let at = u64::from(u16::from_le_bytes([header[0x10], header[0x11]]));
    let mut text = vec![0; 256];
    let got = file.read_at(&mut text, at + 0x200).ok()?;
    text.truncate(got);
    let end = text.iter().position(|byte| matches!(byte, b' ' | 0))?;
    text.truncate(end);
    (at > 0 && !text.is_empty()).then_some(text)
}
