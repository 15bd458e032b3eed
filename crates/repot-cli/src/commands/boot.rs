//! `repot boot`: an image in QEMU, with its console on this terminal.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cli::Boot;
use crate::report::size;
use crate::survey::{Survey, segments};

/// Small images get this much memory all the same.
const MEMORY: u64 = 512 << 20;

/// What differs between the machines that QEMU plays.
struct Machine {
    qemu: &'static str,
    package: &'static str,
    console: &'static str,
    arguments: &'static [&'static str],
}

/// Becomes QEMU, which ends with the guest.
pub fn run(args: &Boot) -> Result<()> {
    let machine = machine()?;
    ensure!(args.image.is_file(), "there is no image {}", args.image.display());
    // Reading the image takes as long as unpacking it: only for who asks for something it tells.
    let survey = if args.memory.is_none() || args.shell { Some(survey(&args.image)?) } else { None };
    let memory = args.memory.unwrap_or_else(|| survey.as_ref().map_or(MEMORY, |(_, need)| memory(*need)));
    let kernel = kernel(args.kernel.as_deref())?;
    let acceleration = acceleration(args.no_kvm, &machine);
    let shell = args.shell.then(|| shell(survey.as_ref().is_none_or(|(survey, _)| survey.repot()), args));
    let line = command_line(&machine, acceleration.emulated, shell, &args.append);
    let mut command = Command::new(machine.qemu);
    command
        .args(machine.arguments)
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-m", &format!("{}M", memory >> 20)])
        .args(["-smp", &args.cpus.to_string(), "-accel", acceleration.accel, "-cpu", acceleration.cpu])
        .arg("-kernel")
        .arg(&kernel)
        .arg("-initrd")
        .arg(&args.image)
        .args(["-append", &line]);
    let ends = match &args.console {
        None => {
            command.args(["-nographic", "-serial", "mon:stdio"]);
            "Ctrl-A X ends it".to_string()
        }
        Some(path) => {
            // QEMU would say no more than that it could not.
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            let mut port = OsString::from("file:");
            port.push(path);
            command.args(["-display", "none", "-serial"]).arg(port);
            format!("its console goes to {}", path.display())
        }
    };
    command.args(&args.qemu);
    let (kernel, memory, said) = (kernel.display(), size::mib(memory), acceleration.said);
    eprintln!("repot: {kernel} with {memory}, {said}; {ends}");
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!("there is no {} (Debian: apt install {})", machine.qemu, machine.package);
    }
    Err(anyhow!(error).context(format!("cannot run {}", machine.qemu)))
}

fn command_line(machine: &Machine, emulated: bool, shell: Option<&str>, append: &[String]) -> String {
    let mut line = format!("console={} panic=-1", machine.console);
    if emulated && machine.qemu == "qemu-system-x86_64" {
        // On a busy host the emulated timer comes late, and the kernel takes it for broken.
        line += " no_timer_check";
    }
    for words in shell.into_iter().chain(append.iter().map(String::as_str)) {
        line += " ";
        line += words;
    }
    line
}

/// How a shell becomes the init: repot runs what `init=` names, any other `/init` does as it likes.
fn shell(repot: bool, args: &Boot) -> &'static str {
    let elsewhere =
        args.append.iter().flat_map(|words| words.split(' ')).any(|word| word.starts_with("rdinit="));
    if repot || elsewhere { "init=/bin/sh" } else { "rdinit=/bin/sh" }
}

fn machine() -> Result<Machine> {
    let of = |qemu, package, console, arguments| Machine { qemu, package, console, arguments };
    Ok(match env::consts::ARCH {
        "x86_64" | "x86" => of("qemu-system-x86_64", "qemu-system-x86", "ttyS0", &["-M", "q35"]),
        "aarch64" => of("qemu-system-aarch64", "qemu-system-arm", "ttyAMA0", &["-M", "virt"]),
        "riscv64" => of("qemu-system-riscv64", "qemu-system-misc", "ttyS0", &["-M", "virt"]),
        other => bail!("which machine QEMU should play for {other} is not known here"),
    })
}

