//! `cargo xtask bench decoders`: decoders for payloads, and the cost of frames and windows.

mod frames;

use super::guest_output::GuestOutput;
use super::trees::{self, Tree};
use super::{document, machine, payload_images, programs, sys, text};
use anyhow::{Context, Result, ensure};
use repot_harness::{build, command, debian, place};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The same level as in `cargo xtask bench payload`.
const LEVEL: i32 = 9;

/// A program with one decoder, or none.
struct Decoder {
    about: String,
    program: PathBuf,
    /// CPU seconds of each round.
    seconds: Vec<f64>,
    /// Peak resident memory in KiB of each round.
    memory: Vec<f64>,
}

/// The compressed archive of a payload.
struct Archive {
    path: PathBuf,
    frames: String,
    /// Compressed size.
    bytes: u64,
}

/// Measures on one tree, prints the results and writes `docs/bench/decoders.md`.
pub(crate) fn decoders(names: &[String], rounds: usize, quick: bool) -> Result<()> {
    debian::need(&[("cpio", "cpio")])?;
    let name = names.first().map_or("debian", String::as_str);
    let tree = trees::all().into_iter().find(|tree| tree.name == name);
    let tree = tree.with_context(|| format!("no tree {name}"))?;
    tree.prepare()?;
    let archive = archive(&tree)?;
    let tar =
        zstd::stream::decode_all(File::open(&archive.path)?).context("cannot decompress the archive")?;
    let page = format!(
        "# Decoders and frames\n\nMeasured by `cargo xtask bench decoders` on {}\n\n{}\n{}",
        machine::about()?,
        race(&tree, &archive, tar.len(), if quick { 3 } else { rounds })?,
        frames::section(&tar, quick)?
    );
    println!("{page}");
    if quick || !names.is_empty() { Ok(()) } else { document::write("decoders.md", &page) }
}

/// Packs the tree and extracts the chunks of the image.
fn archive(tree: &Tree) -> Result<Archive> {
    let stage = place::fresh("bench/decoders")?;
    let (root, image, path) = (stage.join("root"), stage.join("image.cpio"), stage.join("archive.zst"));
    fs::create_dir(&root)?;
    tree.fill(&root)?;
    let init = root.join("sbin/init");
    fs::copy(programs::guest()?, &init).context("cannot copy the guest")?;
    fs::set_permissions(&init, Permissions::from_mode(0o755))?;
    payload_images::pack(&root, &image, &[format!("--level={}", payload_images::LEVEL)])?;
    const SCRIPT: &str = "set -e; cd \"$0\"; cpio -id --quiet '.repot-payload/*' < image.cpio; \
                          cat .repot-payload/0* > archive.zst; grep ^frames= .repot-payload/index; rm -r root image.cpio";
    let frames = command::read(Command::new("sh").args(["-c", SCRIPT]).arg(&stage))?;
    let bytes = fs::metadata(&path)?.len();
    Ok(Archive { path, frames: frames.trim_start_matches("frames=").to_owned(), bytes })
}

fn race(tree: &Tree, archive: &Archive, tar: usize, rounds: usize) -> Result<String> {
    let decoder = |about: String, name| -> Result<Decoder> {
        Ok(Decoder { about, program: build::decoder(name)?, seconds: Vec::new(), memory: Vec::new() })
    };
    let mut decoders = [
        decoder("none".into(), "none")?,
        decoder(format!("zstd in C (`zstd-sys` {})", version("zstd-sys")?), "c")?,
        decoder(format!("the same in Rust (`libzstd-rs-sys` {})", version("libzstd-rs-sys")?), "port")?,
        decoder(format!("`ruzstd` {}", version("ruzstd")?), "ruzstd")?,
    ];
    for _ in 0..rounds {
        for (at, decoder) in decoders.iter_mut().enumerate() {
            let before = sys::children();
            let said = command::read(Command::new(&decoder.program).arg(&archive.path))?;
            decoder.seconds.push(Duration::from_nanos(sys::children() - before).as_secs_f64());
            let told = GuestOutput::new(said.as_bytes());
            let number = |word| told.word(word).and_then(|number| number.parse::<f64>().ok()).context(word);
            decoder.memory.push(number("memory")?);
            let whole = if at == 0 { text::number(archive.bytes) } else { text::number(tar as u64) };
            ensure!(number("bytes")? == whole, "{} made {} bytes", decoder.about, number("bytes")?);
        }
    }
    let [none, decoders @ ..] = &decoders;
    let (idle, base) = (text::median(&none.seconds), text::median(&none.memory));
    let size = |program: &Path| -> Result<u64> { Ok(fs::metadata(program)?.len()) };
    let megabytes = text::number(tar as u64) / 1e6;
    let mut fastest = None;
    let mut rows = Vec::new();
    for decoder in decoders {
        let seconds = text::median(&decoder.seconds) - idle;
        let slower = seconds / *fastest.get_or_insert(seconds);
        rows.push(vec![
            decoder.about.clone(),
            format!("{:.0} MB/s", megabytes / seconds),
            format!("{slower:.2}"),
            format!("{:.1} MiB", (text::median(&decoder.memory) - base) / 1024.0),
            format!("{} KB", size(&decoder.program)?.saturating_sub(size(&none.program)?) / 1000),
        ]);
    }
    let kilobytes = |program: &Path| -> Result<u64> { Ok(size(program)? / 1000) };
    Ok(format!(
        "## Decoders\n\n{}: all {} frames, {megabytes:.1} MB of tar in {:.1} MB, decompressed one after the other by one thread \
         that reads and writes 128 KiB at a time, as the init does. \"speed\" is by CPU time, medians of {rounds} interleaved \
         rounds. \"memory\" is the maximum resident memory, \"size\" what the decoder adds to a static program. All are built like \
         the init, but optimized for speed. The values of the same program without a decoder are subtracted.\n\n{}\n\
         The init has {} KB, the init with payload support {} KB.\n",
        tree.about,
        archive.frames,
        text::number(archive.bytes) / 1e6,
        text::table(&["", "speed", "times slower", "memory", "size"], &rows),
        kilobytes(&build::init(build::Arch::X86_64)?)?,
        kilobytes(&build::init_payload(build::Arch::X86_64)?)?,
    ))
}

/// The version of a package in `Cargo.lock`.
fn version(package: &str) -> Result<String> {
    let lock = fs::read_to_string(place::checkout().join("Cargo.lock")).context("Cargo.lock")?;
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"")));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    version.map(str::to_owned).with_context(|| format!("no {package} in Cargo.lock"))
}
