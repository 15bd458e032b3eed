//! The kernel to boot: the newest one that runs the programs of the image, and what it is built for.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;
use repot::facts::program::Architecture;
use tempfile::NamedTempFile;

use crate::architecture::{self, Known};
use crate::survey::file::in_zboot;

/// Bytes of a kernel that are read: enough for all headers.
const HEAD: usize = 0x1_0100;

/// The kernel that is given, else that of `REPOT_KERNEL`, else the newest one that runs programs of `image`.
/// With its architecture, if its format tells.
pub(super) fn find(
    given: Option<&Path>,
    image: Option<Architecture>,
) -> Result<(PathBuf, Option<&'static Known>)> {
    if let Some(path) =
        given.map(Path::to_path_buf).or_else(|| env::var_os("REPOT_KERNEL").map(PathBuf::from))
    {
        super::is_file("kernel", &path)?;
        let known = of_file(&path);
        if let (Some(known), Some(image)) = (known, image) {
            ensure!(
                known.runs(image),
                "the image is for {}, but the kernel {} is for {}: use --kernel FILE",
                architecture::name(image),
                path.display(),
                known.name
            );
        }
        return Ok((path, known));
    }
    let readable = |path: &PathBuf| File::open(path).is_ok_and(|file| is_file(&file));
    let mut others = Vec::new();
    for path in candidates().into_iter().filter(readable) {
        let known = of_file(&path);
        match (known, image.or_else(|| architecture::own().map(|own| own.elf))) {
            (Some(known), Some(image)) if !known.runs(image) => others.push(known.name),
            _ => return Ok((path, known)),
        }
    }
    let image = image.map_or_else(String::new, |image| format!(" for {}", architecture::name(image)));
    others.sort_unstable();
    others.dedup();
    let others = if others.is_empty() { String::new() } else { format!(", only for {}", others.join(", ")) };
    Err(anyhow::anyhow!(
        "found no readable kernel{image} in target/kernels, /boot or /usr/lib/modules{others}: use --kernel FILE. On \
         Debian, `apt install linux-image-cloud-amd64` puts one in /boot. To get one without installing it, run `apt \
         download` for the package that `apt-cache depends linux-image-cloud-amd64` names, then `dpkg -x FILE.deb \
         DIR`, and use DIR/boot/vmlinuz-*"
    ))
}

/// The kernel in an EFI program that unpacks it (zboot), as a file for QEMU, which knows those of gzip only.
pub(super) fn unpacked(path: &Path) -> Result<Option<NamedTempFile>> {
    let cannot = || format!("cannot unpack {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let Some(kernel) = in_zboot(&Arc::new(file)).with_context(cannot)? else { return Ok(None) };
    let mut copy = NamedTempFile::new().with_context(cannot)?;
    (&*kernel).rewind().and_then(|()| io::copy(&mut &*kernel, &mut copy)).with_context(cannot)?;
    Ok(Some(copy))
}

/// The architecture of a kernel file; `None` if its format does not tell.
pub(in crate::commands) fn of_file(path: &Path) -> Option<&'static Known> {
    of(&start(path)?)
}

/// The size of a page of a kernel file; `None` if its format does not tell.
pub(super) fn page(path: &Path) -> Option<u64> {
    page_of(&start(path)?)
}

/// The first bytes of a kernel file, decompressed.
fn start(path: &Path) -> Option<Vec<u8>> {
    let start = head(File::open(path).ok()?)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        // Image.gz: of arm64 and riscv, without a header of its own.
        return head(MultiGzDecoder::new(&*fs::read(path).ok()?));
    }
    Some(start)
}

