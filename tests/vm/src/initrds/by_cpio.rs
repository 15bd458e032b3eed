//! What GNU cpio reads of an image, compared with what the tool lists and extracts.

use super::Made;
use anyhow::{Context, Result};
use repot_harness::command::read;
use repot_harness::place;
use repot_snapshot::{Atime, Holes, Kind, Rules, difference, snapshot};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// The number of entries, or what is not the same.
pub(super) fn compare(tool: &Path, made: &Made) -> Result<std::result::Result<usize, String>> {
    let folder = place::fresh("initrds/compare")?;
    let shell = |line: &str| {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("set -o pipefail; {line}")).current_dir(&folder);
        read(shell.env("IMAGE", &made.image).env("REPOT", tool)).with_context(|| made.name.clone())
    };
    let image = fs::read(&made.image)?;
    let parts = split(&image, made.decompressor)?;
    let mut theirs = String::new();
    fs::create_dir(folder.join("theirs"))?;
    for (number, (part, decompressor)) in parts.iter().enumerate() {
        fs::write(folder.join(format!("part{number}")), part)?;
        theirs += &shell(&format!("{decompressor} < part{number} | cpio -t --quiet"))?;
        theirs.push('\n');
        shell(&format!("cd theirs && umask 0 && {decompressor} < ../part{number} | cpio -idmu --quiet"))?;
    }
    let ours = shell("$REPOT ls $IMAGE")?;
    if let Some((left, right)) = theirs.lines().zip(ours.lines()).find(|(left, right)| left != right) {
        return Ok(Err(format!("ls: {right} instead of {left}")));
    }
    if theirs.lines().count() != ours.lines().count() {
        return Ok(Err("ls: another number of names".into()));
    }
    shell("$REPOT extract $IMAGE -C ours")?;
    let of = |name: &str| -> Result<_> { Ok(snapshot(File::open(folder.join(name))?)?) };
    let (mut theirs, ours) = (of("theirs")?, of("ours")?);
    for (path, entry) in &mut theirs {
        // cpio sets the times of links not at all, and those of directories before it fills them.
        let unset = matches!(entry.kind, Kind::Symlink | Kind::Dir);
        if let Some(other) = ours.get(path).filter(|_| unset) {
            entry.mtime = other.mtime;
        }
    }
    let rules = Rules { atime: Atime::Ignored, holes: Holes::Ignored, ..Rules::EXACT };
    let differs = difference(&theirs, &ours, rules);
    fs::remove_dir_all(&folder).context("cannot remove the extracted trees")?;
    Ok(if differs.is_empty() { Ok(ours.len()) } else { Err(format!("extract: {differs}")) })
}

/// The uncompressed archives in front of an image, and what follows them, each with its decompressor. This is
/// not the reader that is tested.
fn split<'a>(image: &'a [u8], decompressor: &'static str) -> Result<Vec<(&'a [u8], &'static str)>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while image[at..].starts_with(b"070701") {
        let start = at;
        loop {
            let number = |offset: usize| -> Result<usize> {
                let digits = image.get(at + offset..at + offset + 8).context("a header is truncated")?;
                Ok(usize::from_str_radix(std::str::from_utf8(digits)?, 16)?)
            };
            let (size, name) = (number(54)?, number(94)?);
            let is_last = image[at + 110..].starts_with(b"TRAILER!!!");
            at = (at + 110 + name).next_multiple_of(4) + size.next_multiple_of(4);
            if is_last {
                break;
            }
        }
        parts.push((&image[start..at], "cat"));
        at += image[at..].iter().take_while(|byte| **byte == 0).count();
    }
    if at < image.len() {
        parts.push((&image[at..], decompressor));
    }
    Ok(parts)
}
