//! `cargo xtask bench payload`: payload images against images that the kernel unpacks, of the same root.
//!
//! It measures the smallest machine that boots, the time from the start of the kernel to the real init, and
//! the time of unpacking on this machine.

use super::guest_output::GuestOutput;
use super::trees::{self, Tree};
use super::{document, machine as host, programs, text};
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use repot_cli::cli::Cli;
use repot_cli::codec::{Compression, Encoder};
use repot_harness::kernels::{Kernel, kernel};
use repot_harness::{build, command, debian, place, qemu};
use repot_tests::payload_image::unpacked;
use repot_tests::sandbox::{End, Setup};
use repot_tests::trees::Fs;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::fmt::Write;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SERIES: &str = "6.12";
/// The compression level of both images.
pub(super) const LEVEL: u32 = 9;
const STEP: u32 = 8;
const LIMIT: Duration = Duration::from_secs(300);
/// The limit for a boot with ample memory.
const SOON: Duration = Duration::from_secs(60);
const ROOTS: [&str; 2] = ["ramfs", "tmpfs"];
/// Makes the kernel copy by words.
const NO_STRINGS: &str = "clearcpuid=erms";
/// More memory than any boot needs, in MiB.
const AMPLE: u32 = 2048;

/// The same root, packed both ways.
struct Images {
    payload: PathBuf,
    plain: PathBuf,
    /// The sum of the file sizes, in MiB.
    mib: u32,
}

/// Measures on the named trees. If everything was measured, it writes `docs/bench/payload.md`.
pub(crate) fn payload(names: &[String], only: &[String], rounds: usize, quick: bool) -> Result<()> {
    if let Some(other) = only.iter().find(|what| !["ram", "time"].contains(&what.as_str())) {
        bail!("--only={other}: payload measures `ram` and `time`");
    }
    let asked = |what: &str| only.is_empty() || only.iter().any(|word| word == what);
    debian::need(&[debian::QEMU, ("cpio", "cpio"), ("zstd", "zstd")])?;
    let wanted = |tree: &Tree| match names {
        [] => ["debian", "large"].contains(&tree.name.as_str()),
        names => names.contains(&tree.name),
    };
    let kernel = kernel(SERIES)?;
    let mut page = format!(
        "# Payload images\n\nMeasured by `cargo xtask bench payload`. Both images of a root are compressed with zstd at level {LEVEL}. \
         \"plain\" is an ordinary initramfs: the kernel unpacks it, its /init is the real init, and nothing is re-homed.\n"
    );
    for tree in trees::all().into_iter().filter(wanted) {
        tree.prepare()?;
        println!("packing the images of {}", tree.name);
        let images = images(&tree)?;
        let mut section = String::new();
        if asked("ram") {
            section += &memory(&images, &kernel)?;
        }
        if asked("time") {
            section += &time(&images, &kernel, if quick { 3 } else { rounds })?;
        }
        println!("{}\n\n{section}", tree.about);
        let _ = write!(page, "\n## {}, {} MiB\n\n{section}", tree.about, images.mib);
    }
    let _ = write!(page, "\n{}\n", host::about()?);
    if quick || !names.is_empty() || !only.is_empty() { Ok(()) } else { document::write("payload.md", &page) }
}

fn memory(images: &Images, kernel: &Kernel) -> Result<String> {
    let mut floor = vec!["kernel and tree alone".to_owned()];
    let mut payload = vec!["payload".to_owned()];
    let mut plain = vec!["plain".to_owned()];
    for root in ROOTS {
        let (mib, used) = smallest(&images.payload, root, kernel, images.mib)?;
        floor.push(used.to_string());
        payload.push(mib.to_string());
        plain.push(smallest(&images.plain, root, kernel, images.mib)?.0.to_string());
    }
    Ok(format!(
        "MiB of the smallest machine in which the real init finds the whole tree, in steps of {STEP}, Linux {SERIES}, 2 CPUs. \
         \"kernel and tree alone\" is the memory that is not free in the payload's machine at the first instruction of the real \
         init, when the payload and its /init are gone:\n\n{}\n",
        text::table(&["", "ramfs", "tmpfs"], &[floor, payload, plain])
    ))
}