fn head(from: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(HEAD as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The size of a page, from the flags of an arm64 image (Documentation/arch/arm64/booting.rst).
fn page_of(head: &[u8]) -> Option<u64> {
    if of(head)?.name != "aarch64" || !head.get(0x38..)?.starts_with(b"ARM\x64") {
        return None;
    }
    match head[0x18] >> 1 & 3 {
        1 => Some(4 << 10),
        2 => Some(16 << 10),
        3 => Some(64 << 10),
        _ => None,
    }
}

/// The architecture of a kernel that begins with these bytes.
fn of(head: &[u8]) -> Option<&'static Known> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let word = |offset: usize| Some(u16::from_le_bytes(head.get(offset..offset + 2)?.try_into().ok()?));
    // Documentation/arch/x86/boot.rst: bit 0 of xloadflags.
    if at(0x202, b"HdrS") {
        let wide = word(0x236)? & 1 == 1;
        return architecture::named(if wide { "x86_64" } else { "i686" });
    }
    // The images of arm64 and riscv; the zImage of arm; what s390 puts behind its loader.
    let magics: [(usize, &[u8], &str); 4] = [
        (0x38, b"ARM\x64", "aarch64"),
        (0x38, b"RSC\x05", "riscv64"),
        (0x24, &[0x18, 0x28, 0x6f, 0x01], "armv7"),
        (0x1_0008, b"S390EP", "s390x"),
    ];
    if let Some((.., name)) = magics.iter().find(|(offset, magic, _)| at(*offset, magic)) {
        return architecture::named(name);
    }
    if at(0, b"\x7fELF") {
        let program = crate::programs::of_head(head, &mut false).ok()?;
        return architecture::of(program.architecture?);
    }
    // An EFI program, such as a zboot image: the machine of the PE header.
    let header = usize::from(word(0x3c).filter(|_| at(0, b"MZ"))?);
    if !at(header, b"PE\0\0") {
        return None;
    }
    architecture::named(match word(header + 4)? {
        0x8664 => "x86_64",
        0x014c => "i686",
        0xaa64 => "aarch64",
        0x01c2 | 0x01c4 => "armv7",
        0x5064 => "riscv64",
        0x6264 => "loongarch64",
        _ => return None,
    })
}

fn candidates() -> Vec<PathBuf> {
    let sorted = |directory: &Path, below: &str, prefix: &str| {
        let mut paths: Vec<_> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join(below))
            .collect();
        paths.sort_by_cached_key(|path| std::cmp::Reverse(version(&path.to_string_lossy())));
        paths
    };
    let kept = Path::new("target/kernels");
    let mut paths = sorted(kept, "vmlinuz", "");
    for known in architecture::ALL {
        paths.extend(sorted(&kept.join(known.name), "vmlinuz", ""));
    }
    // join("") leaves a slash at the end; collecting the components removes it.
    let boot = |prefix| sorted(Path::new("/boot"), "", prefix).into_iter();
    paths.extend(boot("vmlinuz").chain(boot("vmlinux")).map(|path| path.components().collect()));
    paths.extend(sorted(Path::new("/usr/lib/modules"), "vmlinuz", ""));
    paths.push(PathBuf::from("/vmlinuz"));
    paths
}

/// The numbers in a name, for sorting: 6.12 is newer than 6.9.
fn version(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn is_file(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_kernels_have_larger_numbers() {
        assert!(version("/boot/vmlinuz-6.12.3-amd64") > version("/boot/vmlinuz-6.9.1-amd64"));
        assert!(version("target/kernels/7/vmlinuz") > version("target/kernels/5.10/vmlinuz"));
    }

    #[test]
    fn kernels_are_recognized_by_their_headers() {
        let with = |parts: &[(usize, &[u8])]| {
            let mut bytes = vec![0; HEAD];
            for (at, part) in parts {
                bytes[*at..at + part.len()].copy_from_slice(part);
            }
            of(&bytes).map(|known| known.name)
        };
        assert_eq!(with(&[(0, b"MZ"), (0x202, b"HdrS"), (0x236, &[0x3f])]), Some("x86_64"));
        assert_eq!(with(&[(0x202, b"HdrS"), (0x236, &[0x2c])]), Some("i686"));
        assert_eq!(with(&[(0, b"MZ"), (0x38, b"ARM\x64")]), Some("aarch64"));
        assert_eq!(with(&[(0x38, b"RSC\x05")]), Some("riscv64"));
        assert_eq!(with(&[(0x24, &[0x18, 0x28, 0x6f, 1])]), Some("armv7"));
        assert_eq!(with(&[(0x1_0008, b"S390EP")]), Some("s390x"));
        assert_eq!(with(&[(0, b"\x7fELF\x02\x01\x01"), (18, &[21])]), Some("ppc64le"));
        assert_eq!(with(&[(0, b"MZ"), (0x3c, &[0x80]), (0x80, b"PE\0\0\x64\x62")]), Some("loongarch64"));
        assert_eq!(with(&[(0, b"MZ")]), None);
    }

    #[test]
    fn an_image_of_arm64_tells_the_size_of_a_page() {
        let with = |magic: &[u8], flags| {
            let mut bytes = vec![0; HEAD];
            bytes[0x38..0x3c].copy_from_slice(magic);
            bytes[0x18] = flags;
            page_of(&bytes)
        };
        // As Debian's cloud-arm64 and arm64-16k have them, with the bit that says where in memory they may
        // lie.
        assert_eq!(with(b"ARM\x64", 0x0a), Some(4096));
        assert_eq!(with(b"ARM\x64", 0x0c), Some(16 << 10));
        assert_eq!(with(b"ARM\x64", 0x0e), Some(64 << 10));
        assert_eq!(with(b"ARM\x64", 0x08), None);
        assert_eq!(with(b"RSC\x05", 0x0a), None);
    }
}
