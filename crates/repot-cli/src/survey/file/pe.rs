//! Unified kernel images: a PE program for UEFI, whose sections are a kernel, its command line and an
//! initramfs (uapi-group.org/specifications/specs/unified_kernel_image).

use anyhow::{Result, bail, ensure};
use object::pe::{ImageDosHeader, ImageNtHeaders32, ImageNtHeaders64};
use object::read::pe::{ImageNtHeaders, SectionTable};

use super::{Part, Parts, UKI};

/// The pieces of a program for UEFI; `None` for a kernel without an initramfs.
pub(super) fn parts(head: &[u8], bytes: u64) -> Result<Option<Parts>> {
    let Ok(dos) = ImageDosHeader::parse(head) else { return Ok(None) };
    let at = u64::from(dos.nt_headers_offset());
    let sections = sections::<ImageNtHeaders64>(head, at).or_else(|| sections::<ImageNtHeaders32>(head, at));
    let Some(sections) = sections else { return Ok(None) };
    let mut parts = Parts { format: UKI, ..Parts::default() };
    let (mut first, mut profiles) = (Vec::new(), 0);
    for section in sections.iter() {
        // The size in memory is exact; that in the file is rounded up.
        let (start, length) = section.pe_file_range();
        let name = section.raw_name();
        let shown = name.escape_ascii().to_string();
        let start = u64::from(start);
        let end = start + u64::from(length);
        ensure!(end <= bytes, "truncated: the section {shown} ends at byte {end} of {bytes}");
        let part = Part { name: format!("section {shown}"), start, end };
        match name {
            // What follows the second one is for another profile than the default.
            b".profile" => profiles += 1,
            _ if profiles > 1 => break,
            b".ucode" => first.push(part),
            b".initrd" => parts.image.push(part),
            b".linux" => parts.kernel = Some(part),
            b".cmdline" => parts.cmdline = Some(part),
            _ => {}
        }
    }
    // systemd's stub puts microcode in front.
    parts.image.splice(..0, first);
    if parts.image.is_empty() && parts.kernel.is_some() {
        bail!("this is a unified kernel image without an initramfs: it has no section .initrd");
    }
    Ok((!parts.image.is_empty()).then_some(parts))
}

fn sections<Pe: ImageNtHeaders>(head: &[u8], at: u64) -> Option<SectionTable<'_>> {
    let mut at = at;
    let (headers, _) = Pe::parse(head, &mut at).ok()?;
    headers.sections(head, at).ok()
}
