//! `--firmware`: UEFI firmware loads a unified kernel image as it is, and the stub in it starts the kernel.
//! The command line is that of the image.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{MEMORY, acceleration, exit, guest, machine, memory, watch};
use crate::cli::Boot;
use crate::report::size;
use crate::survey::Survey;
use crate::survey::file::{ImageFile, UKI};

/// Bytes that the firmware takes beside the image.
const OWN: u64 = 64 << 20;

/// Where Debian, Fedora, Arch and SUSE install the code of the firmware for QEMU.
const X86_64: [&str; 5] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
    "/usr/share/qemu/ovmf-x86_64-code.bin",
];
/// The same for aarch64.
const AARCH64: [&str; 3] = [
    "/usr/share/AAVMF/AAVMF_CODE.fd",
    "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
    "/usr/share/qemu/aavmf-aarch64-code.bin",
];

/// Boots the image.
pub(super) fn run(
    file: &ImageFile,
    survey: Option<&Survey>,
    given: Option<&Path>,
    args: &Boot,
) -> Result<()> {
    let parts = file.parts().filter(|(_, parts)| parts.format == UKI);
    parts.with_context(|| {
        format!("{}: --firmware boots {UKI}, which `repot pack --uki` writes", args.image.display())
    })?;
    let machine = machine(args.machine, None, survey.and_then(Survey::architecture))?;
    ensure!(!machine.is_microvm(), "--firmware needs another machine than microvm, which has no UEFI");
    let code = code(given, machine.known.name)?;
    let page = machine.known.pages[0];
    let bytes = args.image.metadata().with_context(|| args.image.display().to_string())?.len();
    // The firmware holds the whole file while the stub copies the initramfs out of it.
    let need = || survey.map_or(MEMORY, |survey| memory(survey.need(file.bytes(), page).tmpfs + bytes + OWN));
    let memory = args.memory.unwrap_or_else(need);
    let acceleration = acceleration(args.no_kvm, &machine);
    let (mut command, ends) = guest(&machine, &acceleration, memory, args);
    // In QEMU, a comma in a path is written twice.
    let drive = code.display().to_string().replace(',', ",,");
    command.args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={drive}")]);
    command.arg("-kernel").arg(&args.image);
    let exit = exit::Port::new(&machine)?;
    command.args(exit.arguments()).args(&args.qemu);
    let (image, code, how) = (args.image.display(), code.display(), acceleration.description);
    say!("booting {image} by {code} with {}, {how}; {ends}", size::mib(memory));
    watch::run(command, &machine, &exit, args)
}

/// The firmware that is given, or that of this machine.
fn code(given: Option<&Path>, name: &str) -> Result<PathBuf> {
    if let Some(path) = given {
        super::is_file("firmware", path)?;
        return Ok(path.to_path_buf());
    }
    let (places, package) = match name {
        "x86_64" => (&X86_64[..], "ovmf"),
        "aarch64" => (&AARCH64[..], "qemu-efi-aarch64"),
        _ => (&[][..], ""),
    };
    let found = places.iter().map(Path::new).find(|path| path.is_file());
    let cure = if places.is_empty() { String::new() } else { format!(" (Debian: apt install {package})") };
    let found = found.with_context(|| {
        format!("UEFI firmware for {name} is not installed{cure}: install it, or use --firmware=FILE")
    });
    found.map(Path::to_path_buf)
}