/// How QEMU executes the guest, as which processor, and how we call that.
struct Acceleration {
    emulated: bool,
    accel: &'static str,
    cpu: &'static str,
    said: &'static str,
}

fn acceleration(no_kvm: bool, machine: &Machine) -> Acceleration {
    let kvm = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let said = if no_kvm {
        "emulated"
    } else if !kvm() {
        "emulated, which is slow: /dev/kvm cannot be opened"
    } else if !kvm_works(machine) {
        "emulated, which is slow: QEMU cannot use this machine's KVM"
    } else {
        return Acceleration { emulated: false, accel: "kvm", cpu: "host", said: "KVM" };
    };
    // With a thread for each processor QEMU 7.2 now and then runs into an instruction that the kernel is just
    // patching, and the guest dies of int3.
    Acceleration { emulated: true, accel: "tcg,thread=single", cpu: "max", said }
}

/// Whether a machine can be made with KVM: where KVM is nested, QEMU may abort over what it lacks.
fn kvm_works(machine: &Machine) -> bool {
    let mut command = Command::new(machine.qemu);
    command.args(machine.arguments).args(["-nodefaults", "-no-user-config", "-display", "none", "-S"]);
    command.args(["-accel", "kvm", "-cpu", "host", "-monitor", "stdio"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return true };
    // Nobody reads it when QEMU has died already, which its status tells.
    let _ = child.stdin.take().map(|mut monitor| monitor.write_all(b"quit\n"));
    child.wait().is_ok_and(|status| status.success())
}

/// What is in the image, and the memory it needs on a tmpfs root.
fn survey(image: &Path) -> Result<(Survey, u64)> {
    let shown = || image.display().to_string();
    let file = File::open(image).with_context(|| format!("cannot open {}", shown()))?;
    let compressed = file.metadata().with_context(shown)?.len();
    let mut survey = Survey::default();
    // A damaged image is booted all the same: someone may want to see what happens.
    if let Err(error) = segments::read(file, &mut survey) {
        eprintln!("repot: warning: {}: {error:#}", shown());
    }
    let need = survey.need(compressed).tmpfs;
    Ok((survey, need))
}

/// What an image needs, and not less than the usual.
fn memory(need: u64) -> u64 {
    if need > MEMORY {
        eprintln!("repot: the image needs about {} of memory", size::mib(need));
    }
    need.max(MEMORY)
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
        "found no kernel that can be read in target/kernels, /boot or /usr/lib/modules. Give --kernel FILE. On Debian \
         `apt install linux-image-cloud-amd64` brings one to /boot; without installing it, `apt download` the package that it \
         depends on (`apt-cache depends linux-image-cloud-amd64`) and `dpkg -x FILE.deb DIR`: DIR/boot/vmlinuz-*",
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
        paths.sort_by_cached_key(|path| std::cmp::Reverse(version(&path.to_string_lossy())));
        paths
    };
    let mut paths = sorted("target/kernels", "vmlinuz", "");
    // join("") leaves a slash at the end, which no file has.
    paths.extend(sorted("/boot", "", "vmlinuz").into_iter().map(|path| path.components().collect()));
    paths.extend(sorted("/usr/lib/modules", "vmlinuz", ""));
    paths.push(PathBuf::from("/vmlinuz"));
    paths
}

/// The numbers in a name: 6.12 is newer than 6.9.
fn version(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn is_file(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn newer_kernels_have_larger_numbers() {
        assert!(version("/boot/vmlinuz-6.12.3-amd64") > version("/boot/vmlinuz-6.9.1-amd64"));
        assert!(version("target/kernels/7/vmlinuz") > version("target/kernels/5.10/vmlinuz"));
    }
}