fn time(images: &Images, kernel: &Kernel, rounds: usize) -> Result<String> {
    let (mut emulated, mut real) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut unpack = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (at, image) in [&images.payload, &images.plain].into_iter().enumerate() {
            emulated[at].push(arrival(image, kernel, "")?);
            real[at].push(arrival(image, kernel, NO_STRINGS)?);
        }
        unpack[0].push(by_init(&images.payload)?);
        unpack[1].push(by_cpio(&images.plain)?);
    }
    let row = |what: &str, times: &mut [Vec<f64>; 2]| {
        let [ours, theirs] = times.each_mut().map(|times| median(times));
        vec![what.to_owned(), format!("{ours:.2}"), format!("{theirs:.2}"), format!("{:.2}", theirs / ours)]
    };
    let rows = [
        row("kernel start to real init, QEMU", &mut emulated),
        row(&format!("the same with `{NO_STRINGS}`"), &mut real),
        row("unpacking alone: init-payload, and `zstd -d | cpio -i` onto a tmpfs", &mut unpack),
    ];
    Ok(format!(
        "Seconds, medians of {rounds} interleaved rounds, 2 CPUs. QEMU executes `rep movsb` byte by byte, where a CPU with ERMS \
         copies by cache lines. The kernel uses it to copy between itself and a program, but not within itself. With \
         `{NO_STRINGS}` both copy by words:\n\n{}",
        text::table(&["", "payload", "plain", "times faster"], &rows)
    ))
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Packs a tree with the stand-in for the real init.
fn images(tree: &Tree) -> Result<Images> {
    let guest = programs::guest()?;
    let root = place::fresh(&format!("bench/payload/{}", tree.name))?;
    tree.fill(&root)?;
    put(&guest, &root.join("sbin/init"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/repot.conf"), "mode=move\n").context("etc/repot.conf")?;
    for (name, minor) in [("console", 1), ("null", 3), ("kmsg", 11)] {
        let (path, major) = (root.join("dev").join(name), if name == "console" { 5 } else { 1 });
        if !path.exists() {
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(major, minor))
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
    }
    let kept = place::kept("bench/payload")?;
    let payload = kept.join(format!("{}-payload.cpio", tree.name));
    pack(&root, &payload, &[format!("--level={LEVEL}")])?;
    put(&guest, &root.join("init"))?;
    let (archive, compressed) = (kept.join("plain.cpio"), kept.join(format!("{}-plain.cpio.zst", tree.name)));
    programs::pack_plain(&root, &archive)?;
    let out = File::create(&compressed).context("cannot write the image")?;
    let mut encoder = Encoder::new(out, Compression::Zstd, LEVEL).context("zstd")?;
    std::io::copy(&mut File::open(&archive)?, &mut encoder).context("cannot compress the image")?;
    encoder.finish().context("cannot compress the image")?;
    let mib = command::read(
        Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1M"]).arg(&root),
    )?;
    let mib = mib.split_whitespace().next().and_then(|words| words.parse().ok()).context("du")?;
    for path in [&root, &archive] {
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(Images { payload, plain: compressed, mib })
}

/// Packs a root as `repot pack --payload` does, with more arguments.
pub(super) fn pack(root: &Path, image: &Path, more: &[String]) -> Result<()> {
    let plain = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    let words = vec![
        "repot".to_owned(),
        "pack".into(),
        plain(root)?,
        "--payload".into(),
        format!("--init={}", plain(&build::init_payload(build::Arch::X86_64)?)?),
        format!("--output={}", plain(image)?),
    ];
    repot_cli::run(&Cli::try_parse_from([words.as_slice(), more].concat())?)
}

fn put(from: &Path, to: &Path) -> Result<()> {
    // The old file may be a symlink out of the tree.
    let _ = fs::remove_file(to);
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(fs::set_permissions(to, Permissions::from_mode(0o755))?)
}

/// The report of a boot with this much memory.
fn boot(image: &Path, root: &str, kernel: &Kernel, memory_mib: u32) -> Result<GuestOutput> {
    let append = format!("rootfstype={root} quiet bench-machine");
    let folder = place::fresh("bench/payload/run")?;
    let machine = machine(image, kernel, &append, memory_mib, LIMIT, &folder);
    // QEMU refuses a machine that is too small for the archive.
    Ok(machine.run().map_or_else(|_| GuestOutput::default(), told))
}

fn machine<'a>(
    image: &'a Path,
    kernel: &'a Kernel,
    append: &'a str,
    memory_mib: u32,
    limit: Duration,
    folder: &'a Path,
) -> qemu::Machine<'a> {
    qemu::Machine {
        kernel,
        initrd: image,
        append,
        memory_mib,
        cpus: 2,
        limit,
        stays: None,
        memory: None,
        folder,
    }
}

fn told(run: qemu::Run) -> GuestOutput {
    GuestOutput::new(run.report.replace('\r', "").as_bytes())
}

/// The smallest machine in MiB, and how much of it is in use at the end. The search bisects between a size
/// that cannot hold the tree and an ample one, in steps of at most 64 MiB downward.
fn smallest(image: &Path, root: &str, kernel: &Kernel, mib: u32) -> Result<(u32, u32)> {
    let reference = boot(image, root, kernel, AMPLE)?;
    let tally = reference.word("tally").context("the image does not boot in ample memory")?.to_owned();
    // The free memory in MiB if the machine boots.
    let boots = |memory| {
        let told = boot(image, root, kernel, memory)?;
        let whole = told.word("tally") == Some(&tally);
        let free = told.word("free").and_then(|mib| mib.parse::<u32>().ok()).filter(|_| whole);
        Ok::<_, anyhow::Error>(free)
    };
    let (mut low, mut high, mut used) = (mib / STEP * STEP, AMPLE, AMPLE);
    ensure!(boots(low)?.is_none(), "the tree alone has {mib} MiB, and a machine of {low} MiB booted it");
    while high - low > STEP {
        // A machine that is too small fails sooner than a large one boots.
        let middle = low + ((high - low) / 2).min(64) / STEP * STEP;
        match boots(middle)? {
            Some(free) => (high, used) = (middle, middle - free),
            None => low = middle,
        }
    }
    Ok((high, used))
}

/// Seconds from the start of the kernel to the first instruction of the real init.
fn arrival(image: &Path, kernel: &Kernel, append: &str) -> Result<f64> {
    let append = format!("rootfstype=tmpfs quiet bench-machine {append}");
    for _ in 0..3 {
        let folder = place::fresh("bench/payload/run")?;
        let told = told(machine(image, kernel, &append, AMPLE, SOON, &folder).run_in_parallel()?);
        let stamp = told.word("end").and_then(|words| words.split(' ').next()?.parse::<u64>().ok());
        // QEMU with a thread per CPU sometimes crashes a guest.
        if let (Some(stamp), Some(_)) = (stamp, told.word("tally")) {
            return Ok(Duration::from_nanos(stamp).as_secs_f64());
        }
    }
    bail!("{} does not boot", image.display())
}

/// The seconds of unpacking that the init reports, in its own namespaces.
fn by_init(image: &Path) -> Result<f64> {
    let bytes = fs::read(image).context("cannot read the image")?;
    let prepared = unpacked(Fs::Ramfs, &[], &[&bytes], |_| ());
    drop(bytes);
    let mut running = prepared.start(&Setup::default());
    // The stand-in for the real init exits by itself.
    let end = running.wait();
    let log = running.log();
    ensure!(matches!(end, End::Exited(0)), "{end:?}: {log}");
    let words: Vec<&str> = log.split(' ').collect();
    let at = words.iter().position(|word| *word == "ms,").context("the init logged no time")?;
    Ok(words[at - 1].parse::<f64>()? / 1000.0)
}

/// The seconds of `zstd -d | cpio -i` onto a tmpfs in its own namespace.
fn by_cpio(image: &Path) -> Result<f64> {
    const SCRIPT: &str = "set -e; mount -t tmpfs tmpfs /mnt; cd /mnt; start=$(date +%s%N); \
                          zstd -dqc \"$0\" | cpio -idm --quiet; end=$(date +%s%N); echo $((end - start))";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation=private", "sh", "-c", SCRIPT]).arg(image);
    let nanoseconds = command::read(&mut unshare)?;
    Ok(Duration::from_nanos(nanoseconds.trim().parse()?).as_secs_f64())
}
