//! Images of scenarios whose root is a payload.

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use repot::display::Hex;
use repot::payload::index::Index;
use repot_cli::cli::Cli;
use repot_cli::newc::{Item, Reader};
use repot_snapshot::Snapshot;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the tool adds or changes, besides the attribute manifest.
const ADDED: [&[u8]; 3] = [b".repot-begin", b".repot-end", b"init"];

/// Packs a directory.
pub(crate) fn pack(root: &Path, init: &Path, modules: &[PathBuf], archive: &Path) -> Result<()> {
    let plain = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let (root, init, archive) = (plain(root)?, plain(init)?, plain(archive)?);
    let mut words =
        vec!["repot", "pack", &root, "--payload", "--init", &init, "-o", &archive, "--level", "3"];
    let modules = modules.iter().map(|folder| plain(folder)).collect::<Result<Vec<_>>>()?;
    modules.iter().for_each(|folder| words.extend(["--modules", folder]));
    repot_cli::run(&Cli::try_parse_from(words)?)
}

/// The digest of the payload of an image.
pub(crate) fn digest(archive: &Path) -> Result<String> {
    let bytes = std::fs::read(archive)?;
    let mut reader = Reader::new(&bytes[..], 0);
    while let Some(item) = reader.next_item()? {
        if let Item::Member(header) = item
            && header.name == b".repot-payload/index"
        {
            let mut text = Vec::new();
            reader.read_to_end(&mut text)?;
            let index = Index::parse(&text).map_err(|flaw| anyhow!("{flaw}"))?;
            return Ok(format!("sha256:{}", Hex(&repot_cli::payload::digest(&index))));
        }
    }
    Err(anyhow!("no index"))
}

/// Makes the index of an image promise fewer pages, in a number of the same length.
pub(crate) fn understate(archive: &Path) -> Result<()> {
    let mut bytes = std::fs::read(archive)?;
    let find = |key: &[u8]| bytes.windows(key.len()).position(|window| window == key);
    let (start, end) = find(b"format=2\nentries=").zip(find(b"\nxxh64=")).context("no index")?;
    let place = start..end + "\nxxh64=0123456789abcdef\n".len();
    let mut index = Index::parse(&bytes[place.clone()]).map_err(|flaw| anyhow!("{flaw}"))?;
    for number in &mut index.pages.numbers {
        *number = 10u64.pow(number.ilog10());
    }
    for bytes in [&mut index.pages.zstd, &mut index.pages.lz4] {
        *bytes = 10u64.pow(bytes.ilog10());
    }
    let text = index.text();
    ensure!(text.len() == place.len(), "the index has another length");
    bytes[place].copy_from_slice(text.as_bytes());
    std::fs::write(archive, bytes).context("cannot write it")
}

/// The entries that are compared.
pub(crate) fn compared(tree: &Snapshot) -> Snapshot {
    // The manifest is outside of the payload, where times are whole seconds.
    let known = |path: &[u8]| !ADDED.contains(&path) && !repot::manifest::is_name(path);
    tree.iter().filter(|(path, _)| known(path)).map(|(path, entry)| (path.clone(), entry.clone())).collect()
}
