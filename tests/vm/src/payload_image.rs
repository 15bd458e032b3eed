//! Images of scenarios whose root is a payload: what only that can carry, and the packing by the tool itself.

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use repot::payload::index::Index;
use repot_cli::cli::Cli;
use repot_probe::account::Entry;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use std::path::Path;

/// What the tool adds to the tree, or makes anew; the last is outside, where times are whole seconds and attributes are set by
/// another way.
const ADDED: [&str; 4] = [".repot-begin", ".repot-end", "init", ".repot-xattrs"];

/// Attributes that a cpio archive has no room for.
pub(crate) fn dress(root: &Path) -> Result<()> {
    std::fs::write(root.join("etc/capable"), "a program\n").context("etc/capable")?;
    std::fs::create_dir(root.join("etc/listed")).context("etc/listed")?;
    let posix_acl = |first: &str| {
        format!("02000000{first}ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff")
    };
    let (of_file, of_directory) = (posix_acl("01000600"), posix_acl("01000700"));
    let attributes = [
        ("etc/capable", "security.capability", "0100000200200000000000000000000000000000"),
        ("etc/capable", "trusted.overlay.opaque", "79"),
        ("etc/capable", "system.posix_acl_access", &of_file),
        ("etc/listed", "system.posix_acl_default", &of_directory),
        ("etc/listed", "trusted.empty", ""),
        ("specials/dangling", "trusted.of.a.symlink", "00ff"),
        ("specials/fifo", "trusted.of.a.fifo", "2a"),
        ("links/z-file", "trusted.of.several.names", "2b"),
    ];
    for (path, name, digits) in attributes {
        let value: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16))
            .collect::<Result<_, _>>()?;
        lsetxattr(root.join(path), name, &value, XattrFlags::empty())
            .with_context(|| format!("{name} of {path}"))?;
    }
    // The tool would add it.
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, root.join("dev/kmsg"), FileType::CharacterDevice, mode, makedev(1, 11)).context("dev/kmsg")
}

/// Packs a root.
pub(crate) fn pack(root: &Path, init: &Path, archive: &Path) -> Result<()> {
    let plain = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    let (root, init, archive) = (plain(root)?, plain(init)?, plain(archive)?);
    let words = ["repot", "pack", &root, "--payload", "--init", &init, "-o", &archive, "--level", "3"];
    repot_cli::run(&Cli::try_parse_from(words)?)
}

/// Makes the index of an image promise fewer pages, in as many digits.
pub(crate) fn understate(archive: &Path) -> Result<()> {
    let mut bytes = std::fs::read(archive)?;
    let find = |key: &[u8]| bytes.windows(key.len()).position(|window| window == key);
    let (start, end) = find(b"format=1\nentries=").zip(find(b"\nxxh64=")).context("no index")?;
    let place = start..end + "\nxxh64=0123456789abcdef\n".len();
    let mut index = Index::parse(&bytes[place.clone()]).map_err(|flaw| anyhow!("{flaw}"))?;
    index.pages = 10u64.pow(index.pages.ilog10());
    let text = index.text();
    ensure!(text.len() == place.len(), "the index has another length");
    bytes[place].copy_from_slice(text.as_bytes());
    std::fs::write(archive, bytes).context("cannot write it")
}

/// The entries that are compared, without the flags of the file system that the tree was packed from.
pub(crate) fn compared(entries: &[Entry]) -> Vec<Entry> {
    let known = |entry: &&Entry| !ADDED.contains(&entry.path.as_str());
    entries.iter().filter(known).map(|entry| Entry { flags: 0, ..entry.clone() }).collect()
}
