//! `cargo xtask initrds`: what programs that make an initramfs write, as `repot` reads it. Each name of `ls`
//! and each entry that `extract` writes is compared with GNU cpio, and with the tree that the kernel unpacks.
//!
//! The roots in which the programs run are kept, and so are the images.

mod by_cpio;
mod makers;

use crate::matrix::debian_root;
use crate::{programs, unpacked};
use anyhow::{Context, Result, ensure};
use makers::{MAKERS, Maker};
use repot_harness::command::read;
use repot_harness::tool::Tool;
use repot_harness::{debian, place};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An image.
#[derive(Debug)]
pub struct Made {
    /// Maker and compression.
    pub name: String,
    /// The file.
    pub image: PathBuf,
    /// The root of its maker.
    pub root: PathBuf,
    decompressor: &'static str,
}

/// Runs a line in a root, which is the root of a mount then and not the directory of a chroot: some programs
/// look at their root mount.
const IN_ROOT: &str = r#"
    mount --rbind "$0" "$0"
    cd "$0"
    mount -t proc proc proc
    mount -t sysfs sys sys
    mount -t tmpfs tmp tmp
    mount --rbind /dev dev
    cp --remove-destination /etc/resolv.conf etc/resolv.conf
    pivot_root . mnt
    umount -l /mnt
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
    V=$(ls /lib/modules 2>/dev/null | tail -n 1)
    export V
    sh -ec "$1" > /making 2>&1 || { tail -n 20 /making >&2; exit 1; }
    chmod 644 /image"#;

/// Makes the images whose name contains a filter. Those of an earlier run are kept.
///
/// # Errors
/// If a root cannot be built, or a program fails.
pub fn made(filter: &str) -> Result<Vec<Made>> {
    let mut all = Vec::new();
    for maker in &MAKERS {
        all.extend(of(maker, filter)?);
    }
    Ok(all)
}

/// The images of one program.
fn of(maker: &Maker, filter: &str) -> Result<Vec<Made>> {
    let folder = place::kept("initrds")?;
    let mut all = Vec::new();
    for made in maker.images {
        let name = format!("{}-{}", maker.name, made.name);
        if !name.contains(filter) {
            continue;
        }
        let packages: Vec<String> = maker.packages.split(' ').map(str::to_owned).collect();
        let (root, image) = (debian_root(maker.suite, &packages)?, folder.join(&name));
        if !image.exists() {
            println!("making {name}");
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
            unshare.args(["sh", "-ec", IN_ROOT]).arg(&root).arg(made.line).env_remove("TMPDIR");
            read(&mut unshare).with_context(|| format!("cannot make {name}"))?;
            // Under another name until it is whole.
            let part = image.with_extension("part");
            fs::copy(root.join("image"), &part).with_context(|| format!("cannot keep {name}"))?;
            fs::rename(&part, &image)?;
        }
        all.push(Made { name, image, root, decompressor: made.decompressor });
    }
    Ok(all)
}

/// Compares all images, and writes docs/tool/initrds.md. With a filter, compares those whose name contains
/// it, and writes nothing.
///
/// # Errors
/// If an image cannot be made, or something differs.
pub fn initrds(filter: &str, tool: Option<&Path>) -> Result<()> {
    debian::need_root("the comparison")?;
    debian::need(&[
        debian::QEMU,
        ("cpio", "cpio"),
        ("zstd", "zstd"),
        ("lz4", "lz4"),
        ("lzop", "lzop"),
        ("bzip2", "bzip2"),
    ])?;
    let tool = match tool {
        Some(tool) => tool.canonicalize().context("no such tool")?,
        None => programs::tool()?.to_owned(),
    };
    let (mut page, mut failed, mut compared) = (PAGE.to_owned(), Vec::new(), 0);
    if "odd".contains(filter) {
        let entries = unpacked::odd(&Tool::at(tool.clone()))?;
        compared += 1;
        page += &format!("| odd entries of the tests | | | {entries} entries |\n");
        println!("odd: {entries} entries");
    }
    for maker in &MAKERS {
        let all = of(maker, filter).unwrap_or_else(|error| {
            println!("{}: {error:#}", maker.name);
            failed.push(maker.name.to_owned());
            Vec::new()
        });
        for made in all {
            compared += 1;
            let row = row(&tool, &made)?;
            println!("{}", row.text);
            page = page + &row.text + "\n";
            if !row.same {
                failed.push(made.name);
            }
        }
    }
    ensure!(compared > 0, "no image has such a name");
    if filter.is_empty() {
        let path = place::checkout().join("docs/tool/initrds.md");
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(failed.is_empty(), "not the same: {}", failed.join(", "));
    Ok(())
}

/// A row of the page.
struct Row {
    text: String,
    same: bool,
}

fn row(tool: &Path, made: &Made) -> Result<Row> {
    let kib = made.image.metadata()?.len() >> 10;
    let cell = |result: std::result::Result<usize, String>| match result {
        Ok(entries) => (format!("{entries} entries"), true),
        Err(what) => {
            println!("{}: {what}", made.name);
            (what.lines().next().unwrap_or_default().to_owned(), false)
        }
    };
    let (cpio, as_cpio) = cell(by_cpio::compare(tool, made)?);
    let kernel = unpacked::compare(&Tool::at(tool.to_owned()), &made.name, &made.image);
    let (kernel, as_kernel) = cell(kernel.map_err(|error| format!("{error:#}")));
    Ok(Row { text: format!("| {} | {kib} KiB | {cpio} | {kernel} |", made.name), same: as_cpio && as_kernel })
}

const PAGE: &str = "# The images of programs that make an initramfs\n\n\
    `cargo xtask initrds` lets each program make an image in a root of its own, and compares:\n\n\
    * `repot ls` with `cpio -t`, segment by segment, behind the program of the compression: each name, in its order.\n\
    * `repot extract` as root with what `cpio -i` writes: type, mode, owner, time, contents, target, device and hard \
    links of each entry. Only the times of files are compared, since GNU cpio keeps no others.\n\
    * `repot extract` and `repot ls --json` with the tree that Linux 6.12 unpacks, in QEMU: the same, and all times.\n\n\
    The numbers are those of equal entries.\n\n\
    | image | size | as cpio | as the kernel |\n|---|---:|---:|---:|\n";
