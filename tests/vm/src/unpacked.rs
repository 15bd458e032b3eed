//! What the kernel unpacks from an image, compared with what `repot extract` writes and `repot ls` lists.
//!
//! The probe is in an archive in front of the image, and runs instead of the image's own `/init`, so that no
//! program of the image changes its tree. Behind the image it would be lost: the decompressor of LZ4 stops at
//! the padding.

mod listed;
mod odd;

use crate::{Boot, LIMIT, SHOWN, last_lines, programs, with_second_try};
use anyhow::{Context, Result, bail, ensure};
use repot_cli::newc::{Header, Writer};
use repot_harness::kernels;
use repot_harness::qemu::Machine;
use repot_harness::tool::Tool;
use repot_harness::{debian, place};
use repot_probe::account::Line;
use repot_snapshot::{Atime, Holes, Rules, Snapshot, difference, snapshot};
use std::fs::{self, File};
use std::path::Path;

/// The kernel that unpacks.
pub const KERNEL: &str = "6.12";

/// The probe's name in the root of the guest.
const PROBE: &str = "repot-probe";

/// The built-in archive of a kernel has these entries (usr/default_cpio_list).
const BUILT_IN: [&str; 3] = ["dev", "dev/console", "root"];

/// A small image with odd entries.
pub(crate) fn boots() -> Vec<Boot> {
    let run = Box::new(|| {
        debian::need(&[debian::QEMU])?;
        debian::need_root("extracting with owners and devices")?;
        odd(&Tool::at(programs::tool()?.to_owned())).map(drop)
    });
    vec![Boot { name: format!("unpacked/{KERNEL}-odd"), long: false, run }]
}

/// Compares an image with odd entries, and returns their number.
///
/// # Errors
/// As [`compare`].
pub fn odd(tool: &Tool) -> Result<usize> {
    let image = place::fresh("boots/unpacked")?.join("image");
    fs::write(&image, odd::image()?)?;
    let entries = compare(tool, "odd", &image)?;
    ensure!(entries > odd::AT_LEAST, "{entries} entries are too few");
    Ok(entries)
}

/// Compares what the kernel unpacks with what the tool extracts and lists, and returns the number of entries.
///
/// # Errors
/// If the guest cannot be booted. The message has the first differences if there are any.
pub fn compare(tool: &Tool, name: &str, image: &Path) -> Result<usize> {
    let mut kernel = by_kernel(name, image)?;
    let folder = place::fresh(&format!("boots/unpacked-{name}.extracted"))?;
    let to = folder.join("tree");
    tool.run(&folder, &["extract".as_ref(), image.as_os_str(), "-C".as_ref(), to.as_os_str()])?;
    let mut ours = snapshot(File::open(&to)?)?;
    fs::remove_dir_all(&folder).context("cannot remove the extracted tree")?;
    let listed = listed::effective(
        &tool.run(Path::new("."), &["ls".as_ref(), "--json".as_ref(), image.as_os_str()])?,
    )?;
    kernel.remove(PROBE.as_bytes());
    for built_in in BUILT_IN {
        if !ours.contains_key(built_in.as_bytes()) {
            kernel.remove(built_in.as_bytes());
        }
    }
    // Without an entry for it, the root is that of the machine.
    if !listed.contains_key(&b""[..]) {
        kernel.remove(&b""[..]);
        ours.remove(&b""[..]);
    }
    // File systems have other defaults of inode flags.
    for entry in kernel.values_mut().chain(ours.values_mut()) {
        entry.flags = 0;
    }
    let rules = Rules { atime: Atime::Ignored, holes: Holes::Ignored, ..Rules::EXACT };
    let mut differs: Vec<String> =
        difference(&kernel, &ours, rules).lines().map(|line| format!("extract: {line}")).collect();
    differs.extend(listed::differences(&kernel, &listed));
    if differs.is_empty() {
        return Ok(kernel.len());
    }
    let more = differs.len().saturating_sub(SHOWN);
    differs.truncate(SHOWN);
    bail!("{}{}", differs.join("\n"), if more > 0 { format!("\nand {more} more") } else { String::new() })
}

/// The tree that the kernel unpacks from an image.
fn by_kernel(name: &str, image: &Path) -> Result<Snapshot> {
    let folder = place::fresh(&format!("boots/runs/unpacked-{name}"))?;
    let initrd = folder.join("initrd");
    let probe = fs::read(programs::probe()?)?;
    let mut writer = Writer::new(Vec::new());
    let header = Header { name: PROBE.into(), mode: 0o100_755, nlink: 1, ..Header::default() };
    writer.append(&header, &probe)?;
    let mut bytes = writer.finish()?;
    bytes.extend(fs::read(image).with_context(|| format!("cannot read {}", image.display()))?);
    fs::write(&initrd, bytes)?;
    let kernel = kernels::kernel(KERNEL)?;
    let machine = Machine {
        kernel: &kernel,
        initrd: &initrd,
        append: &format!("rdinit=/{PROBE}"),
        memory_mib: 2048,
        cpus: 1,
        limit: LIMIT,
        stays: None,
        memory: None,
        folder: &folder,
    };
    let run = with_second_try(|| machine.run())?;
    fs::remove_file(&initrd)?;
    match run.report.lines().next_back().map(serde_json::from_str) {
        Some(Ok(Line::After(account))) => Ok(account.tree),
        _ => bail!("the guest of {name} reports nothing: {}", last_lines(&run.console)),
    }
}
