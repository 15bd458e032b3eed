//! `repot boot`: an image in QEMU, with its console on this terminal.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cli::Boot;
use crate::inspect::Survey;
use crate::{segments, size};

/// Small images get this much memory all the same.
const MEMORY: u64 = 512 << 20;

/// What differs between the machines that QEMU plays.
struct Machine {
    qemu: &'static str,
    console: &'static str,
    arguments: &'static [&'static str],
}

/// Becomes QEMU, which ends with the guest.
pub fn run(args: &Boot) -> Result<()> {
    let machine = machine()?;
    let memory = match &args.memory {
        Some(memory) => memory.clone(),
        None => memory_for(&args.image)?,
    };
    let kernel = kernel(args.kernel.as_deref())?;
    ensure!(args.image.is_file(), "{} is no file", args.image.display());
    let (accel, cpu, said) = acceleration(args.no_kvm);
    let mut line = format!("console={} panic=-1", machine.console);
    if accel == "tcg" && machine.qemu == "qemu-system-x86_64" {
        // On a busy host the emulated timer comes late, and the kernel takes it for broken.
        line += " no_timer_check";
    }
    if args.shell {
        line += " init=/bin/sh";
    }
    for words in &args.append {
        line += " ";
        line += words;
    }
    eprintln!("repot: {} with {memory}, {said}; Ctrl-A X ends it", kernel.display());
    let mut command = Command::new(machine.qemu);
    command
        .args(machine.arguments)
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-nographic", "-serial", "mon:stdio", "-m"])
        .arg(&memory)
        .args(["-smp", &args.cpus.to_string(), "-accel", accel, "-cpu", cpu, "-kernel"])
        .arg(&kernel)
        .arg("-initrd")
        .arg(&args.image)
        .args(["-append", &line]);
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!("there is no {} (Debian: apt install qemu-system)", machine.qemu);
    }
    Err(anyhow!(error).context(format!("cannot run {}", machine.qemu)))
}

fn machine() -> Result<Machine> {
    Ok(match env::consts::ARCH {
        "x86_64" | "x86" => {
            Machine { qemu: "qemu-system-x86_64", console: "ttyS0", arguments: &["-M", "q35"] }
        }
        "aarch64" => Machine { qemu: "qemu-system-aarch64", console: "ttyAMA0", arguments: &["-M", "virt"] },
        "riscv64" => Machine { qemu: "qemu-system-riscv64", console: "ttyS0", arguments: &["-M", "virt"] },
        other => bail!("which machine QEMU should play for {other} is not known here"),
    })
}

/// How QEMU executes the guest, as which processor, and how we call that.
fn acceleration(no_kvm: bool) -> (&'static str, &'static str, &'static str) {
    if no_kvm {
        return ("tcg", "max", "emulated");
    }
    let kvm = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if kvm {
        ("kvm", "host", "KVM")
    } else {
        ("tcg", "max", "emulated, which is slow: /dev/kvm cannot be opened")
    }
}

/// What the image needs on a tmpfs root, and not less than the usual.
fn memory_for(image: &Path) -> Result<String> {
    let shown = || image.display().to_string();
    let file = File::open(image).with_context(|| format!("cannot open {}", shown()))?;
    let compressed = file.metadata().with_context(shown)?.len();
    let mut survey = Survey::default();
    // A damaged image is booted all the same: someone may want to see what happens.
    if let Err(error) = segments::read(file, &mut survey) {
        eprintln!("repot: warning: {}: {error:#}", shown());
    }
    let need = survey.need(compressed).tmpfs.max(MEMORY);
    if need > MEMORY {
        eprintln!("repot: the image needs about {} of memory", size::mib(need));
    }
    Ok(format!("{}M", need >> 20))
}

fn kernel(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) =
        given.map(Path::to_path_buf).or_else(|| env::var_os("REPOT_KERNEL").map(PathBuf::from))
    {
        ensure!(path.is_file(), "there is no kernel {}", path.display());
        return Ok(path);
    }
    let found = candidates().into_iter().find(|path| File::open(path).is_ok_and(|file| is_file(&file)));
    found.context(
        "found no kernel that can be read in target/kernels, /boot or /usr/lib/modules. Give --kernel FILE; one comes with \
         `apt install linux-image-amd64`, or without installing it: \
         `apt download linux-image-cloud-amd64-unsigned` of a version and `dpkg -x FILE.deb DIR`, then DIR/boot/vmlinuz-*",
    )
}

/// The newest of each place first, as far as names tell.
fn candidates() -> Vec<PathBuf> {
    let sorted = |directory: &str, below: &str, prefix: &str| {
        let mut paths: Vec<_> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join(below))
            .collect();
        paths.sort();
        paths.reverse();
        paths
    };
    let mut paths = sorted("target/kernels", "vmlinuz", "");
    // join("") leaves a slash at the end, which no file has.
    paths.extend(sorted("/boot", "", "vmlinuz").into_iter().map(|path| path.components().collect()));
    paths.extend(sorted("/usr/lib/modules", "vmlinuz", ""));
    paths.push(PathBuf::from("/vmlinuz"));
    paths
}

fn is_file(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}
